"""
CeleryExecutor with a real Redis and real workers: which process ran what, and why it changed.

One session per version, about a minute, all cases side by side; every test reads
its recording.
"""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from demo.environment import install
from demo.witness import Note, read_notes
from pidtrail.airflow.messages import names_in, readings
from pidtrail.cli.message import about, read
from pidtrail.events import Event, Observed, TaskReported, Title
from pidtrail.sources.replay import Replay
from pidtrail.verdict.model import ProcessReport, Verdict
from tests.airflow.conftest import FAILURES
from tests.airflow.examples import assert_shown, of_stage
from tests.airflow.tracing import (
    PIDTRAIL,
    explain,
    heard,
    judged_without_plugin,
    trace_driver,
)

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]

SESSION_TIMEOUT_S = 600
# How many processes run user code of the case, tries and pokes all counted.
PROCESSES = {"retry": 2, "reschedule": 2, "mapped": 3, "kill_runner": 2, "restart": 2}
CASES = ("plain", "adopted", "redelivered", "kill_pool", "kill_worker", *PROCESSES)
# What a worker says that it does with a message: 2.x gives the command, 3.x the workload.
EXECUTED = re.compile(
    r"\[(?P<id>[0-9a-f-]{36})\] Executing (?:command|workload) in Celery: .*?"
    r"""(?:'run', |dag_id=)'(?P<dag>celery_\w+)'(?:.*?map_index=(?P<map>-?\d+)|"""
    r""".*?'--map-index', '(?P<map2>\d+)')?"""
)
OF_CELERY = re.compile(r"Task \S+\[[0-9a-f-]{36}\] (?P<what>\w+)")
QUEUES = {"restart": ("restarted", "again"), "kill_worker": ("killed", "rescue")}


class Session(NamedTuple):
    """
    What was played with Celery on one Airflow, and what pidtrail says.

    `done` is what the driver tells: `workers` and `kills` as (pid, start ticks),
    what doctor said, and the roots that `--airflow` would follow.
    """

    version: str
    folder: Path
    verdicts: list[Verdict]
    notes: list[Note]
    done: dict[str, Any]

    @property
    def is_2(self) -> bool:
        """Whether this is Airflow 2.x."""
        return self.version.startswith("2.")

    def of(self, case: str) -> list[Verdict]:
        """Verdicts of one case, by map index and try."""
        mine = [verdict for verdict in self.verdicts if verdict.task.dag_id == f"celery_{case}"]
        return sorted(mine, key=lambda one: (one.task.map_index or 0, one.task.try_number or 0))

    def codes(self, case: str) -> list[str]:
        """Verdict codes of one case, by map index and try."""
        return [verdict.code for verdict in self.of(case)]

    def runners(self, case: str) -> list[ProcessReport]:
        """Processes of one case that pidtrail calls runners, oldest first."""
        found = [p for verdict in self.of(case) for p in verdict.processes if p.role == "runner"]
        return sorted(found, key=lambda process: process.start_ticks or 0)

    def noted(self, case: str) -> set[tuple[int, int]]:
        """Processes that ran user code of a case, in their own words."""
        return {note.identity for note in self.notes if note.dag_id == f"celery_{case}"}

    def ran(self, case: str) -> list[ProcessReport]:
        """Runners of a case that the task wrote down."""
        return [p for p in self.runners(case) if (p.pid, p.start_ticks) in self.noted(case)]

    def refused(self, case: str) -> list[ProcessReport]:
        """Runners of a case that ran no user code."""
        return [p for p in self.runners(case) if (p.pid, p.start_ticks) not in self.noted(case)]

    def worker(self, name: str) -> int:
        """Return the pid of a Celery worker."""
        return int(self.done["workers"][name][0])

    def events(self, recording: str = "session.db") -> Iterator[Event]:
        """Records of the session, or of the look at the idle worker."""
        return Replay(str(self.folder / recording)).events()

    def log(self, name: str) -> str:
        """What a part of the stage said."""
        return (self.folder / "home" / f"{name}.log").read_text(errors="replace")


