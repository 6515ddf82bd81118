"""What the metadata database claims, on real SQLite files with the schemas of 2.7, 2.10 and 3.3."""

from __future__ import annotations

import builtins
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.airflow import rows
from pidtrail.airflow.metadata import Metadata
from pidtrail.airflow.watermark import Watermark
from pidtrail.errors import DatabaseError
from pidtrail.events import AirflowFact, Event, TaskRef, TaskReported
from tests.database.schemas import Airflow

UUID = "01a201e5-1cc0-74cd-8647-0fa03c29cd58"
UUID_2 = "01a201e5-1cc0-74cd-8647-0fa03c29cd59"
VERSIONS = ["2.7", "2.10", "3.3"]


def at(seconds: float = 0) -> str:
    """Return now plus some seconds as Airflow stores it in SQLite."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S.%f}"


def tasks(events: list[Event]) -> list[TaskReported]:
    return [event for event in events if isinstance(event, TaskReported)]


def facts(events: list[Event], table: str) -> list[AirflowFact]:
    return [event for event in events if isinstance(event, AirflowFact) and event.table == table]


def claims(events: list[Event]) -> list[tuple[int | None, str | None, int | None]]:
    """Return (attempt, state, pid) of each claim about a task instance."""
    return [
        (event.task.try_number if event.task else None, event.state, event.recorded_pid)
        for event in tasks(events)
    ]


Start = Callable[..., Airflow]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that makes Airflow's database, with one running run `r` of dag `d`."""
    made: list[Airflow] = []

    def start(version: str = "3.3", **options: Any) -> Airflow:
        airflow = Airflow(tmp_path / "airflow.db", version, **options)
        made.append(airflow)
        airflow.insert("dag_run", id=1, dag_id="d", run_id="r", state="running", updated_at=at())
        return airflow

    yield start
    for airflow in made:
        airflow.close()


