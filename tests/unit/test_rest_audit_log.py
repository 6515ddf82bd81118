"""What the audit log says over the REST API: read once, bounded, and done without if need be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pidtrail.airflow import rest
from pidtrail.events import AirflowFact, Event, TaskRef, TaskReported
from tests.unit.airflow_api import EARLY, Api, entry, instance, reader, serving


@pytest.fixture(params=["3.3.2", "2.11.2", "2.9.3"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    with serving(Api(request.param)) as api:
        yield api


def facts(events: list[Event]) -> list[AirflowFact]:
    return [event for event in events if isinstance(event, AirflowFact)]


def test_an_entry_becomes_a_record(api: Api) -> None:
    """With its description only where that tells of a task, and without secrets."""
    extra = "within the limit (300.0 seconds) postgresql://u:hunter2@h/d"
    api.log = [
        entry(7, "heartbeat timeout", extra=extra),
        entry(8, "trigger_dag_run", extra="hunter2"),
    ]

    first, second = facts(reader(api).poll(5))

    assert first.task == TaskRef("d", "t", "r+1", -1, 1)
    assert (first.table, first.row_id, first.event) == ("log", "7", "heartbeat timeout")
    assert (first.origin, first.ts_boot_ns) == ("airflow-rest", 5)
    assert first.at is not None
    assert first.at.endswith("Z")
    assert first.detail is not None
    assert first.detail["owner"] == "anna"
    assert "300.0 seconds" in first.detail["extra"]
    assert "hunter2" not in str(first) + str(second)


def test_each_entry_is_told_once_and_late_ones_too(api: Api) -> None:
    """Ids are not committed in order: the last half minute is read again."""
    api.log = [entry(1, "running"), entry(3, "clear")]
    source = reader(api)
    assert [fact.row_id for fact in facts(source.poll(1))] == ["1", "3"]
    assert source.poll(2) == []

    api.log += [entry(2, "failed"), entry(4, "success")]

    assert [fact.row_id for fact in facts(source.poll(3))] == ["2", "4"]


def test_what_is_older_than_the_session_is_not_told(api: Api) -> None:
    api.log = [entry(number, "clear", when=EARLY) for number in range(1, 250)]
    api.log.append(entry(300, "clear"))

    assert [fact.row_id for fact in facts(reader(api).poll(1))] == ["300"]
    assert len(api.asked("/eventLogs")) == 1


def test_all_pages_are_read_and_they_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much is not read, and that is said."""
    api.log = [entry(number, "running") for number in range(1, 251)]
    assert len(facts(reader(api).poll(1))) == 250

    monkeypatch.setattr(rest, "_MOST_LOG_PAGES", 2)
    source = reader(api)
    assert len(facts(source.poll(1))) == 200
    assert source.problem is not None
    assert "audit log" in source.problem


def test_what_tells_of_no_dag_is_left_out(api: Api) -> None:
    """But for commands that somebody gave on the command line."""
    nobody = {"dag_id": None, "task_id": None, "run_id": None}
    api.log = [entry(1, "connection.create", **nobody), entry(2, "cli_scheduler", **nobody)]

    assert [fact.event for fact in facts(reader(api).poll(1))] == ["cli_scheduler"]


def test_a_user_who_may_not_read_it_is_told_the_rest(api: Api) -> None:
    """It is said once, and asked for no more."""
    api.tasks = [instance(state="running")]
    prefix = "/api/v2" if api.version.startswith("3") else "/api/v1"
    api.failing = {f"{prefix}/eventLogs": (403, "text/html", b"")}
    source = reader(api)

    assert [type(event) for event in source.poll(1)] == [TaskReported]
    source.poll(2)

    assert len(api.asked("/eventLogs")) == 1
    assert source.problem is not None
    assert "does not let this user read the audit log" in source.problem
    assert {method for method, *_ in api.requests} <= {"GET", "POST"}
