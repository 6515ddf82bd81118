"""Which process ran a task: pidtrail against what the task itself wrote down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.airflow.conftest import Session

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]

CASES = (
    "retry",
    "long",
    "bash",
    "own_user",
    "reschedule",
    "deferral",
    "mapped",
    "kill_runner",
    "kill_supervisor",
    "kill_scheduler",
)
# How many processes run user code of the case, tries, pokes and resumes all counted.
PROCESSES = {"retry": 2, "reschedule": 3, "deferral": 2, "mapped": 4, "kill_runner": 2}


@pytest.mark.parametrize("case", CASES)
def test_runner_is_the_process_that_the_task_wrote_down(session: Session, case: str) -> None:
    """Every process that ran user code is found, by pid and start time, and no other."""
    noted = {note.identity for note in session.noted(case)}

    assert {(process.pid, process.start_ticks) for process in session.runners(case)} == noted
    assert len(noted) == PROCESSES.get(case, 1)


@pytest.mark.parametrize("case", CASES)
def test_each_process_is_given_to_its_own_attempt(session: Session, case: str) -> None:
    """Map index and try number of a runner are those that the task saw."""
    noted = {(note.map_index, note.try_number, *note.identity) for note in session.noted(case)}
    found = {
        (verdict.task.map_index, verdict.task.try_number, process.pid, process.start_ticks)
        for verdict in session.of(case)
        for process in verdict.processes
        if process.role == "runner"
    }

    assert found == noted


@pytest.mark.parametrize("case", CASES)
def test_no_process_changes_its_pid(session: Session, case: str) -> None:
    """A process keeps its number, whatever is done to it."""
    assert session.of(case)
    assert not any(verdict.pid_changed_in_kernel for verdict in session.of(case))


@pytest.mark.parametrize("case", CASES)
def test_lineage_begins_with_the_parent_that_the_task_saw(session: Session, case: str) -> None:
    """The birth parent of a runner is what `os.getppid()` said when the task began."""
    seen = {note.pid: note.ppid for note in session.noted(case, "begin")}
    born = {
        process.pid: process.birth_parent.pid
        for process in session.runners(case)
        if process.pid in seen and process.birth_parent is not None
    }

    assert born == seen


@pytest.mark.parametrize("case", CASES)
def test_chain_of_parents_reaches_the_scheduler(session: Session, case: str) -> None:
    """Lineage by birth leads from every runner up to a scheduler, who ever died between."""
    for process in session.runners(case):
        roles = [who.role for who in process.chain]

        assert roles[0] == "runner"
        assert "scheduler" in roles


def test_migrations_of_a_moved_task_are_counted(session: Session) -> None:
    """A task that is told to another CPU every 20 ms is moved about as often; its pid stays."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.fail("moving a process needs two CPUs")
    (runner,) = session.runners("long")

    assert runner.migrations is not None
    assert session.flips * 0.5 <= runner.migrations
    assert {note.pid for note in session.noted("long")} == {runner.pid}


def test_bash_below_a_task_is_its_operator_child(session: Session) -> None:
    """The shell that a task starts is named as its child, never as the runner."""
    (verdict,) = session.of("bash")
    (note,) = session.noted("bash")
    children = [one for one in verdict.processes if one.role == "operator_child"]

    assert any(one.birth_parent and one.birth_parent.pid == note.pid for one in children)
    # bash, and one process for each of the three parts of the pipeline
    assert len(children) >= 4
