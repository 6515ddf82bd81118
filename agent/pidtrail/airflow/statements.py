"""
The questions that one poll asks, each a single statement with an index behind it.

A production database holds millions of old rows, so nothing here reads a table
for its recent part alone: `updated_at`, `end_date` and `dttm` of a run have no index.
What is asked for instead are rows by state (indexes ti_state, idx_dag_run_running_dags,
idx_dag_run_queued_dags, job_type_heart), by the run they belong to (ti_dag_run), by
their own key, or by an id above the last one (primary keys). The one exception
is said at `runs`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pidtrail.airflow.rows import Key
from pidtrail.airflow.schema import Schema

# States in which a process is, or is about to be: read in full at every poll.
_ACTIVE = ("running", "queued", "restarting")
_JOB_TYPES = (
    "SchedulerJob",
    "TriggererJob",
    "LocalTaskJob",
    "DagProcessorJob",
    "BackfillJob",
)
LOG_LIMIT = 5000
TEMPLATE_LIMIT = 20

_TASK_COLUMNS = (
    *("id", "task_instance_id", "dag_id", "task_id", "run_id", "map_index", "try_number"),
    *("state", "pid", "hostname", "unixname", "job_id", "start_date", "end_date", "operator"),
    *("queued_dttm", "queued_by_job_id", "updated_at", "max_tries", "trigger_id", "next_method"),
    *("executor", "external_executor_id", "last_heartbeat_at"),
)
_RUN_COLUMNS = (
    *("id", "dag_id", "run_id", "state", "run_type", "queued_at", "start_date", "end_date"),
    *("clear_number", "creating_job_id", "scheduled_by_job_id", "triggered_by", "updated_at"),
    "log_template_id",
)
_LOG_COLUMNS = (
    *("id", "dttm", "event", "dag_id", "task_id", "run_id", "map_index", "try_number"),
    *("owner", "extra", "execution_date", "logical_date"),
)
_JOB_COLUMNS = (
    *("id", "dag_id", "state", "job_type", "start_date", "end_date", "latest_heartbeat"),
    *("executor_class", "hostname", "unixname"),
)

Select = sa.Select[Any]


class Statements:
    """All statements for one schema and one kind of database."""

    def __init__(self, schema: Schema, kind: str) -> None:
        self._schema = schema
        self._kind = kind

    def moment(self, epoch_ns: int) -> sa.ColumnElement[Any]:
        """
        Return an instant, to be compared with a date column.

        SQLite has no dates: SQLAlchemy stores text that sorts as time
        (dialects/sqlite DATETIME), in UTC by airflow/utils/sqlalchemy.py UtcDateTime.
        MySQL compares with the session's time, which is UTC (mysql.py).
        """
        moment = datetime.fromtimestamp(epoch_ns / 1e9, UTC)
        if self._kind == "sqlite":
            return sa.literal(f"{moment:%Y-%m-%d %H:%M:%S.%f}", sa.String())
        if self._kind == "mysql":
            moment = moment.replace(tzinfo=None)
        return sa.literal(moment, sa.DateTime(timezone=self._kind != "mysql"))

    def active_tasks(self) -> Select:
        """Return all task instances that have or await a process, however long unchanged."""
        task = self._schema.table("task_instance")
        return sa.select(*self._schema.some("task_instance", _TASK_COLUMNS)).where(
            task.c.state.in_(_ACTIVE)
        )

    def changed_tasks(self, floor_ns: int, watched: Collection[int]) -> Select:
        """
        Return the task instances changed since `floor_ns` in runs that run, or ran lately.

        `watched` are ids of dag_run. Catches what started and ended between two
        polls. Airflow's ORM sets `updated_at` at every change (models/taskinstance.py).
        """
        task, run = self._schema.table("task_instance"), self._schema.table("dag_run")
        query = (
            sa.select(*self._schema.some("task_instance", _TASK_COLUMNS))
            .select_from(
                task.join(
                    run,
                    sa.and_(run.c.dag_id == task.c.dag_id, run.c.run_id == task.c.run_id),
                )
            )
            .where(sa.or_(run.c.state == "running", run.c.id.in_(list(watched))))
        )
        if self._schema.has("task_instance", "updated_at"):
            query = query.where(task.c.updated_at >= self.moment(floor_ns))
        return query

    def earlier_tries(self, keys: Sequence[Key]) -> Select | None:
        """Return the archived tries of these task instances; None before 2.10."""
        name = "task_instance_history"
        if not self._schema.has(name, "dag_id", "task_id", "run_id", "map_index"):
            return None
        table = self._schema.table(name)
        key = sa.tuple_(table.c.dag_id, table.c.task_id, table.c.run_id, table.c.map_index)
        return sa.select(*self._schema.some(name, _TASK_COLUMNS)).where(key.in_(list(keys)))

    def run_start(self) -> Select:
        """Return the highest id of dag_run."""
        return sa.select(sa.func.max(self._schema.table("dag_run").c.id))

    def runs(
        self,
        floor_ns: int,
        watched: Collection[int],
        above: int | None,
        named: Sequence[tuple[str, str]],
        *,
        ended_since_ns: int | None,
    ) -> Select:
        """
        Return the runs that run, were queued since `floor_ns`, are watched, new, or named.

        With `ended_since_ns` also those that ended since then. There is no index for
        that: it is asked only at the first poll and after a gap in the polling.
        """
        run = self._schema.table("dag_run")
        queued = run.c.state == "queued"
        if self._schema.has("dag_run", "updated_at"):
            queued = sa.and_(queued, run.c.updated_at >= self.moment(floor_ns))
        arms = [run.c.state == "running", queued, run.c.id.in_(list(watched))]
        if above is not None:
            arms.append(run.c.id > above)
        if named:
            arms.append(sa.tuple_(run.c.dag_id, run.c.run_id).in_(list(named)))
        if ended_since_ns is not None and self._schema.has("dag_run", "end_date"):
            arms.append(run.c.end_date >= self.moment(ended_since_ns))
        return sa.select(*self._schema.some("dag_run", _RUN_COLUMNS)).where(sa.or_(*arms))

    def jobs(self, floor_ns: int, known: Collection[int]) -> Select | None:
        """
        Return jobs with a heartbeat since `floor_ns`, the known ones, and all running schedulers.

        A dead scheduler's job is marked by another one, without a heartbeat of its own.
        """
        if not self._schema.has("job", "id", "state", "job_type", "latest_heartbeat"):
            return None
        job = self._schema.table("job")
        lively = sa.and_(
            job.c.job_type.in_(_JOB_TYPES), job.c.latest_heartbeat >= self.moment(floor_ns)
        )
        schedulers = sa.and_(job.c.job_type == "SchedulerJob", job.c.state == "running")
        return sa.select(*self._schema.some("job", _JOB_COLUMNS)).where(
            sa.or_(lively, schedulers, job.c.id.in_(list(known)))
        )

    def log_start(self, since_ns: int) -> Select | None:
        """Return (highest id, lowest id since `since_ns`) of the audit log."""
        if not self._schema.has("log", "id", "dttm", "event", "dag_id", "task_id"):
            return None
        log = self._schema.table("log")
        lowest = sa.select(sa.func.min(log.c.id)).where(log.c.dttm >= self.moment(since_ns))
        highest = sa.select(sa.func.max(log.c.id))
        return sa.select(highest.scalar_subquery(), lowest.scalar_subquery())

    def log(self, above: int, holes: Collection[int]) -> Select:
        """Return audit entries by id: those above the last, and those whose commit came late."""
        log = self._schema.table("log")
        return (
            sa.select(*self._schema.some("log", _LOG_COLUMNS))
            .where(sa.or_(log.c.id > above, log.c.id.in_(list(holes))))
            .order_by(log.c.id)
            .limit(LOG_LIMIT)
        )

    def log_templates(self, above: int) -> Select | None:
        """Return the templates that log files were ever named by, by id."""
        if not self._schema.has("log_template", "id", "filename"):
            return None
        table = self._schema.table("log_template")
        return (
            sa.select(table.c.id, table.c.filename)
            .where(table.c.id > above)
            .order_by(table.c.id.desc())
            .limit(TEMPLATE_LIMIT)
        )

    def reschedule_start(self) -> Select | None:
        """Return the highest id of task_reschedule."""
        if not self._schema.has("task_reschedule", "id", "start_date", "end_date"):
            return None
        return sa.select(sa.func.max(self._schema.table("task_reschedule").c.id))

    def reschedules(self, above: int, holes: Collection[int], since_ns: int) -> Select:
        """Return the pokes by id that ended since `since_ns`, with their task instance."""
        table = self._schema.table("task_reschedule")
        names = ("id", "start_date", "end_date", "reschedule_date", "ti_id", "try_number")
        columns = self._schema.some("task_reschedule", names)
        keys = ("dag_id", "task_id", "run_id", "map_index")
        source: sa.FromClause = table
        if "ti_id" in table.c and self._schema.has("task_instance", "id"):
            task = self._schema.table("task_instance")
            source = table.outerjoin(task, task.c.id == table.c.ti_id)
            columns += self._schema.some("task_instance", (*keys, "try_number"))
        else:
            columns += self._schema.some("task_reschedule", keys)
        return (
            sa.select(*columns)
            .select_from(source)
            .where(
                sa.or_(table.c.id > above, table.c.id.in_(list(holes))),
                table.c.end_date >= self.moment(since_ns),
            )
            .order_by(table.c.id)
            .limit(LOG_LIMIT)
        )
