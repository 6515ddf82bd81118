"""Celery workers: whose title can be believed, who is a root, what a restarted worker explains."""

from __future__ import annotations

import signal
from typing import Self

from pidtrail.airflow.facts import Role
from pidtrail.airflow.running import Running, without_copies
from pidtrail.attribution import Attribution
from pidtrail.events import Observed, TaskRef
from tests.unit.story import LOG, Story, ref, uuid

MAIN = "[celeryd: celery@vm:MainProcess] -active- (celery worker --queues default)"
ARGV = ("/usr/bin/python3", "/usr/bin/airflow", "celery", "worker")


class Celery3(Story):
    """A Celery worker of Airflow 3.3 with one pool process, which keeps the title of its last."""

    def __init__(self) -> None:
        super().__init__()
        self.worker("main", "pool")

    def worker(self, main: str, pool: str) -> Self:
        """Find a worker, and let it fork a pool process."""
        self.root(main, *ARGV).title(main, MAIN)
        return self.fork(main, pool).title(pool, "[celeryd: celery@vm:ForkPoolWorker-1]")

    def run(self, pool: str, runner: str, task: TaskRef) -> Self:
        """Let a pool process take a task instance, and Airflow record its runner."""
        self.title(pool, f"airflow supervisor: {task.ti_id}")
        self.log(pool, LOG.format(task.try_number)).fork(pool, runner)
        return self.title(runner, f"airflow worker -- {task.ti_id}").report(task, "running", runner)


def labels(story: Story, name: str) -> list[str | None]:
    """Return whom each record of a process is given to: the number in the id, or `log` alone."""
    attribution = Attribution()
    labelled = [attribution.label(event) for event in story.events]
    return [
        None if one.task is None else one.task.ti_id[-1] if one.task.ti_id else "log"
        for one in labelled
        if one.key is not None and one.key.pid == story.pids[name]
    ]


def test_a_pool_process_works_for_nothing_once_its_runner_has_ended() -> None:
    """Nobody takes the title back, and still the records that follow are not the task's."""
    story = Celery3().run("pool", "runner", ref(1, uuid(1))).exit("runner")
    story.signal(signal.SIGKILL, "pool", "main").exit("pool", signal.SIGKILL)

    # born, named, busy, its log; then killed while it was idle
    assert labels(story, "pool") == [None, None, "1", "1", None, None]


def test_a_pool_process_is_given_to_the_task_that_it_serves_now() -> None:
    """A new title is believed at once, whatever stood there before."""
    story = Celery3().run("pool", "runner", ref(1, uuid(1))).exit("runner")
    story.run("pool", "next", ref(2, uuid(2))).signal(signal.SIGTERM, "pool", None)

    assert labels(story, "pool")[-3:] == ["2", "2", "2"]


def test_a_refused_second_start_leaves_the_first_worker_its_task() -> None:
    """The end of another pool process's runner says nothing of this one."""
    story = Celery3().worker("main2", "pool2").run("pool", "runner", ref(1, uuid(1)))
    story.title("pool2", f"airflow supervisor: {uuid(1)}").fork("pool2", "loser").exit("loser", 9)
    story.signal(signal.SIGTERM, "pool", None).signal(signal.SIGTERM, "pool2", None)

    assert labels(story, "pool")[-1] == "1"
    assert labels(story, "pool2")[-1] is None


def found(story: Story, name: str) -> Observed:
    """Return what the first look at a process that shows a title is."""
    record = story.root(name, f"airflow supervisor: {uuid(1)}").events[-1]
    assert isinstance(record, Observed)
    return record


def test_a_title_that_was_found_is_not_believed() -> None:
    """A process found with a supervisor's title may have been idle for hours."""
    story = Story()
    found(story, "pool")
    story.signal(signal.SIGTERM, "pool", None).exit("pool", signal.SIGTERM)

    assert labels(story, "pool") == [None, None, None]


def test_a_title_that_was_found_is_believed_with_an_open_log() -> None:
    """The log that it holds open says that it is at work."""
    story = Story()
    found(story, "pool")
    story.log("pool", LOG.format(1)).signal(signal.SIGTERM, "pool", None)

    assert labels(story, "pool") == [None, "log", "log"]


def test_a_child_of_an_idle_pool_process_is_no_runner() -> None:
    """Whatever an idle pool process forks, found or seen to be idle, is not the old task's."""
    story = Celery3().run("pool", "runner", ref(1, uuid(1))).exit("runner")
    story.report(ref(1, uuid(1)), "success", "runner")
    story.fork("pool", "stray").exit("stray")
    found(story, "other")
    story.fork("other", "stray2").exit("stray2")

    runners = [one.pid for one in story.verdict().processes if one.role == "runner"]

    assert runners == [story.pids["runner"]]


def test_a_runner_that_never_named_itself_is_known_by_its_pool_process() -> None:
    """The first child of a pool process that just took a task is its runner."""
    story = Celery3()
    story.title("pool", f"airflow supervisor: {uuid(1)}").log("pool", LOG.format(1))
    story.fork("pool", "runner").report(ref(1, uuid(1)), "running", "runner")
    story.exit("runner", signal.SIGKILL)

    (runner,) = [one for one in story.verdict().processes if one.role == "runner"]

    assert (runner.pid, runner.identified_by) == (story.pids["runner"], "lineage")
    assert [who.role for who in runner.chain] == ["runner", "supervisor", "celery_worker"]


