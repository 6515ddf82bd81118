"""The schemas that real Airflow makes: all that is expected is there, and every question works."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("psycopg2")

from demo.environment import RELEASES, airflow_environ
from pidtrail.airflow.database import Database
from pidtrail.airflow.metadata import Metadata
from pidtrail.airflow.schema import REVISIONS, Schema, read_schema
from tests.database.server import Server

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_airflow,
    pytest.mark.needs_postgres,
]


def migrate(version: str, home: Path, url: str) -> None:
    """Run `airflow db migrate` of a release on that database."""
    release = RELEASES[version]
    if not release.command.is_file():
        pytest.skip(f"Airflow {version} is not installed (python -m demo.environment {version})")
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    subprocess.run(
        [release.command, "db", "migrate"],
        env=airflow_environ() | settings,
        check=True,
        capture_output=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


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
def test_airflow_2_on_postgresql(server: Server, tmp_path: Path) -> None:
    with server.connect().cursor() as cursor:
        cursor.execute("CREATE DATABASE two")
    migrate("2.11.2", tmp_path, server.url("two"))

    schema = schema_of(server.url("two"))
    assert REVISIONS[str(schema.revision)] == "2.10-2.11"
    assert schema.has("task_instance", "job_id", "executor", "external_executor_id", "queued_dttm")
    assert schema.has("task_instance_history", "id", "job_id", "pid", "try_number")
    assert schema.has("task_reschedule", "dag_id", "task_id", "run_id", "map_index", "try_number")
    assert schema.has("log", "run_id", "try_number", "execution_date")
    assert schema.has("dag_run", "clear_number", "creating_job_id")
    assert not schema.old_try_numbers
    assert_is_read_without_complaint(server.url("two"))
    assert {statement.split()[0] for statement in server.statements("pidtrail")} <= {
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
