"""Rules about another level of the chain: what `impersonation` and its like are not."""

from __future__ import annotations

import signal

import pytest

from pidtrail.verdict.model import Verdict
from tests.unit.example_stories import FAILED, REEXEC, sudo2, sudo3, three
from tests.unit.story import Airflow2, Story, ref, uuid

NEW = ("/usr/bin/airflow", "tasks", "run", "sales", "load", "manual__1")


def roles(verdict: Verdict, story: Story) -> dict[str, str]:
    """Return the role of each process of an attempt, by its name in the story."""
    names = {pid: name for name, pid in story.pids.items()}
    return {names[process.pid]: process.role for process in verdict.processes if process.pid}


def test_recorded_sudo_of_3_is_no_other_process_than_was_started() -> None:
    """3.x records who becomes sudo by exec; the user code is its child."""
    story = sudo3()

    verdict = story.verdict()

    assert (verdict.code, verdict.outcome) == ("match", "match")
    assert f"Recorded PID {story.pids['runner']} is sudo" in verdict.summary
    assert f"in process {story.pids['python']}" in verdict.summary
    assert roles(verdict, story) == {"worker": "supervisor", "runner": "sudo", "python": "runner"}


@pytest.mark.parametrize("interpreter", [("/bin/sh",), ("/bin/bash", "-e")])
def test_a_script_in_the_place_of_sudo_is_sudo(interpreter: tuple[str, ...]) -> None:
    """Images without sudo have one; the process that ran user code is the one below it."""
    story = three().report(ref(1, uuid(1)), "running", "runner")
    story.exec("runner", *interpreter, "/opt/bin/sudo", "-E", "-H", "-u", "etl", *REEXEC)
    story.fork("runner", "python").exec("python", *REEXEC).exit("python").exit("runner")

    verdict = story.verdict()

    assert verdict.code == "match"
    assert f"Recorded PID {story.pids['runner']} is sudo" in verdict.summary
    assert f"in process {story.pids['python']}" in verdict.summary


def test_a_script_that_is_told_of_sudo_is_another() -> None:
    """Only what the interpreter executes counts, not a word behind it."""
    story = three().fork("runner", "cat").exec("cat", "/bin/cat", "/usr/bin/sudo").exit("cat")
    story.exit("runner").report(ref(1, uuid(1)), "success", "runner")

    assert roles(story.verdict(), story)["cat"] == "operator_child"


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


@pytest.mark.parametrize(("levels", "code"), [(1, "match"), (2, "impersonation")])
def test_the_number_of_sudo_processes_decides_about_the_alarm(levels: int, code: str) -> None:
    """With a pty sudo adds a monitor: the parent of the recorded process is not the first sudo."""
    verdict = sudo2(levels).verdict()

    assert verdict.code == code
    assert ("false alarm" in verdict.summary) is (code == "impersonation")


def test_recorded_process_below_sudo_is_the_runner_of_2() -> None:
    """Of sudo, its monitor and what runs below, the last is the one that runs the task."""
    story = sudo2(2)

    assert roles(story.verdict(), story) == {
        "supervisor1": "supervisor",
        "runner1": "sudo",
        "sudo": "sudo",
        "python": "runner",
    }


def test_sudo_that_executes_directly_is_a_false_alarm_of_2() -> None:
    """Without a process of sudo's own, 2.x compares the supervisor with the runner."""
    raw = (*NEW, "--job-id", "7", "--raw")
    story = Airflow2().start("1", 7, run_as_own_user=True)
    story.events.pop()
    story.exec("runner1", "/usr/bin/sudo", "-E", "-H", "-u", "etl", *raw)
    story.exec("runner1", "/usr/bin/python3", *raw)
    story.report(ref(), "running", "runner1").exit("runner1")

    verdict = story.verdict()

    assert verdict.code == "impersonation"
    assert "sudo executed it directly" in verdict.summary


def new_interpreter() -> Airflow2:
    """2.x with execute_tasks_new_python_interpreter, its supervisor an exec'ed program."""
    return Airflow2().fork("worker", "supervisor").exec("supervisor", *NEW, "--local")


def test_a_runner_of_a_new_interpreter_is_a_match() -> None:
    """With execute_tasks_new_python_interpreter the supervisor is exec'ed, its runner is not."""
    story = new_interpreter().fork("supervisor", "runner")
    story.title("runner", "airflow task runner: sales load manual__1 7")
    story.report(ref(), "running", "runner").exit("runner").report(ref(), "success", "runner")

    assert [verdict.code for verdict in story.judge().verdicts] == ["match"]


def test_an_exec_ed_runner_below_a_new_interpreter_is_of_another_user() -> None:
    """2.x executes its runner for run_as_user alone, whatever its supervisor is."""
    story = new_interpreter().fork("supervisor", "runner")
    story.exec("runner", *NEW, "--job-id", "7", "--raw").report(ref(), "running", "runner")
    story.exit("runner").report(ref(), "success", "runner")

    assert [verdict.code for verdict in story.judge().verdicts] == ["impersonation"]


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


def found(argv: tuple[str, ...]) -> Story:
    """A 2.x runner of which a poll of /proc found the command line, and nothing else."""
    story = Airflow2().start("1", 7)
    story.events.pop()
    story.seen("runner1", *argv)
    return story.report(ref(), "running", "runner1").exit("runner1")


def test_a_title_that_was_found_in_proc_is_not_an_exec_ed_runner() -> None:
    """A poll finds the title of a forked runner as its arguments, job id and all."""
    assert found(("airflow task runner: sales load manual__1 7",)).verdict().code == "match"


def test_an_exec_ed_runner_that_was_found_in_proc_is_of_another_user() -> None:
    """The near miss: the arguments of `tasks run --raw`, also if found by a poll."""
    argv = ("/usr/bin/python3", *NEW, "--job-id", "7", "--raw")

    assert found(argv).verdict().code == "impersonation"