@pytest.fixture
def polls() -> Iterator[Callable[[Airflow], Callable[[], list[Event]]]]:
    """Give a function that begins to watch a database and returns the poll."""
    made: list[Metadata] = []

    def watch(airflow: Airflow) -> Callable[[], list[Event]]:
        metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())
        made.append(metadata)
        return lambda: metadata.poll(time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    yield watch
    for metadata in made:
        metadata.close()


Watch = Callable[[Airflow], Callable[[], list[Event]]]


def task(airflow: Airflow, version: str, **values: Any) -> None:
    row = {"task_id": "t", "dag_id": "d", "run_id": "r", "map_index": -1, "updated_at": at()}
    if version == "3.3":
        row["id"] = UUID.replace("-", "")
    airflow.insert("task_instance", **{**row, **values})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_running_task_instance_is_reported_once(start: Start, polls: Watch, version: str) -> None:
    airflow = start(version)
    poll = polls(airflow)
    task(airflow, version, state="running", try_number=1, pid=42, hostname="h", start_date=at(-1))

    first, second = poll(), poll()

    (event,) = tasks(first)
    assert event.task == TaskRef("d", "t", "r", -1, 1, UUID if version == "3.3" else None)
    assert (event.recorded_pid, event.hostname, event.state) == (42, "h", "running")
    assert (event.via, event.table, event.origin, event.seq) == (
        "db",
        "task_instance",
        "airflow-db",
        0,
    )
    assert event.start_date is not None
    assert event.start_date.endswith("Z")
    assert [fact.event for fact in facts(first, "dag_run")] == ["running"]
    assert second == []


def test_a_heartbeat_is_no_news(start: Start, polls: Watch) -> None:
    airflow = start()
    poll = polls(airflow)
    task(airflow, "3.3", state="running", try_number=1, pid=42)
    poll()

    airflow.execute("UPDATE task_instance SET last_heartbeat_at = ?, updated_at = ?", at(), at())

    assert poll() == []


@pytest.mark.parametrize("version", VERSIONS)
def test_each_pid_of_a_rescheduling_sensor_is_seen_under_one_attempt(
    start: Start, polls: Watch, version: str
) -> None:
    """Pokes overwrite the pid; before 2.10 the column try_number even goes back to 0."""
    airflow = start(version)
    poll = polls(airflow)
    waiting = 0 if version == "2.7" else 1
    task(airflow, version, state="queued", try_number=waiting)
    seen = claims(poll())
    for pid in (11, 12):
        airflow.execute(
            "UPDATE task_instance SET state = 'running', try_number = 1, pid = ?, updated_at = ?",
            pid,
            at(),
        )
        seen += claims(poll())
        airflow.execute(
            "UPDATE task_instance SET state = 'up_for_reschedule', try_number = ?, updated_at = ?",
            waiting,
            at(),
        )
        seen += claims(poll())

    assert seen == [
        (1, "queued", None),
        (1, "running", 11),
        (1, "up_for_reschedule", 11),
        (1, "running", 12),
        (1, "up_for_reschedule", 12),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_task_instance_that_starts_and_ends_between_two_polls_is_seen(
    start: Start, polls: Watch, version: str
) -> None:
    airflow = start(version)
    poll = polls(airflow)
    poll()

    task(airflow, version, state="success", try_number=1, pid=42, start_date=at(-1), end_date=at())
    airflow.execute(
        "UPDATE dag_run SET state = 'success', end_date = ?, updated_at = ?", at(), at()
    )

    assert claims(poll()) == [(1, "success", 42)]


def test_a_whole_run_between_two_polls_is_seen(start: Start, polls: Watch) -> None:
    airflow = start()
    poll = polls(airflow)
    poll()

    airflow.insert(
        "dag_run", id=2, dag_id="d", run_id="r2", state="success", end_date=at(), updated_at=at()
    )
    task(airflow, "3.3", run_id="r2", state="success", try_number=1, pid=42, start_date=at())

    assert claims(poll()) == [(1, "success", 42)]


def test_an_old_run_that_the_log_names_is_looked_at_again(start: Start, polls: Watch) -> None:
    """Cleared and done again between two polls, all that shows is the audit log."""
    airflow = start()
    airflow.insert("dag_run", id=0, dag_id="d", run_id="old", state="success", end_date=at(-9e5))
    poll = polls(airflow)
    poll()

    task(airflow, "3.3", run_id="old", state="success", try_number=2, pid=42, start_date=at())
    airflow.insert(
        "log", dttm=at(), dag_id="d", task_id="t", run_id="old", event="success", try_number=2
    )

    events = poll()
    assert claims(events) == [(2, "success", 42)]
    assert [(fact.event, fact.task) for fact in facts(events, "log")] == [
        ("success", TaskRef("d", "t", "old", None, 2))
    ]


def test_what_ended_before_the_first_poll_but_in_the_session_is_seen(
    start: Start, polls: Watch
) -> None:
    airflow = start()
    poll = polls(airflow)
    airflow.execute("UPDATE dag_run SET state = 'success', end_date = ?", at())
    task(airflow, "3.3", state="success", try_number=1, pid=42, start_date=at())

    assert claims(poll()) == [(1, "success", 42)]


def test_old_rows_are_left_alone(start: Start, polls: Watch) -> None:
    airflow = start()
    airflow.insert("dag_run", id=0, dag_id="d", run_id="old", state="success", end_date=at(-9e5))
    task(airflow, "3.3", run_id="old", state="success", pid=1, try_number=1, updated_at=at(-9e5))
    airflow.insert("log", dttm=at(-9e5), dag_id="d", task_id="t", event="success")
    airflow.insert(
        "task_reschedule", start_date=at(-9e5), end_date=at(-9e5), ti_id=UUID.replace("-", "")
    )
    airflow.insert("job", state="success", job_type="SchedulerJob", latest_heartbeat=at(-9e5))

    events = polls(airflow)()

    assert [event.row_id for event in events if isinstance(event, AirflowFact)] == ["1"]


def test_a_task_instance_without_any_process_so_far_is_not_worth_a_record(
    start: Start, polls: Watch
) -> None:
    airflow = start()
    task(airflow, "3.3", state=None, try_number=0)

    assert tasks(polls(airflow)()) == []


def test_the_earlier_try_is_read_with_its_own_uuid(start: Start, polls: Watch) -> None:
    airflow = start("3.3")
    poll = polls(airflow)
    task(airflow, "3.3", state="running", try_number=1, pid=41)
    poll()

    airflow.insert(
        "task_instance_history",
        task_instance_id=UUID.replace("-", ""),
        task_id="t",
        dag_id="d",
        run_id="r",
        map_index=-1,
        state="failed",
        try_number=1,
        pid=41,
        updated_at=at(),
    )
    airflow.execute(
        "UPDATE task_instance SET id = ?, state = 'queued', try_number = 2, updated_at = ?",
        UUID_2,
        at(),
    )

    now, past = tasks(poll())
    assert (now.table, now.task, now.recorded_pid) == (
        "task_instance",
        TaskRef("d", "t", "r", -1, 2, UUID_2),
        41,
    )
    assert (past.table, past.task, past.state) == (
        "task_instance_history",
        TaskRef("d", "t", "r", -1, 1, UUID),
        "failed",
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_pokes_and_jobs_are_facts(start: Start, polls: Watch, version: str) -> None:
    airflow = start(version)
    poll = polls(airflow)
    task(airflow, version, state="running", try_number=1, pid=1, map_index=3)
    airflow.insert(
        "job",
        id=5,
        state="running",
        job_type="SchedulerJob",
        start_date=at(-9),
        latest_heartbeat=at(),
    )
    poll()
    columns: dict[str, Any] = {"start_date": at(-2), "end_date": at(), "reschedule_date": at(5)}
    if version == "3.3":
        columns["ti_id"] = UUID.replace("-", "")
    else:
        columns |= {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": 3, "try_number": 1}
    airflow.insert("task_reschedule", **columns)
    airflow.execute("UPDATE job SET latest_heartbeat = ?", at())
    first = poll()
    airflow.execute("UPDATE job SET state = 'failed'")
    second = poll()

    (poke,) = facts(first, "task_reschedule")
    assert poke.task == TaskRef("d", "t", "r", 3, 1, UUID if version == "3.3" else None)
    assert poke.detail is not None
    assert set(poke.detail) == {"start_date", "end_date", "reschedule_date"}
    assert facts(first, "job") == []
    assert [(fact.row_id, fact.event) for fact in facts(second, "job")] == [("5", "failed")]


def test_a_cleared_run_is_a_fact(start: Start, polls: Watch) -> None:
    airflow = start()
    poll = polls(airflow)
    poll()

    airflow.execute("UPDATE dag_run SET clear_number = 1, state = 'queued', updated_at = ?", at())

    (fact,) = facts(poll(), "dag_run")
    assert fact.event == "queued"
    assert fact.detail is not None
    assert fact.detail["clear_number"] == 1


def test_one_poll_asks_the_same_number_of_questions_however_many_tasks(
    start: Start, polls: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = start()
    counted: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.set_trace_callback(counted.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    poll = polls(airflow)
    task(airflow, "3.3", state="running", try_number=1, pid=1)
    poll()
    counted.clear()
    airflow.execute("UPDATE task_instance SET pid = 2, updated_at = ?", at())
    poll()
    few = len(counted)

    for number in range(60):
        task(
            airflow,
            "3.3",
            id=f"{number:032x}",
            map_index=number,
            state="running",
            try_number=1,
            pid=number,
        )
    counted.clear()

    assert len(tasks(poll())) == 60
    assert len(counted) == few <= 12
    assert all(
        statement.split()[0] in {"SELECT", "BEGIN", "ROLLBACK", "PRAGMA"} for statement in counted
    )


@pytest.mark.parametrize("wal", [False, True])
def test_nothing_is_created_or_changed_beside_the_database(
    start: Start, polls: Watch, wal: bool
) -> None:
    airflow = start(wal=wal)
    poll = polls(airflow)
    task(airflow, "3.3", state="running", try_number=1, pid=1)
    before = sorted(airflow.path.parent.iterdir())
    assert len(tasks(poll())) == 1
    assert sorted(airflow.path.parent.iterdir()) == before

    airflow.execute("UPDATE task_instance SET pid = 2")
    assert len(tasks(poll())) == 1

    airflow.close()
    content = airflow.path.read_bytes()
    poll()
    assert list(airflow.path.parent.iterdir()) == [airflow.path]
    assert airflow.path.read_bytes() == content


def test_what_a_killed_airflow_left_in_its_write_ahead_log_is_read(tmp_path: Path) -> None:
    """SIGKILL leaves -wal and -shm; neither is merged, emptied or removed by reading."""
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.database.schemas import Airflow\n"
        "airflow = Airflow(Path(sys.argv[1]), '3.3', wal=True)\n"
        "airflow.insert('dag_run', id=1, dag_id='d', run_id='r', state='running')\n"
        "airflow.insert('task_instance', id=sys.argv[2], dag_id='d', run_id='r', task_id='t',\n"
        "               map_index=-1, state='running', try_number=1, pid=42)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "airflow.db"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, path, UUID], cwd=root, check=False)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before) == 3

    events = Metadata(f"sqlite:///{path}", since_epoch_ns=time.time_ns()).poll(1)

    assert claims(events) == [(1, "running", 42)]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_database_that_does_not_exist_is_not_created_and_is_found_later(
    start: Start, tmp_path: Path
) -> None:
    metadata = Metadata(f"sqlite:///{tmp_path}/airflow.db", since_epoch_ns=time.time_ns())
    with pytest.raises(DatabaseError, match=r"airflow\.db does not exist"):
        metadata.poll(1)
    assert list(tmp_path.iterdir()) == []

    airflow = start()
    task(airflow, "3.3", state="running", try_number=1, pid=1)

    assert claims(metadata.poll(2)) == [(1, "running", 1)]


def test_a_locked_database_is_an_error_and_then_read_on(start: Start, polls: Watch) -> None:
    airflow = start("2.10")
    poll = polls(airflow)
    poll()
    airflow.execute("BEGIN EXCLUSIVE")
    task(airflow, "2.10", state="running", try_number=1, pid=1)
    began = time.monotonic()
    with pytest.raises(DatabaseError, match="locked"):
        poll()
    # The lock is there for as long as it is asked.
    assert time.monotonic() - began < 10
    airflow.execute("COMMIT")

    assert claims(poll()) == [(1, "running", 1)]


def test_a_database_made_anew_is_read_from_its_start(start: Start, polls: Watch) -> None:
    airflow = start()
    poll = polls(airflow)
    task(airflow, "3.3", state="running", try_number=1, pid=1)
    poll()
    airflow.close()
    airflow.path.rename(airflow.path.with_suffix(".old"))

    again = start()
    task(again, "3.3", state="running", try_number=1, pid=1)
    again.insert("log", dttm=at(), dag_id="d", task_id="t", run_id="r", event="running")
    events = poll()

    assert claims(events) == [(1, "running", 1)]
    assert len(facts(events, "log")) == 1


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("nonsense hunter2", "the database URL cannot be understood"),
        ("oracle://u:hunter2@h/d", "oracle is not supported"),
        ("sqlite://", "in memory"),
        ("postgresql+psycopg2://u:hunter2@127.0.0.1:1/d", "127.0.0.1:1/d"),
        ("postgresql+psycopg2://u:hunter2@127.0.0.1:1/d?nonsense=hunter2", "127.0.0.1:1/d"),
        ("postgresql+psycopg2://u:hunter2@127.0.0.1:port/d", "cannot be understood"),
        ("postgresql+nodriver://u:hunter2@h/d", "not supported"),
        ("postgresql+psycopg2://u:an@hunter2@127.0.0.1:1/d", "write it as %40"),
        ("mysql+pymysql://u:an@hunter2@127.0.0.1:1/d", "write it as %40"),
        ("postgresql://u@h/d\npostgresql://u:hunter2@h/d", "more than one line"),
        ("sqlite:////usr", "/usr is not a file"),
    ],
)
def test_a_wrong_url_is_one_clear_line_without_the_password(url: str, line: str) -> None:
    metadata = Metadata(url, since_epoch_ns=0)

    with pytest.raises(DatabaseError) as caught:
        metadata.poll(1)

    assert line in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b"", b"text, not a database " * 100])
def test_a_file_that_is_not_airflows_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)

    with pytest.raises(DatabaseError):
        Metadata(f"sqlite:///{tmp_path}/x.db", since_epoch_ns=0).poll(1)
    assert (tmp_path / "x.db").read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """The tables that it lacks are named, and no others."""
    sqlite3.connect(tmp_path / "x.db").execute("CREATE TABLE task_instance (a)").connection.close()

    with pytest.raises(DatabaseError, match=r"it has no table alembic_version, dag_run\Z"):
        Metadata(f"sqlite:///{tmp_path}/x.db", since_epoch_ns=0).poll(1)


def test_an_unknown_revision_and_missing_columns_are_said_and_the_rest_is_read(
    start: Start,
) -> None:
    airflow = start()
    airflow.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    airflow.execute("ALTER TABLE task_instance DROP COLUMN hostname")
    airflow.execute("DROP TABLE log")
    task(airflow, "3.3", state="running", try_number=1, pid=1)
    metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())

    assert metadata.problem is None
    assert claims(metadata.poll(1)) == [(1, "running", 1)]
    assert metadata.problem == (
        "the schema revision ffffffffffff of Airflow's database is not known (2.7 to 3.3 are);"
        " Airflow's database lacks task_instance.hostname, log"
    )


