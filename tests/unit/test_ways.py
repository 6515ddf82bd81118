"""Tasks that are run by hand, or below a supervisor that is a program of its own."""

from __future__ import annotations

import pytest
from msgspec import structs

from pidtrail.reports.process import labels_of
from pidtrail.tree import grow
from tests.unit.example_stories import FAILED, dags_test, tasks_test, three
from tests.unit.story import LOG, Airflow2, Airflow3, ref, uuid

RUN = ("tasks", "run", "sales", "load", "manual__1")
BY_HAND = ("/usr/bin/python3", "/usr/bin/airflow", *RUN, "--local")


def by_hand() -> Airflow2:
    """A task that is run from a shell, as attempt 0: no scheduler had to do with it."""
    story = Airflow2().root("cli", *BY_HAND).log("cli", LOG.format(0))
    return story.fork("cli", "file").exec("file", "file", "-b", "/usr/bin/python3.11").exit("file")


def test_tasks_test_that_was_recorded_is_a_match() -> None:
    """3.x has a row as long as the command runs."""
    story = tasks_test().report(ref(0, uuid(1)), "running", "cli").exit("cli")

    (verdict,) = story.judge().verdicts

    assert verdict.code == "match"
    assert "`airflow tasks test` itself" in verdict.summary


def test_tasks_test_that_was_killed_is_said_to_have_no_record() -> None:
    """How it ended is told, and nobody is said to have failed to record it."""
    verdict = tasks_test().exit("cli", 9).verdict()

    assert verdict.code == "unrecorded-test"
    assert "SIGKILL" in verdict.summary


def test_a_runner_without_a_row_is_no_test() -> None:
    """Only the command line makes it one."""
    story = Airflow2().start("1", 3).exit("runner1")

    assert story.verdict().code == "undetermined"


@pytest.mark.parametrize("try_number", [1, 2])
def test_both_tries_of_dags_test_are_of_one_process(try_number: int) -> None:
    """The command runs all tries itself: nothing was superseded, nothing ran at once."""
    story = dags_test()

    verdict = story.verdict(try_number)

    assert verdict.code == "match"
    assert [process.pid for process in verdict.processes] == [story.pids["cli"]]
    assert verdict.pid_changed_in_kernel is False


def test_dags_test_has_no_attempt_but_those_of_its_rows() -> None:
    """The command line names the DAG alone; that is no attempt of a task."""
    assert [verdict.task for verdict in dags_test().judge().verdicts] == [ref(1), ref(2)]


def test_dags_test_without_rows_says_that_they_are_missing() -> None:
    """Without what Airflow recorded nobody knows which tasks it ran."""
    story = Airflow2().root("cli", "/usr/bin/airflow", "dags", "test", "sales").exit("cli")

    verdict = story.verdict()

    assert verdict.code == "undetermined"
    assert "sales.?" in verdict.summary
    assert "no row of this attempt was read" in verdict.summary


def test_a_run_before_with_the_same_number_is_not_of_dags_test() -> None:
    """A number is used again; one command makes one run, the last that has its number."""
    before = structs.replace(ref(1), run_id="manual__0")
    story = Airflow2().root("cli", "/usr/bin/airflow", "dags", "test", "sales")
    story.report(before, "success", "cli").report(ref(1), "running", "cli").exit("cli")
    story.report(ref(1), "success", "cli")

    codes = {verdict.task.run_id: verdict.code for verdict in story.judge().verdicts}

    assert codes == {"manual__0": "never-seen", "manual__1": "match"}


def test_what_an_interpreter_calls_at_its_start_is_no_runner() -> None:
    """An exec'ed supervisor imports Airflow, which calls file(1)."""
    story = by_hand().fork("cli", "runner")
    story.title("runner", "airflow task runner: sales load manual__1 7")
    story.report(ref(0), "running", "runner").exit("runner").report(ref(0), "success", "runner")

    verdict = story.verdict()

    assert verdict.code == "match"
    assert [p.pid for p in verdict.processes if p.role == "runner"] == [story.pids["runner"]]


def test_a_runner_that_died_before_its_title_is_one_all_the_same() -> None:
    """It never executed anything, as errands do."""
    story = by_hand().report(ref(0), "running", None).fork("cli", "runner")
    story.exit("runner", FAILED).report(ref(0), "failed", None)

    verdict = story.verdict()

    assert verdict.code == "died-unrecorded"
    assert [p.pid for p in verdict.processes if p.role == "runner"] == [story.pids["runner"]]


def test_a_task_in_another_language_is_a_runner() -> None:
    """3.3 starts it as a program that is told where its supervisor listens."""
    task = ref(1, uuid(1))
    story = three().exit("runner").report(task, "up_for_reschedule", "runner").idle("worker")
    story.title("worker", f"airflow worker -- LocalExecutor: {uuid(1)}").fork("worker", "java")
    story.exec("java", "/usr/bin/java", "-jar", "etl.jar", "--comm=127.0.0.1:4711")
    story.exit("java").report(task, "success", "java")

    verdict = story.verdict()

    assert verdict.code == "reschedule"
    assert [p.pid for p in verdict.processes if p.role == "runner"][-1] == story.pids["java"]


def role_of(story: Airflow3, name: str) -> str | None:
    """Return the role that the tree shows for a process."""
    labels = labels_of(grow(story.events))
    return next(str(label.role) for key, label in labels.items() if key.pid == story.pids[name])


def test_what_a_scheduler_forks_to_serve_logs_is_no_scheduler() -> None:
    """It shows its parent's title first, and then its own."""
    story = Airflow3().fork("scheduler", "logs")
    story.title("logs", "/usr/bin/python3 /usr/bin/airflow scheduler")
    story.title("logs", "airflow serve-logs")

    assert role_of(story, "logs") == "other"


def test_a_log_that_a_supervisor_opens_does_not_change_what_it_is() -> None:
    """A log says which attempt a process works for, not as what."""
    story = three().log("worker", LOG.format(1))

    assert role_of(story, "worker") == "supervisor"
