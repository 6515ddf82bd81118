"""The loop: healing after a loss, stepping down from a source that failed, numbering."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pidtrail.errors import SourceUnavailable
from pidtrail.events import (
    Event,
    Exec,
    Exit,
    Fork,
    Lost,
    Observed,
    ProcessKey,
    TaskRef,
    TaskReported,
    Title,
)
from pidtrail.overlap import untold
from pidtrail.runtime import Claims, Session
from pidtrail.sources import ladder
from pidtrail.sources.ladder import Climb
from pidtrail.sources.source import Source
from pidtrail.tree import ProcessTree, grow
from tests.kept import Kept
from tests.unit.story import FULL, SECOND

START = 100 * SECOND


class Scripted:
    """A source that says what it is told to say: batches to read, and what a snapshot shows."""

    fidelity = FULL

    def __init__(self, name: str = "core") -> None:
        self.name = name
        self.seq = 0
        self.batches: list[list[Event]] = []
        self.there: list[int] = []
        self.failure: SourceUnavailable | None = None
        self.closed = False
        self.held_back: list[Event] = []

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:
        """Take over the processes that were followed before."""
        assert not migrations
        self.there = list(roots)

    def follow(self, roots: Sequence[int]) -> None:
        """Take over further processes."""
        if self.failure is not None:
            raise self.failure
        self.there += roots

    def snapshot(self) -> list[Event]:
        """Show who is there."""
        return [Observed(self.next_seq(), START, self.name, pid, pid) for pid in self.there]

    def read(self) -> list[Event]:
        """Give the next batch, or fail."""
        if self.failure is not None:
            raise self.failure
        return self.batches.pop(0) if self.batches else []

    def last(self) -> list[Event]:
        """Give what was held back until the end."""
        return self.held_back

    def next_seq(self) -> int:
        """Count on."""
        self.seq += 1
        return self.seq

    def close(self) -> None:
        """Be closed."""
        self.closed = True

    def fork(self, pid: int) -> Fork:
        """Return a birth; a process's start is its number here."""
        self.there.append(pid)
        return Fork(self.next_seq(), START, self.name, pid, pid, ppid=1, parent_start_ticks=1)

    def lost(self, count: int | None = 3) -> Lost:
        """Return a loss."""
        return Lost(self.next_seq(), START, self.name, count=count, from_ns=0, to_ns=START)


class Grown(Kept):
    """Also tells the tree of what it kept."""

    @property
    def tree(self) -> ProcessTree:
        """The tree of what was kept."""
        return grow(self.events)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        """Return the time."""
        return self.now


class Telling:
    """Where claims come from: each turn the next of them."""

    def __init__(self) -> None:
        self.said: list[list[Event]] = []

    def tell(self, pid: int) -> None:
        """Let a process say what it runs."""
        task = TaskRef("dag", "task", "run", -1, 1)
        told = TaskReported(
            0, START, "airflow-plugin", pid, pid, task=task, state="running", via="plugin"
        )
        self.said.append([told])

    def drain(self) -> list[Event]:
        """Give what was said."""
        return self.said.pop(0) if self.said else []

    def poke(self) -> None:
        """Nothing to do."""

    def problems(self) -> list[str]:
        """Nothing went wrong."""
        return []

    def stop(self) -> None:
        """Nothing to do."""


def session(
    source: Scripted, below: Scripted | None = None, claims: Sequence[Claims] = ()
) -> tuple[Session, Grown, Clock]:
    """Return a session on a source, what it writes to, and its clock."""
    kept, clock = Grown(), Clock()

    def step_down(_name: str, pids: Sequence[int]) -> Source:
        assert below is not None
        below.open(pids)
        return below

    made = Session(source, [kept], claims, step_down if below is not None else None, clock)
    made.start()
    return made, kept, clock


def turns(made: Session, clock: Clock, seconds: float) -> None:
    """Let the loop turn for some time."""
    for _ in range(int(seconds * 10)):
        clock.now += SECOND // 10
        made.turn()


def test_who_ended_unheard_in_a_gap_is_found_dead() -> None:
    """After a loss nobody stays alive for ever because his exit was lost."""
    source = Scripted()
    made, kept, clock = session(source)
    source.batches = [[source.fork(10), source.fork(11)], [source.lost()]]
    source.there.remove(10)

    turns(made, clock, 3)

    nodes = kept.tree.nodes
    assert nodes[ProcessKey(10, 10)].ended_ns is not None
    assert nodes[ProcessKey(11, 11)].ended_ns is None
    assert made.live == {ProcessKey(11, 11)}