def play(version: str, folder: Path) -> Session:
    """Trace all cases on one Airflow with Celery; raises one of `FAILURES`."""
    plugin = ("--airflow-plugin", str(folder / "claims.sock"))
    recording = trace_driver(
        *("celery_driver", install(version), folder, *plugin),
        timeout_s=SESSION_TIMEOUT_S,
        on_postgres=True,
    )
    return Session(
        version,
        folder,
        explain(recording),
        read_notes(folder / "home/notes"),
        json.loads((folder / "result.json").read_bytes()),
    )


@functools.cache
def _played_once(version: str, base: Path) -> Session | str:
    folder = base / f"celery-{version}"
    folder.mkdir()
    # A failure is remembered too: the tests must not wait for it again and again.
    try:
        return play(version, folder)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture(params=["3.3.2", "2.11.2"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Everything about one Airflow version; played when the first test asks for it."""
    outcome = _played_once(request.param, tmp_path_factory.getbasetemp())
    if isinstance(outcome, str):
        pytest.fail(outcome, pytrace=False)
    return outcome


@pytest.mark.parametrize("case", CASES)
def test_runner_is_the_process_that_the_task_wrote_down(session: Session, case: str) -> None:
    """Every process that ran user code is found; what else was started was refused."""
    assert len(session.noted(case)) == PROCESSES.get(case, 1)
    assert {(p.pid, p.start_ticks) for p in session.ran(case)} == session.noted(case)
    assert all(process.termsig == signal.SIGKILL for process in session.refused(case))


@pytest.mark.parametrize("case", CASES)
def test_chain_leads_from_the_runner_to_its_celery_worker(session: Session, case: str) -> None:
    """2.x forks a supervisor below the pool process; in 3.x that is itself the supervisor."""
    between = ["supervisor", "executor_worker"] if session.is_2 else ["supervisor"]
    pids = [session.worker(name) for name in QUEUES.get(case, ("main",))]

    for process in session.ran(case):
        chain = process.chain[: len(between) + 2]

        assert [who.role for who in chain] == ["runner", *between, "celery_worker"]
        assert chain[-1].pid in pids


@pytest.mark.parametrize("case", ["plain", "mapped", "adopted"])
def test_recorded_pid_is_the_runner(session: Session, case: str) -> None:
    """An ordinary run with Celery is a match, mapped or not, and also if it was adopted."""
    assert set(session.codes(case)) == {"match"}
    assert len(session.of(case)) == PROCESSES.get(case, 1)


@pytest.mark.parametrize("case", ["retry", "kill_runner"])
def test_retry_supersedes_the_first_try(session: Session, case: str) -> None:
    """A try that failed, or whose runner was killed, is followed by another process."""
    assert session.codes(case) == ["retry", "match"]


def test_poke_is_superseded_by_the_next_one(session: Session) -> None:
    """Two pokes are two processes of one try, perhaps below two pool processes."""
    assert session.codes("reschedule") == ["reschedule"]


def test_runner_outlives_its_killed_pool_process(session: Session) -> None:
    """Without the pool process the runner goes on under its PID; in 3.x it cannot report."""
    (runner,) = session.runners("kill_pool")
    victim, _ = session.done["kills"]["kill_pool"]

    assert session.codes("kill_pool") == ["orphaned-still-running"]
    assert victim in [who.pid for who in runner.chain]
    assert runner.exit_code == (0 if session.is_2 else 126)


def test_runner_outlives_its_killed_worker(session: Session) -> None:
    """The kernel kills the pool processes with their worker, and nothing that they forked."""
    (verdict,) = session.of("kill_worker")
    (runner,) = session.ran("kill_worker")

    assert verdict.code == "orphaned-still-running"
    assert f"elery worker {session.worker('killed')} was ended by SIGKILL" in verdict.summary
    assert runner.exit_code == (0 if session.is_2 else 126)
    assert verdict.recorded[-1].pid == runner.pid


def test_a_stopped_worker_and_the_next_one_are_a_worker_restart(session: Session) -> None:
    """The task ended with its worker, and the worker started after it ran the next try."""
    first, second = session.of("restart")
    summary = f"the celery worker that was started after it ({session.worker('again')}) ran try 2"

    assert (first.code, second.code) == ("worker-restart", "match")
    assert summary in first.summary
    assert [run.chain[-2].pid for run in session.ran("restart")] == [
        session.worker("restarted"),
        session.worker("again"),
    ]


@pytest.mark.parametrize("case", ["redelivered", "kill_worker"])
def test_a_message_that_came_twice_runs_once(session: Session, case: str) -> None:
    """2.x refuses before a runner is forked; 3.x forks one, is refused by the API, and kills it."""
    recorded = {seen.pid for verdict in session.of(case) for seen in verdict.recorded}
    refused = session.refused(case)

    assert len(session.ran(case)) == 1
    # Perhaps more than one: a worker with so short a visibility_timeout gives back its own too.
    assert bool(refused) is not session.is_2
    for process in refused:
        assert process.pid not in recorded
        assert process.killed_by is not None
        assert process.killed_by.sender is not None
        assert process.birth_parent is not None
        assert process.killed_by.sender.pid == process.birth_parent.pid


def test_a_refused_second_start_is_told(session: Session) -> None:
    """In 3.x there was a process more, an aborted start; in 2.x the record and the run match."""
    (verdict,) = session.of("redelivered")

    assert verdict.code == ("match" if session.is_2 else "aborted-start")
    assert verdict.recorded[-1].pid == session.ran("redelivered")[0].pid


def test_two_supervisors_of_2_came_up_for_one_message(session: Session) -> None:
    """The refusal of 2.x was no accident: two supervisors named the task instance."""
    if not session.is_2:
        assert len(session.runners("redelivered")) == 2
        return
    named = {
        event.pid
        for event in session.events()
        if isinstance(event, Title)
        and (event.title or "").startswith("airflow task supervisor: ")
        and "'celery_redelivered'" in (event.title or "")
    }

    assert len(named) == 2


def test_adoption_changes_the_scheduler_and_not_the_pid(session: Session) -> None:
    """Two scheduler jobs had the running row in turn; one process ran it all the time."""
    rows = [
        event
        for event in session.events()
        if isinstance(event, TaskReported)
        and event.via == "db"
        and event.task is not None
        and event.task.dag_id == "celery_adopted"
        and event.state in {"running", "success"}
        and event.recorded_pid is not None
    ]

    assert {row.recorded_pid for row in rows} == {session.runners("adopted")[0].pid}
    assert len({row.queued_by_job_id for row in rows}) == 2
    assert len({row.external_executor_id for row in rows}) == 1


def test_each_celery_worker_is_found_once(session: Session) -> None:
    """Doctor and `--airflow` name the workers, not what they forked and still shows their words."""
    running = {session.worker("main"), session.worker("again")}
    listed = {one["pid"] for one in session.done["doctor"] if one["role"] == "celery_worker"}
    forked = set(session.done["children"])

    assert running <= listed
    assert running <= set(session.done["roots"])
    assert forked
    assert not forked & (listed | set(session.done["roots"]))


def test_an_idle_pool_process_is_not_given_to_its_last_task(session: Session) -> None:
    """Found with the title of a task that has ended, and killed: none of it is the task's."""
    victim, ticks = session.done["kills"]["idle"]
    records = [
        event
        for event in session.events("home/idle.db")
        if event.key is not None and event.key[:2] == (victim, ticks)
    ]
    shown = [" ".join(one.argv or ()) for one in records if isinstance(one, Observed)]

    assert {type(one).__name__ for one in records} >= {"Observed", "Signal", "Exit"}
    assert any(("ForkPoolWorker" if session.is_2 else "airflow supervisor: ") in s for s in shown)
    assert [event.task for event in records] == [None] * len(records)


def test_an_idle_pool_process_is_not_given_to_the_task_that_it_served(session: Session) -> None:
    """Traced from its birth on, its end after the task is not the task's either."""
    victim, ticks = session.done["kills"]["idle"]
    ends = [
        event
        for event in session.events()
        if event.key is not None
        and event.key[:2] == (victim, ticks)
        and type(event).__name__ in {"Signal", "Exit"}
    ]

    assert ends
    assert [event.task for event in ends] == [None] * len(ends)


def test_plugin_tells_of_every_process_below_the_workers(session: Session) -> None:
    """All tries and pokes, also of workers that were killed; nobody else, and no second start."""
    begun = {
        (one.pid, one.start_ticks)
        for one in heard(session.folder / "session.db")
        if one.state == "running"
    }

    assert begun == {note.identity for note in session.notes}


def test_plugin_names_the_runners_of_workers(session: Session) -> None:
    """What a process below a worker says of itself is believed, and changes no verdict."""
    without = judged_without_plugin(session.folder / "session.db")

    assert [(one.task, one.code) for one in session.verdicts] == [
        (one.task, one.code) for one in without
    ]
    assert {p.identified_by for case in CASES for p in session.ran(case)} <= {"log", "plugin"}


def test_the_lines_of_workers_and_schedulers_are_known(session: Session) -> None:
    """The very lines that were written are read by `explain --message`."""
    names = ("worker-main", "worker-restarted", "scheduler-1", "scheduler-2")
    logs = "".join(session.log(name) for name in names)
    kinds = {reading.message.kind for line in logs.splitlines() for reading in readings(line)}

    assert kinds >= {
        *("celery-executing", "celery-process-exited", "celery-worker-lost"),
        *("celery-shutdown", "celery-adopted"),
        *("celery-received", "celery-succeeded"),
        *(("celery-id",) if session.is_2 else ("celery-redelivered", "celery-raised")),
    }


def test_the_id_of_a_celery_message_leads_to_its_run(session: Session) -> None:
    """Whichever line of a worker has it: what the worker executed under that id is found."""
    lines = "".join(session.log(f"worker-{name}") for name in ("main", "restarted", "again"))
    executed = {
        found["id"]: (found["dag"], int(found["map"] or found["map2"] or -1))
        for found in EXECUTED.finditer(lines)
    }
    of_celery = {line: found["what"] for line in lines.splitlines()
                 if (found := OF_CELERY.search(line)) is not None}  # fmt: skip
    tries: dict[tuple[str | None, int | None], set[str]] = {}

    for line in of_celery:
        (uuid,) = names_in(line).uuids & executed.keys()
        (task,) = [verdict.task for verdict in about(line, read(line), session.verdicts)]
        assert (task.dag_id, task.map_index) == executed[uuid]
        tries.setdefault((task.dag_id, task.try_number), set()).add(uuid)

    assert len(executed) > len(CASES)
    assert {"received", "succeeded"} <= set(of_celery.values())
    # Two tries are two messages, and two pokes of one try too.
    assert not tries["celery_retry", 1] & tries["celery_retry", 2]
    assert len(tries["celery_reschedule", 1]) == 2


def test_a_line_of_celery_names_the_recorded_process(session: Session) -> None:
    """`explain --message` of the command line says which PID was on record with the id."""
    line = next(
        line
        for line in session.log("worker-main").splitlines()
        if "xecuting " in line and "celery_plain" in line
    )
    argv = [str(PIDTRAIL), "explain", str(session.folder / "session.db"), "--message", line]
    told = subprocess.run(argv, capture_output=True, check=True, timeout=60, text=True).stdout
    (runner,) = session.ran("plain")

    assert f"the id of celery_plain.t try 1, recorded PID {runner.pid}" in " ".join(told.split())


@pytest.mark.parametrize("code", of_stage("celery"))
def test_example_has_the_verdict_that_it_stands_for(session: Session, code: str) -> None:
    """What the page of verdicts shows of this stage is what is played here."""
    assert_shown(code, session.folder)
