"""The same claims from a real server of each kind, and what happens when it is busy or gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

pytest.importorskip("psycopg2")
pytest.importorskip("pymysql")

from pidtrail.airflow.metadata import Metadata
from pidtrail.airflow.sampler import Sampler
from pidtrail.errors import DatabaseError
from pidtrail.events import AirflowFact, Event, TaskRef, TaskReported
from tests.database.mariadb import MariaDb
from tests.database.server import PASSWORD, Server
from tests.database.writer import UUID, Airflow, pids

pytestmark = [pytest.mark.needs_root]

LOCK = {
    "postgresql": ("BEGIN", "LOCK TABLE task_instance IN ACCESS EXCLUSIVE MODE"),
    "mysql": ("LOCK TABLES task_instance WRITE",),
}
UNLOCK = {"postgresql": "COMMIT", "mysql": "UNLOCK TABLES"}


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
        airflow.execute(f"UPDATE task_instance SET pid = %s, updated_at = {airflow.now}", pid)
        seen += pids(metadata.poll(pid))

    assert seen == [1, 2, 3]


def test_a_log_entry_that_commits_after_a_later_one_is_not_missed(
    airflow: Airflow, server: Server | MariaDb, metadata: Metadata
) -> None:
    metadata.poll(1)
    insert = (
        "INSERT INTO log (dttm, dag_id, task_id, run_id, event)"
        f" VALUES ({airflow.now}, 'd', 't', 'r', %s)"
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


def test_a_locked_table_is_an_error_soon_and_then_read_on(
    airflow: Airflow, server: Server | MariaDb, metadata: Metadata
) -> None:
    metadata.poll(1)
    with server.connect(airflow.url.rpartition("/")[2]) as other, other.cursor() as cursor:
        for statement in LOCK[server.kind]:
            cursor.execute(statement)
        began = time.monotonic()
        with pytest.raises(DatabaseError, match=r"lock timeout|Lock wait timeout"):
            metadata.poll(2)
        # Before the statement's own limit, which is five seconds.
        assert time.monotonic() - began < 5
        cursor.execute(UNLOCK[server.kind])
    airflow.task(42)

    assert pids(metadata.poll(3)) == [42]


@pytest.mark.parametrize("password", ["wr0ng-secret", "wr0ng%40secret"])
def test_a_wrong_password_is_said_and_never_shown(
    server: Server | MariaDb,
    password: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)

    with pytest.raises(
        DatabaseError, match=r"password authentication failed|Access denied"
    ) as caught:
        Metadata(server.url(password=password), since_epoch_ns=0).poll(1)

    shown = str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert "wr0ng" not in shown
    assert PASSWORD not in shown
    assert "\n" not in str(caught.value)


def test_a_database_without_airflow_or_without_existence_is_said(server: Server | MariaDb) -> None:
    with pytest.raises(DatabaseError, match="the database is empty"):
        Metadata(server.url(), since_epoch_ns=0).poll(1)
    with pytest.raises(DatabaseError, match=r"does not exist|Unknown database"):
        Metadata(server.url("nowhere"), since_epoch_ns=0).poll(1)


def test_a_server_that_goes_away_and_comes_back_is_read_on(
    server: Server | MariaDb, airflow: Airflow
) -> None:
    metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())
    sampler = Sampler(metadata, interval_s=0.05)
    sampler.start()
    seen: list[Event] = []

    def until(true: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
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
    airflow.execute(f"UPDATE task_instance SET pid = 2, updated_at = {airflow.now}")
    until(lambda: 2 in pids(seen))

    sampler.stop()
    assert PASSWORD not in "".join(sampler.problems())
