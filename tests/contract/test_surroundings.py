"""Where the agent itself stands: in a PID namespace of its own, or with few rights."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from pidtrail.errors import SourceUnavailable
from pidtrail.events import Exec, Exit, Fork, Observed, Signal
from pidtrail.sources import core, proc, selftest
from tests.contract.inside import tell_inside
from tests.contract.story import Told, own_pid_max
from tests.programs.build import program
from tests.programs.nobody import as_nobody

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]

NEW_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
CAPABILITIES = "-all,+cap_39,+cap_38"  # bpf and perfmon, by number for an older libcap-ng


def told_inside(prefix: Sequence[str], name: str, *arguments: str) -> Told:
    """Return the story, which must have been told."""
    told = tell_inside(prefix, name, *arguments)
    assert isinstance(told, Told), told
    return told


@pytest.mark.parametrize("depth", [1, 2])
def test_agent_in_its_own_namespace_speaks_its_numbers(depth: int) -> None:
    """In a container, also one within a container, all numbers are those seen in there."""
    told = told_inside(NEW_NAMESPACE * depth, "killed", "kill")
    victim, killer = told.said("victim"), told.said("killer")

    assert told.agent == 1
    assert victim["pid"] < 100
    birth = told.only(Fork, victim["pid"])
    assert (birth.ppid, birth.start_ticks) == (told.root, victim["start"])
    shot = told.only(Signal, victim["pid"])
    assert (shot.sender_pid, shot.sender_start_ticks) == (killer["pid"], killer["start"])
    assert told.only(Exit, victim["pid"]).wstatus == 9
    (root,) = [event for event in told.snapshot if isinstance(event, Observed)]
    assert (root.pid, root.ppid) == (told.root, 1)
    # All the numbers, from the outermost namespace to this one.
    assert root.ns_pids is not None
    assert len(root.ns_pids) >= depth + 1
    assert root.ns_pids[-1] == told.root


@pytest.mark.skipif(not own_pid_max(), reason="kernel.pid_max is the whole host's before 6.14")
def test_numbers_that_wrap_under_the_agent() -> None:
    """The agent's own numbers come round several times; no two processes are one."""
    count = 800
    few_numbers = ("sh", "-c", 'echo 450 >/proc/sys/kernel/pid_max && exec "$@"', "sh")

    told = told_inside((*NEW_NAMESPACE, *few_numbers), "storm", str(count), "1")

    births = [event for event in told.events if isinstance(event, Fork)]
    assert len(births) == count
    assert len({event.pid for event in births}) < 450
    assert len({(event.pid, event.start_ns) for event in births}) == count


def test_nested_numbers_seen_from_inside() -> None:
    """A namespace below the agent's has more numbers; the agent's own stays the pid."""
    told = told_inside(NEW_NAMESPACE, "nested_namespaces", "1")

    inner = told.all_said("level")[1]
    seen_here = [int(number) for number in inner["numbers"].split()]
    birth = told.only(Fork, seen_here[0])
    assert birth.ns_pids is not None
    assert birth.ns_pids[-2:] == seen_here
    assert birth.pid_ns == inner["inode"]


def test_exec_from_a_thread_inside_a_namespace() -> None:
    """The old tid is a number of the outermost namespace, so inside another it is not told."""
    told = told_inside(NEW_NAMESPACE, "exec_from_thread")
    before = told.said("before")

    assert told.only(Exec, before["pid"]).old_tid is None
    assert told.life(before["pid"]) == ["fork", "exec", "exit", "reap"]
    assert told.only(Exit, before["pid"]).exit_code == 4


def test_two_capabilities_are_enough() -> None:
    """Uid 65534 with CAP_BPF and CAP_PERFMON and nothing else opens the source."""
    compiled()
    prefix = as_nobody(
        *("--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES),
        *("--bounding-set", CAPABILITIES, "--no-new-privs"),
    )

    told = told_inside(prefix, "double_fork")

    daemon = told.said("daemon")
    assert told.life(daemon["pid"]) == ["fork", "exit", "reap"]
    assert told.only(Fork, daemon["pid"]).ppid == told.said("middle")["pid"]


def test_without_capabilities_the_source_says_which_are_missing() -> None:
    """No rights, no start: the reason names what is missing."""
    compiled()

    refused = tell_inside(as_nobody(), "setsid")

    assert isinstance(refused, str)
    assert "CAP_BPF" in refused
    assert "CAP_PERFMON" in refused


def compiled() -> None:
    """Compile the programs, which another user may not."""
    for name in ("gate", "double_fork", "setsid"):
        program(name)


def test_self_test_refuses_nonsense() -> None:
    """What BPF reads of the agent must be what /proc says, in every part."""
    true: selftest.Identity = (os.getpid(), os.getppid(), proc.start_ticks(os.getpid()))
    selftest.compare_identity([true], true)

    nonsense: list[list[selftest.Identity]] = [
        [],
        [true, true],
        [(3_678_384, true[1], true[2])],
        [(true[0], true[1], 0)],
        [(None, None, None)],
    ]
    for false in nonsense:
        with pytest.raises(SourceUnavailable, match="self-test failed"):
            selftest.compare_identity(false, true)


class Confused(core.CoreSource):
    """A source that is told that it is another process than BPF sees."""

    def identity(self) -> selftest.Identity:
        """Return somebody else."""
        return 4_000_000, 1, 1


def test_source_that_refused_leaves_nothing_attached() -> None:
    """After a self-test that failed, nothing is left in the kernel."""
    source = Confused()

    with pytest.raises(SourceUnavailable, match="self-test failed"):
        source.open([os.getpid()])

    assert source.objects == []
    assert source.ring is None
