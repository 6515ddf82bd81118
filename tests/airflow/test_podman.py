"""A real Airflow 3.3.2 whose scheduler is in a real container of podman, seen from the host."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.environment import install
from demo.witness import Note, read_notes
from pidtrail.verdict.model import ProcessReport, Verdict
from tests.airflow.conftest import FAILURES
from tests.airflow.podman_driver import NAME
from tests.airflow.tracing import explain, trace_driver

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_podman,
    pytest.mark.timeout(600),
]

VERSION = "3.3.2"
TIMEOUT_S = 240


class Played(NamedTuple):
    """What was played: the container's id, by podman, and what the tasks noted in there."""

    container: str
    verdicts: list[Verdict]
    notes: list[Note]

    def verdict(self, run_id: str) -> Verdict:
        """Return the verdict of a run's only try."""
        (found,) = [v for v in self.verdicts if v.task.run_id == run_id]
        return found

    def runner(self, run_id: str) -> ProcessReport:
        """Return the one process that ran it."""
        verdict = self.verdict(run_id)
        (found,) = [process for process in verdict.processes if process.role == "runner"]
        return found

    def number(self, run_id: str) -> int:
        """Return the number that the task had by its own word."""
        return next(note.pid for note in self.notes if note.run_id == run_id)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder: Path = tmp_path_factory.mktemp("podman")
    try:
        recording = trace_driver("podman_driver", install(VERSION), folder, timeout_s=TIMEOUT_S)
        verdicts = explain(recording)
    except FAILURES as error:
        pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)
    done = json.loads((folder / "result.json").read_bytes())
    return Played(done["container"], verdicts, read_notes(folder / "home/notes"))


@pytest.mark.parametrize("run_id", ["ended", "stopped"])
def test_task_in_a_container_matches_by_its_number_in_there(played: Played, run_id: str) -> None:
    """Airflow recorded what the task sees; here it has another number, and both are told."""
    verdict, runner = played.verdict(run_id), played.runner(run_id)

    assert (verdict.code, verdict.confidence) == ("match-via-namespace", "proved")
    assert {claim.hostname for claim in verdict.recorded if claim.pid} == {NAME}
    assert verdict.recorded[-1].pid == played.number(run_id)
    assert runner.ns_pids is not None
    assert runner.ns_pids[-1] == played.number(run_id) != runner.pid
    assert runner.container == played.container


def test_task_that_ended_by_itself_was_stopped_by_nobody(played: Played) -> None:
    """The container goes on without it."""
    runner = played.runner("ended")

    assert (runner.exit_code, runner.termsig) == (0, None)
    assert runner.killed_by is not None
    assert runner.killed_by.sender is None


def test_stop_of_the_container_is_why_its_task_was_killed(played: Played) -> None:
    """Airflow's worker waits for its task, so process 1 is killed, and all with it."""
    by = played.runner("stopped").killed_by

    assert by is not None
    assert (by.kind, by.sig, by.sender) == ("signal", signal.SIGKILL, None)
    assert by.why is not None
    assert by.why.startswith("process 1 of its PID namespace, the container init, dumb-init")
    assert "was ended by SIGKILL from the container runtime, crun" in by.why
