"""What a reader of the stream gets who is slow, gone, or was never there: on real pipes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pidtrail import codec
from pidtrail.events import Event, Lost
from pidtrail.gap import Gap
from pidtrail.sinks.feed import Feed
from pidtrail.sinks.outlet import Outlet
from tests.unit.records import header
from tests.unit.test_service import births, until

BATCH = 50
MOST_BYTES = 300_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """
    Return a pipe.

    Its end for writing stays open: a thread may be about to write, and would write into the pipe
    of the next test, if that were given the same number. Without a reader it gets an error.
    """
    read, write = os.pipe()
    yield read, write
    os.close(read)


def lines_until(fd: int, seq: int) -> list[Event]:
    """Return what a reader finds up to the record with a number, the header left out."""
    said = b""
    while not (said.endswith(b"\n") and b'"seq":%d,' % seq in said):
        said += os.read(fd, 1 << 16)
    return [codec.decode(line) for line in said.splitlines() if b'"header"' not in line]


def test_the_header_is_there_before_anything_happens(pipe: tuple[int, int]) -> None:
    Feed(pipe[1], header())

    assert codec.decode_header(os.read(pipe[0], 1 << 16)) == header()


def test_a_reader_who_keeps_up_misses_nothing(pipe: tuple[int, int]) -> None:
    feed = Feed(pipe[1], header())
    told: list[Event] = []
    for first in range(1, 20_001, BATCH):
        feed.write(births(first, BATCH))
        told += lines_until(pipe[0], first + BATCH - 1)

    assert told == births(1, 20_000)
    assert feed.missed == 0


def test_what_is_held_for_a_reader_is_bounded(pipe: tuple[int, int]) -> None:
    """By its bytes and one batch; all that comes then is missed, whatever he reads by and by."""
    feed = Feed(pipe[1], header(), MOST_BYTES)
    most = 0
    for first in range(1, 50_001, BATCH):
        feed.write(births(first, BATCH))
        most = max(most, feed.outlet.held)
    one = len(b"".join(codec.encode_line(event, 0) for event in births(50_000, BATCH)))

    assert MOST_BYTES <= most < MOST_BYTES + one
    assert feed.missed > 40_000


def test_who_reads_all_is_told_what_he_missed_and_goes_on(pipe: tuple[int, int]) -> None:
    """At once, and not when something happens again."""
    feed = Feed(pipe[1], header(), MOST_BYTES)
    for first in range(1, 10_001, BATCH):
        feed.write(births(first, BATCH))
    missed = feed.missed
    lost_seq = 10_001 - missed
    early = lines_until(pipe[0], lost_seq)
    feed.write(births(10_001, BATCH))
    late = lines_until(pipe[0], 10_000 + BATCH)
    lost = early.pop()

    assert early == births(1, 10_000 - missed)
    assert isinstance(lost, Lost)
    assert (lost.count, lost.from_ns, lost.to_ns) == (missed, lost_seq * 10**9, 10_000 * 10**9)
    assert late == births(10_001, BATCH)
    assert feed.missed == missed


def test_what_is_held_and_missed_at_the_end_is_still_told(pipe: tuple[int, int]) -> None:
    feed = Feed(pipe[1], header(), MOST_BYTES)
    for first in range(1, 10_001, BATCH):
        feed.write(births(first, BATCH))
    feed.close()
    assert not feed.outlet.finished(0.05)
    told = lines_until(pipe[0], 10_001 - feed.missed)

    assert feed.outlet.finished(30)
    assert len(told) == 10_000 - feed.missed + 1
    assert isinstance(told[-1], Lost)


def test_nothing_is_held_for_a_reader_who_is_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    feed = Feed(write, header())
    feed.write(births(1, BATCH))
    feed.close()

    assert feed.outlet.finished(30)
    os.close(write)
    assert isinstance(feed.outlet.error, BrokenPipeError)
    assert feed.outlet.held == 0


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    """O_NONBLOCK is the open file's, so a reader or a shell may set it for us."""
    os.set_blocking(pipe[1], False)
    outlet = Outlet(pipe[1])
    sent = os.urandom(1_000_000)
    outlet.put(sent)
    outlet.end()
    assert not outlet.finished(0.05)
    got = b""
    while len(got) < len(sent):
        got += os.read(pipe[0], 1 << 16)

    assert got == sent
    assert outlet.finished(30)
    assert outlet.error is None


def test_an_outlet_ends_when_all_is_written(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1])
    outlet.put(b"one")
    outlet.put(b"two")
    until(lambda: not outlet.held)
    outlet.end()

    assert outlet.finished(30)
    assert os.read(pipe[0], 100) == b"onetwo"


@pytest.mark.parametrize(("count", "in_all"), [(7, 10), (None, None)])
def test_a_loss_among_what_is_missed_is_missed_too(count: int | None, in_all: int | None) -> None:
    """What it is about was never there for this reader; unknown stays unknown."""
    gap = Gap("test", "slow")
    assert not gap
    gap.add(births(5, 2))
    gap.add([Lost(7, 9 * 10**9, "core", count=count, from_ns=10**9, to_ns=9 * 10**9)])
    gap.add(births(8, 1))

    assert (gap.records, gap.lost().count) == (4, in_all)
    assert (gap.lost().seq, gap.lost().from_ns, gap.lost().to_ns) == (5, 10**9, 8 * 10**9)


def test_a_gap_that_was_told_is_told_once() -> None:
    gap = Gap("test", "slow")
    gap.add(births(1, 3))
    told = gap.close()
    gap.add(births(9, 1))

    assert (told.seq, told.count) == (1, 3)
    assert (gap.lost().seq, gap.lost().count, gap.lost().from_ns) == (9, 1, 9 * 10**9)
