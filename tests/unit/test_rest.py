"""What Airflow claims over its REST API: read once, bounded, beside the database."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pidtrail.airflow import rest
from pidtrail.airflow.account import Account
from pidtrail.airflow.sampler import Sampler
from pidtrail.errors import DatabaseError
from pidtrail.events import Event
from tests.unit.airflow_api import Api, failure, instance, reader, serving, told

SECOND = 1_000_000_000


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(Api("3.3.2")) as api:
        yield api


@pytest.fixture(params=["3.3.2", "2.11.2"])
def either(request: pytest.FixtureRequest) -> Iterator[Api]:
    with serving(Api(request.param)) as api:
        yield api


def test_a_row_becomes_a_record(either: Api) -> None:
    either.tasks = [instance(trigger={"id": 7, "classpath": "x"})]

    (event,) = told(reader(either).poll(5))

    assert event.task is not None
    assert event.task.dag_id == "d"
    assert (event.task.run_id, event.task.map_index, event.task.try_number) == ("r+1", -1, 1)
    assert (event.recorded_pid, event.hostname, event.state) == (4001, "vm", "running")
    assert event.start_date == event.queued_dttm == "2026-01-01T00:00:00.250000Z"
    assert (event.via, event.origin, event.table) == ("rest", "airflow-rest", "task_instance")
    assert (event.ts_boot_ns, event.trigger_id, event.unixname) == (5, 7, "airflow")


def test_the_id_of_3_is_known(api: Api) -> None:
    api.tasks = [instance(id="01a201e4-adfd-7001-9119-5fc7567c01fa")]

    (event,) = told(reader(api).poll(1))

    assert event.task is not None
    assert event.task.ti_id == "01a201e4-adfd-7001-9119-5fc7567c01fa"


def test_only_what_changed_is_told_again(either: Api) -> None:
    either.tasks = [instance("a"), instance("b")]
    source = reader(either)
    assert len(source.poll(1)) == 2
    assert source.poll(2) == []

    either.tasks[1]["pid"] = 77

    (event,) = told(source.poll(3))
    assert event.recorded_pid == 77


def test_what_never_had_a_process_is_not_told(api: Api) -> None:
    api.tasks = [instance(state=state, pid=None, start_date=None) for state in (None, "skipped")]

    assert reader(api).poll(1) == []


def test_all_pages_are_read(either: Api) -> None:
    """Also where the server gives less at once than was asked for."""
    either.page = 40
    either.tasks = [instance(f"t{number}", state="success") for number in range(130)]

    assert len(reader(either).poll(1)) == 130


def test_pages_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much is not read, and that is said."""
    monkeypatch.setattr(rest, "_MOST_PAGES", 3)
    api.tasks = [instance(f"t{number}", state="success") for number in range(500)]
    source = reader(api)

    assert len(source.poll(1)) == 300
    assert source.problem is not None
    assert "300" in source.problem


def test_one_listing_suffices_for_a_poll(api: Api) -> None:
    """But for the first, and every half minute, when all that run are asked for too."""
    source = reader(api)
    source.poll(0)
    assert len(api.asked("taskInstances")) == 2
    source.poll(SECOND)
    assert len(api.asked("taskInstances")) == 3
    source.poll(40 * SECOND)
    assert len(api.asked("taskInstances")) == 5


def test_changes_since_the_poll_before_are_asked_for(either: Api) -> None:
    """First from two minutes before the session, then from half a minute before the last poll."""
    source = reader(either)
    began = time.time()
    source.poll(0)
    source.poll(1)

    asked = [query["updated_at_gte"][0] for *_, query, _ in either.requests if len(query) >= 3
             and "updated_at_gte" in query]  # fmt: skip
    first, second = (
        time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone for text in asked
    )
    assert first - began == pytest.approx(-120, abs=3)
    assert second - began == pytest.approx(-30, abs=3)
    assert all(text.endswith("Z") for text in asked)


