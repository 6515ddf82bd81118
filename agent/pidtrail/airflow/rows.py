"""
Rows of the metadata database as records: pure, and the same for all versions.

Drivers give dates as datetime (PostgreSQL) or text (SQLite), UUIDs as UUID, as
36 or as 32 characters. Here they become one thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pidtrail.events import AirflowFact, TaskRef, TaskReported
from pidtrail.redact import redact_text

ORIGIN = "airflow-db"

Row = Mapping[str, Any]
Key = tuple[str, str, str, int]
"""dag_id, task_id, run_id, map_index: a task instance across its tries."""

# States in which a task instance waits for a process, before which 2.7-2.9 had not yet
# raised try_number, or had lowered it again (models/taskinstance.py @ 2.9.3:
# _defer_task, _handle_reschedule, and _run_raw_task's += 1).
_ABOUT_TO_RUN = {"scheduled", "queued", "up_for_reschedule", "deferred"}
# States that a task instance has by a process, or by what became of one.
_RAN = {"running", "restarting", "success", "failed", "up_for_retry"}
# Log events whose `extra` describes what happened to a task; that of other events can
# hold the configuration of a run or of a connection.
_TELLING = (
    "state mismatch",
    "heartbeat timeout",
    "stuck in queued",
    "clear",
    "running",
    "fail task",
)
_EXTRA_LIMIT = 2000


def iso(value: object) -> str | None:
    """Return a date of any driver as RFC 3339 in UTC with microseconds, or None."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z"


def text(value: object) -> str | None:
    """Return a text, or None for nothing and for the empty string."""
    return None if value is None or value == "" else str(value)


