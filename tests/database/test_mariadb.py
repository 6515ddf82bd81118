"""What only MySQL and MariaDB can show: time zones, sockets, what was asked and what it cost."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

pytest.importorskip("pymysql")

from pidtrail.airflow.database import Database
from pidtrail.airflow.location import normalised
from pidtrail.airflow.metadata import Metadata
from pidtrail.errors import DatabaseError
from pidtrail.events import TaskReported
from tests.database.mariadb import MariaDb
from tests.database.writer import Airflow, pids

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_mariadb]


@pytest.fixture
def server(mariadb: MariaDb) -> MariaDb:
    return mariadb


def test_an_instant_is_utc_to_the_microsecond_whatever_the_time_of_the_server(
    airflow: Airflow, metadata: Metadata
) -> None:
    """The server's own time zone is five and a half hours off."""
    airflow.task(42)
    began = datetime.now(UTC).replace(microsecond=123456)
    airflow.execute("UPDATE task_instance SET start_date = %s", began.replace(tzinfo=None))

    (event,) = [event for event in metadata.poll(1) if isinstance(event, TaskReported)]

    assert event.start_date == f"{began:%Y-%m-%dT%H:%M:%S}.123456Z"


def test_nothing_but_reading_is_asked_and_the_server_would_refuse_it(
    airflow: Airflow, server: MariaDb, metadata: Metadata
) -> None:
    """All that the server's general log has of pidtrail."""
    airflow.task(1)
    metadata.poll(1)
    metadata.poll(2)

    asked = server.statements(airflow.url.rpartition("/")[2])
    assert len(asked) > 10
    assert {statement.split()[0].upper() for statement in asked} <= {
        *("SELECT", "SHOW", "SET", "START", "ROLLBACK", "COMMIT")
    }
    settings = [statement for statement in asked if statement.startswith("SET")]
    assert not any("GLOBAL" in statement.upper() for statement in settings)
    begun = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
    assert asked.count(begun) == 2
    # Every question stands between the beginning of a snapshot and its end.
    tables = [index for index, text in enumerate(asked) if "task_instance" in text]
    assert min(tables) > asked.index(begun)


def test_what_would_write_is_refused_by_the_server(airflow: Airflow) -> None:
    database = Database(airflow.url)
    with (
        pytest.raises(DatabaseError, match="READ ONLY transaction"),
        database.snapshot() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM task_instance")
    database.close()


def test_a_question_that_takes_too_long_is_ended_by_the_server(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidtrail.airflow.database._STATEMENT_TIMEOUT_MS", 1000)
    database = Database(airflow.url)
    began = time.monotonic()
    with (
        pytest.raises(DatabaseError, match="max_statement_time"),
        database.snapshot() as connection,
    ):
        connection.exec_driver_sql("SELECT count(*) FROM seq_1_to_100000000 a, seq_1_to_1000 b")
    assert 0.9 < time.monotonic() - began < 10
    database.close()


def test_one_connection_is_kept(airflow: Airflow, metadata: Metadata) -> None:
    """Between two polls it holds no transaction."""
    for number in range(5):
        metadata.poll(number)

    name = airflow.url.rpartition("/")[2]
    listed = airflow.rows(
        f"SELECT id, command FROM information_schema.processlist WHERE db='{name}'"
    )
    others = [command for number, command in listed if number != airflow.connection.thread_id()]
    assert others == ["Sleep"]
    running = airflow.rows("SELECT trx_mysql_thread_id FROM information_schema.innodb_trx")
    assert running == []


def test_the_local_socket_is_taken_where_the_url_names_it(
    airflow: Airflow, server: MariaDb
) -> None:
    airflow.execute("CREATE USER IF NOT EXISTS reader@localhost IDENTIFIED BY 'p'")
    airflow.execute("GRANT SELECT ON *.* TO reader@localhost")
    airflow.task(7)
    name = airflow.url.rpartition("/")[2]
    url = normalised(f"mysql://reader:p@/{name}?unix_socket={quote(str(server.socket))}")

    metadata = Metadata(url, since_epoch_ns=time.time_ns())
    assert pids(metadata.poll(1)) == [7]
    metadata.close()


def test_encryption_that_the_server_does_not_have_is_not_done_without(airflow: Airflow) -> None:
    """`ssl_mode=REQUIRED`, as mysqlclient's users write it, is kept to."""
    airflow.execute("SELECT 1")
    ((has_ssl,),) = airflow.rows("SELECT @@have_ssl")
    database = Database(f"{airflow.url}?ssl_mode=REQUIRED")
    if has_ssl == "YES":  # from 11.4 on a server makes itself a certificate
        with database.snapshot() as connection:
            ((_, cipher),) = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'")
        assert cipher
        return
    with pytest.raises(DatabaseError, match=r"SSL|TLS"), database.snapshot():
        pass


def test_a_million_old_rows_cost_nothing(airflow: Airflow) -> None:
    """By the server's own count of rows that were read from end to end."""
    old = f"{airflow.now} - interval 9 day"
    airflow.execute(
        "INSERT INTO dag_run (id, dag_id, run_id, state, end_date, updated_at)"
        f" SELECT seq, concat('d', seq % 50), concat('old', seq), 'success', {old}, {old}"
        " FROM seq_2_to_20000"
    )
    airflow.execute(
        "INSERT INTO task_instance"
        " (id, dag_id, task_id, run_id, state, try_number, pid, updated_at)"
        " SELECT md5(concat(g.seq, 't', t.seq)), concat('d', g.seq % 50), concat('t', t.seq),"
        f" concat('old', g.seq), 'success', 1, 7, {old} FROM seq_2_to_20000 g, seq_1_to_10 t"
    )
    for table, columns, values in (
        ("log", "dttm, dag_id, event", f"{old}, 'd', 'success'"),
        ("job", "job_type, state, latest_heartbeat", f"'LocalTaskJob', 'success', {old}"),
        ("task_reschedule", "start_date, end_date", f"{old}, {old}"),
    ):
        airflow.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM seq_1_to_100000")
    for number in range(20):
        airflow.task(number + 1, index=number, uuid=f"{number:032x}")
    for table in ("dag_run", "task_instance", "log", "job", "task_reschedule"):
        airflow.execute(f"ANALYZE TABLE {table}")
    metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())
    assert len(pids(metadata.poll(1))) == 20

    read = (
        "SELECT variable_value + 0 FROM information_schema.global_status"
        " WHERE variable_name IN ('Handler_read_rnd_next', 'Handler_read_next')"
    )
    before = sum(count for (count,) in airflow.rows(read))
    began = time.monotonic()
    for number in range(10):
        assert metadata.poll(2 + number) == []
    each = (time.monotonic() - began) / 10
    metadata.close()

    # No table is read from end to end; the last 2000 pokes may be, at each poll, and the
    # table of counts is: some 700 rows.
    assert sum(count for (count,) in airflow.rows(read)) - before < 10 * 2000 + 2000
    assert each < 1
