"""Metadata databases of our own making: the columns that matter, version by version."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

REVISIONS = {"2.7": "405de8318b3a", "2.10": "5f2621c13b39", "3.3": "d2f4e1b3c5a7"}

_RUN = (
    "CREATE TABLE dag_run (id INTEGER PRIMARY KEY, dag_id TEXT, run_id TEXT, state TEXT,"
    " run_type TEXT, queued_at TIMESTAMP, start_date TIMESTAMP, end_date TIMESTAMP,"
    " updated_at TIMESTAMP, creating_job_id INTEGER, log_template_id INTEGER{clear},"
    " UNIQUE (dag_id, run_id))"
)
_TASK = (
    "{id} task_id TEXT, dag_id TEXT, run_id TEXT, map_index INTEGER DEFAULT -1, state TEXT,"
    " try_number INTEGER, max_tries INTEGER, pid INTEGER, hostname TEXT, unixname TEXT,"
    " start_date TIMESTAMP, end_date TIMESTAMP, operator TEXT, queued_dttm TIMESTAMP,"
    " queued_by_job_id INTEGER, updated_at TIMESTAMP, trigger_id INTEGER, next_method TEXT,"
    " external_executor_id TEXT{more}"
)
_JOB = (
    "CREATE TABLE job (id INTEGER PRIMARY KEY, dag_id TEXT, state TEXT, job_type TEXT,"
    " start_date TIMESTAMP, end_date TIMESTAMP, latest_heartbeat TIMESTAMP, executor_class TEXT,"
    " hostname TEXT, unixname TEXT)"
)


def _tables(version: str) -> list[str]:
    three = version.startswith("3")
    more = ", last_heartbeat_at TIMESTAMP, executor TEXT" if three else ", job_id INTEGER"
    tables = [
        "CREATE TABLE alembic_version (version_num TEXT)",
        f"INSERT INTO alembic_version VALUES ('{REVISIONS[version]}')",
        _RUN.format(clear="" if version == "2.7" else ", clear_number INTEGER DEFAULT 0"),
        "CREATE TABLE task_instance ("
        + _TASK.format(id="id CHAR(32) PRIMARY KEY," if three else "", more=more)
        + ", UNIQUE (dag_id, task_id, run_id, map_index))",
        _JOB,
        "CREATE TABLE log (id INTEGER PRIMARY KEY, dttm TIMESTAMP, dag_id TEXT, task_id TEXT,"
        " map_index INTEGER, event TEXT, owner TEXT, extra TEXT"
        + (
            ", execution_date TIMESTAMP)"
            if version == "2.7"
            else ", run_id TEXT, try_number INTEGER)"
        ),
        "CREATE TABLE task_reschedule (id INTEGER PRIMARY KEY, start_date TIMESTAMP,"
        " end_date TIMESTAMP, reschedule_date TIMESTAMP, "
        + (
            "ti_id CHAR(32))"
            if three
            else "dag_id TEXT, task_id TEXT, run_id TEXT, map_index INTEGER, try_number INTEGER)"
        ),
    ]
    if version != "2.7":
        key = "task_instance_id CHAR(32) PRIMARY KEY," if three else "id INTEGER PRIMARY KEY,"
        tables.append(f"CREATE TABLE task_instance_history ({_TASK.format(id=key, more=more)})")
    return tables


# The indexes that the statements count on (airflow/models @ 3.3.2; the same in 2.7).
_INDEXES = (
    "CREATE INDEX ti_state ON task_instance (state)",
    "CREATE INDEX ti_dag_run ON task_instance (dag_id, run_id)",
    "CREATE INDEX idx_dag_run_running_dags ON dag_run (state, dag_id) WHERE state='running'",
    "CREATE INDEX idx_dag_run_queued_dags ON dag_run (state, dag_id) WHERE state='queued'",
    "CREATE INDEX idx_log_dttm ON log (dttm)",
    "CREATE INDEX job_type_heart ON job (job_type, latest_heartbeat)",
)


def ddl(version: str, kind: str = "sqlite") -> list[str]:
    """Return the statements that make the tables, in the types of one kind of database."""
    statements = [*_tables(version), *_INDEXES]
    if kind == "sqlite":
        return statements
    if kind == "postgresql":
        words = {
            "INTEGER PRIMARY KEY": "SERIAL PRIMARY KEY",
            "CHAR(32)": "UUID",
            "TIMESTAMP": "TIMESTAMPTZ",
        }
    else:
        # `CHAR(32)` as on MySQL; what Airflow makes of it on MariaDB, test_real_schemas sees.
        words = {
            "INTEGER PRIMARY KEY": "INTEGER PRIMARY KEY AUTO_INCREMENT",
            "TIMESTAMP": "TIMESTAMP(6) NULL",
            " TEXT": " VARCHAR(250)",
            " WHERE state='running'": "",
            " WHERE state='queued'": "",
        }
    for old, new in words.items():
        statements = [statement.replace(old, new) for statement in statements]
    return statements


class Airflow:
    """A writer to such a database, as Airflow's processes are."""

    def __init__(self, path: Path, version: str, *, wal: bool = False) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.connection = sqlite3.connect(path, isolation_level=None)
        # No test is about a loss of power, and fifty tables are fifty waits for the disk.
        self.connection.execute("PRAGMA synchronous = OFF")
        if wal:
            self.connection.execute("PRAGMA journal_mode = WAL")
        for statement in ddl(version):
            self.connection.execute(statement)

    def execute(self, statement: str, *values: Any) -> None:
        """Run one statement; it is committed at once."""
        self.connection.execute(statement, values)

    def insert(self, table: str, **values: Any) -> None:
        """Add one row."""
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        self.connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values())
        )

    def close(self) -> None:
        """Go away, as the last of Airflow's processes."""
        self.connection.close()
