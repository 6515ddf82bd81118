"""
What still holds of a stream: the records that a reader needs who comes in now.

A segment of the history is readable alone because it begins with these, as they were
told: with the number and the time that they had, so that a reader of several segments
knows them again, and evidence names the same record by the same number everywhere.

Kept is what was told of processes until they are reaped, and the latest word on each of
Airflow's rows while it may still matter. All of it is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from pidtrail.events import (
    AirflowFact,
    Event,
    Exec,
    Exit,
    Fork,
    Observed,
    Oom,
    ProcessKey,
    Reap,
    Record,
    Signal,
    TaskReported,
    Title,
)

OF_A_KIND: Final = 4
"""So many titles, programs, signals and looks of one process; the newest."""
MAX_UNREAPED: Final = 2_000
"""Not every source tells of reapings, and who is never reaped must not stay for ever."""
MAX_ROWS: Final = 4_000
"""Of each: rows of task instances, other rows. Those go first of which nothing was told longest."""
OVER: Final = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})
STILL_TOLD_NS: Final = 600 * 1_000_000_000
"""So long a row that is over is told again: its process may end, or be looked for, after it."""

EventT = TypeVar("EventT", bound=Record)


class Told:
    """What was told of one process."""

    __slots__ = (
        *("claim", "execs", "exit", "fork", "installation", "log", "looks", "oom", "signals"),
        "titles",
    )

    def __init__(self) -> None:
        self.fork: Fork | None = None
        self.exit: Exit | None = None
        self.oom: Oom | None = None
        self.claim: TaskReported | None = None
        self.installation: AirflowFact | None = None
        self.log: Observed | None = None
        self.execs: list[Exec] = []
        self.titles: list[Title] = []
        self.signals: list[Signal] = []
        self.looks: list[Observed] = []

    def take(self, event: Event) -> None:
        """Take in a record; what tells nothing lasting of the process changes nothing."""
        if isinstance(event, Fork):
            self.fork = event
        elif isinstance(event, Exec):
            keep(self.execs, event)
        elif isinstance(event, Title):
            keep(self.titles, event)
        elif isinstance(event, Signal):
            keep(self.signals, event)
        elif isinstance(event, Observed):
            if event.log_path is not None:
                self.log = event
            else:
                keep(self.looks, event)
        elif isinstance(event, Exit):
            self.exit = event
        elif isinstance(event, Oom):
            self.oom = event
        elif isinstance(event, TaskReported):
            self.claim = event

    def records(self) -> Iterator[Event]:
        """Yield them, in no order."""
        single: tuple[Event | None, ...] = (
            self.fork, self.exit, self.oom, self.claim, self.log, self.installation
        )  # fmt: skip
        yield from (one for one in single if one is not None)
        yield from self.execs
        yield from self.titles
        yield from self.signals
        yield from self.looks


class Standing:
    """What still holds; see the head of this file."""

    def __init__(self) -> None:
        self.alive: dict[ProcessKey, Told] = {}
        self.unreaped: dict[ProcessKey, Told] = {}
        self.rows: dict[tuple[object, ...], TaskReported] = {}
        self.facts: dict[tuple[object, ...], AirflowFact] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Take in records in their order. Never raises."""
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take in one record."""
        key = event.key
        if key is None:
            if isinstance(event, TaskReported):
                put(self.rows, row_of(event), event)
            elif isinstance(event, AirflowFact):
                put(self.facts, fact_of(event), event)
            return
        kind = type(event)
        if kind is Reap:
            self.alive.pop(key, None)
            self.unreaped.pop(key, None)
            return
        told = self.alive.get(key) or self.unreaped.get(key)
        if told is None:
            told = self.alive[key] = Told()
        if isinstance(event, AirflowFact):
            told.installation = event
        else:
            told.take(event)
        if kind is Exit or getattr(event, "dead", False):
            self.alive.pop(key, None)
            self.unreaped[key] = told
            if len(self.unreaped) > MAX_UNREAPED:
                del self.unreaped[next(iter(self.unreaped))]

    def told_again(self, now_ns: int) -> list[Event]:
        """Return all that still holds, by number; what is over by then is forgotten."""
        self.rows = {k: row for k, row in self.rows.items() if row_holds(row, now_ns)}
        open_rows = {
            (row.airflow, *instance(row)) for row in self.rows.values() if row.state not in OVER
        }
        self.facts = {
            key: fact for key, fact in self.facts.items() if fact_holds(fact, now_ns, open_rows)
        }
        people = (*self.alive.values(), *self.unreaped.values())
        found: list[Event] = [record for told in people for record in told.records()]
        return sorted([*found, *self.rows.values(), *self.facts.values()], key=lambda e: e.seq)


def keep(known: list[EventT], event: EventT) -> None:
    """Add a record to those of its kind; the oldest beyond OF_A_KIND goes."""
    known.append(event)
    if len(known) > OF_A_KIND:
        del known[0]


def put(rows: dict[tuple[object, ...], EventT], key: tuple[object, ...], row: EventT) -> None:
    """Note the latest word on a row; those of which nothing was told longest go first."""
    rows.pop(key, None)
    rows[key] = row
    if len(rows) > MAX_ROWS:
        del rows[next(iter(rows))]


def row_of(event: TaskReported) -> tuple[object, ...]:
    """Return which row a record speaks of: an instance's current one, or that of an earlier try."""
    task = event.task
    earlier = task is not None and event.table == "task_instance_history"
    attempt = task.try_number if task and earlier else None
    return (event.via, event.airflow, event.table, *instance(event), attempt)


def fact_of(event: AirflowFact) -> tuple[object, ...]:
    """Return which row a record speaks of; in two databases the same number means two rows."""
    at = None if event.table == "dag_run" else event.at
    name = (event.detail or {}).get("filename")
    return (event.table, event.row_id, event.origin, event.airflow, *instance(event), at, name)


def instance(event: TaskReported | AirflowFact) -> tuple[object, ...]:
    """Return the task instance that a record speaks of; its UUID where no name is known."""
    task = event.task
    if task is None:
        return ()
    if task.dag_id is None:
        return (task.ti_id,)
    return (task.dag_id, task.task_id, task.run_id, task.map_index)


def row_holds(row: TaskReported, now_ns: int) -> bool:
    """Return whether a task instance's row may still matter."""
    return row.state not in OVER or now_ns - row.ts_boot_ns < STILL_TOLD_NS


def fact_holds(fact: AirflowFact, now_ns: int, open_rows: set[tuple[object, ...]]) -> bool:
    """Return whether another row may still matter."""
    return (
        fact.table == "log_template"
        or (fact.table in {"job", "dag_run"} and fact.event == "running")
        or now_ns - fact.ts_boot_ns < STILL_TOLD_NS
        or (
            fact.table in {"log", "task_reschedule"}
            and (fact.airflow, *instance(fact)) in open_rows
        )
    )
