"""
For every verdict code a story that fires it: for tests of the rules, and for docs/verdicts.md.

Each function is named after its code; it returns the story and the try that the
verdict is about.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from tests.unit.story import SECOND, Airflow2, Airflow3, Story, at, ref, uuid

FAILED = 1 << 8
REEXEC = (
    "/usr/bin/python3",
    "-c",
    "from airflow.sdk.execution_time.task_runner import main; main()",
)

Example = tuple[Story, int | None]


def three(try_number: int = 1) -> Airflow3:
    """A 3.x story in which the worker runs one attempt that was recorded."""
    return Airflow3().run("worker", "runner", ref(try_number, uuid(try_number)))


def match() -> Example:
    """An ordinary run."""
    return three().exit("runner").report(ref(1, uuid(1)), "success", "runner"), 1


def match_via_namespace() -> Example:
    """A run in a container, which counts its processes from 1."""
    story = Airflow3().title("worker", f"airflow worker -- LocalExecutor: {uuid(1)}")
    story.fork("worker", "runner", ns_pids=[1002, 30])
    story.title("runner", f"airflow worker -- {uuid(1)}")
    story.report(ref(1, uuid(1)), "running", 30, hostname="3f1c5a9e0b7d").exit("runner")
    return story, 1


def retry() -> Example:
    """The first try fails, the second runs."""
    story = three().report(ref(1, uuid(1)), "up_for_retry", "runner").exit("runner", FAILED)
    story.idle("worker").run("worker", "second", ref(2, uuid(2)))
    return story.exit("second").report(ref(2, uuid(2)), "success", "second"), 1


def clear() -> Example:
    """A success is cleared and runs again."""
    story = three().report(ref(1, uuid(1)), "success", "runner").exit("runner").idle("worker")
    return story.run("worker", "second", ref(2, uuid(2))), 1


def reschedule() -> Example:
    """A sensor pokes twice."""
    story = three().report(ref(1, uuid(1)), "up_for_reschedule", "runner").exit("runner")
    story.idle("worker").report(ref(1, uuid(1)), "scheduled", "runner")
    story.run("worker", "second", ref(1, uuid(1))).exit("second")
    return story.report(ref(1, uuid(1)), "success", "second"), 1


def deferral() -> Example:
    """A task defers itself and is resumed."""
    story = three().report(ref(1, uuid(1)), "deferred", "runner").exit("runner").idle("worker")
    return story.run("worker", "second", ref(1, uuid(1))).exit("second"), 1


def other_scheduler(story: Airflow3) -> Airflow3:
    """Start the scheduler anew, with a worker of its own."""
    story.wait(6).root("other", "/usr/bin/airflow", "scheduler").worker("other", "worker2")
    return story


def orphan_reset() -> Example:
    """A restarted scheduler runs a task again whose process still lives."""
    story = other_scheduler(three().exit("scheduler", signal.SIGKILL))
    story.run("worker2", "second", ref(2, uuid(2))).wait(9).exit("runner").exit("second")
    return story, 1


def heartbeat_timeout() -> Example:
    """A supervisor is killed; its runner goes on unheard until Airflow gives it up."""
    story = three().exit("worker", signal.SIGKILL).wait(300)
    story.fact(ref(1), "log", "heartbeat timeout")
    story.report(ref(1, uuid(1)), "up_for_retry", "runner").worker("scheduler", "worker2")
    story.run("worker2", "second", ref(2, uuid(2))).wait(3).exit("runner", 126 << 8)
    return story.exit("second"), 1


def worker_restart() -> Example:
    """All of a service dies and is started again."""
    story = three()
    for name in ("runner", "worker", "scheduler"):
        story.exit(name, signal.SIGKILL)
    return other_scheduler(story).run("worker2", "second", ref(2, uuid(2))).exit("second"), 1


def stale_between_tries() -> Example:
    """The row of the try to come shows the process of the try before."""
    story = three().exit("runner", FAILED).report(ref(1, uuid(1)), "up_for_retry", "runner")
    return story.report(ref(2, uuid(2)), "queued", "runner"), 2


def not_recorded_yet() -> Example:
    """The runner of 2.x is at work and has not written its pid."""
    return Airflow2().start("1", 3).report(ref(), "running", None), 1


def died_unrecorded() -> Example:
    """The runner of 2.x is killed before it has written its pid."""
    story = Airflow2().start("1", 3).report(ref(), "running", None)
    return story.exit("runner1", signal.SIGKILL).report(ref(), "failed", None), 1


def tasks_test() -> Airflow2:
    """A task that is tried out by hand, in 2.x or 3.x."""
    story = Airflow2()
    return story.root("cli", "/usr/bin/airflow", "tasks", "test", "sales", "load", "manual__1")


def dags_test() -> Airflow2:
    """A DAG that is tried out by hand; its task fails once. Both tries are of one process."""
    story = Airflow2().root("cli", "/usr/bin/airflow", "dags", "test", "sales")
    story.report(ref(1), "running", "cli").report(ref(1), "up_for_retry", "cli")
    story.report(ref(2), "running", "cli").exit("cli")
    return story.report(ref(2), "success", "cli")


def unrecorded_test() -> Example:
    """A task is tried out by hand, and 2.x keeps no row of it."""
    return tasks_test().exit("cli"), None


def impersonation() -> Example:
    """2.x with run_as_user equal to the own user: the runner is exec'ed, and not by sudo."""
    story = Airflow2().start("1", 7, run_as_own_user=True).report(ref(), "running", "runner1")
    return story.wait(10).exit("runner1").report(ref(), "success", "runner1"), 1


