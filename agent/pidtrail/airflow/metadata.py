"""
What Airflow's metadata database claims, as records of what changed between two polls.

Airflow overwrites `task_instance.pid` at each poke and resume without keeping
the old one, so the history exists only for who was watching.

Theory of operation
-------------------
A poll is one read-only snapshot and a fixed number of statements. It reads

1. the schema revision: another one than before means looking at the columns again;
2. new rows of `log` and `task_reschedule`, by id;
3. `dag_run`: what runs, what is new, what was watched, what the log named;
4. `task_instance`: all that have or await a process, and all that changed
   lately in runs of 3. The second part is what sees a task instance that
   started and ended between two polls: its run is running, or ran in the last
   ten minutes, or was just named by the log, and its `updated_at` is not older
   than what was seen last, less two minutes for clocks and slow commits;
5. `task_instance_history` of the task instances that changed;
6. `job`;
7. new rows of `log_template`, by id: an insert that commits late is of no account, as
   Airflow adds one at its start, when its configuration has changed.

Each row is compared with what was said of it before, and becomes a record if it
differs in more than a heartbeat. After a gap (start, error) the runs that ended
meanwhile are asked for too. What was overwritten in the gap is lost.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from pidtrail.airflow import rows
from pidtrail.airflow.watermark import Watermark
from pidtrail.clock import epoch_ns_of_text
from pidtrail.errors import DatabaseError
from pidtrail.events import AirflowFact, Event, TaskReported

if TYPE_CHECKING:
    import sqlalchemy as sa

    from pidtrail.airflow.database import Database
    from pidtrail.airflow.schema import Schema
    from pidtrail.airflow.statements import Statements

_SLACK_NS = 120 * 1_000_000_000
_WATCH_NS = 600 * 1_000_000_000
_MOST_WATCHED = 500
_MOST_KEYS = 200
# How far below its end task_reschedule is read at the start, for pokes since then.
_RESCHEDULES_BACK = 2000
# Differences in these alone are no news: they change every few seconds.
_HEARTBEATS = {"updated_at": None, "last_heartbeat_at": None, "ts_boot_ns": 0}
# States of a task instance that never had a process, if nothing was said of it before.
_UNTOUCHED = {None, "skipped", "upstream_failed", "removed"}


@dataclass
class _Memory:
    """What was read of one database so far; instants are CLOCK_BOOTTIME, or since the epoch."""

    polled_epoch_ns: int | None = None
    newest_epoch_ns: int | None = None
    log: Watermark | None = None
    reschedules: Watermark | None = None
    highest_run: int | None = None
    highest_template: int = 0
    watched: dict[int, int] = field(default_factory=dict)
    named: list[tuple[str, str]] = field(default_factory=list)
    running_jobs: set[int] = field(default_factory=set)
    pending: dict[rows.Key, None] = field(default_factory=dict)
    said: dict[tuple[object, ...], Event] = field(default_factory=dict)
    last_use: dict[tuple[object, ...], int] = field(default_factory=dict)


class Metadata:
    """
    A metadata database, polled for what changed.

    `since_epoch_ns` is when the session began (nanoseconds since the Unix epoch,
    this host's clock); rows from up to two minutes before are records too.
    Nothing is opened before the first poll. Not for use by several threads.
    """

    def __init__(self, url: str, *, since_epoch_ns: int) -> None:
        self._url = url
        self._since_ns = since_epoch_ns - _SLACK_NS
        self._database: Database | None = None
        self._schema: Schema | None = None
        self._statements: Statements | None = None
        self._identity: object = None
        self._memory = _Memory()
        self._gap = True
        # Kept until a poll succeeds: what was read before an error is not read again.
        self._events: list[Event] = []

    @property
    def problem(self) -> str | None:
        """One line on what the schema lacks or is not known to be, or None."""
        return None if self._schema is None else self._schema.problem

    def poll(self, ts_boot_ns: int) -> list[Event]:
        """
        Return what changed since the last poll, with `ts_boot_ns` as its time.

        Raises DatabaseError, one line without a password, if the database is not
        there, does not answer, is locked, or is not Airflow's. The next poll
        connects anew and brings what was missed, as far as it still stands there.
        """
        gap, self._gap = self._gap, True
        database = self._opened()
        now_ns = time.time_ns()
        with database.snapshot() as connection:
            self._look(database, connection)
            self._read(connection, ts_boot_ns, gap=gap)
        self._gap = False
        self._memory.polled_epoch_ns = now_ns
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Let go of the database. May be called twice; a later poll opens it again."""
        if self._database is not None:
            self._database.close()
        self._schema = self._statements = None
        self._gap = True

    def _opened(self) -> Database:
        if self._database is None:
            try:
                # Only here: SQLAlchemy is an extra, and takes 0.2 s to import.
                from pidtrail.airflow.database import Database  # noqa: PLC0415

                self._database = Database(self._url)
            except ImportError as error:
                raise DatabaseError(
                    f"reading Airflow's database needs {error.name or 'SQLAlchemy'}",
                    "pip install 'pidtrail[airflow-db]'",
                ) from None
        return self._database

    def _look(self, database: Database, connection: sa.Connection) -> None:
        """Look at the columns if this may be another database or another revision."""
        from pidtrail.airflow.schema import read_schema, revision_of  # noqa: PLC0415
        from pidtrail.airflow.statements import Statements  # noqa: PLC0415

        identity = database.identity()
        if identity != self._identity:
            self._memory = _Memory()
            self._schema, self._identity = None, identity
        if self._schema is not None:
            revision = revision_of(connection)
            if revision == self._schema.revision:
                return
        self._schema = read_schema(connection)
        self._statements = Statements(self._schema, database.kind)

    def _read(self, connection: sa.Connection, ts: int, *, gap: bool) -> None:
        assert self._statements is not None  # noqa: S101 - set by _look
        ask = self._statements
        gap = gap or self._memory.polled_epoch_ns is None
        self._find_starts(connection, ask, gap=gap)
        self._read_log_templates(connection, ask, ts)
        self._read_log(connection, ask, ts)
        self._read_reschedules(connection, ask, ts)
        floor_ns = self._floor_ns()
        self._read_runs(connection, ask, ts, floor_ns if gap else None)
        self._read_tasks(connection, ask, ts, floor_ns)
        self._read_history(connection, ask, ts)
        self._read_jobs(connection, ask, ts)
        self._age(ts)

    def _floor_ns(self) -> int:
        """
        Return since when changed rows are asked for.

        The newest date seen is by Airflow's clocks, the last good poll by ours; the
        earlier of both is safe even if one host's clock runs far ahead.
        """
        marks = [
            mark
            for mark in (self._memory.newest_epoch_ns, self._memory.polled_epoch_ns)
            if mark is not None
        ]
        return max(min(marks) - _SLACK_NS, self._since_ns) if len(marks) > 1 else self._since_ns

    def _find_starts(self, connection: sa.Connection, ask: Statements, *, gap: bool) -> None:
        """Find where to begin in what is read by id; after a gap, see that it only grew."""
        if not gap:
            return
        log_start = ask.log_start(self._since_ns)
        if log_start is not None:
            highest, lowest = tuple(connection.execute(log_start).one())
            if self._memory.log is not None and (highest or 0) < self._memory.log.highest:
                # Made anew under the same address: nothing said before holds.
                self._memory = _Memory()
            if self._memory.log is None:
                self._memory.log = Watermark(lowest - 1 if lowest is not None else highest or 0)
        if self._memory.highest_run is None:
            # What ended in the session before is asked for by its end.
            self._memory.highest_run = connection.scalar(ask.run_start()) or 0
        reschedule_start = ask.reschedule_start()
        if reschedule_start is not None and self._memory.reschedules is None:
            highest = connection.scalar(reschedule_start) or 0
            self._memory.reschedules = Watermark(max(0, highest - _RESCHEDULES_BACK))

    def _read_log(self, connection: sa.Connection, ask: Statements, ts: int) -> None:
        if self._memory.log is None:
            return
        found = _all(connection, ask.log(self._memory.log.highest, self._memory.log.holes))
        self._memory.log.advance((row["id"] for row in found), ts)
        for row in found:
            dag, run = row.get("dag_id"), row.get("run_id")
            if dag is not None and run is not None and (dag, run) not in self._memory.named:
                self._memory.named.append((dag, run))
            if dag is not None or str(row.get("event")).startswith("cli_"):
                self._events.append(rows.log_fact(row, ts))

    def _read_log_templates(self, connection: sa.Connection, ask: Statements, ts: int) -> None:
        query = ask.log_templates(self._memory.highest_template)
        for row in _all(connection, query) if query is not None else ():
            self._memory.highest_template = max(row["id"], self._memory.highest_template)
            self._events.append(rows.template_fact(row, ts))

    def _read_reschedules(self, connection: sa.Connection, ask: Statements, ts: int) -> None:
        mark = self._memory.reschedules
        if mark is None:
            return
        found = _all(connection, ask.reschedules(mark.highest, mark.holes, self._since_ns))
        mark.advance((row["id"] for row in found), ts)
        self._events.extend(rows.reschedule_fact(row, ts) for row in found)

    def _read_runs(
        self,
        connection: sa.Connection,
        ask: Statements,
        ts: int,
        ended_since_ns: int | None,
    ) -> None:
        named, self._memory.named = self._memory.named[:_MOST_KEYS], self._memory.named[_MOST_KEYS:]
        query = ask.runs(
            self._floor_ns(),
            self._memory.watched,
            self._memory.highest_run,
            named,
            ended_since_ns=ended_since_ns,
        )
        for row in _all(connection, query):
            number, state = row["id"], row.get("state")
            mentioned = (row["dag_id"], row["run_id"]) in named
            if state == "running" or mentioned or number not in self._memory.watched:
                self._memory.watched[number] = ts
            self._memory.highest_run = max(number, self._memory.highest_run or 0)
            self._say(("run", number), rows.run_fact(row, ts), ts)

    def _read_tasks(
        self,
        connection: sa.Connection,
        ask: Statements,
        ts: int,
        floor_ns: int,
    ) -> None:
        assert self._schema is not None  # noqa: S101 - set by _look
        old = self._schema.old_try_numbers
        found = {
            rows.key_of(row): row
            for query in (ask.active_tasks(), ask.changed_tasks(floor_ns, self._memory.watched))
            for row in _all(connection, query)
        }
        for key, row in found.items():
            event = rows.reported(row, "task_instance", ts, old=old)
            newest = epoch_ns_of_text(event.updated_at) if event.updated_at else None
            if newest is not None:
                self._memory.newest_epoch_ns = max(newest, self._memory.newest_epoch_ns or newest)
            if (
                event.state in _UNTOUCHED
                and event.recorded_pid is None
                and event.start_date is None
                and ("task", *key) not in self._memory.said
            ):
                continue
            if self._say(("task", *key), event, ts):
                self._memory.pending[key] = None

    def _read_history(self, connection: sa.Connection, ask: Statements, ts: int) -> None:
        """Read the archived tries of what changed; what is too much waits for the next poll."""
        keys = list(self._memory.pending)[:_MOST_KEYS]
        for key in keys:
            del self._memory.pending[key]
        query = ask.earlier_tries(keys) if keys else None
        if query is None:
            return
        for row in _all(connection, query):
            event = rows.reported(row, "task_instance_history", ts, old=False)
            self._say(("try", *rows.key_of(row), row.get("try_number")), event, ts)

    def _read_jobs(self, connection: sa.Connection, ask: Statements, ts: int) -> None:
        query = ask.jobs(self._floor_ns(), self._memory.running_jobs)
        if query is None:
            return
        for row in _all(connection, query):
            number = row["id"]
            if row.get("state") == "running":
                self._memory.running_jobs.add(number)
            else:
                self._memory.running_jobs.discard(number)
            self._say(("job", number), rows.job_fact(row, ts), ts)

    def _say(
        self,
        key: tuple[object, ...],
        event: TaskReported | AirflowFact,
        ts: int,
    ) -> bool:
        """Add the record unless nothing in it is new; tell whether it was added."""
        essence = _essence(event)
        self._memory.last_use[key] = ts
        if self._memory.said.get(key) == essence:
            return False
        self._memory.said[key] = essence
        self._events.append(event)
        return True

    def _age(self, ts: int) -> None:
        """Stop watching runs, and forget rows, that have shown nothing for ten minutes."""
        newest = sorted(self._memory.watched.items(), key=lambda item: -item[1])[:_MOST_WATCHED]
        self._memory.watched = {number: seen for number, seen in newest if ts - seen < _WATCH_NS}
        for key in [
            key for key, seen in self._memory.last_use.items() if ts - seen > 2 * _WATCH_NS
        ]:
            del self._memory.last_use[key]
            self._memory.said.pop(key, None)


def _all(connection: sa.Connection, query: Any) -> list[rows.Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _essence(event: TaskReported | AirflowFact) -> Event:
    """Return the record without what changes at every heartbeat."""
    if isinstance(event, TaskReported):
        return msgspec.structs.replace(event, **_HEARTBEATS)
    detail = {
        name: value for name, value in (event.detail or {}).items() if name != "latest_heartbeat"
    }
    at = None if event.table == "dag_run" else event.at
    return msgspec.structs.replace(event, ts_boot_ns=0, at=at, detail=detail)
