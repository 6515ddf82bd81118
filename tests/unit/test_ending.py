"""Who ended a process: `killed_by` of a verdict."""

from __future__ import annotations

import signal

from pidtrail.verdict.model import KilledBy
from tests.unit.story import Airflow3, ref, uuid

SI_KERNEL = 0x80
SEGV_MAPERR = 1


def running() -> Airflow3:
    """A 3.x story in which a runner is at work, and a shell stands by."""
    story = Airflow3().root("shell", "/bin/bash")
    return story.run("worker", "runner", ref(1, uuid(1)))


def killed(story: Airflow3) -> KilledBy | None:
    """Return how the runner of a story ended."""
    return next(p.killed_by for p in story.verdict().processes if p.role == "runner")


def test_the_sender_of_a_fatal_signal_is_named() -> None:
    """SIGKILL from a shell names that shell."""
    story = running().signal(signal.SIGKILL, "runner", "shell").exit("runner", signal.SIGKILL)

    found = killed(story)

    assert found is not None
    assert found.sender is not None
    assert (found.kind, found.sig, found.sender.pid, found.sender.comm) == (
        "signal",
        signal.SIGKILL,
        story.pids["shell"],
        "shell",
    )


def test_a_sender_has_its_role() -> None:
    """SIGTERM from Airflow's own supervisor is told apart from a person's."""
    story = running().signal(signal.SIGTERM, "runner", "worker").exit("runner", signal.SIGTERM)

    found = killed(story)

    assert found is not None
    assert found.sender is not None
    assert found.sender.role == "supervisor"


def test_an_oom_victim_was_killed_by_the_kernel_for_memory() -> None:
    """mark_victim before the SIGKILL makes it oom, not merely SIGKILL."""
    story = running().oom("runner").signal(signal.SIGKILL, "runner", None, SI_KERNEL)
    story.exit("runner", signal.SIGKILL)

    assert killed(story) == KilledBy("oom", signal.SIGKILL)


def test_sigkill_from_the_kernel_without_a_victim_is_not_called_oom() -> None:
    """SIGKILL alone is no evidence of memory."""
    story = running().signal(signal.SIGKILL, "runner", None, SI_KERNEL)
    story.exit("runner", signal.SIGKILL)

    assert killed(story) == KilledBy("signal", signal.SIGKILL)


def test_a_fault_is_a_processs_own_doing() -> None:
    """A SIGSEGV that the kernel raised for an access of the process itself."""
    story = running().signal(signal.SIGSEGV, "runner", None, SEGV_MAPERR)
    story.exit("runner", signal.SIGSEGV | 0x80)

    assert killed(story) == KilledBy("self", signal.SIGSEGV)


def test_a_segv_sent_by_another_is_not_its_own_doing() -> None:
    """`kill -SEGV` from a shell is a signal like any other."""
    story = running().signal(signal.SIGSEGV, "runner", "shell").exit("runner", signal.SIGSEGV)

    found = killed(story)

    assert found is not None
    assert found.kind == "signal"


def test_abort_is_a_processs_own_doing() -> None:
    """abort() sends SIGABRT to oneself."""
    story = running().signal(signal.SIGABRT, "runner", "runner", -6)
    story.exit("runner", signal.SIGABRT)

    assert killed(story) == KilledBy("self", signal.SIGABRT)


def test_an_exit_code_is_an_exit() -> None:
    """Nobody killed who called exit."""
    assert killed(running().exit("runner", 1 << 8)) == KilledBy("exit")


def test_a_handled_sigterm_is_remembered_with_the_exit() -> None:
    """Who handles SIGTERM and exits with 1 still has somebody who asked for it."""
    story = running().signal(signal.SIGTERM, "runner", "worker").exit("runner", 1 << 8)

    found = killed(story)

    assert found is not None
    assert found.sender is not None
    assert (found.kind, found.sig, found.sender.pid) == (
        "exit",
        signal.SIGTERM,
        story.pids["worker"],
    )


def test_a_signal_after_the_end_killed_nobody() -> None:
    """A record that comes later than the exit does not explain it."""
    story = running().exit("runner", 1 << 8).signal(signal.SIGTERM, "runner", "shell")

    assert killed(story) == KilledBy("exit")


def test_who_lives_was_killed_by_nobody() -> None:
    """Unknown stays null while the process runs."""
    assert killed(running()) is None


def test_a_core_dump_is_told_of_the_runner() -> None:
    """Bit 7 of the wait status is in the process and in the sentence."""
    story = running().signal(signal.SIGABRT, "runner", "runner")
    verdict = story.exit("runner", signal.SIGABRT | 0x80).verdict()

    assert [p.core_dumped for p in verdict.processes if p.role == "runner"] == [True]
    assert "was ended by SIGABRT and dumped core" in verdict.summary


def test_an_end_without_core_dump_says_nothing_of_one() -> None:
    """The same signal without bit 7."""
    story = running().signal(signal.SIGABRT, "runner", "runner")
    verdict = story.exit("runner", signal.SIGABRT).verdict()

    assert [p.core_dumped for p in verdict.processes if p.role == "runner"] == [False]
    assert "core" not in verdict.summary


def test_a_child_that_dumped_core_is_named() -> None:
    """The task went on, and its child's crash is told with the number to look for."""
    story = running().fork("runner", "tool").exec("tool", "/usr/bin/convert")
    story.signal(signal.SIGSEGV, "tool", None, SEGV_MAPERR).exit("tool", signal.SIGSEGV | 0x80)
    verdict = story.exit("runner").verdict()

    words = f"Its child {story.pids['tool']} (convert) was ended by SIGSEGV and dumped core."
    assert words in verdict.summary
    assert story.events[-2].seq in verdict.evidence


def test_a_child_that_crashed_without_core_is_not_named() -> None:
    """How children end is told of the processes alone."""
    story = running().fork("runner", "tool").exec("tool", "/usr/bin/convert")
    story.signal(signal.SIGSEGV, "tool", None, SEGV_MAPERR).exit("tool", signal.SIGSEGV)

    assert "Its child" not in story.exit("runner").verdict().summary