def test_a_migration_under_way_makes_it_look_again(start: Start, polls: Watch) -> None:
    airflow = start("2.10")
    poll = polls(airflow)
    task(airflow, "2.10", state="running", try_number=1, pid=1)
    poll()

    airflow.execute("ALTER TABLE task_instance ADD COLUMN last_heartbeat_at TIMESTAMP")
    airflow.execute("ALTER TABLE task_instance DROP COLUMN job_id")
    with pytest.raises(DatabaseError, match="no such column"):
        poll()
    airflow.execute("UPDATE alembic_version SET version_num = '29ce7909c52b'")
    airflow.execute("UPDATE task_instance SET pid = 2")

    assert claims(poll()) == [(1, "running", 2)]


def test_without_sqlalchemy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pidtrail.airflow.database"):
            raise ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)

    with pytest.raises(DatabaseError) as caught:
        Metadata("sqlite:////x.db", since_epoch_ns=0).poll(1)

    assert str(caught.value) == (
        "reading Airflow's database needs sqlalchemy (pip install 'pidtrail[airflow-db]')"
    )


@pytest.mark.parametrize(
    ("state", "raw", "old", "new"),
    [
        ("scheduled", 0, 1, None),
        ("queued", 1, 2, 1),
        ("running", 1, 1, 1),
        ("up_for_retry", 1, 1, 1),
        ("up_for_reschedule", 0, 1, None),
        ("deferred", 1, 2, 1),
        ("failed", 2, 2, 2),
        ("running", 0, None, 0),
        ("success", 0, None, 0),
        (None, 0, None, None),
    ],
)
def test_the_attempt_is_that_of_the_log_file(
    state: str | None, raw: int, old: int | None, new: int | None
) -> None:
    assert rows.attempt(raw, state, old=True) == old
    assert rows.attempt(raw, state, old=False) == new


@given(st.one_of(st.none(), st.text(), st.integers(), st.datetimes(), st.binary(), st.uuids()))
def test_any_value_of_a_column_becomes_what_it_can(value: object) -> None:
    row = dict.fromkeys(
        ["dag_id", "task_id", "run_id", "id", "map_index", "try_number", "state"], value
    )
    row |= dict.fromkeys(["start_date", "pid", "event", "extra", "dttm", "ti_id"], value)

    rows.reported(row, "task_instance", 1, old=True)
    rows.log_fact(row, 1)
    rows.reschedule_fact(row, 1)
    rows.job_fact(row, 1)
    rows.run_fact(row, 1)


def test_a_row_that_commits_late_is_asked_for_by_its_id() -> None:
    mark = Watermark(10)
    mark.advance([11, 14], 0)
    assert (mark.highest, mark.holes) == (14, [12, 13])

    mark.advance([13], 1)
    assert mark.holes == [12]

    mark.advance([], 300 * 10**9)
    assert mark.holes == []
