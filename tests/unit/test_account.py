"""Which of Airflow's databases are read, from when on, and until when."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.airflow.account import Account
from pidtrail.events import AirflowFact, Event

PATIENCE_S = 20


def database(path: Path, dag: str) -> str:
    """Make a metadata database of Airflow 2 with one run in it, and return its URL."""
    with sqlite3.connect(path) as db:
        db.executescript(
            """
            CREATE TABLE alembic_version (version_num TEXT);
            CREATE TABLE dag_run (id INTEGER PRIMARY KEY, dag_id TEXT, run_id TEXT, state TEXT,
                updated_at TEXT, start_date TEXT, end_date TEXT, queued_at TEXT);
            CREATE TABLE task_instance (dag_id TEXT, task_id TEXT, run_id TEXT, map_index INTEGER,
                try_number INTEGER, state TEXT, pid INTEGER, hostname TEXT, start_date TEXT,
                end_date TEXT, updated_at TEXT, job_id INTEGER, queued_dttm TEXT);
            """
        )
        db.execute(
            "INSERT INTO dag_run VALUES (1, ?, 'r', 'running', datetime('now'), datetime('now'),"
            " NULL, NULL)",
            [dag],
        )
    db.close()
    return f"sqlite:///{path}"


@pytest.fixture
def account() -> Iterator[Account]:
    """Return an account that reads nothing yet."""
    made = Account({})
    yield made
    made.stop()


def runs(account: Account, known: list[Event], count: int) -> list[str | None]:
    """Return of which DAGs runs were told, when so many were."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        known += account.drain()
        found = [e.task.dag_id for e in known if isinstance(e, AirflowFact) and e.task]
        if len(found) >= count:
            return sorted(found, key=str)
        assert time.monotonic() < limit, account.problems()
        time.sleep(0.01)


def test_two_airflows_of_one_host_are_read_side_by_side(account: Account, tmp_path: Path) -> None:
    urls = {database(tmp_path / f"{name}.db", name) for name in ("one", "two")}
    account.read(urls)
    first = dict(account.databases)
    account.read(urls)

    assert runs(account, [], 2) == ["one", "two"]
    assert account.databases == first


def test_records_say_of_which_airflow_they_are(account: Account, tmp_path: Path) -> None:
    """Each has the address of the database in which it stood."""
    account.read({database(tmp_path / f"{name}.db", name) for name in ("one", "two")})
    known: list[Event] = []
    runs(account, known, 2)

    found = {e.task.dag_id: e.airflow for e in known if isinstance(e, AirflowFact) and e.task}
    assert found == {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "two")}


def test_a_database_that_nobody_needs_is_let_go(account: Account, tmp_path: Path) -> None:
    """What its last reading brought is told, and then its thread is gone; it may come back."""
    url = database(tmp_path / "a.db", "one")
    account.read({url})
    account.read(set())

    assert runs(account, [], 1) == ["one"]
    limit = time.monotonic() + PATIENCE_S
    while account.leaving:
        account.drain()
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert account.databases == {}

    account.read({url})
    assert runs(account, [], 1) == ["one"]


def test_nothing_is_read_before_it_is_asked_for(account: Account) -> None:
    assert account.drain() == []
    assert account.problems() == []
    account.poke()
