"""The schemas that real Airflow makes: all that is expected is there, and every question works."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("psycopg2")
pytest.importorskip("pymysql")

from demo.environment import RELEASES, airflow_environ
from pidtrail.airflow.database import Database
from pidtrail.airflow.metadata import Metadata
from pidtrail.airflow.schema import REVISIONS, Schema, read_schema
from pidtrail.events import TaskRef, TaskReported
from tests.database.mariadb import MariaDb
from tests.database.server import Server

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_airflow,
    pytest.mark.needs_mariadb,
    pytest.mark.needs_postgres,
]
UUID = "01a201e5-1cc0-74cd-8647-0fa03c29cd58"


def migrate(version: str, home: Path, url: str | None = None, **further: str) -> None:
    """Run `airflow db migrate` of a release on that database, or as the further settings say."""
    release = RELEASES[version]
    if not release.command.is_file():
        pytest.skip(f"Airflow {version} is not installed (python -m demo.environment {version})")
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url or "",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    subprocess.run(
        [release.command, "db", "migrate"],
        env=airflow_environ() | settings | further,
        check=True,
        capture_output=True,
        timeout=200,
    )


def schema_of(url: str) -> Schema:
    database = Database(url)
    with database.snapshot() as connection:
        schema = read_schema(connection)
    database.close()
    return schema


def assert_is_read_without_complaint(url: str) -> None:
    metadata = Metadata(url, since_epoch_ns=time.time_ns() - 10**12)
    metadata.poll(1)
    assert metadata.problem is None
    assert metadata.poll(2) == []
    metadata.close()


@pytest.mark.timeout(240)
def test_airflow_2_on_postgresql(postgresql: Server, tmp_path: Path) -> None:
    with postgresql.connect().cursor() as cursor:
        cursor.execute("CREATE DATABASE two")
    migrate("2.11.2", tmp_path, postgresql.url("two"))

    schema = schema_of(postgresql.url("two"))
    assert REVISIONS[str(schema.revision)] == "2.10-2.11"
    assert schema.has("task_instance", "job_id", "executor", "external_executor_id", "queued_dttm")
    assert schema.has("task_instance_history", "id", "job_id", "pid", "try_number")
    assert schema.has("task_reschedule", "dag_id", "task_id", "run_id", "map_index", "try_number")
    assert schema.has("log", "run_id", "try_number", "execution_date")
    assert schema.has("dag_run", "clear_number", "creating_job_id")
    assert not schema.old_try_numbers
    assert_is_read_without_complaint(postgresql.url("two"))
    assert {statement.split()[0] for statement in postgresql.statements()} <= {
        *("BEGIN", "ROLLBACK", "SELECT", "SHOW", "select", "show")
    }


@pytest.mark.timeout(240)
def test_airflow_3_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "airflow.db"
    migrate("3.3.2", tmp_path, f"sqlite:///{path}")
    content, names = path.read_bytes(), sorted(tmp_path.iterdir())

    schema = schema_of(f"sqlite:///{path}")
    assert REVISIONS[str(schema.revision)] == "3.3"
    assert schema.has("task_instance", "id", "last_heartbeat_at", "queued_by_job_id", "executor")
    assert not schema.has("task_instance", "job_id")
    assert schema.has("task_instance_history", "task_instance_id", "pid", "try_number")
    assert schema.has("task_reschedule", "ti_id")
    assert schema.has("log", "run_id", "try_number", "logical_date")
    assert schema.has("dag_run", "clear_number", "scheduled_by_job_id", "triggered_by")
    assert_is_read_without_complaint(f"sqlite:///{path}")
    assert path.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == names


@pytest.mark.timeout(240)
@pytest.mark.parametrize("version", ["2.11.2", "3.3.2"])
def test_both_on_mariadb(mariadb: MariaDb, version: str, tmp_path: Path) -> None:
    """
    What Airflow makes there is read, its native UUID too, and a row says what was put into it.

    3.x calls MariaDB unsupported, and makes its tables on it all the same.
    """
    name = f"real{version[0]}"
    three = version.startswith("3")
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        migrate(version, tmp_path, **mariadb.airflow_settings(name, tmp_path))
        cursor.execute(f"USE {name}")
        cursor.execute("SET foreign_key_checks = 0")
        date = "run_after" if three else "execution_date"
        cursor.execute(
            f"INSERT INTO dag_run (id, dag_id, run_id, run_type, state, {date}, updated_at)"
            " VALUES (1, 'd', 'r', 'manual', 'running', utc_timestamp(6), utc_timestamp(6))"
        )
        cursor.execute(
            f"INSERT INTO task_instance ({'id, ' if three else ''}dag_id, task_id, run_id,"
            " map_index, pool, pool_slots, state, try_number, pid, start_date, updated_at) VALUES ("
            + (f"'{UUID}', " if three else "")
            + "'d', 't', 'r', -1, 'p', 1, 'running', 1, 42, utc_timestamp(6), utc_timestamp(6))"
        )
    url = mariadb.url(name)

    schema = schema_of(url)
    assert REVISIONS[str(schema.revision)] == ("3.3" if three else "2.10-2.11")
    metadata = Metadata(url, since_epoch_ns=time.time_ns() - 10**12)
    (event,) = [event for event in metadata.poll(1) if isinstance(event, TaskReported)]
    metadata.close()
    assert metadata.problem is None
    assert event.task == TaskRef("d", "t", "r", -1, 1, UUID if three else None)
    assert event.recorded_pid == 42
    assert event.start_date is not None
    written = datetime.fromisoformat(event.start_date)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=4)