def test_who_was_born_unheard_in_a_gap_is_found() -> None:
    """A fork that was lost is made good by the look after the loss."""
    source = Scripted()
    made, kept, clock = session(source)
    source.batches = [[source.lost()]]
    source.there.append(12)

    turns(made, clock, 3)

    assert ProcessKey(12, 12) in kept.tree.nodes
    assert made.live == {ProcessKey(12, 12)}


def test_an_exit_that_was_only_late_is_not_called_lost() -> None:
    """Who is missing in the look but whose exit comes with the next batch ended by that exit."""
    source = Scripted()
    made, kept, clock = session(source)
    source.batches = [[source.fork(10), source.lost()]]
    source.there.remove(10)
    clock.now += SECOND // 10
    made.turn()
    clock.now += SECOND
    made.turn()
    source.batches = [[Exit(source.next_seq(), clock.now, "core", 10, 10, wstatus=0)]]

    turns(made, clock, 3)

    assert not [e for e in kept.events if isinstance(e, Observed) and e.dead]


def test_without_a_loss_nobody_looks() -> None:
    """Healing costs nothing as long as there is nothing to heal."""
    source = Scripted()
    made, kept, clock = session(source)
    source.batches = [[source.fork(10)]]

    turns(made, clock, 5)

    assert [type(event) for event in kept.events] == [Fork]


def test_looks_are_bounded_however_much_is_lost() -> None:
    """Ten losses in a row are followed by a few snapshots, not by ten."""
    source = Scripted()
    made, kept, clock = session(source)
    source.there = [10]
    source.batches = [[source.lost()] for _ in range(10)]

    turns(made, clock, 10)

    assert 1 <= len([event for event in kept.events if isinstance(event, Observed)]) <= 4


def test_a_session_that_ends_right_after_a_loss_is_healed() -> None:
    """The last batch told of the loss: there is one look still, however little time is left."""
    source = Scripted()
    made, kept, _ = session(source)
    source.batches = [[source.fork(10), source.fork(11), source.lost()]]
    source.there.remove(10)

    made.finish()

    nodes = kept.tree.nodes
    assert nodes[ProcessKey(10, 10)].ended_ns is not None
    assert nodes[ProcessKey(11, 11)].ended_ns is None


def test_what_a_source_held_back_is_delivered_at_the_end() -> None:
    """After all batches, and before the sinks are closed."""
    source = Scripted()
    made, kept, _ = session(source)
    source.batches = [[source.fork(10)]]
    source.held_back = [Exit(99, START, source.name, 10, 10)]

    made.finish()

    assert [type(event) for event in kept.events] == [Fork, Exit]
    assert source.closed


def test_what_is_kept_of_who_was_found_dead_is_bounded() -> None:
    """A task instance's process whose end was lost has ended, and its label goes in its turn."""
    source = Scripted()
    made, _, clock = session(source)
    title = "airflow task runner: dag task run 1"
    named: list[Event] = [source.fork(10)]
    named.append(Title(source.next_seq(), START, "core", 10, 10, title=title))
    source.batches = [named, [source.lost()]]
    turns(made, clock, 0.1)
    assert made.attribution.labels.keys() == {ProcessKey(10, 10)}
    source.there.remove(10)

    turns(made, clock, 3)

    assert made.attribution.ended.keys() == {ProcessKey(10, 10)}


def test_a_source_that_fails_is_replaced_by_the_next() -> None:
    """The session goes on from who was alive, with a `lost` record that says why."""
    source, below = Scripted("core"), Scripted("connector")
    made, kept, clock = session(source, below)
    source.batches = [[source.fork(10)]]
    turns(made, clock, 0.1)
    source.failure = SourceUnavailable("the socket is gone")

    turns(made, clock, 0.1)

    lost = next(event for event in kept.events if isinstance(event, Lost))
    assert (source.closed, made.source.name, below.there) == (True, "connector", [10])
    assert lost.count is None
    assert "the socket is gone" in (lost.reason or "")
    assert "connector" in (lost.reason or "")


def test_numbers_go_on_over_a_change_of_source() -> None:
    """One sequence for the stream, whoever makes its records."""
    source, below = Scripted("core"), Scripted("connector")
    made, kept, clock = session(source, below)
    source.batches = [[source.fork(10)]]
    turns(made, clock, 0.1)
    source.failure = SourceUnavailable("gone")
    turns(made, clock, 3)

    assert [event.seq for event in kept.events] == list(range(1, len(kept.events) + 1))


