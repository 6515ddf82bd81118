"""
A process: the records told of it, and what follows from those records alone.

A node holds the records themselves; beliefs are computed from them. Facts of
which a process can have only one (birth, end, reaping) are kept by their
earliest record; the others are sorted by time. Only the tree adds to a node.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, TypeVar

from pidtrail.clock import TICK_NS
from pidtrail.events import (
    Exec,
    Exit,
    Fork,
    Observed,
    Oom,
    ProcessKey,
    Reap,
    Record,
    Signal,
    Title,
)

MAX_FACTS: Final = 4096
"""Of a kind, per process; the newest stay. A worker of thousands of tasks has as many titles."""

FactT = TypeVar("FactT", bound=Record)
NamedT = TypeVar("NamedT", Observed, Exec, Title)


def when(record: Record) -> tuple[int, int]:
    """Return what records are ordered by: time, then sequence."""
    return record.ts_boot_ns, record.seq


def keep(facts: list[FactT], fact: FactT) -> None:
    """Insert a fact in order of time, once; the oldest beyond MAX_FACTS go."""
    place = bisect_left(facts, when(fact), key=when)
    if place < len(facts) and when(facts[place]) == when(fact):
        return
    facts.insert(place, fact)
    if len(facts) > MAX_FACTS:
        del facts[0]


def latest_named(facts: Sequence[NamedT]) -> NamedT | None:
    """Return the latest of some facts that has a name of 15 bytes, None if none has."""
    return next((fact for fact in reversed(facts) if fact.comm), None)


def earliest(known: FactT | None, fact: FactT) -> FactT:
    """Return which of two records of a thing that happens once is kept."""
    return fact if known is None or when(fact) < when(known) else known


class Node:
    """One process: the records told of it, and what follows from them alone."""

    __slots__ = (
        "execs", "exit", "fork", "key", "observed", "oom", "reap", "signals", "titles",
    )  # fmt: skip

    def __init__(self, key: ProcessKey) -> None:
        self.key = key
        self.fork: Fork | None = None
        self.exit: Exit | None = None
        self.reap: Reap | None = None
        self.oom: Oom | None = None
        self.execs: list[Exec] = []
        self.titles: list[Title] = []
        self.observed: list[Observed] = []
        self.signals: list[Signal] = []

    @property
    def start_ns(self) -> int | None:
        """The kernel's start_boottime in nanoseconds, if any record carries it."""
        for record in (self.fork, self.exit, *self.observed, *self.execs, *self.titles):
            if record is not None and record.start_ns is not None:
                return record.start_ns
        return None

    @property
    def birth_parent(self) -> ProcessKey | None:
        """Who was real_parent at birth; None if we came later."""
        return self.fork.parent_key if self.fork is not None else None

    @property
    def first_parent(self) -> ProcessKey | None:
        """The birth parent, or who was the parent when we first looked."""
        if self.fork is not None:
            return self.birth_parent
        for record in self.observed:
            if record.ppid is not None:
                return ProcessKey(record.ppid, record.parent_start_ticks)
        return None

    @property
    def comm(self) -> str | None:
        """The latest name of 15 bytes; any process can set its own."""
        latest = (latest_named(self.observed), latest_named(self.execs), latest_named(self.titles))
        named = [r for r in (self.fork, *latest) if r and r.comm]
        return max(named, key=when).comm if named else None

    @property
    def title(self) -> str | None:
        """The latest title that the process wrote over its arguments since its last exec."""
        since = self.execs[-1].ts_boot_ns if self.execs else 0
        for record in reversed(self.titles):
            if record.title is not None:
                return record.title if record.ts_boot_ns >= since else None
        return None

    @property
    def argv(self) -> list[str] | None:
        """The arguments of the latest program image, or what /proc showed."""
        for record in reversed(self.execs):
            if record.argv is not None:
                return record.argv
        for seen in reversed(self.observed):
            if seen.argv is not None:
                return seen.argv
        return None

    @property
    def ns_pids(self) -> list[int] | None:
        """Its numbers in all nested PID namespaces, outermost first."""
        for record in (self.fork, *self.observed):
            if record is not None and record.ns_pids is not None:
                return record.ns_pids
        return None

    @property
    def numbers(self) -> frozenset[int]:
        """Its numbers in all PID namespaces that it is in, as far as they are known."""
        return frozenset((self.key.pid, *(self.ns_pids or ())))

    @property
    def pid_ns(self) -> int | None:
        """The inode of its innermost PID namespace, which it keeps for life."""
        for record in (self.fork, *self.observed):
            if record is not None and record.pid_ns is not None:
                return record.pid_ns
        return None

    @property
    def cgroup(self) -> str | None:
        """The path of its cgroup that was seen last; it can be moved, and does not notice."""
        seen = [record.cgroup for record in self.observed if record.cgroup is not None]
        return seen[-1] if seen else None

    @property
    def log_paths(self) -> list[Observed]:
        """The observations of an open Airflow task log."""
        return [record for record in self.observed if record.log_path is not None]

    @property
    def started_ns(self) -> int | None:
        """CLOCK_BOOTTIME of its birth: exact, or when it was reported, or from its ticks."""
        if self.start_ns is not None:
            return self.start_ns
        if self.fork is not None:
            return self.fork.ts_boot_ns
        ticks = self.key.start_ticks
        return self.key.born_ns if ticks is None else ticks * TICK_NS

    @property
    def ended_ns(self) -> int | None:
        """CLOCK_BOOTTIME of its end, or None while it lives as far as we know."""
        if self.exit is not None:
            return self.exit.ts_boot_ns
        dead = [record.ts_boot_ns for record in self.observed if record.dead]
        if dead:
            return min(dead)
        return self.reap.ts_boot_ns if self.reap is not None else None

    @property
    def last_alive_ns(self) -> int:
        """CLOCK_BOOTTIME of the last record in which it lived; 0 if there is none."""
        records = (self.fork, *self.execs, *self.titles, *self.observed)
        living = [r.ts_boot_ns for r in records if r and not getattr(r, "dead", False)]
        return max(living, default=0)

    def alive_at(self, ts_boot_ns: int) -> bool:
        """Return whether it had been born and had not ended then, as far as we know."""
        started, ended = self.started_ns, self.ended_ns
        return (started is None or started <= ts_boot_ns) and (ended is None or ts_boot_ns < ended)
