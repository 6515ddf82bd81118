"""A database with a 3.3 schema on one of the servers, and a connection that writes to it."""

from __future__ import annotations

from typing import Any

from pidtrail.events import Event, TaskReported
from tests.database.mariadb import MariaDb
from tests.database.schemas import ddl
from tests.database.server import Server

UUID = "01a201e5-1cc0-74cd-8647-0fa03c29cd58"


class Airflow:
    """Such a database, named by its test."""

    def __init__(self, server: Server | MariaDb, name: str) -> None:
        self.url = server.url(name)
        self.now = server.now
        self._server, self._name = server, name
        with server.connect().cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        self.connection = server.connect(name)
        for statement in ddl("3.3", server.kind):
            self.execute(statement)
        self.execute(
            "INSERT INTO dag_run (id, dag_id, run_id, state, updated_at)"
            f" VALUES (1, 'd', 'r', 'running', {self.now})"
        )

    def again(self) -> None:
        """Connect again, after the server was started again."""
        self.connection = self._server.connect(self._name)

    def execute(self, statement: str, *values: Any) -> None:
        """Run one statement; it is committed at once."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values or None)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return all rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def task(self, pid: int, *, index: int = -1, uuid: str = UUID) -> None:
        """Insert a running task instance."""
        self.execute(
            "INSERT INTO task_instance (id, dag_id, task_id, run_id, map_index, state,"
            " try_number, pid, start_date, updated_at)"
            f" VALUES (%s, 'd', 't', 'r', %s, 'running', 1, %s, {self.now}, {self.now})",
            uuid.replace("-", ""),
            index,
            pid,
        )


def pids(events: list[Event]) -> list[int | None]:
    """Return the pids that were reported."""
    return [event.recorded_pid for event in events if isinstance(event, TaskReported)]