def test_a_chosen_source_that_fails_ends_the_session() -> None:
    """Who asked for one source by name is told, not given another."""
    source = Scripted()
    made, _, clock = session(source)
    source.failure = SourceUnavailable("gone")

    with pytest.raises(SourceUnavailable, match="gone"):
        turns(made, clock, 0.1)


def told(kept: Kept) -> list[int | None]:
    """Return who told something, of what was kept."""
    return [event.pid for event in kept.events if isinstance(event, TaskReported)]


def test_a_claim_labels_who_is_followed_from_then_on() -> None:
    """What a process told through the plugin is what its later records are about."""
    source, telling = Scripted(), Telling()
    made, kept, clock = session(source, claims=[telling])
    telling.tell(10)
    source.batches = [[source.fork(10)], []]
    turns(made, clock, 0.1)
    source.batches = [[Exit(source.next_seq(), clock.now, "core", 10, 10, wstatus=0)]]
    turns(made, clock, 0.1)

    (ended,) = [event for event in kept.events if isinstance(event, Exit)]
    assert told(kept) == [10]
    assert ended.task == TaskRef("dag", "task", "run", -1, 1)


def test_a_claim_of_who_ended_meanwhile_is_kept() -> None:
    """It came with the last breath: the end is read in the same turn, or was in the one before."""
    for silent_turns in (0, 1):
        source, telling = Scripted(), Telling()
        made, kept, clock = session(source, claims=[telling])
        telling.said = [[]] * silent_turns
        telling.tell(10)
        ended = Exit(source.next_seq(), START, "core", 10, 10, wstatus=0)
        source.batches = [[source.fork(10), ended]]

        turns(made, clock, 0.2)

        assert told(kept) == [10]
        assert len(made.attribution.ended) == len(made.attribution.labels)


def test_what_strangers_claim_is_not_kept() -> None:
    """Any process of the host may send claims; those of processes not followed go nowhere."""
    source, telling = Scripted(), Telling()
    made, kept, clock = session(source, claims=[telling])
    source.batches = [[source.fork(10)]]
    telling.tell(11)

    turns(made, clock, 0.3)

    assert told(kept) == []
    assert made.attribution.labels == {}


def test_further_roots_are_followed_and_told() -> None:
    source = Scripted()
    made, kept, _ = session(source)
    made.follow([10])

    assert made.live == {ProcessKey(10, 10)}
    assert [event.pid for event in kept.events] == [10]


def test_a_source_that_cannot_follow_a_root_is_replaced_by_one_that_can() -> None:
    """The next one takes those who were followed, and the new one."""
    source, below = Scripted(), Scripted("procfs")
    made, kept, _ = session(source, below)
    made.follow([10])
    source.failure = SourceUnavailable("cannot see it")
    made.follow([11])

    assert made.source is below
    assert sorted(below.there) == [10, 11]
    assert [event.reason for event in kept.events if isinstance(event, Lost)] == [
        "core failed: cannot see it; went on with procfs"
    ]


def test_a_session_goes_on_from_an_earlier_one() -> None:
    """Who lived then and is not there any more is found dead; the label of who is stays."""
    earlier, kept, _ = session(Scripted())
    task = TaskRef("dag", "task", "run", -1, 1)
    told = Title(1, START, "core", 10, 10, title="airflow task runner: dag task run 1")
    labelled = earlier.attribution.label(told)
    assert labelled.task is not None
    source = Scripted()
    source.seq, source.there = 7, [10]
    kept, clock = Grown(), Clock()
    made = Session(source, [kept], now_ns=clock)
    made.resume([labelled], [ProcessKey(10, 10), ProcessKey(11, 11)])
    made.start([Lost(0, 0, "service", reason="the service did not run")])
    turns(made, clock, 3)

    assert [event.seq for event in kept.events] == list(range(8, 8 + len(kept.events)))
    assert made.live == {ProcessKey(10, 10)}
    assert [e.pid for e in kept.events if isinstance(e, Observed) and e.dead] == [11]
    shown = next(e for e in kept.events if isinstance(e, Observed) and e.pid == 10)
    assert shown.task is not None
    assert shown.task.dag_id == task.dag_id


