"""Who ended a task in a container: its runtime, its init, or the end of its first process."""

from __future__ import annotations

import signal
from typing import Self

import pytest

from pidtrail.verdict.model import KilledBy
from tests.unit.story import LOG, Story, ref, uuid

SI_KERNEL = 0x80
TASK = ref(1, uuid(1))


class Contained(Story):
    """A supervisor and its runner in a PID namespace of their own, traced from its process 1 on."""

    def traced_from_init(self) -> Self:
        """Find the namespace's process 1, which has a worker."""
        self.root("dumb-init", pid=600, ns_pids=[600, 1]).exec("dumb-init", "/usr/bin/dumb-init")
        return self.fork("dumb-init", "worker", 607, [607, 7]).run()

    def traced_from_worker(self, number: int = 7) -> Self:
        """Find the worker alone, whose parent is process 1 of ours."""
        return self.root("worker", pid=607, ns_pids=[607, number]).run()

    def run(self) -> Self:
        """Let the worker run a task."""
        self.title("worker", f"airflow worker -- LocalExecutor: {TASK.ti_id}")
        self.log("worker", LOG.format(1))
        self.fork("worker", "runner", 608, [608, 8]).title(
            "runner", f"airflow worker -- {TASK.ti_id}"
        )
        return self.report(TASK, "running", 8)

    def killed(self, name: str) -> Self:
        """Let the kernel kill a process for the end of the namespace."""
        self.signal(signal.SIGKILL, name, None, SI_KERNEL)
        return self.exit(name, signal.SIGKILL)

    def by(self, role: str = "runner") -> KilledBy:
        """Return how a process of the verdict ended."""
        (found,) = [p.killed_by for p in self.verdict().processes if p.role == role]
        assert found is not None
        return found


def test_end_of_the_namespace_names_who_ended_its_first_process() -> None:
    """The runtime kills process 1 alone; the kernel kills the others, and is not the reason."""
    story = Contained().traced_from_init().outside(signal.SIGKILL, "dumb-init", "runc", 0)
    story.exit("dumb-init", signal.SIGKILL).killed("runner")

    why = (
        "process 1 of its PID namespace, the container init, dumb-init 600, was ended by "
        "SIGKILL from the container runtime, runc 1"
    )
    assert story.by() == KilledBy("signal", signal.SIGKILL, None, why)
    assert f"608 was sent SIGKILL by the kernel: {why}." in story.verdict().summary


def test_first_process_that_was_asked_to_end_is_told_with_who_asked() -> None:
    """An init that passed SIGTERM on and exited leaves the rest to the kernel."""
    story = Contained().traced_from_init().outside(signal.SIGTERM, "dumb-init", "crun", 0)
    story.exit("dumb-init", 143 << 8).killed("runner")

    assert (story.by().why or "").endswith(
        "exited with 143 after SIGTERM from the container runtime, crun 1"
    )


def test_first_process_that_exited_by_itself_blames_nobody() -> None:
    """Without a signal its end is all that there is to say."""
    story = Contained().traced_from_init().exit("dumb-init", 1 << 8).killed("runner")

    assert (story.by().why or "").endswith("dumb-init 600, exited with 1")


def test_first_process_that_ran_out_of_memory_is_told_as_such() -> None:
    """The limit of a container may hit its first process."""
    story = Contained().traced_from_init().oom("dumb-init")
    story.killed("dumb-init").killed("runner")

    assert (story.by().why or "").endswith("was ended by SIGKILL for want of memory")


def test_namespaces_end_from_the_outer_one_on() -> None:
    """A container in a node that is one: the node's process 1 takes the inner one with it."""
    story = Contained().root("node", pid=500, ns_pids=[500, 1]).exec("node", "/sbin/init")
    story.fork("node", "sh", 600, [600, 100, 1])
    story.fork("sh", "worker", 607, [607, 107, 7]).run()
    story.outside(signal.SIGKILL, "node", "runc", 0).exit("node", signal.SIGKILL)
    story.killed("sh").killed("runner")

    assert (story.by().why or "").endswith(
        "was ended by SIGKILL from the kernel, for process 1 of its PID namespace, the container "
        "init, init 500, was ended by SIGKILL from the container runtime, runc 1"
    )


def test_sigkill_of_the_kernel_before_the_first_process_ended_is_not_its_doing() -> None:
    """The near miss: process 1 lives, and ends later."""
    story = Contained().traced_from_init().killed("runner").exit("dumb-init", 0)

    assert story.by().why is None
    assert "process 1" not in story.verdict().summary


def test_sigkill_of_the_kernel_after_the_first_process_was_collected_is_not_its_doing() -> None:
    """Whoever is in the namespace is dead by then, so this one was in another."""
    story = Contained().traced_from_init().exit("dumb-init", 0).reap("dumb-init", 1000)

    assert story.killed("runner").by().why is None


def test_first_process_that_was_not_traced_is_said_to_be_unknown() -> None:
    """What pidtrail cannot see it does not claim, but says what the kernel does so for."""
    story = Contained().traced_from_worker().killed("runner")

    assert story.by() == KilledBy("signal", signal.SIGKILL)
    assert "as it does to all in a PID namespace whose process 1 ends" in story.verdict().summary


def test_init_is_known_by_its_number_whatever_its_user() -> None:
    """Airflow's image runs dumb-init as user 50000; its number is the kernel's word."""
    story = Contained().traced_from_init().signal(signal.SIGTERM, "runner", "dumb-init")
    story.exit("runner", signal.SIGTERM)

    by = story.by().sender
    assert by is not None
    assert (by.pid, by.role) == (600, "container_init")
    assert "by the container init, dumb-init 600" in story.verdict().summary


@pytest.mark.parametrize(
    ("comm", "role"), [("dumb-init", "container_init"), ("bash", None), ("systemd", None)]
)
def test_init_outside_of_the_trace_is_known_as_the_parent_of_who_is_traced(
    comm: str, role: str | None
) -> None:
    """`trace --airflow` finds the scheduler below dumb-init, and not dumb-init."""
    story = Contained().traced_from_worker().outside(signal.SIGTERM, "runner", comm, 50_000)

    by = story.exit("runner", signal.SIGTERM).by().sender
    assert by is not None
    assert by.role == role


def test_user_who_calls_a_process_dumb_init_is_not_taken_for_one() -> None:
    """It is not the parent of who was traced first."""
    story = Contained().traced_from_worker()
    story.root("other", "/bin/sh", pid=4000)
    story.signal(signal.SIGTERM, "runner", "other").exit("runner", signal.SIGTERM)

    by = story.by().sender
    assert by is not None
    assert by.role == "other"
