"""Two schedulers on one host, one of them killed: whose run is whose on a real Airflow 3.3.2."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from demo.airflow_host import free_ports
from demo.environment import install
from demo.postgres import database_url
from demo.witness import Note, read_notes
from pidtrail.events import TaskReported
from pidtrail.sources.replay import Replay
from pidtrail.verdict.model import ProcessReport, Report, Verdict
from tests.airflow.conftest import FAILURES
from tests.airflow.tracing import explain, trace

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_postgres,
    pytest.mark.timeout(900),
]

VERSION = "3.3.2"
TIMEOUT_S = 600


class Played(NamedTuple):
    """What was played; `done` is what the driver tells."""

    recording: Path
    verdicts: list[Verdict]
    notes: list[Note]
    done: dict[str, Any]

    def verdict(self, run_id: str, try_number: int) -> Verdict:
        """Return the verdict of a try of a run."""
        wanted = (run_id, try_number)
        (found,) = [v for v in self.verdicts if (v.task.run_id, v.task.try_number) == wanted]
        return found

    @property
    def killed(self) -> int:
        """The pid of the scheduler that got SIGKILL."""
        return int(self.done["killed"][0])

    @property
    def survivor(self) -> int:
        """The pid of the other one."""
        return int(self.done["survivor"][0])

    def of(self, scheduler: int) -> list[str]:
        """Return the runs that a scheduler had at first."""
        return [run_id for run_id, pid in self.done["shared"].items() if pid == scheduler]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("two-schedulers")
    (port,) = free_ports(1)
    driver = [sys.executable, "-m", "tests.airflow.two_schedulers_driver", VERSION]
    driver += [str(folder / "home"), str(folder / "result.json"), str(port)]
    try:
        install(VERSION)
        options = ("--airflow-db", database_url(port))
        recording = trace(folder, driver, *options, timeout_s=TIMEOUT_S)
        verdicts = explain(recording)
    except FAILURES as error:
        pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)
    done = json.loads((folder / "result.json").read_bytes())
    return Played(recording, verdicts, read_notes(folder / "home/notes"), done)


def runner(verdict: Verdict) -> ProcessReport:
    """Return the one process that ran a try."""
    (found,) = [process for process in verdict.processes if process.role == "runner"]
    return found


def scheduler_of(process: ProcessReport) -> int | None:
    """Return the scheduler that a process descends from."""
    return next((who.pid for who in process.chain if who.role == "scheduler"), None)


def test_each_run_is_below_the_scheduler_that_took_it(played: Played) -> None:
    """First tries are below the one that the driver saw above them, second ones below the other."""
    assert played.of(played.killed)
    assert played.of(played.survivor)
    for run_id, scheduler in played.done["shared"].items():
        assert scheduler_of(runner(played.verdict(run_id, 1))) == scheduler
    for run_id in played.of(played.killed):
        assert scheduler_of(runner(played.verdict(run_id, 2))) == played.survivor


def test_the_rows_say_the_same_of_who_took_what(played: Played) -> None:
    """Each scheduler has a job in the database, and the rows of its runs name that."""
    jobs: dict[int, set[int | None]] = {}
    for event in Replay(str(played.recording)).events():
        if isinstance(event, TaskReported) and event.task is not None and event.state == "running":
            first = event.task.try_number == 1
            scheduler = played.done["shared"][event.task.run_id] if first else played.survivor
            jobs.setdefault(scheduler, set()).add(event.queued_by_job_id)

    assert jobs.keys() == {played.killed, played.survivor}
    assert all(len(ids) == 1 for ids in jobs.values())
    assert jobs[played.killed] != jobs[played.survivor]


def test_what_the_killed_one_had_is_reset_by_the_other(played: Played) -> None:
    """The scheduler that died is named, the old process and the new one."""
    for run_id in played.of(played.killed):
        verdict = played.verdict(run_id, 1)
        old, new = runner(verdict), runner(played.verdict(run_id, 2))

        assert (verdict.code, verdict.confidence) == ("orphan-reset", "proved")
        assert f"after its scheduler {played.killed} had ended" in verdict.summary
        assert f"its process {old.pid} lived on: a new process, PID {new.pid}" in verdict.summary


def test_the_runs_of_the_survivor_are_left_alone(played: Played) -> None:
    """Another scheduler's death on the same host is none of theirs."""
    for run_id in played.of(played.survivor):
        assert played.verdict(run_id, 1).code == "match"


def test_who_is_not_heard_is_a_real_duplicate(played: Played) -> None:
    """Without its supervisor the old process is not told to stop, and runs beside the new one."""
    alone = played.done["alone"]
    old, new = (runner(played.verdict(alone, number)) for number in (1, 2))
    verdict = played.verdict(alone, 2)

    assert (verdict.code, verdict.outcome) == ("concurrent-duplicate", "conflict")
    assert f"Processes {old.pid} (try 1) and {new.pid} (try 2) ran" in verdict.summary
    assert old.exit_code == 126
    for run_id in set(played.of(played.killed)) - {alone}:
        assert played.verdict(run_id, 2).code == "match"


def test_every_process_is_given_to_its_own_run(played: Played) -> None:
    """What the tasks wrote down of themselves, run by run and try by try."""
    noted = {(n.run_id, n.try_number, *n.identity) for n in played.notes}
    found = {
        (v.task.run_id, v.task.try_number, runner(v).pid, runner(v).start_ticks)
        for v in played.verdicts
    }

    assert found == noted


def test_only_the_killed_one_left_something_behind(played: Played) -> None:
    """The workers of the survivor are its own."""
    (left,) = msgspec.json.decode(
        played.recording.with_name("verdicts.json").read_bytes(), type=Report
    ).abandoned

    assert left.scheduler.pid == played.killed
    supervisors = {runner(played.verdict(run, 1)).chain[1].pid for run in played.of(played.killed)}
    gone = {runner(played.verdict(played.done["alone"], 1)).chain[1].pid}
    assert supervisors - gone <= {process.pid for process in left.processes}