class Climbing:
    """A way up to one source, at an instant, and what happens while that opens."""

    def __init__(self, above: Scripted, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.above: Scripted | None = above
        self.meanwhile = meanwhile
        self.due_ns = START + SECOND

    def put_off(self, now_ns: int) -> None:
        """Look a second later."""
        self.due_ns = now_ns + SECOND

    def is_due(self, name: str, now_ns: int) -> bool:
        """Return whether to look."""
        return now_ns >= self.due_ns and name != "core"

    def open(self, name: str, roots: Sequence[int], now_ns: int) -> Source | None:
        """Open it, once."""
        del name, now_ns
        above, self.above = self.above, None
        if above is not None:
            above.open(roots)
        self.meanwhile()
        return above


def test_a_better_source_goes_on_where_the_old_one_ended() -> None:
    """What both saw while it opened is told once, and the numbers go on."""
    old, new = Scripted("connector"), Scripted("core")
    made, kept, clock = session(old)
    old.batches = [[old.fork(10)]]

    def meanwhile() -> None:
        old.batches = [[old.fork(11)]]
        new.batches = [[new.fork(11), new.fork(12)]]

    made.climb = Climbing(new, meanwhile)
    turns(made, clock, 1.1)
    new.batches = [[new.fork(13)]]
    turns(made, clock, 1)

    forks = [(e.origin, e.pid) for e in kept.events if isinstance(e, Fork)]
    assert forks == [("connector", 10), ("connector", 11), ("core", 12), ("core", 13)]
    assert [event.seq for event in kept.events] == list(range(1, len(kept.events) + 1))
    assert not any(isinstance(event, Lost) for event in kept.events)
    assert old.closed


def test_whom_neither_of_two_sources_told_the_end_of_is_found_dead() -> None:
    old, new = Scripted("connector"), Scripted("core")
    made, kept, clock = session(old)
    old.batches = [[old.fork(10), old.fork(11)]]
    made.climb = Climbing(new, lambda: new.there.append(11))

    turns(made, clock, 4)

    assert made.source is new
    assert made.live == {ProcessKey(11, 11)}
    assert kept.tree.nodes[ProcessKey(10, 10)].ended_ns is not None


def test_a_better_source_that_fails_at_once_leaves_the_old_one() -> None:
    old, new = Scripted("connector"), Scripted("core")
    new.failure = SourceUnavailable("not after all")
    made, kept, clock = session(old)
    made.climb = Climbing(new)
    turns(made, clock, 1.5)
    old.batches = [[old.fork(12)]]
    turns(made, clock, 1)

    assert made.source is old
    assert (old.closed, new.closed) == (False, True)
    assert [e.pid for e in kept.events if isinstance(e, Fork)] == [12]


def test_an_old_source_that_fails_while_a_better_one_opens_is_replaced_as_ever() -> None:
    """It is said that there is a gap; the way up waits."""
    old, new, below = Scripted("connector"), Scripted("core"), Scripted("procfs")
    made, kept, clock = session(old, below)

    def meanwhile() -> None:
        old.failure = SourceUnavailable("gone")

    climb = made.climb = Climbing(new, meanwhile)
    turns(made, clock, 1.1)

    assert made.source is below
    assert new.closed
    assert [e.reason for e in kept.events if isinstance(e, Lost)] == [
        "connector failed: gone; went on with procfs"
    ]
    assert climb.due_ns > START + SECOND


def test_looks_for_a_better_source_become_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a minute to an hour, with the best one never."""
    monkeypatch.setattr(ladder, "better", lambda _name: [])
    climb, minute = Climb(), 60 * SECOND
    assert not climb.is_due("procfs", START)
    assert not climb.is_due("core", START + minute)
    waits, now_ns = [], START
    for _ in range(8):
        while not climb.is_due("procfs", now_ns):
            now_ns += minute
        assert climb.open("procfs", [], now_ns) is None
        waits.append((climb.due_ns - now_ns) // minute)

    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_what_two_sources_saw_is_one_thing_each() -> None:
    """By kind, pid and about the same time; two programs of a process are two."""
    told: list[Event] = [
        Fork(1, START, "connector", 10, 10),
        Exec(2, START + 5, "connector", 10, 10),
        Exec(3, START + 9, "connector", 10, 10),
    ]
    heard: list[Event] = [
        Exec(1, START + 4, "core", 10, 10),
        Exec(2, START + 8, "core", 10, 10),
        Exec(3, START + 12, "core", 10, 10),
        Fork(4, START + 100 * SECOND, "core", 10, 11),
    ]

    assert untold(told, heard) == heard[2:]
