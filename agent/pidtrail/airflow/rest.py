"""
What Airflow claims over its REST API, as records of what changed between two polls.

For hosts that may not read the metadata database. The API gives less: of task
instances not `job_id`, `queued_by_job_id`, `next_method`, `last_heartbeat_at` and
`updated_at`; no ids of earlier tries; no pokes of a sensor (`task_reschedule`), of which
the audit log alone tells; and of DAGs that the user may not read nothing, silently. Runs
and jobs are not asked for: 2.x has no list of jobs, and a run tells nothing of a process.

Theory of operation
-------------------
A poll asks

1. for all task instances changed since the poll before, less half a minute for clocks and
   slow commits: `updated_at_gte`, in pages of 100, 20 pages at most, newest try first;
2. at the start, after an error and every half minute: for all that are running, queued or
   restarting, however long unchanged (one listing of the same bounds);
3. for the earlier tries (`…/tries`, from 2.10 on) of those whose `try_number` rose, 20
   at most; others wait for the next poll;
4. for the audit log since the same instant, newest first, 10 pages at most, if the user
   may read it: who cleared what, heartbeat timeouts, deferrals, reschedules.

Each row is compared with what was said of it before, and becomes a record if it differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from msgspec import structs

from pidtrail.airflow import rows
from pidtrail.airflow.client import Client
from pidtrail.airflow.credentials import Credentials, checked_url
from pidtrail.clock import rfc3339
from pidtrail.errors import ApiError
from pidtrail.events import Event, TaskReported

ORIGIN = "airflow-rest"

_SECOND_NS = 1_000_000_000
_START_SLACK_NS = 120 * _SECOND_NS
_SLACK_NS = 30 * _SECOND_NS
_ACTIVE_EVERY_NS = 30 * _SECOND_NS
_FORGET_NS = 1200 * _SECOND_NS
_ACTIVE = ("running", "queued", "restarting")
# States of a task instance that never had a process, if nothing was said of it before.
_UNTOUCHED = {None, "skipped", "upstream_failed", "removed"}
# [api] maximum_page_limit is 100 unless set otherwise, in 2.x and 3.x.
_PAGE = 100
_MOST_PAGES = 20
_MOST_TRIES = 20
_MOST_LOG_PAGES = 10
# No slow server keeps a poll for longer, but for the answer that is awaited then.
_MOST_SECONDS = 15.0
_MOST_INT = 2**63

_EVERY = "/dags/~/dagRuns/~/taskInstances"
_AUDIT_LOG = "/eventLogs"
# Who is told nothing of the audit log is asked for it again after an error alone.
_NO_AUDIT_LOG = (
    "Airflow's API does not let this user read the audit log: clears, heartbeat timeouts and"
    " deferrals are told by states alone"
)


class Rest:
    """
    Airflow's REST API, polled for what changed. The same face as `Metadata`.

    `url` is the web server's or api-server's address, `since_epoch_ns` when the
    session began (nanoseconds since the Unix epoch, this host's clock); changes
    from up to two minutes before are records too. Nothing is asked before the
    first poll. Not for use by several threads. Raises UsageError for a bad URL.
    """

    def __init__(self, url: str, credentials: Credentials, *, since_epoch_ns: int) -> None:
        self._client = Client(checked_url(url), credentials)
        # By our clock; changes before this instant have been read.
        self._read_until_ns = since_epoch_ns - _START_SLACK_NS + _SLACK_NS
        self._active_at_ns: int | None = None
        self._gap = True
        self._problem: str | None = None
        self._reads_log = True
        self._logged: dict[int, int] = {}
        self._said: dict[tuple[object, ...], TaskReported] = {}
        self._last_use: dict[tuple[object, ...], int] = {}
        self._tries: dict[rows.Key, int] = {}
        self._pending: dict[rows.Key, int] = {}
        # Kept until a poll succeeds: what was read before an error is not said again.
        self._events: list[Event] = []

    @property
    def problem(self) -> str | None:
        """One line on what was too much to be read, or None."""
        return self._problem

    def poll(self, ts_boot_ns: int) -> list[Event]:
        """
        Return what changed since the last poll, with `ts_boot_ns` as its time.

        Raises ApiError, one line without a secret, if the API is not there, refuses
        us, does not answer in time, or is not Airflow's. The next poll begins
        anew and brings what was missed, as far as it still stands there.
        """
        gap, self._gap = self._gap, True
        if gap:
            self._client.find()
            self._reads_log = True
        deadline = time.monotonic() + _MOST_SECONDS
        now_ns = time.time_ns()
        floor = rfc3339(self._read_until_ns + self._client.skew_ns - _SLACK_NS)[:26] + "Z"
        self._list([("updated_at_gte", floor)], ts_boot_ns, deadline)
        last = self._active_at_ns
        if gap or last is None or ts_boot_ns - last >= _ACTIVE_EVERY_NS:
            self._list([("state", state) for state in _ACTIVE], ts_boot_ns, deadline)
            self._active_at_ns = ts_boot_ns
        self._read_tries(ts_boot_ns, deadline)
        self._read_log(floor, ts_boot_ns, deadline)
        self._age(ts_boot_ns)
        self._gap, self._read_until_ns = False, now_ns
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Nothing is kept open between two questions; a later poll begins anew."""
        self._gap = True

    def _list(self, query: list[tuple[str, str]], ts: int, deadline: float) -> None:
        """Read one listing, page by page, and say what is new in it."""
        # 3.x pages by offset over an order that is stable against changes; 2.x knows no order.
        order = [] if self._client.release < (3,) else [("order_by", "-id")]
        offset = 0
        for _ in range(_MOST_PAGES):
            page = [("limit", str(_PAGE)), ("offset", str(offset))]
            found, total = self._page(_EVERY, [*query, *order, *page])
            for row in found:
                self._see(row, ts)
            offset += len(found)
            # A server may give less than asked for: [api] maximum_page_limit.
            complete = len(found) < _PAGE if total is None else offset >= total
            if complete or not found:
                return
            if time.monotonic() > deadline:
                break
        self._problem = (
            f"Airflow's API had more to tell at once than is read: {offset} task instances were"
        )

    def _see(self, row: rows.Row, ts: int) -> None:
        event = self._reported(row, "task_instance", ts)
        key = rows.key_of(row)
        untouched = event.recorded_pid is None and event.start_date is None
        if event.state in _UNTOUCHED and untouched and ("task", *key) not in self._said:
            return
        self._say(("task", *key), event, ts)
        # The number that stands there, not the attempt to come: before 2.10 there are no tries.
        number = rows.number(row.get("try_number")) or 0
        if number > max(1, self._tries.get(key, 1)) and not self._client.old_try_numbers:
            self._pending[key] = number
        self._tries[key] = number

    def _read_tries(self, ts: int, deadline: float) -> None:
        """
        Read the tries before the current one of what was tried again.

        The list holds the current try too, unless it is up_for_retry, and tells it from
        the others by nothing but its number (get_task_instance_tries @ 3.3.2, 2.11.2).
        """
        for key, current in list(self._pending.items())[:_MOST_TRIES]:
            if time.monotonic() > deadline:
                return
            dag, task, run, index = key
            names = [quote(name, safe="") for name in (dag, run, task)]
            mapped = "" if index < 0 else f"/{index}"
            path = "/dags/{}/dagRuns/{}/taskInstances/{}{}/tries".format(*names, mapped)
            found, _ = self._page(path, None)
            for row in found:
                event = self._reported(row, "task_instance_history", ts)
                number = rows.number(row.get("try_number")) or 0
                if rows.key_of(row) == key and number < current:
                    self._say(("try", *key, number), event, ts)
            del self._pending[key]

    def _read_log(self, floor: str, ts: int, deadline: float) -> None:
        """Say what the audit log has since an instant, oldest first, each entry once."""
        # Before 2.10 all entries are listed, and those before the instant end the reading.
        since = [] if self._client.old_try_numbers else [("after", floor)]
        found: dict[int, rows.Row] = {}
        offset, complete = 0, not self._reads_log
        for _ in range(_MOST_LOG_PAGES):
            if complete or time.monotonic() > deadline:
                break
            page = [("limit", str(_PAGE)), ("offset", str(offset))]
            answer = self._client.get(
                _AUDIT_LOG, [*since, ("order_by", "-event_log_id"), *page], may_refuse=True
            )
            if answer is None:
                self._reads_log, self._problem = False, _NO_AUDIT_LOG
                return
            items, total = self._items(answer, "event_logs", _log_row)
            fresh = [row for row in items if (rows.iso(row["dttm"]) or "") >= floor]
            found |= {row["id"]: row for row in fresh}
            offset += len(items)
            complete = len(fresh) < len(items) or not items or offset >= (total or 0)
        if not complete:
            self._problem = f"the audit log had more to tell at once than is read: {offset} entries"
        for number, row in sorted(found.items()):
            known = number in self._logged
            self._logged[number] = ts
            if not known and (row["dag_id"] is not None or str(row["event"]).startswith("cli_")):
                fact = rows.log_fact(row, ts)
                self._events.append(structs.replace(fact, origin=ORIGIN))

    def _page(
        self, path: str, query: list[tuple[str, str]] | None
    ) -> tuple[list[rows.Row], int | None]:
        """Return the rows of an answer, by the names of columns, and how many there are in all."""
        answer = self._client.get(path, query)
        if answer is None and query is None:
            # The task instance was removed meanwhile.
            return [], 0
        return self._items(answer, "task_instances", _row)

    def _items(
        self, answer: Any, name: str, read: Callable[[dict[str, Any]], rows.Row]
    ) -> tuple[list[rows.Row], int | None]:
        """Return what is listed in an answer, and how many there are in all. Raises ApiError."""
        try:
            found = [read(item) for item in answer[name]]
            return found, rows.number(answer.get("total_entries"))
        except (TypeError, KeyError, AttributeError, ValueError):
            raise ApiError(f"{self._client.shown} does not answer as Airflow's API does") from None

    def _reported(self, row: rows.Row, table: str, ts: int) -> TaskReported:
        old = self._client.old_try_numbers
        event = rows.reported(row, table, ts, old=old)
        return structs.replace(event, origin=ORIGIN, via="rest")

    def _say(self, key: tuple[object, ...], event: TaskReported, ts: int) -> None:
        """Add the record unless nothing in it is new."""
        essence = structs.replace(event, ts_boot_ns=0)
        self._last_use[key] = ts
        if self._said.get(key) != essence:
            self._said[key] = essence
            self._events.append(event)

    def _age(self, ts: int) -> None:
        """Forget what was in no answer for twenty minutes."""
        for key in [key for key, seen in self._last_use.items() if ts - seen > _FORGET_NS]:
            del self._last_use[key]
            del self._said[key]
        self._logged = {
            number: seen for number, seen in self._logged.items() if ts - seen <= _FORGET_NS
        }
        self._tries = {
            key: number for key, number in self._tries.items() if ("task", *key) in self._said
        }


def _row(item: dict[str, Any]) -> rows.Row:
    """
    Return a task instance of an answer by the names that the columns have.

    Raises TypeError, KeyError or ValueError for what is none.
    """
    for name in ("dag_id", "task_id", "dag_run_id"):
        if not isinstance(item[name], str):
            raise TypeError(name)
    trigger = item.get("trigger")
    row = {
        **item,
        "run_id": item["dag_run_id"],
        "queued_dttm": item.get("queued_when"),
        "trigger_id": trigger.get("id") if isinstance(trigger, dict) else None,
    }
    # Numbers that no column can hold would not fit into a recording either.
    return {
        name: value
        for name, value in row.items()
        if not isinstance(value, int) or -_MOST_INT <= value < _MOST_INT
    }


def _log_row(item: dict[str, Any]) -> rows.Row:
    """
    Return an entry of the audit log by the names that the columns have.

    Raises TypeError or KeyError for what is none.
    """
    number = item["event_log_id"]
    if rows.number(number) is None or not 0 <= number < _MOST_INT:
        raise TypeError("event_log_id")
    names = ("dag_id", "task_id", "run_id", "map_index", "try_number", "event", "owner", "extra")
    # 2.x before 2.10 has no run_id here, and execution_date instead.
    dates = {name: item.get(name) for name in ("execution_date", "logical_date")}
    plain = {name: item.get(name) for name in names}
    return {"id": number, "dttm": item["when"], **plain, **dates}
