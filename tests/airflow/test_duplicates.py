"""Airflow gives up on user code that still lives: the verdicts on real runs with lowered limits."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from demo.environment import InstallError, install
from demo.processes import StageError
from demo.witness import Note, read_notes
from pidtrail.events import AirflowFact
from pidtrail.sources.replay import Replay
from pidtrail.verdict.model import ProcessReport, Report, Verdict
from tests.airflow.examples import assert_shown, of_stage
from tests.airflow.held_driver import UNREAPED_FOR_S
from tests.airflow.tracing import PIDTRAIL, explain, trace_driver

SESSION_TIMEOUT_S = 600
FAILURES = (InstallError, StageError, OSError, subprocess.SubprocessError, msgspec.MsgspecError)
UNDETERMINED = "whose result was kept is undetermined"

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]


class Held(NamedTuple):
    """
    What `held_driver` played on one Airflow, and what pidtrail says of it.

    `did` has the schedulers as (pid, start ticks), old and new; `left`, the
    titles by pid of what lived in the old one's session at the end; and what
    `doctor --json` said then.
    """

    version: str
    recording: Path
    report: Report
    notes: list[Note]
    did: dict[str, Any]

    @property
    def is_2(self) -> bool:
        """Whether this is Airflow 2.x."""
        return self.version.startswith("2.")

    def verdict(self, case: str, try_number: int = 1) -> Verdict:
        """The verdict of one try of a case."""
        (found,) = [
            verdict
            for verdict in self.report.verdicts
            if (verdict.task.dag_id, verdict.task.try_number) == (f"case_{case}", try_number)
        ]
        return found

    @property
    def by_api(self) -> dict[tuple[str, int], Verdict]:
        """The verdicts of a second pidtrail, which had nothing but the REST API."""
        found = self.recording.with_name("verdicts-api.json").read_bytes()
        report = msgspec.json.decode(found, type=Report)
        return {(v.task.dag_id or "", v.task.try_number or 0): v for v in report.verdicts}

    def runner(self, case: str, try_number: int = 1) -> ProcessReport:
        """The only process that ran user code of a try."""
        (found,) = [
            process
            for process in self.verdict(case, try_number).processes
            if process.role == "runner"
        ]
        return found

    def of_a_refused_start(self) -> set[int | None]:
        """The process that was started for the poke that had failed already."""
        if self.is_2:
            return set()
        return {
            process.pid
            for process in self.verdict("late_queued").processes
            if process.role == "runner" and process.termsig == signal.SIGKILL
        }

    def left(self) -> dict[int, str]:
        """What lived of the old scheduler's executor at the end: titles by pid."""
        return {
            int(pid): title
            for pid, title in self.did["left"].items()
            if title.startswith(("airflow worker -- LocalExecutor", "airflow executor"))
        }


def play(version: str, folder: Path) -> Held:
    """Trace all cases on one Airflow; explain the recording. Raises one of `FAILURES`."""
    recording = trace_driver("held_driver", install(version), folder, timeout_s=SESSION_TIMEOUT_S)
    explain(recording)
    explain(folder / "home/api.db", left=folder / "verdicts-api.json")
    return Held(
        version=version,
        recording=recording,
        report=msgspec.json.decode((folder / "verdicts.json").read_bytes(), type=Report),
        notes=read_notes(folder / "home/notes"),
        did=json.loads((folder / "result.json").read_bytes()),
    )


@functools.cache
def _played_once(version: str, base: Path) -> Held | str:
    folder = base / f"held-{version}"
    folder.mkdir()
    # A failure is remembered too: twenty tests must not wait for it twenty times.
    try:
        return play(version, folder)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"


def played(version: str, factory: pytest.TempPathFactory) -> Held:
    """Return everything about one Airflow version; played when the first test asks for it."""
    outcome = _played_once(version, factory.getbasetemp())
    if isinstance(outcome, str):
        pytest.fail(outcome, pytrace=False)
    return outcome


@pytest.fixture(params=["3.3.2", "2.11.2"])
def held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Held:
    """One version after the other."""
    return played(request.param, tmp_path_factory)


