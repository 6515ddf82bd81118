"""The same claims from a real PostgreSQL, and what happens when it is busy, slow or gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("psycopg2")

from pidtrail.airflow.metadata import Metadata
from pidtrail.airflow.sampler import Sampler
from pidtrail.errors import DatabaseError
from pidtrail.events import AirflowFact, Event, TaskRef, TaskReported
from tests.database.schemas import ddl
from tests.database.server import PASSWORD, Server

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_postgres]

UUID = "01a201e5-1cc0-74cd-8647-0fa03c29cd58"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


class Airflow:
    """A database with a 3.3 schema, and a connection that writes to it."""

    def __init__(self, server: Server, name: str) -> None:
        self.url = server.url(name)
        self._server, self._name = server, name
        with server.connect().cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        self.connection = server.connect(name)
        for statement in ddl("3.3", postgresql=True):
            self.execute(statement)
        self.execute(
            "INSERT INTO dag_run (id, dag_id, run_id, state, updated_at)"
            " VALUES (1, 'd', 'r', 'running', now())"
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
            return cursor.fetchall()

    def task(self, pid: int, *, index: int = -1, uuid: str = UUID) -> None:
        """Insert a running task instance."""
        self.execute(
            "INSERT INTO task_instance (id, dag_id, task_id, run_id, map_index, state,"
            " try_number, pid, start_date, updated_at)"
            " VALUES (%s, 'd', 't', 'r', %s, 'running', 1, %s, now(), now())",
            uuid,
            index,
            pid,
        )


@pytest.fixture
def airflow(server: Server, request: pytest.FixtureRequest) -> Iterator[Airflow]:
    name = f"x{abs(hash(request.node.name)) % 10**12}"
    airflow = Airflow(server, name)
    yield airflow
    airflow.connection.close()


@pytest.fixture
def metadata(airflow: Airflow) -> Iterator[Metadata]:
    metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())
    yield metadata
    metadata.close()


def pids(events: list[Event]) -> list[int | None]:
    return [event.recorded_pid for event in events if isinstance(event, TaskReported)]


def test_a_running_task_instance_is_reported_once(airflow: Airflow, metadata: Metadata) -> None:
    airflow.task(42)

    first, second = metadata.poll(1), metadata.poll(2)

    (event,) = [event for event in first if isinstance(event, TaskReported)]
    assert event.task == TaskRef("d", "t", "r", -1, 1, UUID)
    assert event.recorded_pid == 42
    assert event.start_date is not None
    assert event.start_date.endswith("Z")
    assert second == []
    assert metadata.problem is None


def test_every_overwritten_pid_is_seen(airflow: Airflow, metadata: Metadata) -> None:
    airflow.task(1)
    seen = pids(metadata.poll(1))
    for pid in (2, 3):
        airflow.execute("UPDATE task_instance SET pid = %s, updated_at = now()", pid)
        seen += pids(metadata.poll(pid))

    assert seen == [1, 2, 3]


def test_a_log_entry_that_commits_after_a_later_one_is_not_missed(
    airflow: Airflow, server: Server, metadata: Metadata
) -> None:
    metadata.poll(1)
    insert = (
        "INSERT INTO log (dttm, dag_id, task_id, run_id, event) VALUES (now(), 'd', 't', 'r', %s)"
    )
    with server.connect(airflow.url.rpartition("/")[2]) as slow, slow.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(insert, ("early id, late commit",))
        airflow.execute(insert, "late id, early commit")
        first = metadata.poll(2)
        cursor.execute("COMMIT")
    second = metadata.poll(3)

    assert [event.event for event in first if isinstance(event, AirflowFact)] == [
        "late id, early commit"
    ]
    assert [event.event for event in second if isinstance(event, AirflowFact)] == [
        "early id, late commit"
    ]


def test_nothing_but_reading_is_asked_and_the_server_would_refuse_it(
    airflow: Airflow, server: Server, metadata: Metadata
) -> None:
    airflow.task(1)
    metadata.poll(1)
    metadata.poll(2)

    asked = server.statements("pidtrail")
    assert len(asked) > 10
    assert {statement.split()[0].upper() for statement in asked} <= {
        "SELECT",
        "BEGIN",
        "ROLLBACK",
        "SHOW",
    }
    readings = [statement for statement in asked if statement.startswith("BEGIN")]
    assert "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" in readings
    held = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'pidtrail' AND state <> 'idle'"
    )
    assert airflow.rows(held) == [(0,)]


def test_a_locked_table_is_an_error_within_two_seconds_and_then_read_on(
    airflow: Airflow, server: Server, metadata: Metadata
) -> None:
    metadata.poll(1)
    with server.connect(airflow.url.rpartition("/")[2]) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE task_instance IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(DatabaseError, match="lock timeout"):
            metadata.poll(2)
        assert time.monotonic() - began < 2
        cursor.execute("COMMIT")
    airflow.task(42)

    assert pids(metadata.poll(3)) == [42]


@pytest.mark.parametrize("password", ["wr0ng-secret", "wr0ng%40secret"])
def test_a_wrong_password_is_said_and_never_shown(
    server: Server,
    password: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)

    with pytest.raises(DatabaseError, match="password authentication failed") as caught:
        Metadata(server.url(password=password), since_epoch_ns=0).poll(1)

    shown = str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert "wr0ng" not in shown
    assert PASSWORD not in shown
    assert "\n" not in str(caught.value)


def test_a_database_without_airflow_or_without_existence_is_said(server: Server) -> None:
    with pytest.raises(DatabaseError, match="the database is empty"):
        Metadata(server.url(), since_epoch_ns=0).poll(1)
    with pytest.raises(DatabaseError, match="does not exist"):
        Metadata(server.url("nowhere"), since_epoch_ns=0).poll(1)


def test_a_server_that_goes_away_and_comes_back_is_read_on(
    server: Server, airflow: Airflow
) -> None:
    metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())
    sampler = Sampler(metadata, interval_s=0.05)
    sampler.start()
    seen: list[Event] = []

    def until(true: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end
            time.sleep(0.05)
            seen.extend(sampler.drain())

    airflow.task(1)
    until(lambda: 1 in pids(seen))
    server.stop()
    try:
        until(lambda: any("127.0.0.1" in problem for problem in sampler.problems()))
    finally:
        server.start()
    airflow.again()
    airflow.execute("UPDATE task_instance SET pid = 2, updated_at = now()")
    until(lambda: 2 in pids(seen))

    sampler.stop()
    assert PASSWORD not in "".join(sampler.problems())


def test_a_million_old_rows_cost_nothing(airflow: Airflow) -> None:
    """No table with history is read from end to end, but dag_run once at the start."""
    old = "now() - interval '9 days'"
    airflow.execute(
        "INSERT INTO dag_run (id, dag_id, run_id, state, end_date, updated_at)"
        f" SELECT g, 'd' || g % 50, 'old' || g, 'success', {old}, {old}"
        " FROM generate_series(2, 20000) g"
    )
    airflow.execute(
        "INSERT INTO task_instance"
        " (id, dag_id, task_id, run_id, state, try_number, pid, updated_at)"
        f" SELECT gen_random_uuid(), 'd' || g % 50, 't' || t, 'old' || g, 'success', 1, 7, {old}"
        " FROM generate_series(2, 20000) g, generate_series(1, 20) t"
    )
    for table, columns, values in (
        ("log", "dttm, dag_id, event", f"{old}, 'd', 'success'"),
        ("job", "job_type, state, latest_heartbeat", f"'LocalTaskJob', 'success', {old}"),
        ("task_reschedule", "start_date, end_date", f"{old}, {old}"),
    ):
        rows = f"SELECT {values} FROM generate_series(1, 200000)"
        airflow.execute(f"INSERT INTO {table} ({columns}) {rows}")
    for number in range(20):
        airflow.task(number + 1, index=number, uuid=f"{number:032x}")
    airflow.execute("VACUUM ANALYZE")
    scanned = "SELECT relname, seq_scan FROM pg_stat_user_tables"
    time.sleep(1)  # a backend reports its counts a second after it has them, or at its end
    before = dict(airflow.rows(scanned))

    metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())
    assert len(pids(metadata.poll(1))) == 20
    began = time.monotonic()
    for number in range(10):
        assert metadata.poll(2 + number) == []
    each = (time.monotonic() - began) / 10
    metadata.close()
    time.sleep(1)

    after = dict(airflow.rows(scanned))
    scans = {table: count - before[table] for table, count in after.items()}
    assert scans["task_instance"] == scans["log"] == scans["job"] == scans["task_reschedule"] == 0
    # Once for the columns of each table, which reads no row, and once for what ended lately.
    assert scans["dag_run"] <= 2
    assert each < 0.1
