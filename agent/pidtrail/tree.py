"""
The process tree: what we believe about processes, given the records so far.

Rule 1: nothing outside this module changes a node.
Rule 2: apply() is total and idempotent: any record, in any order, twice.

Theory of operation
-------------------
A node is one process (ProcessKey) with the facts told of it, the earliest of
what happens once, the rest by time. So the order of arrival is irrelevant: a
tree is a function of the set of its records.

Three parents, three names. The creator called fork. The birth parent is
real_parent at that moment and never changes: lineage. The parent is who would
be signalled now; it changes when a parent dies, without any kernel event, and
is known again only when a later record shows another ppid.

Memory is bounded by forget(), which the caller runs with a grace time; apply()
itself never forgets, or rule 2 would break.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pidtrail.clock import TICK_NS
from pidtrail.container import Place, place_of
from pidtrail.events import (
    Event,
    Exec,
    Exit,
    Fork,
    Lost,
    Migrate,
    Observed,
    Oom,
    ProcessKey,
    Reap,
    Signal,
    Title,
)
from pidtrail.node import Node, earliest, keep, when

MAX_LINEAGE: Final = 100
"""Ended ancestors that forget() keeps of who stays; under Airflow there are some ten."""


class ProcessTree:
    """All processes that records told of; see the head of this file."""

    def __init__(self) -> None:
        self.nodes: dict[ProcessKey, Node] = {}
        self.by_pid: dict[int, list[ProcessKey]] = {}
        self.born_of: dict[ProcessKey, set[ProcessKey]] = {}
        self.losses: list[Lost] = []

    def apply(self, event: Event) -> None:
        """Take in one record. Never raises; what tells nothing of a process changes nothing."""
        key = event.key
        if key is None:
            if isinstance(event, Lost):
                keep(self.losses, event)
            return
        handler = HANDLERS.get(type(event))
        if handler is not None:
            node = self.nodes.get(key)
            handler(self, node if node is not None else self.add(key), event)

    def add(self, key: ProcessKey) -> Node:
        """Make the node of a process not heard of before."""
        node = self.nodes[key] = Node(key)
        insort(self.by_pid.setdefault(key.pid, []), key, key=order)
        return node

    def on_fork(self, node: Node, event: Fork) -> None:
        """Take in a birth."""
        old = node.first_parent
        node.fork = earliest(node.fork, event)
        self.move(node.key, old, node.first_parent)

    def on_observed(self, node: Node, event: Observed) -> None:
        """Take in what was seen at an instant."""
        old = node.first_parent
        keep(node.observed, event)
        self.move(node.key, old, node.first_parent)

    def move(self, key: ProcessKey, old: ProcessKey | None, new: ProcessKey | None) -> None:
        """Note that a process was born of someone else than was believed."""
        if old == new:
            return
        if old is not None:
            self.unlink(key, old)
        if new is not None:
            self.born_of.setdefault(new, set()).add(key)

    def unlink(self, key: ProcessKey, parent: ProcessKey) -> None:
        """Note that a process was not born of this parent, or is forgotten."""
        siblings = self.born_of.get(parent)
        if siblings is not None:
            siblings.discard(key)
            if not siblings:
                del self.born_of[parent]

    def node(self, key: ProcessKey | None) -> Node | None:
        """Return the node of a process, or None."""
        return None if key is None else self.nodes.get(key)

    def with_pid(self, pid: int) -> list[Node]:
        """Return every process that had this number, oldest first."""
        return [self.nodes[key] for key in self.by_pid.get(pid, ())]

    def at(self, pid: int, ts_boot_ns: int) -> Node | None:
        """Return the process that had this number at an instant, or None."""
        living = [node for node in self.with_pid(pid) if node.alive_at(ts_boot_ns)]
        return living[-1] if living else None

    def latest(self, pid: int, ts_boot_ns: int) -> Node | None:
        """Return the last process that had this number up to an instant, alive or not, or None."""
        born = [node for node in self.with_pid(pid) if (node.started_ns or 0) <= ts_boot_ns]
        return born[-1] if born else None

    def children(self, key: ProcessKey) -> list[Node]:
        """Return the processes born of this one, oldest first."""
        return [self.nodes[child] for child in sorted(self.born_of.get(key, ()), key=order)]

    def descendants(self, key: ProcessKey) -> Iterator[Node]:
        """Yield all that descends from a process, parents before children."""
        waiting, seen = deque([key]), {key}
        while waiting:
            for child in self.children(waiting.popleft()):
                if child.key not in seen:
                    seen.add(child.key)
                    waiting.append(child.key)
                    yield child

    def lineage(self, key: ProcessKey) -> list[Node]:
        """Return the process and its ancestors by birth, as far as they are known."""
        node = self.nodes.get(key)
        return [] if node is None else [node, *self.ancestors(node)]

    def ancestors(self, node: Node) -> Iterator[Node]:
        """Yield the ancestors of a process by birth, the nearest first; each once."""
        seen = {node.key}
        above = self.node(node.first_parent)
        while above is not None and above.key not in seen:
            seen.add(above.key)
            yield above
            above = self.node(above.first_parent)

    def place(self, node: Node) -> Place:
        """
        Return which container, pod and unit a process is in, as far as it is known.

        By its own cgroup, or that of the nearest ancestor that was seen in a container,
        if both are in one PID namespace: a child is born in its parent's cgroup
        (cgroups(7)), and a runtime moves who enters a container before it makes the
        namespace. Who comes in later (docker exec) has its parent outside.
        """
        if node.cgroup is not None or node.pid_ns is None:
            return place_of(node.cgroup or "")
        for ancestor in self.lineage(node.key)[1:]:
            if ancestor.pid_ns != node.pid_ns:
                break
            place = place_of(ancestor.cgroup or "")
            if place.is_contained:
                return place
        return Place()

    def parent(self, node: Node) -> ProcessKey | None:
        """
        Return who is the parent by the latest word on it.

        None if the last known parent has ended before this process and nobody
        has said since who adopted it.
        """
        said = [r for r in (node.fork, *node.observed, node.exit) if r is not None and r.ppid]
        if not said:
            return None
        last = max(said, key=when)
        assert last.ppid is not None  # noqa: S101 (filtered above)
        if isinstance(last, Exit):
            first = node.first_parent
            # Who adopts is older than the dead parent and had another number all the time, so an
            # equal number is the parent itself: it ends before its orphans are given away.
            if first is not None and first.pid == last.ppid:
                return first
            # A parent that ends at the same moment keeps its children until exit_notify, which
            # comes after its own exit record (kernel/exit.c do_exit).
            owner = self.at(last.ppid, last.ts_boot_ns) or self.latest(last.ppid, last.ts_boot_ns)
            return owner.key if owner is not None else ProcessKey(last.ppid, None)
        told = last.parent_key if isinstance(last, Fork) else None
        key = told or ProcessKey(last.ppid, last.parent_start_ticks)
        known = self.nodes.get(key)
        gone = known is not None and known.ended_ns is not None
        return None if gone and node.ended_ns is None else key

    def roots(self) -> list[Node]:
        """
        Return the processes whose parent by birth is not in the tree, oldest first.

        Of those who are each other's ancestors, which a spoiled stream can say, the oldest,
        so that every process descends from a root.
        """
        found = [n for n in self.nodes.values() if self.node(n.first_parent) is None]
        found.sort(key=lambda node: order(node.key))
        reached: set[ProcessKey] = set()
        for node in found:
            self.reach(node.key, reached)
        if len(reached) < len(self.nodes):
            for key in sorted(self.nodes.keys() - reached, key=order):
                if key not in reached:
                    found.append(self.nodes[key])
                    self.reach(key, reached)
        return found

    def reach(self, key: ProcessKey, reached: set[ProcessKey]) -> None:
        """Add a process and all that descends from it, as far as they are not there yet."""
        waiting = [key]
        while waiting:
            key = waiting.pop()
            if key not in reached:
                reached.add(key)
                waiting.extend(self.born_of.get(key, ()))

    def forget(self, before_ns: int, held: frozenset[ProcessKey] = frozenset()) -> int:
        """
        Drop processes that ended before an instant, and return how many.

        Those in `held` stay, and so do the ancestors of all who stay, for lineage:
        MAX_LINEAGE of them, or a daemon that forks its successor and ends would
        keep all its generations. The order of forgetting does not matter to who is left.
        """
        kept = [
            node
            for node in self.nodes.values()
            if node.ended_ns is None or node.ended_ns >= before_ns or node.key in held
        ]
        lineage = {node.key for node in kept}
        for node in kept:
            ancestor: Node | None = node
            for _ in range(MAX_LINEAGE):
                ancestor = self.node(ancestor.first_parent) if ancestor is not None else None
                if ancestor is None:
                    break
                lineage.add(ancestor.key)
        gone = self.nodes.keys() - lineage
        for key in gone:
            node = self.nodes.pop(key)
            numbers = self.by_pid[key.pid]
            numbers.remove(key)
            if not numbers:
                del self.by_pid[key.pid]
            if node.first_parent is not None:
                self.unlink(key, node.first_parent)
        return len(gone)


def order(key: ProcessKey) -> tuple[int, int]:
    """Return what processes are ordered by: start, then number; unknown starts come first."""
    if key.start_ticks is None:
        return ((key.born_ns or 0) // TICK_NS, key.pid)
    return (key.start_ticks, key.pid)


def on_exec(_tree: ProcessTree, node: Node, event: Exec) -> None:
    """Take in a new program image."""
    keep(node.execs, event)


def on_title(_tree: ProcessTree, node: Node, event: Title) -> None:
    """Take in a new name."""
    keep(node.titles, event)


def on_signal(_tree: ProcessTree, node: Node, event: Signal) -> None:
    """Take in a signal."""
    keep(node.signals, event)


def on_exit(_tree: ProcessTree, node: Node, event: Exit) -> None:
    """Take in the end."""
    node.exit = earliest(node.exit, event)


def on_reap(_tree: ProcessTree, node: Node, event: Reap) -> None:
    """Take in the collection by the parent."""
    node.reap = earliest(node.reap, event)


def on_oom(_tree: ProcessTree, node: Node, event: Oom) -> None:
    """Take in that the kernel chose it as its victim."""
    node.oom = earliest(node.oom, event)


def ignore(_tree: ProcessTree, _node: Node, _event: Migrate) -> None:
    """A move between CPUs changes nothing about a process; its number is counted by the kernel."""


HANDLERS: Final[dict[type, Callable[..., None]]] = {
    Fork: ProcessTree.on_fork,
    Observed: ProcessTree.on_observed,
    Exec: on_exec,
    Title: on_title,
    Exit: on_exit,
    Reap: on_reap,
    Signal: on_signal,
    Oom: on_oom,
    Migrate: ignore,
}


def grow(events: Iterable[Event]) -> ProcessTree:
    """Return the tree of some records."""
    tree = ProcessTree()
    for event in events:
        tree.apply(event)
    return tree
