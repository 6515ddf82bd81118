from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pidtrail.events import (
    Event,
    Exec,
    Exit,
    Fork,
    Lost,
    Observed,
    Oom,
    ProcessKey,
    Reap,
    Signal,
    TaskReported,
    Title,
)
from pidtrail.node import MAX_FACTS
from pidtrail.tree import ProcessTree, grow
from tests.unit.records import EVENTS, of_class

BORN = 1_000_000_000
"""Nanoseconds; the ticks below are of it."""


def key(pid: int) -> ProcessKey:
    """Return the process that has this number in the stories below."""
    return ProcessKey(pid, 100 + pid)


class Story:
    """Records of a few processes, one nanosecond apart, in the order in which they happened."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(self, cls: Any, about: int, /, **fields: Any) -> Story:
        """Add a record."""
        now = len(self.events) + 1
        self.events.append(
            cls(seq=now, ts_boot_ns=BORN + now, origin="core", pid=about, start_ticks=100 + about)
        )
        self.events[-1] = structs.replace(self.events[-1], **fields)
        return self

    def fork(self, parent: int, child: int) -> Story:
        """Add a birth."""
        return self.tell(Fork, child, ppid=parent, parent_start_ticks=100 + parent)

    def exit(self, pid: int, ppid: int | None = None, wstatus: int = 0) -> Story:
        """Add an end."""
        return self.tell(Exit, pid, ppid=ppid, wstatus=wstatus, exit_code=wstatus >> 8)

    def seen(self, pid: int, ppid: int, **fields: Any) -> Story:
        """Add a look at the process."""
        return self.tell(Observed, pid, ppid=ppid, parent_start_ticks=100 + ppid, **fields)


LIFETIME = (
    Story()
    .seen(1, 9)
    .fork(1, 2)
    .tell(Exec, 2, filename="/usr/bin/airflow", argv=["airflow", "scheduler"])
    .tell(Title, 2, title="airflow scheduler")
    .fork(2, 3)
    .fork(3, 4)
    .seen(4, 3, argv=["x"])
    .tell(Signal, 3, sig=9, sender_pid=2)
    .tell(Oom, 3)
    .exit(3, 2, 9)
    .tell(Reap, 3, zombie_ns=5)
    .seen(4, 1)
    .exit(4, 1)
    .tell(Lost, 1, pid=None, start_ticks=None, count=3)
    .events
)


def view(tree: ProcessTree) -> Any:
    """Return all that a tree says to others."""
    return {
        "losses": tree.losses,
        "roots": [node.key for node in tree.roots()],
        "numbers": {pid: [n.key for n in tree.with_pid(pid)] for pid in tree.by_pid},
        "nodes": {
            node.key: (
                *(node.fork, node.exit, node.reap, node.oom, node.execs, node.titles),
                *(node.observed, node.signals, node.start_ns, node.ended_ns, node.comm),
                *(node.title, node.argv, node.first_parent, tree.parent(node)),
                [child.key for child in tree.children(node.key)],
                [child.key for child in tree.descendants(node.key)],
                [up.key for up in tree.lineage(node.key)],
            )
            for node in tree.nodes.values()
        },
    }


def named(pids: st.SearchStrategy[int]) -> dict[str, st.SearchStrategy[Any]]:
    """Return strategies for a few processes that are each other's parents, at a few instants."""
    return {
        "pid": pids,
        "start_ticks": st.just(5),
        "ppid": pids,
        "parent_start_ticks": st.just(5),
        "ts_boot_ns": st.integers(1, 30),
    }


FEW = st.integers(1, 5)
COMMON = {name: named(FEW)[name] for name in ("pid", "start_ticks", "ts_boot_ns")}
FAMILY = st.lists(
    st.one_of(
        of_class(Fork, **named(FEW)),
        of_class(Observed, **named(FEW)),
        of_class(Exit, **COMMON, ppid=FEW),
        of_class(Title, **COMMON),
        of_class(Exec, **COMMON),
        of_class(Reap, **COMMON),
    ),
    max_size=12,
).map(lambda found: [structs.replace(event, seq=n) for n, event in enumerate(found)])


