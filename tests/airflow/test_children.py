"""The children that a task may have: the runner is the one that the tree says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.tracing import PIDTRAIL

if TYPE_CHECKING:
    from tests.airflow.conftest import Session

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]


def told(session: Session, name: str) -> Any:
    """Return what a task wrote of its children."""
    return json.loads(session.recording.with_name("home").joinpath(name).read_text())


def children(session: Session, case: str) -> dict[int | None, str | None]:
    """Return the children of a case's task by pid, with their titles."""
    (verdict,) = session.of(case)
    return {one.pid: one.title for one in verdict.processes if one.role == "operator_child"}


def asked(session: Session, pid: int) -> list[dict[str, Any]]:
    """Return what `explain --pid` says of a number."""
    done = subprocess.run(
        [PIDTRAIL, "explain", session.recording, "--pid", str(pid), "--json"],
        capture_output=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)["verdicts"]
    return found


@pytest.mark.parametrize("case", ["children", "external_python", "virtualenv", "crashing_children"])
def test_runner_is_the_recorded_one(session: Session, case: str) -> None:
    """Whatever children a task has, its own process is the runner, and the record right."""
    (begin,) = session.noted(case, "begin")
    (runner,) = session.runners(case)

    assert session.codes(case) == ["match"]
    assert (runner.pid, runner.start_ticks) == begin.identity


def test_other_interpreter_is_a_child(session: Session) -> None:
    """ExternalPythonOperator: user code runs in a child of the process on record."""
    pid, ppid = told(session, "external.json")
    (begin,) = session.noted("external_python", "begin")

    assert ppid == begin.pid
    assert pid in children(session, "external_python")


def test_virtual_environment_is_made_and_used_by_children(session: Session) -> None:
    """PythonVirtualenvOperator: what makes it, what installs into it, and the user code in it."""
    pid, ppid = told(session, "virtualenv.json")
    (begin,) = session.noted("virtualenv", "begin")
    below = children(session, "virtualenv")
    commands = {
        " ".join(one["argv"])
        for one in session.stream()
        if one["type"] == "exec" and one["pid"] in below and one["argv"]
    }
    makes, installs = (
        ("-m virtualenv", "/bin/pip install -r") if session.is_2 else ("uv venv", "uv pip install")
    )

    assert ppid == begin.pid
    assert pid in below
    for words in (makes, installs, "script.py"):
        assert [one for one in commands if words in one], words


def test_programs_of_a_virtual_environment_are_no_runners(session: Session) -> None:
    """However many programs make it, all are below the one process on record."""
    (verdict,) = session.of("virtualenv")
    (runner,) = session.runners("virtualenv")
    below = [one for one in verdict.processes if one.role == "operator_child"]

    assert len(below) >= 3
    assert all(runner.pid in {who.pid for who in one.chain} for one in below)
    assert {one.role for one in verdict.processes} == {"runner", "operator_child", "supervisor"}


def test_core_dump_of_a_child_is_told(session: Session) -> None:
    """What the child's parent had from waitpid(2) is what is told, and what limits allow."""
    (verdict,) = session.of("crashing_children")
    waited = told(session, "crashes.json")
    dumped = {pid: bool(os.WCOREDUMP(status)) for pid, status in waited.values()}
    below = {one.pid: one for one in verdict.processes if one.role == "operator_child"}

    assert {pid: below[pid].core_dumped for pid in dumped} == dumped
    assert {pid: below[pid].termsig for pid in dumped} == {
        pid: os.WTERMSIG(status) for pid, status in waited.values()
    }
    assert {name for name, (pid, _) in waited.items() if dumped[pid]} == {
        *("segv", "abort"),
        # 3.x forks its runners from a process that may not be dumped, and that is inherited.
        *(["as_forked"] if session.is_2 else []),
    }


def test_core_dump_of_a_child_stands_in_the_summary(session: Session) -> None:
    """The sentence names who crashed, and not who crashed without a dump."""
    (verdict,) = session.of("crashing_children")
    waited = {name: pid for name, (pid, _) in told(session, "crashes.json").items()}

    for name, sig in (("segv", "SIGSEGV"), ("abort", "SIGABRT")):
        child = re.escape(f"Its child {waited[name]} (") + r"[^)]+\) was ended by "
        assert re.search(child + f"{sig} and dumped core", verdict.summary)
    assert f"child {waited['limited']} " not in verdict.summary


def test_popen_is_a_child(session: Session) -> None:
    """A program that the task starts is its child."""
    pid, _ = told(session, "children.json")["popen"]

    assert pid in children(session, "children")


def test_thread_is_no_process(session: Session) -> None:
    """A thread has a number of its own, which is nobody's PID."""
    (verdict,) = session.of("children")
    tid = told(session, "children.json")["thread"]

    assert tid not in {one.pid for one in verdict.processes}


def test_multiprocessing_copy_is_no_second_runner(session: Session) -> None:
    """A fork shows the runner's title until it takes its own, and is a child all the same."""
    notes = session.noted("children", "multiprocessing")
    refusal = told(session, "children.json")["refusal"]
    if session.is_2:
        # The worker of 2.x is a daemonic process, and so is all that is forked below it.
        assert (notes, refusal) == ([], "daemonic processes are not allowed to have children")
        return

    assert refusal is None
    assert notes[0].pid in children(session, "children")


def test_daemon_outlives_the_task_as_its_child(session: Session) -> None:
    """Forked twice, adopted by another, alive after the task's end: by birth it is the task's."""
    (daemon,) = session.noted("children", "daemon")
    (verdict,) = session.of("children")
    (found,) = [one for one in verdict.processes if one.pid == daemon.pid]
    (runner,) = session.runners("children")

    assert found.role == "operator_child"
    assert runner.pid in {who.pid for who in found.chain}
    assert runner.ended is not None
    assert found.ended is not None
    assert found.ended > runner.ended


@pytest.mark.parametrize("kind", ["popen", "daemon", "external"])
def test_number_of_a_child_leads_to_the_task(session: Session, kind: str) -> None:
    """`explain --pid` of a child names the task, and says that the child is a descendant."""
    case = "external_python" if kind == "external" else "children"
    pid = {
        "popen": lambda: told(session, "children.json")["popen"][0],
        "daemon": lambda: session.noted("children", "daemon")[0].pid,
        "external": lambda: told(session, "external.json")[0],
    }[kind]()
    (runner,) = session.runners(case)

    (verdict,) = [one for one in asked(session, pid) if one["task"]["dag_id"] == f"case_{case}"]

    assert verdict["code"] == "descendant-observed"
    assert f"PID {pid} (" in verdict["summary"]
    assert f"below process {runner.pid}, which ran case_{case}.t" in verdict["summary"]
