"""
What a metadata database has of what pidtrail reads.

Versions differ in columns, and installations in patches. So columns are looked
at, once per revision, and the revision only says whether what was seen is what
was expected. Read in airflow/models/*.py and airflow/jobs/job.py of 2.7.3, 2.8.4,
2.9.3, 2.10.5, 2.11.2, 3.0.6, 3.1.8, 3.2.2 and 3.3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pidtrail.airflow.database import NotThere

# Heads of airflow/utils/db.py _REVISION_HEADS_MAP @ 2.7.3-3.3.2, each until the next.
REVISIONS = {
    "405de8318b3a": "2.7",
    "10b52ebd31f7": "2.8.0",
    "88344c1d9134": "2.8",
    "1949afb29106": "2.9.0",
    "686269002441": "2.9",
    "22ed7efa9da2": "2.10.0",
    "5f2621c13b39": "2.10-2.11",
    "29ce7909c52b": "3.0.0",
    "fe199e1abd77": "3.0",
    "cc92b33c6709": "3.1.0",
    "509b94a1042d": "3.1",
    "1d6611b6ab7c": "3.2",
    "d2f4e1b3c5a7": "3.3",
}

# Without these there is nothing to say about any task instance.
_NEEDED = {
    "task_instance": ("dag_id", "task_id", "run_id", "state"),
    "dag_run": ("id", "dag_id", "run_id", "state"),
}
# Present in all of 2.7-3.3; pidtrail goes on without, and says so.
_EXPECTED = {
    "task_instance": ("map_index", "try_number", "pid", "hostname", "start_date", "updated_at"),
    "dag_run": ("start_date", "end_date", "updated_at"),
    "job": ("id", "state", "job_type", "latest_heartbeat"),
    "log": ("id", "dttm", "event", "dag_id", "task_id"),
    "task_reschedule": ("id", "start_date", "end_date"),
}
_OPTIONAL = ("task_instance_history", "log_template")
TABLES = frozenset({"alembic_version", *_EXPECTED, *_OPTIONAL})
"""All that is ever read."""


class Schema:
    """
    The columns of one database at one revision.

    `problem` is one line on what is unknown or missing, None if all is as expected.
    """

    def __init__(self, revision: str | None, tables: dict[str, frozenset[str]]) -> None:
        self.revision = revision
        self._columns = tables
        self._tables = {
            name: sa.table(name, *(sa.column(column) for column in sorted(columns)))
            for name, columns in tables.items()
        }
        self.problem = self._what_is_wrong()

    def has(self, table: str, *columns: str) -> bool:
        """Tell whether the table is there with all of these columns."""
        return table in self._columns and self._columns[table].issuperset(columns)

    def table(self, name: str) -> sa.TableClause:
        """Return the table, with the columns that it has; raises KeyError if it is not there."""
        return self._tables[name]

    def some(self, table: str, wanted: Sequence[str]) -> list[sa.ColumnElement[Any]]:
        """Return those of the wanted columns that the table has."""
        columns = self._tables[table].c
        return [columns[name] for name in wanted if name in columns]

    @property
    def old_try_numbers(self) -> bool:
        """
        Tell whether `try_number` counts as before 2.10.

        There the column is raised when a process starts and lowered again on
        deferral and reschedule; 2.10, which brought task_instance_history, raises
        it when the task instance is scheduled (models/dagrun.py schedule_tis).
        """
        return "task_instance_history" not in self._columns and not self.has("task_instance", "id")

    def _what_is_wrong(self) -> str | None:
        missing = [
            f"{table}.{column}" if table in self._columns else table
            for table, columns in _EXPECTED.items()
            for column in columns
            if not self.has(table, column)
        ]
        wrong = []
        if self.revision is None:
            wrong.append("Airflow's database has no schema revision")
        elif self.revision not in REVISIONS:
            wrong.append(
                f"the schema revision {self.revision[:40]} of Airflow's database is not known"
                " (2.7 to 3.3 are)"
            )
        if missing:
            wrong.append(f"Airflow's database lacks {', '.join(dict.fromkeys(missing))}")
        return "; ".join(wrong) or None


def revision_of(connection: sa.Connection) -> str | None:
    """
    Return the schema revision; None if the table is empty.

    Raises the driver's error where there is no such table: look with `read_schema` first.
    """
    value = connection.scalar(
        sa.select(sa.column("version_num")).select_from(sa.table("alembic_version"))
    )
    return None if value is None else str(value)


def read_schema(connection: sa.Connection) -> Schema:
    """Look at the tables. Raises NotThere if they are not Airflow's."""
    there = set(sa.inspect(connection).get_table_names())
    lacking = sorted({*_NEEDED, "alembic_version"} - there)
    if lacking:
        what = "is empty" if not there else "is not an Airflow database"
        raise NotThere(f"the database {what}: it has no table {', '.join(lacking)}")
    tables = {
        name: frozenset(
            connection.execute(sa.select(sa.text("*")).select_from(sa.table(name)).limit(0)).keys()
        )
        for name in (*_EXPECTED, *_OPTIONAL)
        if name in there
    }
    for table, columns in _NEEDED.items():
        if not tables[table].issuperset(columns):
            raise NotThere(f"the table {table} is not Airflow's: it lacks {columns}")
    return Schema(revision_of(connection), tables)
