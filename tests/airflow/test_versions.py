"""
Every release of Airflow that matters runs ordinary tasks, and pidtrail knows whose each process is.

The two newest always; the older ones with `--every-airflow` (`make test-matrix`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pidtrail.verdict.model import ProcessReport
from tests.airflow.versions_driver import CASES

if TYPE_CHECKING:
    from tests.airflow.conftest import Session

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]

# Above the runner: in 2.x the LocalTaskJob has a process of its own, in 3.x the worker is it.
CHAIN_2 = ["runner", "supervisor", "executor_worker", "scheduler"]
CHAIN_3 = ["runner", "supervisor", "scheduler"]


def chain_of(runner: ProcessReport) -> list[str | None]:
    """Return the roles from the runner up to the scheduler."""
    roles = [who.role for who in runner.chain]
    return roles[: roles.index("scheduler") + 1] if "scheduler" in roles else roles


@pytest.mark.parametrize("case", CASES)
def test_runner_is_the_process_that_the_task_wrote_down(plain: Session, case: str) -> None:
    """Each process that ran user code is found, for the attempt that it ran, and no other."""
    noted = {(note.map_index, note.try_number, *note.identity) for note in plain.noted(case)}
    found = {
        (verdict.task.map_index, verdict.task.try_number, process.pid, process.start_ticks)
        for verdict in plain.of(case)
        for process in verdict.processes
        if process.role == "runner"
    }

    assert noted
    assert found == noted


@pytest.mark.parametrize("case", CASES)
def test_chain_above_the_runner_is_that_of_the_version(plain: Session, case: str) -> None:
    """From the runner up to the scheduler every process has the part that this release gives it."""
    chains = [chain_of(runner) for runner in plain.runners(case)]

    assert chains
    assert all(chain == (CHAIN_2 if plain.is_2 else CHAIN_3) for chain in chains)


def test_verdicts_of_ordinary_runs(plain: Session) -> None:
    """What ran once matches its record, mapped or not; a failed try is explained by its retry."""
    assert plain.codes("bash") == ["match"]
    assert plain.codes("mapped") == ["match"] * 4
    assert plain.codes("retry") == ["retry", "match"]


def test_schema_of_the_release_is_known(plain: Session) -> None:
    """Nothing in the database is unexpected: pidtrail would have said so."""
    told = plain.recording.with_name("trace.log").read_text(errors="replace")

    assert "attached" in told
    assert "schema revision" not in told
    assert "lacks" not in told