def test_earlier_tries_are_read_once(either: Api) -> None:
    """Of the list of tries only what is older than the current one is history."""
    path = "/dags/d/dagRuns/r+1/taskInstances/t/tries"
    either.tasks = [instance(try_number=1)]
    source = reader(either)
    source.poll(1)
    assert either.asked("/tries") == []
    either.tasks = [instance(try_number=2)]
    either.history[path] = [instance(state="failed"), instance(try_number=2)]

    now, before = told(source.poll(2))
    source.poll(3)

    assert now.task is not None
    assert before.task is not None
    assert (now.table, now.task.try_number) == ("task_instance", 2)
    assert (before.table, before.task.try_number) == ("task_instance_history", 1)
    assert (before.recorded_pid, before.state, before.via) == (4001, "failed", "rest")
    assert len(either.asked("/tries")) == 1
    assert "r%2B1" in either.asked("/tries")[0]


def test_a_mapped_task_has_tries_of_its_own(api: Api) -> None:
    api.tasks = [instance(try_number=2, map_index=3)]
    api.history["/dags/d/dagRuns/r+1/taskInstances/t/3/tries"] = [instance(map_index=3)]

    assert [event.table for event in told(reader(api).poll(1))] == [
        "task_instance",
        "task_instance_history",
    ]


def test_tries_are_bounded(api: Api) -> None:
    """Those that are too many wait for the next poll; a task instance that is gone has none."""
    api.tasks = [instance(f"t{number}", try_number=2) for number in range(30)]
    source = reader(api)

    source.poll(1)
    assert len(api.asked("/tries")) == 20
    source.poll(2)
    source.poll(3)
    assert len(api.asked("/tries")) == 30


def test_before_2_10_there_is_no_history_and_the_number_is_the_column() -> None:
    """What waits for a process is about to begin the next try."""
    with serving(Api("2.9.3")) as api:
        api.tasks = [instance("a", 2, state="running"), instance("b", 1, state="queued")]

        events = told(reader(api).poll(1))

        assert [event.task.try_number for event in events if event.task] == [2, 2]
        assert api.asked("/tries") == []


def test_fields_of_another_kind_are_unknown(api: Api) -> None:
    """A number that no column can hold, a date that is none."""
    api.tasks = [instance(pid=10**30, start_date="soon", map_index=None, trigger=[], id=4)]

    (event,) = told(reader(api).poll(1))

    assert event.task is not None
    assert (event.recorded_pid, event.start_date, event.trigger_id) == (None, None, None)
    assert (event.task.map_index, event.task.ti_id) == (-1, None)


def test_after_an_error_what_was_missed_is_read(either: Api) -> None:
    """The time of the last good poll counts, and all that run are asked for again."""
    source = reader(either)
    source.poll(0)
    either.failing = {"/api/v": (500, "text/plain", b"")}
    failure(source)
    either.failing, either.tasks = {}, [instance()]
    count = len(either.asked("taskInstances"))

    assert len(source.poll(2)) == 1
    assert len(either.asked("taskInstances")) == count + 2


class Broken:
    """A database that cannot be read."""

    problem: str | None = None

    def poll(self, ts_boot_ns: int) -> list[Event]:
        """Fail."""
        raise DatabaseError(f"no database at {ts_boot_ns:0.0f}"[:11])

    def close(self) -> None:
        """Do nothing."""


def until_drained(claims: Account) -> list[Event]:
    end = time.monotonic() + 30
    while not (events := claims.drain()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return events


def test_database_and_api_are_read_side_by_side(api: Api) -> None:
    """One that fails hinders the other in nothing, and each names its own problem."""
    api.tasks = [instance()]
    claims = Account({}, rest=reader(api))
    claims.databases["broken"] = Sampler(Broken())
    claims.databases["broken"].start()
    claims.read({"broken"})

    assert len(until_drained(claims)) == 1
    api.tasks = [instance(pid=9)]
    claims.poke()
    assert len(until_drained(claims)) == 1
    claims.stop()
    assert claims.problems() == ["no database"]


def test_an_api_that_fails_is_a_problem_with_its_own_words(api: Api) -> None:
    """The sampler treats it as a database's error: said, and tried again."""
    api.failing = {"/api/v2/dags": (403, "text/html", b"")}
    sampler = Sampler(reader(api), what="Airflow's API")
    sampler.start()
    end = time.monotonic() + 30
    while sampler.problems() == ["Airflow's API has not answered yet"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    sampler.stop()

    (line,) = sampler.problems()
    assert "does not let this user read task instances (403)" in line
