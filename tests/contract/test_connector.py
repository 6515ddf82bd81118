"""
What the proc connector tells: births and ends of every process, by number.

What else is known is joined from /proc, and is right or unknown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from pidtrail.events import Exit, Fork, Lost
from pidtrail.sources.connector import ConnectorSource
from tests.contract.story import Story, Told, tell

pytestmark = pytest.mark.needs_root


@pytest.fixture
def source() -> Iterator[ConnectorSource]:
    """Return a connector that is not open yet, and close it in the end."""
    made = ConnectorSource()
    yield made
    made.close()


def tell_loosely(source: ConnectorSource, name: str, *arguments: str) -> Told:
    """Tell a story in which identities may be unknown, so that names are no keys."""
    with Story(source, name, *arguments) as story:
        story.attach()
        story.release()
        return story.finish()


def test_every_process_of_a_storm_is_told_once(source: ConnectorSource) -> None:
    """Of five thousand, each with the right parent and its wait status."""
    count = 5_000
    told = tell_loosely(source, "storm", str(count), "2")

    kinds = Counter(type(event) for event in told.events)
    assert (kinds[Fork], kinds[Exit], kinds[Lost]) == (count, count + 1, 0)
    assert {event.ppid for event in told.events if isinstance(event, Fork)} == {told.root}
    numbers = [event.seq for event in [*told.snapshot, *told.events]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_who_was_gone_too_soon_is_unknown_and_still_himself(source: ConnectorSource) -> None:
    """Without a start each life has the time of its birth; no two share a key."""
    told = tell_loosely(source, "storm", "2000", "2")

    born = [event.key for event in told.events if isinstance(event, Fork)]
    ended = [event.key for event in told.events if isinstance(event, Exit)]
    assert len(set(born)) == len(born) == 2000
    assert set(born) == set(ended) - {event.key for event in told.snapshot}


@pytest.mark.parametrize("how", ["group", "last"])
def test_leader_exit_does_not_end_the_process(source: ConnectorSource, how: str) -> None:
    """One end, when the last thread is gone, with the status that the parent saw."""
    told = tell(source, "leader_exits_first", how)
    gone = told.said("leader-gone")
    end = told.only(Exit, gone["pid"])

    assert end.ts_boot_ns >= gone["ns"]
    if how == "group":
        assert end.wstatus == told.collected(gone["pid"])["wstatus"]


def test_exec_from_a_thread_keeps_the_process(source: ConnectorSource) -> None:
    """Leader's exit, then an exec of the same number: one life, one end."""
    told = tell(source, "exec_from_thread")
    before = told.said("before")

    assert told.life(before["pid"]) == ["fork", "exec", "exit"]
    assert told.only(Exit, before["pid"]).exit_code == 4


def test_fork_from_a_thread_belongs_to_its_process(source: ConnectorSource) -> None:
    """The parent is the process, not the thread that called fork."""
    told = tell(source, "fork_from_thread")

    assert {event.ppid for event in told.events if isinstance(event, Fork)} <= told.born() | {
        told.root
    }


def test_double_fork_keeps_its_lineage(source: ConnectorSource) -> None:
    """The daemon's birth names the middle process, its end whoever adopted it."""
    told = tell(source, "double_fork")
    daemon = told.said("daemon")

    assert told.only(Fork, daemon["pid"]).ppid in told.born()
    assert told.only(Exit, daemon["pid"]).ppid == told.agent


def test_a_killed_process_has_its_signal(source: ConnectorSource) -> None:
    """The wait status carries the signal; who sent it the connector cannot know."""
    told = tell_loosely(source, "killed", "kill")
    by_signal = [e for e in told.events if isinstance(e, Exit) and e.termsig == 9]

    assert len(by_signal) == 1


def test_thirty_holders_of_one_number_are_thirty_processes(source: ConnectorSource) -> None:
    """Each has its own start, birth, end and status, in the order in which they had the number."""
    told = tell_loosely(source, "same_number", "30")
    held = told.all_said("holder")
    (number,) = {line["pid"] for line in held}

    # The first of that number found out that it was free.
    births, ends = told.of(Fork, number)[1:], told.of(Exit, number)[1:]
    starts = [(event.start_ticks, line["start"]) for event, line in zip(births, held, strict=True)]
    # Who was gone before /proc was asked has no start, and never another's.
    assert all(told_start in {None, start} for told_start, start in starts)
    assert any(told_start is not None for told_start, _ in starts)
    assert [event.key for event in ends] == [event.key for event in births]
    assert [event.exit_code for event in ends] == list(range(30))
    assert len({event.key for event in births}) == 30


def test_what_an_overflow_took_is_counted_exactly() -> None:
    """Delivered and lost together are what the kernel counted on every CPU."""
    source = ConnectorSource(receive_bytes=64 * 1024)
    try:
        with Story(source, "storm", "3000", "2") as story:
            story.attach()
            before = dict(source.counters)
            story.release()
            deadline = time.monotonic() + 60
            while not story.root_gone() and time.monotonic() < deadline:
                time.sleep(0.01)
            taken = 0
            while batch := source.read():
                taken += len(batch)
                story.events += batch
            lost = [event for event in story.events if isinstance(event, Lost)]
    finally:
        source.close()

    assert not before or set(before) <= set(source.counters)
    assert lost
    assert all(event.count is not None for event in lost)
    # Of 3,000 births and 3,001 ends of ours, at least, and whatever else the host did meanwhile.
    told = sum(isinstance(event, Fork | Exit) for event in story.events)
    assert told + sum(event.count or 0 for event in lost) >= 6_001
