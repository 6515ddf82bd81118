"""Source `core` when its ring holds something else than it should."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.errors import SourceUnavailable
from pidtrail.events import Event, Lost, Reap
from pidtrail.sources import wire
from pidtrail.sources.core import CoreSource
from pidtrail.sources.selftest import check_roots

REAP = wire.REAP.pack(wire.KIND_REAP, 42, 9, 2, 4)


class Peer:
    """In the place of the ring: a kernel that writes what it likes."""

    def __init__(self, records: list[bytes]) -> None:
        self.records = records

    def read(self) -> tuple[bytes, list[tuple[int, int]]]:
        """Return everything as one batch."""
        places, at = [], 0
        for record in self.records:
            places.append((at, len(record)))
            at += len(record)
        return b"".join(self.records), places

    def close(self) -> None:
        """Nothing to close."""


class Source(CoreSource):
    """A source without BPF programs."""

    def losses(self) -> tuple[int, int, int]:
        """Nothing was dropped by the kernel."""
        return 0, 0, 0


def read(records: list[bytes]) -> list[Event]:
    """Return what a source makes of some records."""
    source = Source()
    source.ring = Peer(records)  # type: ignore[assignment]
    source.looked_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return source.read()


@pytest.mark.parametrize("bad", [b"", b"x", bytes(8), REAP[:-1], b"\xff" * 40])
def test_a_corrupt_record_is_counted_and_the_next_is_read(bad: bytes) -> None:
    """It is a loss of one, with a hole of one in the numbers; nothing ends for it."""
    events = read([REAP, bad, REAP, bad, REAP])

    assert [type(event) for event in events] == [Reap, Reap, Reap, Lost]
    assert [event.seq for event in events] == [1, 3, 5, 6]
    assert [event.count for event in events if isinstance(event, Lost)] == [2]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_records_are_events_or_counted(records: list[bytes]) -> None:
    """Whatever the peer writes, all of it is accounted for."""
    events = read(records)
    lost = sum(event.count or 0 for event in events if isinstance(event, Lost))

    assert len([event for event in events if not isinstance(event, Lost)]) + lost == len(records)


def test_a_root_that_the_task_list_does_not_show_is_refused() -> None:
    """A session in which nothing is told would look like one in which nothing happened."""
    with pytest.raises(SourceUnavailable, match=f"does not show process {os.getpid()}"):
        check_roots([os.getpid()], [(1, 5)])

    check_roots([os.getpid()], [(os.getpid(), 5)])


def test_a_root_that_is_gone_is_no_failure_of_the_source() -> None:
    """It ended between the look at /proc and the walk."""
    check_roots([4_194_399], [])
