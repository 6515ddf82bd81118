"""What is concluded where sudo was to start a task and did not, and what is only near it."""

from __future__ import annotations

import signal

from msgspec import structs

from tests.unit.example_stories import FAILED, REEXEC, three
from tests.unit.story import FULL, LOG, Airflow2, Airflow3, at, ref, uuid

TASK = ("tasks", "run", "sales", "load", "manual__1", "--job-id", "7", "--raw")
SUDO = ("sudo", "-E", "-H", "-u", "etl")
SUPERVISES = (
    "airflow task supervisor: ['airflow', 'tasks', 'run', 'sales', 'load', 'manual__1', '--local']"
)


def refused2() -> Airflow2:
    """A sudo of 2.x that has ended with 1."""
    story = Airflow2().fork("worker", "supervisor1").title("supervisor1", SUPERVISES)
    story.log("supervisor1", LOG.format(1)).report(ref(), "running", None)
    story.fork("supervisor1", "runner1").exec("runner1", *SUDO, "airflow", *TASK)
    return story.exit("runner1", FAILED).report(ref(), "running", None)


def refused3(state: str = "failed") -> Airflow3:
    """A sudo of 3.x that has ended with 1, and was recorded."""
    story = three().exec("runner", *SUDO, *REEXEC)
    return story.exit("runner", FAILED).report(ref(1, uuid(1)), state, "runner")


def test_sudo_of_2_that_started_nothing_is_an_aborted_start() -> None:
    """The row has no PID and goes on saying running; nothing ran the task."""
    story = refused2()
    verdict = story.verdict()

    assert (verdict.code, verdict.confidence) == ("aborted-start", "proved")
    assert (
        f"No user code of sales.load try 1 ran: sudo ({story.pids['runner1']}), which was to run "
        "it as user etl, exited with 1 without starting anything; no PID is recorded, and the row "
        "says running."
    ) in verdict.summary
    assert any("why sudo did not start it" in unknown for unknown in verdict.unknowns)


def test_sudo_of_3_that_started_nothing_is_an_aborted_start() -> None:
    """The recorded process is that sudo, so that the number is right and the run is none."""
    story = refused3()
    verdict = story.verdict()

    assert verdict.code == "aborted-start"
    assert f"recorded PID {story.pids['runner']} is that sudo" in verdict.summary


def test_a_failed_task_below_sudo_is_no_aborted_start() -> None:
    """sudo exits as its command does."""
    story = three().exec("runner", *SUDO, *REEXEC)
    story.fork("runner", "python").exec("python", *REEXEC).exit("python", FAILED)
    story.exit("runner", FAILED).report(ref(1, uuid(1)), "failed", "runner")

    assert story.verdict().code == "match"


def test_mail_that_sudo_sends_is_no_start_of_the_task() -> None:
    """What sudo tells an administrator of, it tells by a program (mail_badpass)."""
    story = three().exec("runner", *SUDO, *REEXEC)
    story.fork("runner", "mail").exec("mail", "/usr/sbin/sendmail", "-t").exit("mail")
    story.exit("runner", FAILED).report(ref(1, uuid(1)), "failed", "runner")

    assert story.verdict().code == "aborted-start"


def test_sudo_that_still_asks_has_not_refused() -> None:
    """It lives: nothing is known of its end."""
    story = three().exec("runner", *SUDO, *REEXEC)

    assert story.verdict().code == "match"


def test_sudo_that_was_killed_started_nothing_either() -> None:
    """At a prompt, say; the sentence names the signal."""
    story = three().root("shell", "/bin/sh").exec("runner", *SUDO, *REEXEC)
    story.signal(signal.SIGKILL, "runner", "shell").exit("runner", signal.SIGKILL)
    verdict = story.report(ref(1, uuid(1)), "failed", "runner").verdict()

    assert verdict.code == "aborted-start"
    assert "was ended by SIGKILL without starting anything" in verdict.summary


def test_without_arguments_nothing_is_said_of_sudo() -> None:
    """Where the source does not tell them, sudo's command may have run unseen."""
    blind = structs.replace(FULL, has_argv=False)

    assert refused2().judge(blind).verdicts[0].code == "died-unrecorded"


def test_retry_after_a_refusal_says_that_nothing_had_run() -> None:
    """The code is what came of it, the sentence has the reason."""
    story = refused3("up_for_retry")
    story.worker("scheduler", "worker2").run("worker2", "second", ref(2, uuid(2)))
    verdict = story.exit("second").report(ref(2, uuid(2)), "success", "second").verdict(1)

    assert verdict.code == "retry"
    assert "No user code ran: sudo (" in verdict.summary


def errand(*words: str, status: int = FAILED) -> Airflow2:
    """A supervisor of 2.x whose sudo has run an errand, and no runner."""
    story = Airflow2().fork("worker", "supervisor1").title("supervisor1", SUPERVISES)
    story.fork("supervisor1", "sudo").exec("sudo", "sudo", *words).exit("sudo", status)
    story.exit("supervisor1", FAILED)
    return story.report(ref(), "failed", None, end_date=at(story.now_ns))


def test_settings_that_could_not_be_given_away_are_told() -> None:
    """2.x does that before it starts anything: `sudo chown USER FILE`."""
    story = errand("chown", "etl", "/tmp/settings")
    verdict = story.verdict()

    assert verdict.code == "aborted-start"
    assert f"`sudo chown` (process {story.pids['sudo']})" in verdict.summary
    assert f"supervisor {story.pids['supervisor1']}" in verdict.summary
    assert "user etl, exited with 1" in verdict.summary


def test_an_errand_that_succeeded_explains_nothing() -> None:
    """Given away, and no process all the same: not determined."""
    assert errand("chown", "etl", "/tmp/settings", status=0).verdict().code == "undetermined"


def test_an_errand_of_another_kind_explains_nothing() -> None:
    """The removal of settings comes after the task."""
    assert errand("rm", "/tmp/settings").verdict().code == "undetermined"


def test_an_errand_of_the_next_try_is_not_of_this_one() -> None:
    """Its supervisor started after this try's end."""
    story = Airflow2().report(ref(), "failed", None, end_date=at(100_100_000_000)).wait(5)
    story.fork("worker", "supervisor1").title("supervisor1", SUPERVISES)
    story.fork("supervisor1", "sudo").exec("sudo", "sudo", "chown", "etl", "/tmp/x")
    story.exit("sudo", FAILED)

    assert story.verdict().code == "undetermined"