def number(value: object) -> int | None:
    """Return an integer, or None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def uuid(value: object) -> str | None:
    """Return a UUID in its dashed form, or None for what is none."""
    try:
        return str(value if isinstance(value, UUID) else UUID(str(value)))
    except ValueError:
        return None


def attempt(raw: object, state: object, *, old: bool) -> int | None:
    """
    Return the attempt that a row of task_instance is about, as its log file counts.

    From 2.10 on that is the column: it is raised when the task instance is
    scheduled, so a row that is scheduled or queued already has the number of
    the process to come (and still the pid of the one before). With `old` (2.7
    to 2.9) the column counts processes that were started, less those that
    deferred or rescheduled themselves: the attempt is one more while a process
    is awaited. 0 means that there was none yet: None. But what no scheduler
    scheduled (`tasks run`, `tasks test`) runs as attempt 0 from 2.10 on.
    """
    value = number(raw)
    if value is None:
        return None
    if old and state in _ABOUT_TO_RUN:
        value += 1
    return value if value > 0 or (value == 0 and not old and state in _RAN) else None


def key_of(row: Row) -> Key:
    """Return the task instance that a row belongs to, whichever try."""
    index = number(row.get("map_index"))
    return (
        str(row["dag_id"]),
        str(row["task_id"]),
        str(row["run_id"]),
        -1 if index is None else index,
    )


def reported(row: Row, table: str, ts_boot_ns: int, *, old: bool) -> TaskReported:
    """Return what a row of task_instance or task_instance_history claims."""
    dag, task, run, index = key_of(row)
    state = row.get("state")
    # The history has the uuid of its try; its own `id` in 2.10 and 2.11 is a counter.
    ti_id = row.get("id") if table == "task_instance" else row.get("task_instance_id")
    return TaskReported(
        seq=0,
        ts_boot_ns=ts_boot_ns,
        origin=ORIGIN,
        task=TaskRef(
            dag, task, run, index, attempt(row.get("try_number"), state, old=old), uuid(ti_id)
        ),
        recorded_pid=number(row.get("pid")),
        hostname=text(row.get("hostname")),
        state=text(state),
        start_date=iso(row.get("start_date")),
        end_date=iso(row.get("end_date")),
        via="db",
        table=table,
        unixname=text(row.get("unixname")),
        job_id=number(row.get("job_id")),
        queued_by_job_id=number(row.get("queued_by_job_id")),
        queued_dttm=iso(row.get("queued_dttm")),
        updated_at=iso(row.get("updated_at")),
        max_tries=number(row.get("max_tries")),
        trigger_id=number(row.get("trigger_id")),
        next_method=text(row.get("next_method")),
        operator=text(row.get("operator")),
        executor=text(row.get("executor")),
        external_executor_id=text(row.get("external_executor_id")),
        last_heartbeat_at=iso(row.get("last_heartbeat_at")),
    )


def log_fact(row: Row, ts_boot_ns: int) -> AirflowFact:
    """Return an audit entry; `at` is its dttm."""
    event = text(row.get("event")) or ""
    run = text(row.get("run_id"))
    detail: dict[str, Any] = {"owner": text(row.get("owner"))}
    logical = iso(row.get("execution_date") or row.get("logical_date"))
    if run is None and logical is not None:
        detail["logical_date"] = logical
    extra = text(row.get("extra"))
    if extra is not None and any(word in event for word in _TELLING):
        detail["extra"] = redact_text(extra)[:_EXTRA_LIMIT]
    tries = number(row.get("try_number"))
    reference = TaskRef(
        text(row.get("dag_id")),
        text(row.get("task_id")),
        run,
        number(row.get("map_index")) if row.get("task_id") is not None else None,
        tries if tries is not None and tries > 0 else None,
    )
    return AirflowFact(
        seq=0,
        ts_boot_ns=ts_boot_ns,
        origin=ORIGIN,
        task=None if reference == TaskRef() else reference,
        table="log",
        row_id=str(row["id"]),
        event=event or None,
        at=iso(row.get("dttm")),
        detail=_known(detail),
    )


def reschedule_fact(row: Row, ts_boot_ns: int) -> AirflowFact:
    """Return one poke of a rescheduling sensor; `at` is its end, when it gave up its process."""
    index = number(row.get("map_index"))
    reference = TaskRef(
        text(row.get("dag_id")),
        text(row.get("task_id")),
        text(row.get("run_id")),
        index,
        number(row.get("try_number")),
        uuid(row.get("ti_id")),
    )
    detail = {name: iso(row.get(name)) for name in ("start_date", "end_date", "reschedule_date")}
    return AirflowFact(
        seq=0,
        ts_boot_ns=ts_boot_ns,
        origin=ORIGIN,
        task=reference,
        table="task_reschedule",
        row_id=str(row["id"]),
        event="up_for_reschedule",
        at=detail["end_date"],
        detail=_known(detail),
    )


def job_fact(row: Row, ts_boot_ns: int) -> AirflowFact:
    """Return a scheduler, triggerer or (2.x) LocalTaskJob; `event` is its state, `at` its start."""
    detail = {
        "job_type": text(row.get("job_type")),
        "dag_id": text(row.get("dag_id")),
        "hostname": text(row.get("hostname")),
        "unixname": text(row.get("unixname")),
        "executor_class": text(row.get("executor_class")),
        "end_date": iso(row.get("end_date")),
        "latest_heartbeat": iso(row.get("latest_heartbeat")),
    }
    return AirflowFact(
        seq=0,
        ts_boot_ns=ts_boot_ns,
        origin=ORIGIN,
        table="job",
        row_id=str(row["id"]),
        event=text(row.get("state")),
        at=iso(row.get("start_date")),
        detail=_known(detail),
    )


def template_fact(row: Row, ts_boot_ns: int) -> AirflowFact:
    """Return a template of log files' names."""
    return AirflowFact(
        seq=0,
        ts_boot_ns=ts_boot_ns,
        origin=ORIGIN,
        table="log_template",
        row_id=str(row["id"]),
        detail=_known({"filename": text(row.get("filename"))}),
    )


def run_fact(row: Row, ts_boot_ns: int) -> AirflowFact:
    """Return a DAG run; `event` is its state, `at` when it last changed."""
    detail: dict[str, Any] = {
        name: iso(row.get(name)) for name in ("queued_at", "start_date", "end_date")
    }
    detail |= {
        name: number(row.get(name))
        for name in ("clear_number", "creating_job_id", "scheduled_by_job_id", "log_template_id")
    }
    detail |= {name: text(row.get(name)) for name in ("run_type", "triggered_by")}
    return AirflowFact(
        seq=0,
        ts_boot_ns=ts_boot_ns,
        origin=ORIGIN,
        task=TaskRef(dag_id=text(row.get("dag_id")), run_id=text(row.get("run_id"))),
        table="dag_run",
        row_id=str(row["id"]),
        event=text(row.get("state")),
        at=iso(row.get("updated_at")),
        detail=_known(detail),
    )


def _known(detail: dict[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in detail.items() if value is not None} or None
