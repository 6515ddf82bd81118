"""
Bounded for ever: memory does not grow with the number of processes that came and went.

`./do endure` runs a million real ones, which takes minutes; here the million is made
up, and the real storm is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pidtrail.clock import TICK_NS
from pidtrail.events import Event, Exec, Exit, Fork, Lost, Observed, ProcessKey, Reap, Title
from pidtrail.runtime import Session, make_header
from pidtrail.sinks.sink import Sink
from pidtrail.sources.tasklog import TaskLogs
from pidtrail.store import Recorder
from pidtrail.tree import MAX_LINEAGE, ProcessTree
from tests.endurance.resident import DUE, growth_kib, resident_kib, storm_under
from tests.unit.story import FULL

SUPERVISOR = 400
BATCH = 1000
"""Lifetimes in one batch, which is one turn; a second of them is kept in the tree."""
TURN_NS = 100_000_000
GRACE_NS = 1_000_000_000


class Churn:
    """A source of made-up lives: some are of Airflow, the ends of some are lost."""

    name, fidelity = "core", FULL

    def __init__(self, lives: int) -> None:
        self.seq = 0
        self.now_ns = 10_000 * TICK_NS
        self.batches = self.make(lives)

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:
        """Nothing to open."""

    def follow(self, roots: Sequence[int]) -> None:
        """Everybody is followed already."""

    def last(self) -> list[Event]:
        """Hold nothing back."""
        return []

    def next_seq(self) -> int:
        """Count on."""
        self.seq += 1
        return self.seq

    def head(self, pid: int) -> tuple[int, int, str, int, int]:
        """Return the first fields of a record of now about a process born in this turn."""
        self.seq += 1
        return self.seq, self.now_ns, self.name, pid, self.now_ns // TICK_NS

    def snapshot(self) -> list[Event]:
        """Nobody is there but the supervisor: all others lived for less than a turn."""
        return [Observed(self.next_seq(), self.now_ns, self.name, SUPERVISOR, 1, comm="airflow")]

    def make(self, lives: int) -> Iterator[list[Event]]:
        """Yield batches; numbers come again after some thirty of them."""
        pid = SUPERVISOR
        for first in range(0, lives, BATCH):
            self.now_ns += TURN_NS
            events: list[Event] = []
            for number in range(first, first + BATCH):
                pid = pid + 1 if pid < 32_767 else SUPERVISOR + 1
                events.append(Fork(*self.head(pid), ppid=SUPERVISOR, parent_start_ticks=1))
                if number % 50 == 0:
                    title = f"airflow task runner: dag{number} task run 1"
                    events.append(Title(*self.head(pid), title=title))
                elif number % 10 == 0:
                    events.append(Exec(*self.head(pid), argv=["sh", "-c", f"echo {number}"]))
                if number % 5000 < 10:
                    continue
                events.append(Exit(*self.head(pid), wstatus=0, exit_code=0))
                events.append(Reap(*self.head(pid)))
            if first % 5000 == 0:
                self.seq += 20
                events.append(Lost(self.next_seq(), self.now_ns, self.name, count=20))
            yield events
            yield []

    def read(self) -> list[Event]:
        """Return the next batch."""
        return next(self.batches, [])

    def close(self) -> None:
        """Nothing to close."""


class Forgetting:
    """A sink that keeps a tree of the last second."""

    def __init__(self) -> None:
        self.tree = ProcessTree()

    def write(self, events: list[Event]) -> None:
        """Take in a batch, and forget who ended a second ago."""
        for event in events:
            self.tree.apply(event)
        if events and events[-1].seq % 10 == 0:
            self.tree.forget(events[-1].ts_boot_ns - GRACE_NS)

    def close(self) -> None:
        """Nothing to close."""


def live_through(lives: int, sinks: list[Sink]) -> tuple[list[int], Session]:
    """Let so many processes come and go; return resident memory at forty points of the way."""
    source = Churn(lives)
    session = Session(source, sinks, now_ns=lambda: source.now_ns)
    # These processes do not exist, so nobody may look for their files.
    session.task_logs = TaskLogs(find=lambda _pid: None)
    session.start()
    seen = []
    turns = lives // BATCH
    for turn in range(turns):
        session.turn()
        if turn % (turns // 40) == 0:
            seen.append(resident_kib())
    return seen, session


@pytest.mark.timeout(240)
def test_a_million_lives_leave_memory_flat() -> None:
    """Session, attribution, healing and a tree that forgets: three million records."""
    kept = Forgetting()
    seen, session = live_through(1_000_000, [kept])

    assert session.events > 3_000_000
    assert session.lost == 1_000_000 // 5000 * 20
    assert growth_kib(seen) < 4096, seen
    assert len(session.live) < 5 * BATCH
    assert len(session.attribution.labels) <= 20_000
    kept.tree.forget(session.now_ns() + GRACE_NS)
    assert len(kept.tree.nodes) < 5 * BATCH


def test_recording_leaves_memory_flat(tmp_path: Path) -> None:
    """What is written is not kept: a hundred thousand lives on their way into a file."""
    header = make_header(Churn(0), [], {})
    recorder = Recorder(tmp_path / "session.db", header)
    seen, _ = live_through(100_000, [recorder])
    recorder.close()

    assert growth_kib(seen) < 4096, seen


def test_a_daemon_that_forks_its_successor_for_ever_is_forgotten() -> None:
    """Who lives keeps a lineage of a hundred generations, not of all."""
    tree = ProcessTree()
    generations = 5000
    for number in range(generations):
        born_ns = (number + 2) * TICK_NS
        head = (3 * number, born_ns, "core", 10 + number, number + 2)
        tree.apply(Fork(*head, ppid=9 + number, parent_start_ticks=number + 1))
        tree.apply(Exit(3 * number + 1, born_ns + 1, "core", 9 + number, number + 1))
        tree.forget(born_ns + 2)

    last = ProcessKey(9 + generations, generations + 1)
    assert tree.nodes[last].ended_ns is None
    assert len(tree.lineage(last)) == MAX_LINEAGE + 1
    assert len(tree.nodes) <= MAX_LINEAGE + 2


TRACED = [
    pytest.param("core", marks=[pytest.mark.needs_root, pytest.mark.needs_bpf]),
    pytest.param("bcc", marks=[pytest.mark.needs_root, pytest.mark.needs_bcc]),
    pytest.param("connector", marks=pytest.mark.needs_root),
    "procfs",
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("source", TRACED)
def test_a_storm_of_real_processes_leaves_trace_flat(source: str) -> None:
    """
    `pidtrail trace` over sixty thousand of them, its memory looked at all the time.

    And who sees all of them has each birth, end and reaping, to the last one.
    """
    count = 60_000
    storm = storm_under(source, count, patience_s=200)

    assert len(storm.resident_kib) > 20
    assert growth_kib(storm.resident_kib) < 4096, storm.resident_kib
    if source in DUE:
        assert (storm.events, storm.lost) == (DUE[source](count), 0)
