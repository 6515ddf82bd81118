"""Attaching to two thousand processes that are there, while others are born all the time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pidtrail.clock import TICK_NS
from pidtrail.events import Event, Exit, Fork, Observed
from pidtrail.sources.bcc import BccSource
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.core import CoreSource
from pidtrail.sources.source import Source
from tests.oracle.held import Held, wait_for

GROUPS, SIZE, WORKERS = 40, 49, 3
SOURCES = [
    pytest.param(CoreSource, marks=pytest.mark.needs_bpf, id="core"),
    pytest.param(ConnectorSource, id="connector"),
    pytest.param(BccSource, marks=pytest.mark.needs_bcc, id="bcc"),
]
Person = tuple[int, int]


def holder(pid: int, at_ns: int, people: dict[int, list[int]]) -> Person | None:
    """Return who of the program's processes had a number at an instant: numbers come again."""
    starts = [start for start in people.get(pid, ()) if start * TICK_NS <= at_ns]
    return (pid, max(starts)) if starts else None


def who(event: Event, people: dict[int, list[int]]) -> Person | None:
    """Return whom of the program's processes a record means: number and start in ticks."""
    assert event.pid is not None
    if event.start_ticks is not None:
        return event.pid, event.start_ticks
    assert event.key is not None
    return holder(event.pid, event.key.born_ns or 0, people)


@pytest.mark.needs_root
@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", SOURCES)
def test_two_thousand_processes_that_fork_hard(make: Callable[[], Source], tmp_path: Path) -> None:
    """
    Who lives when the source is open is known, once; so is everyone's end, and every parent.

    Nobody is known twice, nobody is known who is not of this tree.
    """
    source, stop = make(), tmp_path / "stop"
    arguments = (str(stop), str(GROUPS), str(SIZE), str(WORKERS))
    with Held("crowd", *arguments) as held:
        held.release()
        there = GROUPS * (SIZE + 1)
        wait_for(lambda: held.size() > 100 * (there + 300), "a crowd, and a storm beside it")
        try:
            source.open([held.pid])
            opened_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            snapshot = source.snapshot()
            events: list[Event] = []
            enough = held.size() + 100_000

            def read_until(over: Callable[[], bool]) -> bool:
                events.extend(source.read())
                return over()

            wait_for(lambda: read_until(lambda: held.size() > enough), "more of it")
            stop.touch()
            wait_for(lambda: read_until(held.ended), "the end")
            deadline = time.monotonic() + 1
            while (batch := source.read()) or time.monotonic() < deadline:
                events += batch
        finally:
            source.close()
        lines = held.said()
    check(lines, opened_ns, snapshot, events)


def check(
    lines: list[dict[str, Any]], opened_ns: int, snapshot: list[Event], events: list[Event]
) -> None:
    """Compare what the processes said of themselves with what was told of them."""
    people: dict[int, list[int]] = {}
    parents: dict[Person, int] = {}
    for line in lines:
        if line["at"] in {"root", "leader", "idle", "worker", "child", "leaf"}:
            people.setdefault(line["pid"], []).append(line["start"])
            parents[line["pid"], line["start"]] = line["ppid"]
    waited = [line for line in lines if line["at"] == "waited"]
    there = {holder(line["pid"], line["there_ns"], people): line["there_ns"] for line in waited}
    present = {person for person in parents if there.get(person, opened_ns + 1) > opened_ns}
    assert len(present) > GROUPS * (SIZE + 1)

    seen = Counter(who(event, people) for event in snapshot)
    born = Counter(who(event, people) for event in events if isinstance(event, Fork))
    ends = Counter(who(event, people) for event in events if isinstance(event, Exit))
    for counted in (seen, born, ends):
        assert None not in counted
        assert [person for person, count in counted.items() if count > 1] == []
    known = seen.keys() | born.keys()
    assert present - known == set(), "alive when the source was open, and never mentioned"
    assert known - parents.keys() == set(), "nobody of this tree"
    assert ends.keys() - known == set(), "an end without a beginning"
    dead = {who(e, people) for e in snapshot if isinstance(e, Observed) and e.dead}
    assert present - ends.keys() - dead == set(), "no end"
    keys = {event.key for event in [*snapshot, *events]}
    assert len(keys) == len(known), "one process under two keys"
    for event in events:
        if isinstance(event, Fork):
            person = who(event, people)
            assert person is not None
            assert event.ppid == parents[person]
            assert event.parent_key in keys, "a parent that nobody knows"