def test_an_id_that_waits_for_its_try_is_not_of_the_try_before() -> None:
    """A 3.x row has its next id at once and its next number later: a runner of it is the next's."""
    story = Celery3().run("pool", "runner", ref(1, uuid(1))).exit("runner", 256)
    story.report(ref(1, uuid(2)), "up_for_retry", "runner")
    story.report(ref(1, uuid(1)), "failed", "runner", table="task_instance_history")
    story.run("pool", "second", ref(2, uuid(2))).exit("second")
    # The message came twice, and the start was refused before the runner had a name.
    story.title("pool", f"airflow supervisor: {uuid(2)}").fork("pool", "loser")
    story.signal(signal.SIGKILL, "loser", "pool").exit("loser", signal.SIGKILL)
    story.report(ref(2, uuid(2)), "success", "second")

    first, second = story.judge().verdicts

    assert {one.pid for one in first.processes if one.role == "runner"} == {story.pids["runner"]}
    assert (first.code, second.code) == ("retry", "aborted-start")


def stopped() -> Celery3:
    """A worker is told to end, then its runner does, and some seconds later the worker."""
    story = Celery3().run("pool", "runner", ref(1, uuid(1)))
    story.signal(signal.SIGTERM, "main", None).wait(1).exit("runner", 256)
    return story.report(ref(1, uuid(1)), "up_for_retry", "runner").wait(7).exit("pool").exit("main")


def test_a_stopped_worker_and_another_one_after_it_are_a_worker_restart() -> None:
    """3.x collects the runner five seconds late, and the worker waits for that."""
    story = stopped().worker("main2", "pool2")
    story.run("pool2", "second", ref(2, uuid(2))).exit("second")

    verdict = story.verdict(1)

    assert (verdict.code, verdict.confidence) == ("worker-restart", "proved")
    assert "the celery worker that was started after it" in verdict.summary


def test_a_stopped_worker_and_a_retry_on_another_host_are_a_worker_restart() -> None:
    """The next try ran where we do not look: its row names the host, which is one link less."""
    story = stopped()
    story.report(ref(2, uuid(2)), "running", 77, hostname="worker-2")

    verdict = story.verdict(1)

    assert (verdict.code, verdict.confidence) == ("worker-restart", "strong")
    assert "host worker-2 ran try 2" in verdict.summary


def test_a_retry_on_another_host_alone_is_no_worker_restart() -> None:
    """A worker that lives on was not restarted, wherever the next try ran."""
    story = Celery3().run("pool", "runner", ref(1, uuid(1))).exit("runner", 256)
    story.report(ref(1, uuid(1)), "up_for_retry", "runner")
    story.report(ref(2, uuid(2)), "running", 77, hostname="worker-2")

    assert story.verdict(1).code == "retry"


def test_a_runner_outlives_its_celery_worker() -> None:
    """Pool processes die with the worker (PR_SET_PDEATHSIG of billiard), what they forked not."""
    story = Celery3().run("pool", "runner", ref(1, uuid(1)))
    story.exit("main", signal.SIGKILL).exit("pool", signal.SIGKILL).wait(5)
    story.exit("runner", 126 << 8, ppid=1)

    verdict = story.verdict()

    assert verdict.code == "orphaned-still-running"
    assert "celery worker" in verdict.summary


def test_copies_of_a_worker_are_left_out() -> None:
    """Pool processes before their first task show the title of the worker itself."""
    main = Running(10, 1, Role.CELERY_WORKER, "airflow")
    copy = Running(11, 10, Role.CELERY_WORKER, "airflow")
    pool = Running(12, 10, Role.EXECUTOR_WORKER, "airflow")
    other = Running(20, 1, Role.CELERY_WORKER, "airflow")

    listed = {process.pid: process for process in (main, copy, pool, other)}

    assert list(without_copies(listed)) == [10, 12, 20]


def test_a_pool_process_that_keeps_its_title_supervises_its_runner() -> None:
    """Before 3.3 a pool process shows `ForkPoolWorker-1` all the time."""
    story = Celery3().log("pool", LOG.format(1)).fork("pool", "runner")
    story.title("runner", f"airflow worker -- {uuid(1)}").report(
        ref(1, uuid(1)), "running", "runner"
    )
    story.signal(signal.SIGTERM, "runner", "pool").exit("runner", signal.SIGTERM)

    verdict = story.verdict()

    assert [process.role for process in verdict.processes] == ["supervisor", "runner"]
    assert "by its supervisor" in verdict.summary
    assert [who.role for who in verdict.processes[1].chain][1:] == ["supervisor", "celery_worker"]


def test_a_pool_process_supervises_nobody_elses_runner() -> None:
    """The near miss: another pool process of the same worker."""
    story = Celery3().fork("main", "pool2").title("pool2", "[celeryd: celery@vm:ForkPoolWorker-2]")
    story.log("pool", LOG.format(1)).fork("pool", "runner")
    story.title("runner", f"airflow worker -- {uuid(1)}").report(
        ref(1, uuid(1)), "running", "runner"
    )
    story.signal(signal.SIGTERM, "runner", "pool2").exit("runner", signal.SIGTERM)

    assert "which is not above it" in story.verdict().summary


def test_a_pool_process_that_went_down_is_called_one_thing() -> None:
    """It ends its runner, and then itself: one supervisor, not also an idle worker."""
    story = Celery3().log("pool", LOG.format(1)).fork("pool", "runner")
    story.title("runner", f"airflow worker -- {uuid(1)}")
    story.report(ref(1, uuid(1)), "running", "runner")
    story.signal(signal.SIGTERM, "runner", "pool").exit("runner", signal.SIGTERM)
    story.exit("pool").exit("main").wait(5).worker("main2", "pool2")
    summary = story.run("pool2", "second", ref(2, uuid(2))).verdict(1).summary

    assert f"together with its supervisor {story.pids['pool']}" in summary
    assert "executor worker" not in summary