@given(st.permutations(LIFETIME))
def test_the_order_of_arrival_changes_nothing(events: list[Event]) -> None:
    """A tree is a function of the set of its records."""
    assert view(grow(events)) == view(grow(LIFETIME))


@settings(max_examples=50)
@given(st.data())
def test_the_order_of_any_records_changes_nothing(data: st.DataObject) -> None:
    """Also of those that contradict each other: two births, a process that is its own parent."""
    events = data.draw(FAMILY)

    assert view(grow(data.draw(st.permutations(events)))) == view(grow(events))


@settings(max_examples=50)
@given(FAMILY, st.lists(st.integers(0, 11)))
def test_hearing_it_twice_changes_nothing(events: list[Event], again: list[int]) -> None:
    """A snapshot repeats what events said, and a stream may be read twice."""
    twice = events + [events[n] for n in again if n < len(events)]

    assert view(grow(twice)) == view(grow(events))


@settings(max_examples=50)
@given(st.lists(EVENTS, max_size=20))
def test_apply_takes_any_record(events: list[Event]) -> None:
    """No record of any kind, with anything in it, raises; nor does looking at the result."""
    view(grow(events))


def test_a_daemon_keeps_its_lineage() -> None:
    """A process adopted by init still descends from the task that started it."""
    events = Story().fork(10, 20).fork(20, 30).exit(20, 10).exit(30, 1).events
    tree = grow(events)

    assert [node.key.pid for node in tree.lineage(key(30))] == [30, 20]
    assert [node.key.pid for node in tree.descendants(key(20))] == [30]
    assert tree.nodes[key(30)].birth_parent == key(20)
    assert tree.parent(tree.nodes[key(30)]) == ProcessKey(1, None)


def test_a_birth_outweighs_what_was_seen_later() -> None:
    """Seen below init first, then the record of its birth arrives: one parent by birth."""
    events = Story().fork(10, 20).seen(20, 1).events
    tree = grow(reversed(events))

    assert tree.children(key(1)) == []
    assert [node.key.pid for node in tree.children(key(10))] == [20]


def test_a_circle_of_parents_hides_nobody() -> None:
    """The kernel makes none, a spoiled stream can; every process still descends from a root."""
    tree = grow(
        [
            Fork(1, 10, "x", pid=5, start_ticks=3, ppid=6, parent_start_ticks=3),
            Fork(2, 20, "x", pid=6, start_ticks=3, ppid=5, parent_start_ticks=3),
            Fork(3, 30, "x", pid=7, start_ticks=3, ppid=6, parent_start_ticks=3),
            Fork(4, 40, "x", pid=8, start_ticks=4, ppid=8, parent_start_ticks=4),
        ]
    )
    reached = {
        key
        for root in tree.roots()
        for key in (root.key, *(n.key for n in tree.descendants(root.key)))
    }

    assert reached == set(tree.nodes)
    assert [root.key.pid for root in tree.roots()] == [5, 8]


def test_exec_becomes_and_does_not_spawn() -> None:
    """A new program image is the same process, under its new name."""
    events = (
        Story()
        .fork(1, 2)
        .tell(Title, 2, title="old")
        .tell(Exec, 2, argv=["sh", "-c", "x"], comm="sh")
        .events
    )
    tree = grow(events)
    node = tree.nodes[key(2)]

    assert len(tree.nodes) == 1
    assert (node.title, node.argv, node.comm) == (None, ["sh", "-c", "x"], "sh")