def sudo3() -> Airflow3:
    """3.x with run_as_user: the recorded runner became sudo, which runs Airflow in a child."""
    story = three().exec("runner", "/usr/bin/sudo", "-E", "-H", "-u", "etl", *REEXEC)
    story.fork("runner", "python").exec("python", *REEXEC)
    story.title("python", f"airflow worker -- {uuid(1)}")
    return story.exit("python").exit("runner").report(ref(1, uuid(1)), "success", "runner")


def sudo2(levels: int) -> Airflow2:
    """2.x with run_as_user and sudo on so many levels; the python below it is recorded."""
    story = Airflow2().start("1", 7, sudo_levels=levels).report(ref(), "running", "python")
    return story.wait(10).exit("python").exit("runner1").report(ref(), "success", "python")


def ancestor_recorded() -> Example:
    """The supervisor is on record instead of its runner."""
    return Airflow2().start("1", 3).report(ref(), "running", "supervisor1").exit("runner1"), 1


def descendant_observed() -> Example:
    """A shell that the task started is on record instead of the runner."""
    story = Airflow2().start("1", 3).fork("runner1", "bash").exec("bash", "/bin/bash", "-c", "ls")
    return story.report(ref(), "running", "bash").exit("bash").exit("runner1"), 1


def concurrent_duplicate() -> Example:
    """A broker delivers a message twice; the process that was started first ends last."""
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1").wait(4)
    story.start("2", 4).report(ref(), "running", "runner2").wait(3).exit("runner2").wait(8)
    end = at(story.now_ns)
    return story.exit("runner1").report(ref(), "success", "runner2", end_date=end), 1


def refuse(story: Airflow3, worker: str, name: str) -> Airflow3:
    """Let a worker fork a runner whose start is refused."""
    story.title(worker, f"airflow worker -- LocalExecutor: {uuid(1)}").fork(worker, name).wait(0.1)
    story.signal(signal.SIGKILL, name, worker).exit(name, signal.SIGKILL)
    return story


def aborted_start() -> Example:
    """A second start of a running task instance is refused."""
    story = three().worker("scheduler", "worker2")
    refuse(story, "worker2", "refused").wait(5).exit("runner")
    return story.report(ref(1, uuid(1)), "success", "runner"), 1


def late_event(zombie_s: float) -> Airflow3:
    """A poke that stays a zombie; the row is queued when the executor tells of its end."""
    task = ref(1, uuid(1))
    story = three().exit("runner").report(task, "up_for_reschedule", "runner")
    story.wait(zombie_s).report(task, "queued", "runner")
    return story.reap("runner", int(zombie_s * SECOND)).idle("worker")


def stale_executor_event() -> Example:
    """The executor's late word on a poke fails the next one."""
    task = ref(1, uuid(1))
    story = late_event(5).wait(0.4)
    failed_at = at(story.now_ns)
    story.fact(task, "log", "state mismatch").run("worker", "second", task).wait(2)
    story.report(task, "failed", "second", end_date=failed_at)
    return story.exit("second"), 1


def orphaned_still_running() -> Example:
    """The scheduler is killed, its worker and the runner live on."""
    story = three().signal(signal.SIGKILL, "scheduler", None).exit("scheduler", signal.SIGKILL)
    return story.wait(20).exit("runner").report(ref(1, uuid(1)), "success", "runner"), 1


def pid_reused() -> Example:
    """The row says for ever that a process runs whose number is another's by now."""
    story = three().exit("runner", signal.SIGKILL).wait(60).fork("scheduler", "sshd", pid=1002)
    return story.report(ref(1, uuid(1)), "running", 1002), 1


def other_host() -> Example:
    """The task instance ran on another host."""
    return Airflow3().report(ref(1, uuid(1)), "running", 4711, hostname="worker-2.example"), 1


def never_seen() -> Example:
    """A row says that it runs here, and nothing ran here."""
    return Airflow3().report(ref(1, uuid(1)), "running", 4711), 1


def undetermined() -> Example:
    """A process, and a number that is nobody's."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).exit("runner")
    return story.report(ref(1, uuid(1)), "success", 4711), 1


EXAMPLES: Final[dict[str, Callable[[], Example]]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(match, match_via_namespace, retry, clear, reschedule, deferral, orphan_reset),
        *(heartbeat_timeout, worker_restart, stale_between_tries, not_recorded_yet),
        *(unrecorded_test, died_unrecorded, impersonation, ancestor_recorded, descendant_observed),
        *(concurrent_duplicate, aborted_start, stale_executor_event, orphaned_still_running),
        *(pid_reused, other_host, never_seen, undetermined),
    )
}
