"""What only the source `core` has: its maps, and what it does about a silent kernel."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator

import pytest

from pidtrail.clock import TICK_NS
from pidtrail.events import Event, Exit, Reap
from pidtrail.sources import wire
from pidtrail.sources.core import CoreSource
from tests.contract.story import PATIENCE_S, PAUSE_S, tell

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]

NOBODY = 4_000_000
"""No process has a number beyond PID_MAX_LIMIT, 4,194,304, and here none comes near it."""


@pytest.fixture
def source() -> Iterator[CoreSource]:
    """Return a source that follows nobody."""
    made = CoreSource()
    made.open([])
    yield made
    made.close()


def insert(source: CoreSource, name: str, key: bytes, value: bytes) -> None:
    """Put an entry into a map as a BPF program would have."""
    first = source.objects[0]
    keys, values = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    assert first.so.bpf_map_update_elem(first.map_fd(name), keys, values, 0) == 0


def test_a_reaping_that_the_kernel_did_not_tell_is_noticed(source: CoreSource) -> None:
    """Who is gone from the task list was reaped; when, nobody knows."""
    exit_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    key = wire.PROCESS_KEY.pack(3 * TICK_NS, NOBODY, 0)
    insert(source, "zombies", key, wire.ZOMBIE.pack(exit_ns, NOBODY, 0))

    events: list[Event] = []
    limit = time.monotonic() + PATIENCE_S
    while not events and time.monotonic() < limit:
        events += source.read()
        time.sleep(PAUSE_S)

    (reap,) = events
    assert isinstance(reap, Reap)
    assert (reap.pid, reap.start_ticks, reap.zombie_ns) == (NOBODY, 3, None)
    assert reap.ts_boot_ns > exit_ns
    entries = source.objects[0].entries("zombies", wire.PROCESS_KEY.size, wire.ZOMBIE.size)
    assert list(entries) == []


def test_a_silent_reaping_just_before_the_end_is_told_at_the_end(source: CoreSource) -> None:
    """There is no second look to wait for; who is in the task list still is left alone."""
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    (there,) = [event for kind, event in source.walk() if kind == wire.KIND_SELF]
    for start_ns, pid in ((3 * TICK_NS, NOBODY), (there.start_ns or 0, os.getpid())):
        key = wire.PROCESS_KEY.pack(start_ns, pid, 0)
        insert(source, "zombies", key, wire.ZOMBIE.pack(now_ns, pid, 0))
    assert source.read() == []

    (reap,) = source.last()

    assert isinstance(reap, Reap)
    assert (reap.pid, reap.start_ticks, reap.zombie_ns) == (NOBODY, 3, None)
    assert source.last() == []


def test_a_zombie_that_is_still_there_is_not_taken_for_reaped() -> None:
    """Held for longer than it takes to notice: its reaping comes from the kernel, in its time."""
    told = tell(CoreSource(), "zombie", "3500")
    held = told.said("held")

    reap = told.only(Reap, held["pid"])
    assert reap.ts_boot_ns >= held["collected_ns"]
    assert told.only(Exit, held["pid"]).ts_boot_ns <= held["dead_ns"]


def test_all_entries_of_a_large_map_are_read(source: CoreSource) -> None:
    """More than fit into one step, each once."""
    count = 5000
    for number in range(count):
        key = wire.PROCESS_KEY.pack(number, NOBODY, 0)
        insert(source, "zombies", key, wire.ZOMBIE.pack(number, os.getpid(), 0))

    entries = list(source.objects[0].entries("zombies", len(key), wire.ZOMBIE.size))

    starts = [wire.PROCESS_KEY.unpack(key)[0] for key, _ in entries]
    assert sorted(starts) == list(range(count))
    assert {wire.ZOMBIE.unpack(value)[1] for _, value in entries} == {os.getpid()}
