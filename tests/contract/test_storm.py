"""Many processes in a short time: all of them, or an exact count of what is missing."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from pidtrail.events import Event, Exec, Exit, Fork, Lost, Reap
from pidtrail.sources.source import Source
from tests.contract.conftest import Tell, require
from tests.contract.story import LIFECYCLE, Story

COUNT = 20_000


@pytest.mark.timeout(120)
def test_twenty_thousand_processes_and_none_lost(told_by: Tell) -> None:
    """Every birth, end and reaping is told once, with its own exit code, two at a time."""
    told = told_by("storm", str(COUNT), "2", needs="has_identity has_wstatus")
    storm = told.said("storm")
    assert storm["count"] == COUNT

    kinds = Counter(type(event) for event in told.events)
    assert kinds == {Fork: COUNT, Exit: COUNT + 1, Reap: COUNT + 1, Exec: 1}
    children = [event for event in told.events if isinstance(event, Exit)]
    ended = Counter(event.exit_code for event in children if event.pid != told.root)
    forked = Counter(number & 127 for number in range(COUNT))
    assert ended == forked
    assert sum(event.exit_code or 0 for event in children) == storm["codes"]
    births = [event for event in told.events if isinstance(event, Fork)]
    assert {event.ppid for event in births} == {told.root}
    assert len({(event.pid, event.start_ns) for event in births}) == COUNT


def test_a_reader_that_stalls_loses_a_known_number(source: Source) -> None:
    """
    Nobody reads while the ring overflows: delivered and counted lost are all that was produced.

    Each child executes with 30 kB of arguments, of which 16 kB go on the wire, so a thousand
    are twice the ring. The hole in the numbers is as large as the count.
    """
    require(source, "sees_short_lived counts_loss")
    count = 1000
    # Per child a birth, an exec, an end and a reaping; the program itself has no birth here.
    produced = 4 * count + 3
    with Story(source, "storm", str(count), "2", "30000") as story:
        story.attach()
        story.release()
        story.wait_for(story.root_gone, "the storm, unread")
        events: list[Event] = []

        def accounted() -> int:
            events.extend(source.read())
            return sum(
                (event.count or 0) if isinstance(event, Lost) else isinstance(event, LIFECYCLE)
                for event in events
            )

        # The last reapings come a grace period after the end, some only when they are missed.
        story.wait_for(lambda: accounted() >= produced, "the last reapings")
        assert accounted() == produced
        snapshot = story.snapshot

    losses = [event for event in events if isinstance(event, Lost)]
    lost = sum(event.count or 0 for event in losses)
    assert lost > 0
    assert {event.reason for event in losses} <= {"ring buffer full", "perf buffer full"}

    numbers = [event.seq for event in [*snapshot, *events]]
    assert numbers == sorted(set(numbers))
    holes = numbers[-1] - len(numbers)
    assert holes == lost
    for before, after in pairwise(events):
        if isinstance(after, Lost):
            assert after.seq - before.seq - 1 == after.count
            assert after.from_ns is not None
            assert after.to_ns is not None
            assert after.from_ns <= after.to_ns


def test_after_a_loss_everything_is_told_again(source: Source) -> None:
    """A ring that was full loses nothing more once it is read."""
    require(source, "sees_short_lived")
    with Story(source, "storm", "1000", "2", "30000") as story:
        story.attach()
        story.release()
        story.wait_for(story.root_gone, "the storm, unread")
        while source.read():
            pass
    with Story(source, "storm", "200", "1") as story:
        story.attach()
        story.release()
        told = story.finish()

    kinds = Counter(type(event) for event in told.events)
    assert kinds == {Fork: 200, Exit: 201, Reap: 201, Exec: 1}


def test_records_across_the_end_of_the_ring_come_whole(told_by: Tell) -> None:
    """Seventeen megabytes through a ring of eight: every argument of every exec is intact."""
    count, pause_us = 1000, 2000
    # bcc's ring by perf has two megabytes per CPU, which a reader who has to wait for his turn
    # on a busy host would find full: what is lost there is another test's.
    told = told_by("storm", str(count), "1", "30000", str(pause_us), needs="has_argv")

    execs = [event for event in told.events if isinstance(event, Exec) and event.pid != told.root]
    assert len(execs) == count
    assert {event.argv_truncated for event in execs} == {True}
    ours = execs[0].filename
    assert ours is not None
    whole = [ours, "p" * (16_384 - len(ours) - 1)]
    assert [event.argv for event in execs] == [whole] * count
