"""
What was taken in of a recording by its index: processes, each wholly and with all above it.

Whatever is not wanted of them is left; what is wanted is for `lookup` to find out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pidtrail.events import AirflowFact, Fork, Lost, Observed, ProcessKey, TaskReported
from pidtrail.tree import ProcessTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pidtrail.events import Event
    from pidtrail.node import Node


class Indexed(Protocol):
    """The index of a recording; see index.py."""

    first_ns: int
    last_ns: int

    def named(self, name: str) -> list[Event]:
        """Return the words of a name."""

    def beginning(self, begin: str, end: str = "") -> list[Event]:
        """Return the words of all names that begin with some text, and end with some."""

    def names(self, begin: str) -> list[str]:
        """Return all names that begin with some text."""

    def at(self, number: int) -> list[Event]:
        """Return what is told in batches of those who had a number, and of some others."""

    def births(self, number: int) -> list[Event]:
        """Return what is told in batches of who was born of those who had a number."""


class Known:
    """What was taken in; `grew` says whether anything was since it was last set to False."""

    def __init__(self, index: Indexed) -> None:
        self.index = index
        self.tree = ProcessTree()
        self.reports: dict[int, TaskReported] = {}
        self.facts: dict[int, AirflowFact] = {}
        self.whole: set[ProcessKey] = set()
        self.parents: set[ProcessKey] = set()
        self.grew = False

    def hear(self, events: Iterable[Event]) -> None:
        """Take in words; of a process all is wanted."""
        for event in events:
            if isinstance(event, AirflowFact):
                self.facts[id(event)] = event
            elif isinstance(event, Lost):
                self.tree.apply(event)
            else:
                if isinstance(event, TaskReported):
                    self.reports[id(event)] = event
                if event.key is not None:
                    self.load_lineage(event.key)

    def load(self, key: ProcessKey) -> Node | None:
        """Take in all that is told of a process."""
        if key not in self.whole:
            self.whole.add(key)
            self.grew = True
            for event in (*self.index.named(f"n:{key.pid}"), *self.index.at(key.pid)):
                if event.key != key or isinstance(event, AirflowFact):
                    continue
                if isinstance(event, TaskReported):
                    self.reports[id(event)] = event
                else:
                    self.tree.apply(event)
        return self.tree.node(key)

    def load_lineage(self, key: ProcessKey) -> None:
        """Take in a process and all above it."""
        node, seen = self.load(key), {key}
        while node is not None and (above := node.first_parent) is not None and above not in seen:
            seen.add(above)
            node = self.load(above)

    def born_of(self, key: ProcessKey) -> Iterator[Fork | Observed]:
        """Yield the records that may tell of a child of a process."""
        for event in (*self.index.named(f"b:{key.pid}"), *self.index.births(key.pid)):
            if isinstance(event, Fork):
                if event.parent_key == key:
                    yield event
            elif isinstance(event, Observed) and event.ppid == key.pid:
                yield event

    def load_children(self, key: ProcessKey) -> set[ProcessKey]:
        """Take in who was born of a process, and return who that is."""
        if key not in self.parents:
            self.parents.add(key)
            for event in self.born_of(key):
                if event.key is not None:
                    self.load_lineage(event.key)
        return self.tree.born_of.get(key, set())

    def load_family(self, key: ProcessKey) -> None:
        """Take in all that descends from a process."""
        waiting, seen = {key}, {key}
        while waiting:
            waiting = {child for one in waiting for child in self.load_children(one)} - seen
            seen |= waiting

    def load_number(self, number: int) -> list[Node]:
        """Take in all who had a number in any PID namespace, and return them."""
        for event in (*self.index.named(f"n:{number}"), *self.index.at(number)):
            if event.key is not None and not isinstance(event, AirflowFact):
                inner = event.ns_pids if isinstance(event, Fork | Observed) else None
                if event.pid == number or number in (inner or ()):
                    self.load_lineage(event.key)
        return [node for node in self.tree.nodes.values() if number in node.numbers]
