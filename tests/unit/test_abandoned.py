"""What a scheduler's executor leaves behind when the scheduler is killed."""

from __future__ import annotations

import signal

from pidtrail.reports.verdicts import render_verdicts
from tests.unit.example_stories import three
from tests.unit.story import Airflow2, Airflow3, ref


def test_workers_of_a_killed_scheduler_are_named() -> None:
    """Those that were busy when it was killed and those that were not."""
    story = three().worker("scheduler", "worker2").exit("scheduler", signal.SIGKILL).wait(20)
    story.exit("runner").idle("worker")

    (left,) = story.judge().abandoned

    assert left.scheduler.pid == story.pids["scheduler"]
    assert [process.pid for process in left.processes] == [
        story.pids["worker"],
        story.pids["worker2"],
    ]
    assert {process.role for process in left.processes} == {"executor_worker"}
    assert left.alive == [process.pid for process in left.processes]
    assert "was ended by SIGKILL" in left.summary
    assert "all of them still lived" in left.summary
    assert f"left behind: {left.summary}" in render_verdicts(story.judge())


def test_who_was_ended_later_was_left_behind_all_the_same() -> None:
    """A recording that goes on until somebody cleans up tells who had to be cleaned up."""
    story = Airflow3().worker("scheduler", "worker2").exit("scheduler", signal.SIGKILL).wait(60)
    story.exit("worker", signal.SIGTERM)

    (left,) = story.judge().abandoned

    assert len(left.processes) == 2
    assert left.alive == [story.pids["worker2"]]
    assert f"At the end of what was seen {story.pids['worker2']} still lived" in left.summary


def test_the_process_that_holds_the_queues_of_2_is_left_too() -> None:
    """It never says its name: the scheduler bears it while it forks it."""
    story = Airflow2().title("scheduler", "airflow executor -- LocalExecutor")
    story.fork("scheduler", "manager").title("scheduler", "/usr/bin/airflow scheduler")
    story.fork("scheduler", "other").exit("scheduler", signal.SIGKILL)

    (left,) = story.judge().abandoned

    roles = {process.pid: process.role for process in left.processes}
    assert roles == {
        story.pids["worker"]: "executor_worker",
        story.pids["manager"]: "executor_manager",
    }


def test_workers_that_end_with_their_scheduler_are_not_left() -> None:
    """An ordinary stop waits for the workers; a stop of the whole unit takes a moment."""
    story = Airflow3().worker("scheduler", "worker2").exit("worker").wait(1).exit("scheduler")
    story.wait(2).exit("worker2", signal.SIGTERM)

    assert story.judge().abandoned == []


def test_workers_of_a_living_scheduler_are_not_left() -> None:
    """Nor what became of another scheduler's."""
    story = Airflow3().root("other", "/usr/bin/airflow", "scheduler").exit("other")

    assert story.judge().abandoned == []


def test_a_task_of_a_killed_scheduler_is_not_of_its_executor() -> None:
    """Runners and supervisors end by themselves: the verdicts of their attempts tell of them."""
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1")
    story.exit("scheduler", signal.SIGKILL).exit("worker", signal.SIGKILL)

    assert story.judge().abandoned == []
