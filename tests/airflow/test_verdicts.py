"""Why the recorded pid is what it is: the verdicts on real runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.airflow.conftest import Session

PIDTRAIL = Path(sys.executable).with_name("pidtrail")

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]


@pytest.mark.parametrize("case", ["long", "bash", "mapped"])
def test_recorded_pid_is_the_runner(session: Session, case: str) -> None:
    """Of an ordinary run, mapped or not, Airflow's last recorded pid is the process that ran."""
    noted = {note.map_index: note.pid for note in session.noted(case)}
    recorded = {
        verdict.task.map_index: [seen.pid for seen in verdict.recorded if seen.pid][-1]
        for verdict in session.of(case)
    }

    assert set(session.codes(case)) == {"match"}
    assert recorded == noted


def test_each_mapped_task_has_a_verdict_of_its_own(session: Session) -> None:
    """Four mapped task instances are four verdicts, told apart by the map index."""
    assert [verdict.task.map_index for verdict in session.of("mapped")] == [0, 1, 2, 3]


def test_retry_supersedes_the_first_try(session: Session) -> None:
    """The first try is explained by the retry; the second is the one recorded."""
    assert session.codes("retry") == ["retry", "match"]


def test_poke_is_superseded_by_the_next_one(session: Session) -> None:
    """Three pokes are three processes of one try; `reschedule` is why the pid changed."""
    assert "reschedule" in session.codes("reschedule")
    assert {verdict.task.try_number for verdict in session.of("reschedule")} == {1}


def test_resumed_task_runs_in_another_process(session: Session) -> None:
    """A deferred task goes on in a new process of the same try."""
    assert "deferral" in session.codes("deferral")
    assert {verdict.task.try_number for verdict in session.of("deferral")} == {1}


def test_killer_of_the_runner_is_named(session: Session) -> None:
    """The process that sent SIGKILL to the runner is in the verdict, by its pid."""
    killer, _ = session.kills["kill_runner"]["killer"]
    victim, _ = session.kills["kill_runner"]["victim"]
    (killed,) = [process for process in session.runners("kill_runner") if process.pid == victim]

    assert killed.termsig == signal.SIGKILL
    assert killed.killed_by is not None
    assert killed.killed_by.kind == "signal"
    assert killed.killed_by.sender is not None
    assert killed.killed_by.sender.pid == killer


def test_killed_runner_is_followed_by_a_retry(session: Session) -> None:
    """After SIGKILL of the runner Airflow starts try 2, which is the one recorded."""
    assert session.codes("kill_runner") == ["retry", "match"]


@pytest.mark.parametrize("case", ["kill_supervisor", "kill_scheduler"])
def test_runner_outlives_a_killed_parent(session: Session, case: str) -> None:
    """Without supervisor or scheduler the runner goes on, under its pid, to its end."""
    (runner,) = session.runners(case)

    assert session.codes(case) == ["orphaned-still-running"]
    assert runner.termsig is None
    assert {note.pid for note in session.noted(case, "end")} == {runner.pid}


def test_adoption_of_an_orphan_is_seen(session: Session) -> None:
    """A runner whose supervisor was killed ends as the child of another process than it began."""
    (runner,) = session.runners("kill_supervisor")

    assert runner.birth_parent is not None
    assert runner.birth_parent.pid == session.kills["kill_supervisor"]["victim"][0]
    assert runner.reparented_to not in (None, runner.birth_parent.pid)


def test_own_user_is_a_false_alarm_of_2_alone(session: Session) -> None:
    """run_as_user as the own user: the record is right; 2.x compares the supervisor with it."""
    (verdict,) = session.of("own_user")
    (runner,) = session.runners("own_user")

    assert verdict.code == ("impersonation" if session.is_2 else "match")
    assert verdict.recorded[-1].pid == runner.pid


def test_false_alarm_in_the_log_leads_to_its_run(session: Session) -> None:
    """The very line that 2.x wrote is read, and both numbers are found; 3.x writes none."""
    home = session.recording.with_name("home")
    logs = [path.read_text() for path in home.rglob("dag_id=case_own_user/**/attempt=1.log")]
    lines = [line for log in logs for line in log.splitlines() if "Recorded pid" in line]
    assert logs
    assert bool(lines) is session.is_2
    if not lines:
        return

    told = json.loads(
        subprocess.run(
            [PIDTRAIL, "explain", session.recording, "--message", lines[0], "--json"],
            capture_output=True,
            check=True,
        ).stdout
    )

    (message,) = told["messages"]
    (supervisor,), (runner,) = (number["seen"] for number in message["pids"])
    assert supervisor.startswith("the supervisor of case_own_user.t")
    assert runner.startswith("the runner of case_own_user.t")
    assert "false alarm" in message["comparison"]
    assert [one["code"] for one in told["report"]["verdicts"]] == ["impersonation"]


def test_a_script_in_the_place_of_sudo_did_not_run_the_task(session: Session) -> None:
    """3.x records the process that became the script; user code ran below, and that is told."""
    if session.is_2:
        return  # its sudo is called with more than a command to run
    (verdict,) = session.of("scripted_sudo")
    (runner,) = session.runners("scripted_sudo")
    (begin,) = session.noted("scripted_sudo")

    assert verdict.code == "match"
    assert (runner.pid, runner.start_ticks) == begin.identity
    assert [who.role for who in runner.chain[:3]] == ["runner", "sudo", "supervisor"]
    assert f"Recorded PID {runner.chain[1].pid} is sudo" in verdict.summary
    assert f"in process {runner.pid}" in verdict.summary


def test_every_verdict_names_its_evidence(session: Session) -> None:
    """A verdict rests on records that can be looked up."""
    assert all(verdict.evidence for verdict in session.verdicts)
