"""Counters of a process: the same as its parent's wait4 is told, or a stated little less."""

from __future__ import annotations

from collections import Counter

import pytest

from pidtrail.events import Exit, Migrate
from pidtrail.sources.source import Source
from tests.contract.conftest import Tell, require
from tests.contract.story import tell

THREADS = 4
PAGES = 500
SLEEPS = 50
TICK_US = 10_000
"""The run time of a task that is running is brought up to date at the timer tick, HZ >= 100."""


def after_the_record(threads: int) -> int:
    """
    Return how much a counter may still grow after the record, per process.

    `sched_process_exit` comes early in do_exit, wait4 sums up in wait_task_zombie. In between each
    thread gives back its memory and files: a few switches, at most a fault for clear_child_tid.
    """
    return 2 * (threads + 1)


@pytest.mark.parametrize(("how", "threads"), [("one", 0), ("threads", THREADS), ("alive", THREADS)])
def test_counters_are_those_of_wait4(told_by: Tell, how: str, threads: int) -> None:
    """Switches, faults, time and memory are summed over all threads, also those long gone."""
    told = told_by("counters", how, needs="has_counters")
    worker = told.said("worker")

    end, told_parent = told.only(Exit, worker["pid"]), told.collected(worker["pid"])
    workers = max(threads, 1)
    for ours, theirs, least in (
        (end.voluntary_switches, told_parent["nvcsw"], SLEEPS * workers),
        (end.minor_faults, told_parent["minflt"], PAGES * workers),
    ):
        assert ours is not None
        assert least <= ours <= theirs
        assert theirs - ours <= after_the_record(threads), (ours, theirs)
    assert end.involuntary_switches is not None
    # How often it gives way while its memory is taken down (cond_resched) is up to the others.
    assert end.involuntary_switches <= told_parent["nivcsw"]
    assert end.major_faults == told_parent["majflt"]
    assert end.max_rss_kib == told_parent["maxrss_kib"]
    assert end.utime_ns is not None
    assert end.stime_ns is not None
    ours_us = (end.utime_ns + end.stime_ns) // 1000
    theirs_us = told_parent["utime_us"] + told_parent["stime_us"]
    assert theirs_us - TICK_US * (threads + 1) <= ours_us <= theirs_us + 1


def test_migrations_are_summed_over_threads(source: Source) -> None:
    """Every move is one record, and the end of the process has their number."""
    require(source, "has_counters")
    flips = 100
    told = tell(source, "migrate", str(flips), migrations=True)
    mover = told.said("mover")

    moves = told.of(Migrate, mover["pid"])
    end = told.only(Exit, mover["pid"])
    assert end.migrations == len(moves)
    by_thread = Counter(move.tid for move in moves)
    for moved in told.all_said("moved"):
        assert by_thread[moved["tid"]] >= moved["flips"]
    assert all(move.from_cpu != move.to_cpu for move in moves)
    assert {move.start_ticks for move in moves} == {mover["start"]}
    assert told.said("settled")["pid"] == mover["pid"]


def test_migrations_are_counted_without_being_watched(told_by: Tell) -> None:
    """The sum at the end needs no record for each move."""
    told = told_by("migrate", "100", needs="has_counters")
    mover = told.said("mover")

    assert told.of(Migrate, mover["pid"]) == []
    end = told.only(Exit, mover["pid"])
    assert end.migrations is not None
    assert end.migrations >= 100 * THREADS
    assert told.life(mover["pid"]) == ["fork", "exit", "reap"]
