"""What only PostgreSQL can show: what it was asked, and what that cost it."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("psycopg2")

from pidtrail.airflow.metadata import Metadata
from tests.database.server import Server
from tests.database.writer import Airflow, pids

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_postgres]


@pytest.fixture
def server(postgresql: Server) -> Server:
    return postgresql


def test_nothing_but_reading_is_asked_and_the_server_would_refuse_it(
    airflow: Airflow, server: Server, metadata: Metadata
) -> None:
    airflow.task(1)
    metadata.poll(1)
    metadata.poll(2)

    asked = server.statements()
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
    assert each < 1