def test_a_number_used_again_is_another_process() -> None:
    """The key is (pid, start), so two lives of a number do not mix."""
    first = ProcessKey(7, 100)
    events: list[Event] = [
        Fork(1, 1_000_000_000, "core", pid=7, start_ticks=100, start_ns=1_000_000_000, ppid=1),
        Exit(2, 2_000_000_000, "core", pid=7, start_ticks=100, wstatus=0),
        Fork(3, 3_000_000_000, "core", pid=7, start_ticks=300, start_ns=3_000_000_000, ppid=1),
    ]
    tree = grow(events)

    assert [node.key for node in tree.with_pid(7)] == [first, ProcessKey(7, 300)]
    assert tree.at(7, 1_500_000_000) is tree.nodes[first]
    assert tree.at(7, 2_500_000_000) is None
    assert tree.at(7, 3_500_000_000) is tree.nodes[ProcessKey(7, 300)]


def test_a_parent_that_ended_a_moment_before_is_the_parent_still() -> None:
    """
    The init of a PID namespace ends, and those in it are killed while they are still its children.

    Its end is told before zap_pid_ns_processes collects them (kernel/pid_namespace.c).
    """
    tree = grow(Story().seen(1, 0).fork(1, 2).fork(2, 3).exit(2, 1, 9).exit(3, 2, 9).events)
    (child,) = tree.with_pid(3)
    (init,) = tree.with_pid(2)

    assert tree.parent(child) == init.key


def test_a_start_known_in_ticks_alone_orders_two_lives_of_a_number() -> None:
    """Without nanoseconds, field 22 of /proc/PID/stat still tells who was there at an instant."""
    events: list[Event] = [
        Observed(1, 2_000_000_000, "proc", pid=7, start_ticks=100, ppid=1),
        Exit(2, 2_500_000_000, "proc", pid=7, start_ticks=100),
        Observed(3, 4_000_000_000, "proc", pid=7, start_ticks=350, ppid=1),
    ]
    tree = grow(events)

    assert tree.at(7, 2_200_000_000) is tree.nodes[ProcessKey(7, 100)]
    assert tree.at(7, 3_000_000_000) is None


def test_what_airflow_claims_is_no_process() -> None:
    """A recorded pid is a claim: it makes no node."""
    assert grow([TaskReported(1, 2, "airflow", recorded_pid=7)]).nodes == {}


def test_facts_of_a_process_are_bounded() -> None:
    """A worker that serves for weeks keeps its newest titles, whatever their order of arrival."""
    titles = [
        Title(n, n, "core", pid=1, start_ticks=1, title=str(n)) for n in range(MAX_FACTS + 10)
    ]
    forwards, backwards = grow(titles), grow(reversed(titles))

    assert view(forwards) == view(backwards)
    assert forwards.nodes[ProcessKey(1, 1)].titles[0].title == "10"


@settings(max_examples=50)
@given(FAMILY, st.integers(0, 32), st.integers(1, 4), st.frozensets(FEW))
def test_forgetting_keeps_the_living_and_their_lineage(
    events: list[Event], before_ns: int, times: int, held: frozenset[int]
) -> None:
    """Who lives, who is held and all their known ancestors stay; what stays is consistent."""
    tree = grow(events)
    keep = frozenset(ProcessKey(pid, 5) for pid in held)
    before = {node.key: node for node in tree.nodes.values()}
    lineage = {k: [up.key for up in tree.lineage(k)] for k in before}

    count = sum(tree.forget(before_ns, keep) for _ in range(times))

    assert count == len(before) - len(tree.nodes)
    for process, node in before.items():
        if process in keep or node.ended_ns is None or node.ended_ns >= before_ns:
            if process in tree.nodes:
                assert [up.key for up in tree.lineage(process)] == lineage[process]
            else:
                pytest.fail(f"{process} was forgotten")
    view(tree)


def test_nothing_is_left_of_a_storm() -> None:
    """Memory is bounded: after forgetting, no index remembers what is gone."""
    story = Story()
    for pid in range(10, 200):
        story.fork(1 if pid % 2 else pid - 1, pid).exit(pid, 1)
    tree = grow(story.events)

    while tree.forget(BORN * 2):
        pass

    assert (tree.nodes, tree.by_pid) == ({}, {})
    assert {parent for parent, born in tree.born_of.items() if born} == set()
    assert len(tree.born_of) <= 1
