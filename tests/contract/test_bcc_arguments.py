"""
What the tracepoints' arguments alone tell: births, ends and reapings of every process, by number.

What else is known comes from /proc, and is right or unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.events import Exec, Exit, Fork, Observed, Reap, Title
from pidtrail.sources.bcc import BccSource
from pidtrail.sources.bcc_arguments import Arguments
from tests.contract.story import Story, Told, tell

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bcc,
    pytest.mark.needs_tracefs,
    pytest.mark.usefixtures("tracefs"),
]


class CountsThreads(Arguments):
    """As before 6.16, where the kernel does not say which thread is the last."""

    trusts_group_dead = False


@pytest.fixture(params=["told", "counted"])
def source(request: pytest.FixtureRequest) -> Iterator[BccSource]:
    """Return a source that is told of the last thread by the kernel, or counts threads."""
    view = Arguments if request.param == "told" else CountsThreads
    made = BccSource(structures=False, arguments=view)
    yield made
    made.close()


@pytest.mark.parametrize("transport", ["ring", "perf"])
def test_every_process_of_a_storm_is_told_once(transport: str) -> None:
    """Of three thousand, by either way, with the right parent and in order."""
    count = 3000
    source = BccSource(structures=False, transport=transport)
    told = told_whole(source, "storm", str(count), "2")

    kinds = Counter(type(event) for event in told.events)
    assert kinds == {Fork: count, Exit: count + 1, Reap: count + 1, Exec: 1}
    assert {event.ppid for event in told.events if isinstance(event, Fork)} == {told.root}
    numbers = [event.seq for event in [*told.snapshot, *told.events]]
    assert numbers == list(range(1, len(numbers) + 1))


def told_whole(source: BccSource, name: str, *arguments: str) -> Told:
    try:
        return tell(source, name, *arguments)
    finally:
        source.close()


@pytest.mark.parametrize("how", ["group", "last"])
def test_leader_exit_does_not_end_the_process(source: BccSource, how: str) -> None:
    """One end, when the last thread is gone; its status is not known, and not zero."""
    told = tell(source, "leader_exits_first", how)
    gone = told.said("leader-gone")

    end = told.only(Exit, gone["pid"])
    assert end.ts_boot_ns >= gone["ns"]
    assert (end.wstatus, end.exit_code, end.utime_ns) == (None, None, None)
    assert told.life(gone["pid"]) == ["fork", "exit", "reap"]


def test_exec_from_a_thread_keeps_the_process(source: BccSource) -> None:
    """The thread that called execve is told; nothing ends and nothing is renamed."""
    told = tell(source, "exec_from_thread")
    before, thread = told.said("before"), told.said("thread")

    assert told.only(Exec, before["pid"]).old_tid == thread["tid"]
    assert told.life(before["pid"]) == ["fork", "exec", "exit", "reap"]


def test_clone_parent_leaves_the_parent_unknown(source: BccSource) -> None:
    """Who called is known; whose child it became is not among the arguments."""
    told = tell_loosely(source, "clone_parent")
    creator, sibling = told.said("creator"), told.said("sibling")

    birth = told.only(Fork, sibling["pid"])
    assert (birth.ppid, birth.creator_pid) == (None, creator["pid"])


def tell_loosely(source: BccSource, name: str) -> Told:
    """Tell a story in which not every parent is known."""
    with Story(source, name) as story:
        story.attach()
        story.release()
        return story.finish()


def test_start_times_are_right_or_unknown(source: BccSource) -> None:
    """A process that is there when it is looked up has its start; a birth time tells the others."""
    told = tell(source, "double_fork")
    daemon = told.said("daemon")

    birth = told.only(Fork, daemon["pid"])
    assert birth.start_ticks in {daemon["start"], None}
    assert birth.key is not None
    assert birth.start_ticks is not None or birth.key.born_ns is not None
    (root,) = told.snapshot
    assert isinstance(root, Observed)
    assert root.start_ticks == told.said("gate")["start"]


def test_a_rename_is_told_and_that_of_an_exec_is_not(source: BccSource) -> None:
    """Execve names the task too: that is no record of its own."""
    told = tell(source, "titles", "prctl")
    (child,) = told.born()
    assert child is not None

    assert [event.comm for event in told.of(Title, child)] == ["renamed"]
    assert told.of(Title, told.root) == []


def test_all_is_told_of_a_tree_that_forks_hard(source: BccSource, tmp_path: Path) -> None:
    """Attached late: everybody has one beginning at most and one end, by number."""
    stop = tmp_path / "stop"
    with Story(source, "forking_tree", str(stop), "3") as story:
        story.release()
        story.wait_for(lambda: len(story.said()) > 60, "a tree in full growth")
        story.attach()
        so_far = len(story.said())
        story.wait_for(lambda: bool(story.read_on()) or len(story.said()) > so_far + 300, "more")
        stop.touch()
        told = story.finish()

    ended = Counter(event.pid for event in told.events if isinstance(event, Exit))
    began: Counter[int | None] = Counter(told.born())
    for event in told.snapshot:
        if not getattr(event, "dead", False):
            began[event.pid] += 1
    assert ended == began
    people = {line["pid"] for line in told.lines if line["at"] in {"worker", "child", "leaf"}}
    assert {pid for pid in told.born() if pid is not None} <= people
