"""Rules about another level of the chain: what `impersonation` and its like are not."""

from __future__ import annotations

import signal

import pytest

from tests.unit.example_stories import FAILED, REEXEC, sudo2, sudo3, three
from tests.unit.story import Airflow2, Story, ref, uuid


def test_recorded_sudo_of_3_is_no_other_process_than_was_started() -> None:
    """3.x records who becomes sudo by exec; the user code is its child."""
    story = sudo3()

    verdict = story.verdict()

    assert (verdict.code, verdict.outcome) == ("impersonation", "explained")
    assert f"in process {story.pids['python']}" in verdict.summary


def test_sudo_that_executes_directly_is_a_match() -> None:
    """Where sudo needs no close function the recorded process itself runs the user code."""
    story = three().exec("runner", "/usr/bin/sudo", "-u", "etl", *REEXEC)
    story.exec("runner", *REEXEC).exit("runner").report(ref(1, uuid(1)), "success", "runner")

    assert story.verdict().code == "match"


def test_sudo_that_the_user_code_calls_is_no_impersonation() -> None:
    """Below the runner anybody may call sudo."""
    story = three().fork("runner", "sudo").exec("sudo", "/usr/bin/sudo", "ls").exit("sudo")
    story.exit("runner").report(ref(1, uuid(1)), "success", "runner")

    assert story.verdict().code == "match"


@pytest.mark.parametrize(("levels", "alarm"), [(1, False), (2, True)])
def test_the_number_of_sudo_processes_decides_about_the_alarm(levels: int, alarm: bool) -> None:
    """With a pty sudo adds a monitor: the parent of the recorded process is not the first sudo."""
    verdict = sudo2(levels).verdict()

    assert verdict.code == "impersonation"
    assert ("false alarm" in verdict.summary) is alarm


def test_a_runner_of_a_new_interpreter_is_a_match() -> None:
    """With execute_tasks_new_python_interpreter the supervisor is exec'ed too: no run_as_user."""
    words = ("/usr/bin/airflow", "tasks", "run", "sales", "load", "manual__1")
    story = Airflow2().fork("worker", "supervisor").exec("supervisor", *words, "--local")
    story.fork("supervisor", "runner").exec("runner", *words, "--job-id", "7", "--raw")
    story.report(ref(), "running", "runner").exit("runner").report(ref(), "success", "runner")

    assert [verdict.code for verdict in story.judge().verdicts] == ["match"]


def test_an_errand_of_the_supervisor_is_no_runner() -> None:
    """2.x removes the configuration of a run_as_user task with sudo, beside its runner."""
    story = Airflow2().start("1", 7, run_as_own_user=True).report(ref(), "running", "runner1")
    story.wait(9).exit("runner1").fork("supervisor1", "sudo").exec("sudo", "sudo", "rm", "/tmp/x")
    story.exit("sudo").report(ref(), "success", "runner1")

    verdict = story.verdict()

    assert verdict.code == "impersonation"
    assert [p.pid for p in verdict.processes if p.role == "runner"] == [story.pids["runner1"]]


def test_a_false_alarm_that_killed_is_told() -> None:
    """Up to 2.10.0 the supervisor ends its runner over it."""
    story = Airflow2().start("1", 7, run_as_own_user=True).report(ref(), "running", "runner1")
    story.signal(signal.SIGTERM, "runner1", "supervisor1").exit("runner1", FAILED)

    assert "SIGTERM came from that supervisor" in story.verdict().summary


def test_a_retry_of_an_impersonated_task_is_a_retry() -> None:
    """What superseded an attempt says more than the false alarm on it."""
    story = Airflow2().start("1", 7, run_as_own_user=True).report(ref(), "running", "runner1")
    story.wait(10).exit("runner1", FAILED).report(ref(), "up_for_retry", "runner1")
    story.start("2", 8, log=2).report(ref(2), "running", "runner2").exit("runner2")

    assert story.verdict(1).code == "retry"


def recorded_after(story: Story, name: str) -> str:
    """Return the code after a process was put on record."""
    return story.report(ref(1, uuid(1)), "running", name).exit("runner").judge().verdicts[0].code


def test_a_number_of_another_chain_is_not_below_the_runner() -> None:
    """A process beside the runner is neither its ancestor nor its child."""
    story = three().fork("scheduler", "other").exec("other", "/bin/sh")

    assert recorded_after(story, "other") not in {"ancestor-recorded", "descendant-observed"}


def test_a_grandchild_is_below_the_runner() -> None:
    """The chain may be of any length."""
    story = three().fork("runner", "bash").fork("bash", "sleep")

    assert recorded_after(story, "sleep") == "descendant-observed"