@pytest.fixture
def held_3(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """What 3.x alone does."""
    return played("3.3.2", tmp_path_factory)


@pytest.fixture
def held_2(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """What 2.x alone does."""
    return played("2.11.2", tmp_path_factory)


def test_every_try_is_given_the_process_that_ran_it(held: Held) -> None:
    """Two live processes of one task instance are told apart, each with its own try."""
    # Who was refused its start has run nothing that could note it.
    refused = held.of_a_refused_start()
    noted = {(note.dag_id, note.try_number, *note.identity) for note in held.notes}
    found = {
        (verdict.task.dag_id, verdict.task.try_number, process.pid, process.start_ticks)
        for verdict in held.report.verdicts
        for process in verdict.processes
        if process.role == "runner" and process.pid not in refused
    }

    assert found == noted


@pytest.mark.parametrize("case", ["reset", "reset_orphan"])
def test_a_new_scheduler_resets_what_the_killed_one_ran(held: Held, case: str) -> None:
    """Try 1 is superseded by an orphan reset, and the killed scheduler is named."""
    verdict = held.verdict(case)
    (old, _), _ = held.did["schedulers"]

    assert (verdict.code, verdict.outcome, verdict.confidence) == (
        *("orphan-reset", "explained", "proved"),
    )
    assert f"after its scheduler {old} had ended" in verdict.summary
    assert f"its process {held.runner(case).pid} lived on" in verdict.summary


def test_the_process_of_a_killed_supervisor_is_given_up_for_want_of_a_heartbeat(held: Held) -> None:
    """Its runner lives on unheard; Airflow runs another one beside it."""
    verdict = held.verdict("unheard")
    old, new = held.runner("unheard"), held.runner("unheard", 2)

    assert (verdict.code, verdict.confidence) == ("heartbeat-timeout", "proved")
    assert f"its process {old.pid} lived on unheard" in verdict.summary
    assert f"a new process, PID {new.pid}" in verdict.summary


def test_a_dead_pid_is_shown_as_running_until_the_heartbeat_timeout(held: Held) -> None:
    """The whole chain was killed; the row shows the dead pid as running, and nothing overlaps."""
    verdict, dead = held.verdict("chain"), held.runner("chain")

    assert verdict.code == "heartbeat-timeout"
    assert dead.termsig == signal.SIGKILL
    assert "until then the row showed it as running" in verdict.summary
    assert "lived at once" not in verdict.summary
    assert [seen.pid for seen in verdict.recorded if seen.state == "running"][-1] == dead.pid


@pytest.mark.parametrize("case", ["chain", "unheard"])
def test_the_api_alone_tells_of_a_heartbeat_timeout(held: Held, case: str) -> None:
    """Its audit log names the reason, so that the verdict is that of the database."""
    verdict, process = held.by_api[f"case_{case}", 1], held.runner(case)
    rows = {
        event.seq
        for event in Replay(str(held.recording.with_name("home") / "api.db")).events()
        if isinstance(event, AirflowFact) and event.event == "heartbeat timeout"
    }

    assert (verdict.code, verdict.confidence) == ("heartbeat-timeout", "proved")
    assert {seen.via for seen in verdict.recorded} == {"rest"}
    assert rows & set(verdict.evidence)
    assert [one.pid for one in verdict.processes if one.role == "runner"] == [process.pid]


def test_the_api_alone_tells_what_the_database_does(held: Held) -> None:
    """Of all that a second pidtrail saw, with the API beside it, each verdict is the same."""
    told = {key: verdict.code for key, verdict in held.by_api.items()}

    assert told.keys() >= {("case_chain", 1), ("case_unheard", 1), ("case_unheard", 2)}
    assert held.is_2 or ("case_late", 1) in told
    for (dag_id, try_number), code in told.items():
        assert held.verdict(dag_id.removeprefix("case_"), try_number).code == code


@pytest.mark.parametrize("case", ["unheard", "reset_orphan"])
def test_two_live_runners_are_a_conflict(held: Held, case: str) -> None:
    """Try 2 ran beside try 1, whose supervisor was dead: a real duplicate."""
    verdict = held.verdict(case, 2)
    old, new = held.runner(case), held.runner(case, 2)

    assert (verdict.code, verdict.outcome) == ("concurrent-duplicate", "conflict")
    assert f"Processes {old.pid} (try 1) and {new.pid} (try 2) ran" in verdict.summary


def test_the_old_process_of_2_writes_its_result_into_the_row_of_the_new_one(held_2: Held) -> None:
    """The row shows try 2 and the new pid, and the old process's success."""
    for case in ("reset", "unheard"):
        old, new = held_2.runner(case), held_2.runner(case, 2)
        last = held_2.verdict(case, 2).recorded[-1]

        assert (last.state, last.pid) == ("success", new.pid)
        for try_number in (1, 2):
            words = f"when {old.pid} exited with 0: its result was kept"
            assert words in held_2.verdict(case, try_number).summary


def test_what_was_not_kept_of_two_results_in_one_moment_is_undetermined(held_2: Held) -> None:
    """Both ended at once, and each may have written the row: pidtrail does not guess."""
    for try_number in (1, 2):
        verdict = held_2.verdict("reset_orphan", try_number)

        assert UNDETERMINED in verdict.summary
        assert any("whose result was kept" in unknown for unknown in verdict.unknowns)


@pytest.mark.parametrize("case", ["reset", "reset_orphan", "unheard"])
def test_3_keeps_the_result_of_the_new_process_alone(held_3: Held, case: str) -> None:
    """Whoever ends first: the old one is refused, or has nobody left to report through."""
    new = held_3.runner(case, 2)

    assert f"when {new.pid} exited with 0: its result was kept" in held_3.verdict(case).summary


def test_3_tells_the_old_process_to_stop(held_3: Held) -> None:
    """Its heartbeat is refused, its own supervisor sends SIGTERM; so try 2 is no duplicate."""
    old = held_3.runner("reset")
    assert old.birth_parent is not None

    words = f"{old.pid} was told to stop by its supervisor {old.birth_parent.pid}"
    assert words in held_3.verdict("reset").summary
    assert old.killed_by is not None
    assert old.killed_by.sender is not None
    assert old.killed_by.sender.pid == old.birth_parent.pid
    assert held_3.verdict("reset", 2).code == "match"


def test_a_late_word_of_the_executor_fails_the_next_poke(held_3: Held) -> None:
    """The end of poke 1, the time unreaped, the audit row, and poke 2, which was running."""
    verdict = held_3.verdict("late")
    first, second = [one for one in verdict.processes if one.role == "runner"]

    assert (verdict.code, verdict.outcome, verdict.confidence) == (
        *("stale-executor-event", "conflict", "proved"),
    )
    assert first.zombie_ns is not None
    assert first.zombie_ns > UNREAPED_FOR_S * 1e9
    assert f"Process {first.pid} of case_late.t try 1 exited with 0" in verdict.summary
    assert f"stayed unreaped for {first.zombie_ns / 1e9:.1f} s" in verdict.summary
    assert "(audit row `state mismatch` of " in verdict.summary
    assert f"while the next one, {second.pid}, was running" in verdict.summary
    assert verdict.recorded[-1].state == "failed"


def test_a_late_word_of_the_executor_fails_a_poke_that_is_queued(held_3: Held) -> None:
    """The process that is started for it afterwards is refused: it was failed before its birth."""
    verdict = held_3.verdict("late_queued")
    first, refused = [one for one in verdict.processes if one.role == "runner"]

    # Who is refused dies before it names itself, and is known by its parent alone.
    assert (verdict.code, verdict.confidence) == ("stale-executor-event", "strong")
    assert f"Process {first.pid} of case_late_queued.t try 1 exited with 0" in verdict.summary
    assert "while the next one was queued" in verdict.summary
    assert f"started for that, {refused.pid}, was refused and killed" in verdict.summary
    assert refused.pid not in {seen.pid for seen in verdict.recorded}


def test_what_a_killed_scheduler_left_is_named(held: Held) -> None:
    """Every process of its executor that was still there is listed, and nothing else."""
    (left,) = held.report.abandoned
    (old, _), _ = held.did["schedulers"]

    assert left.scheduler.pid == old
    assert {process.pid for process in left.processes} == set(held.left())
    # 2.x keeps its queues in a process of their own.
    roles = {process.role for process in left.processes}
    assert roles == {"executor_worker", "executor_manager"} if held.is_2 else {"executor_worker"}


def test_doctor_names_what_a_killed_scheduler_left(held: Held) -> None:
    """While they are there; the new scheduler's workers are not among them."""
    told = {one["pid"]: one for one in held.did["doctor"]["airflow"]}
    _, (new, _) = held.did["schedulers"]
    fed = held.did["fed"]

    assert fed
    assert {told[pid]["role"] for pid in fed} <= {"executor_worker", "supervisor"}
    assert told[new]["role"] == "scheduler"
    assert {pid for pid in held.left() if told[pid]["abandoned"]} == set(held.left())
    assert not any(told[pid]["abandoned"] for pid in (new, *fed))


def test_the_line_of_2_about_two_pids_is_real_here(held_2: Held) -> None:
    """The old supervisor's `Recorded pid … does not match`: two runners, no false alarm."""
    home = held_2.recording.with_name("home")
    logs = [path.read_text() for path in home.rglob("dag_id=case_reset/**/attempt=1.log")]
    lines = [line for log in logs for line in log.splitlines() if "Recorded pid" in line]
    old, new = held_2.runner("reset"), held_2.runner("reset", 2)
    assert lines

    told = json.loads(
        subprocess.run(
            [PIDTRAIL, "explain", held_2.recording, "--message", lines[0], "--json"],
            capture_output=True,
            check=True,
        ).stdout
    )

    (message,) = told["messages"]
    recorded, current = message["pids"]
    assert (recorded["value"], current["value"]) == (str(new.pid), str(old.pid))
    assert all(number["seen"][0].startswith("the runner of case_reset.t")
               for number in message["pids"])  # fmt: skip
    assert "real" in message["comparison"]
    assert {one["code"] for one in told["report"]["verdicts"]} == {
        "orphan-reset",
        "concurrent-duplicate",
    }


def test_the_schedulers_words_on_orphans_lead_to_all_of_them(held: Held) -> None:
    """It names several task instances in one message, over several lines."""
    log = held.recording.with_name("home").joinpath("scheduler-2.log").read_text()
    words = log[log.index("Reset the following 2 orphaned TaskInstances") :].splitlines()[:3]

    found = codes_of(held, "\n".join(words))

    assert {("case_reset", 1, "orphan-reset"), ("case_reset_orphan", 1, "orphan-reset")} <= found
    assert {dag for dag, *_ in found} == {"case_reset", "case_reset_orphan"}


def test_the_schedulers_words_on_a_state_mismatch_lead_to_the_poke(held_3: Held) -> None:
    """`Executor … reported that the task instance … finished` names the sensor."""
    log = held_3.recording.with_name("home").joinpath("scheduler-1.log").read_text()
    (line,) = [
        line
        for line in log.splitlines()
        if "reported that the task instance" in line and "case_late.t " in line
    ]

    assert codes_of(held_3, line) == {("case_late", 1, "stale-executor-event")}


def codes_of(held: Held, message: str) -> set[tuple[str | None, int | None, str]]:
    """Return the attempts that `explain --message` finds in the recording, with their verdicts."""
    told = subprocess.run(
        [PIDTRAIL, "explain", held.recording, "--message", message, "--json"],
        capture_output=True,
        check=True,
    ).stdout
    return {
        (one["task"]["dag_id"], one["task"]["try_number"], one["code"])
        for one in json.loads(told)["report"]["verdicts"]
    }


@pytest.mark.parametrize("code", of_stage("held"))
def test_example_has_the_verdict_that_it_stands_for(held: Held, code: str) -> None:
    """What the page of verdicts shows of this stage is what is played here."""
    assert_shown(code, held.recording.parent)
