"""What Airflow claims over its REST API: read, bounded, and without telling a secret."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.airflow import client, rest
from pidtrail.airflow.credentials import Credentials, checked_url, take_credentials
from pidtrail.airflow.rest import Rest
from pidtrail.airflow.sampler import Sampler, Samplers
from pidtrail.errors import ApiError, DatabaseError, UsageError
from pidtrail.events import Event, TaskReported
from tests.unit.airflow_api import PASSWORD, USER, Api, instance, serving

LISTING = "/dags/~/dagRuns/~/taskInstances"
SECOND = 1_000_000_000
LOGIN = Credentials(USER, PASSWORD)
GIVEN = Credentials(token="token-1")


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(Api("3.3.2")) as api:
        yield api


@pytest.fixture
def old() -> Iterator[Api]:
    with serving(Api("2.11.2")) as api:
        yield api


@pytest.fixture(params=["3.3.2", "2.11.2"])
def either(request: pytest.FixtureRequest) -> Iterator[Api]:
    with serving(Api(request.param)) as api:
        yield api


def reader(api: Api, credentials: Credentials = LOGIN) -> Rest:
    return Rest(api.url, credentials, since_epoch_ns=time.time_ns())


def told(events: list[Event]) -> list[TaskReported]:
    assert all(isinstance(event, TaskReported) for event in events)
    return [event for event in events if isinstance(event, TaskReported)]


def failure(source: Rest) -> str:
    with pytest.raises(ApiError) as caught:
        source.poll(1)
    line = str(caught.value)
    assert "\n" not in line
    assert PASSWORD not in line
    assert "token-1" not in line
    return line


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


def test_nothing_but_get_and_the_login_is_sent(either: Api) -> None:
    either.tasks = [instance(try_number=2)]
    source = reader(either)
    for turn in range(3):
        source.poll(turn)
    source.close()

    posts = [line for line in either.asked() if not line.startswith("GET ")]
    assert posts == (["POST /auth/token"] if either.version == "3.3.2" else [])


def test_version_2_gets_the_password_and_no_login(old: Api) -> None:
    reader(old).poll(1)

    assert [who[:6] for *_, who in old.requests if who] == ["Basic "] * 2


def test_nobody_is_told_who_we_are_before_it_is_airflow(api: Api) -> None:
    api.failing = {"/api/": (404, "text/html", b"nginx")}

    for credentials in (LOGIN, GIVEN):
        assert "is not Airflow's" in failure(reader(api, credentials))
    assert {who for *_, who in api.requests} == {None}
    assert api.asked("/token") == []


def test_an_expired_token_is_replaced(api: Api) -> None:
    """A 401 leads to one more login, and the question is asked again."""
    api.tasks = [instance()]
    source = reader(api)
    source.poll(1)
    api.tokens.append("token-2")
    api.tasks = [instance(pid=5)]

    assert len(source.poll(2)) == 1
    assert len(api.asked("/auth/token")) == 2


def test_a_given_token_gives_way_to_the_password(api: Api) -> None:
    """Again and again: the given one is not tried a second time."""
    source = reader(api, Credentials(USER, PASSWORD, "token-1"))
    source.poll(1)
    for number in (2, 3):
        api.tokens.append(f"token-{number}")
        source.poll(number)

    assert len(api.asked("/auth/token")) == 2


def test_a_token_in_a_file_is_read_again(api: Api, tmp_path: Path) -> None:
    """Whoever renews it need not tell us."""
    path = tmp_path / "token"
    path.write_text("token-1\n")
    source = reader(api, take_credentials({"PIDTRAIL_AIRFLOW_TOKEN_FILE": str(path)}))
    source.poll(1)
    api.tokens.append("token-2")
    assert "refuses the token" in failure(source)
    path.write_text("token-2\n")

    assert source.poll(3) == []


def test_a_refused_password_is_not_tried_again_at_once(either: Api) -> None:
    """Airflow may lock out who is wrong too often."""
    either.password = "another"
    source = reader(either)
    line = failure(source)
    assert "refuses user and password" in line
    assert ("auth_backends" in line) == (either.version == "2.11.2")
    count = len(either.requests)

    assert failure(source) == line
    assert len(either.requests) == count


def test_a_refused_password_is_tried_again_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_REFUSED_S", 0.0)
    api.password = "another"
    source = reader(api)
    failure(source)
    api.password = PASSWORD

    assert source.poll(2) == []


def test_who_gives_no_credentials_is_told_what_to_set(either: Api) -> None:
    assert "PIDTRAIL_AIRFLOW_TOKEN" in failure(reader(either, Credentials()))


def test_no_credentials_are_needed_where_all_are_admins(api: Api) -> None:
    api.open_to_all, api.tasks = True, [instance()]

    assert len(reader(api, Credentials()).poll(1)) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "read task instances (403)"), (404, "does not answer"), (500, "fails (status 500)"),
     (302, "status 302"), (429, "too often"), (400, "status 400")],
)  # fmt: skip
def test_a_failing_listing_is_one_line(either: Api, status: int, said: str) -> None:
    """Nothing of what the server sends is repeated; a redirect is not followed."""
    path = ("/api/v2" if either.version == "3.3.2" else "/api/v1") + "/dags"
    either.failing = {path: (status, "text/html", b"<h1>token-1 " + PASSWORD.encode())}

    assert said in failure(reader(either))


@pytest.mark.parametrize(
    ("status", "said"),
    [(200, "is not Airflow's"), (404, "is not Airflow's"), (500, "fails (status 500)"),
     (302, "redirects"), (401, "wants a login"), (403, "wants a login")],
)  # fmt: skip
def test_what_is_not_airflow_is_said(api: Api, status: int, said: str) -> None:
    """Another server's page, its errors, its login."""
    api.failing = {"/": (status, "text/html", b"<h1>hello</h1>")}

    assert said in failure(reader(api))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"version": 3}', b'{"version": "1.10"}'])
def test_a_version_that_is_none_is_not_airflow(api: Api, body: bytes) -> None:
    api.failing = {"/api/": (200, "application/json", body)}

    assert "is not Airflow's" in failure(reader(api))


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"task_instances": 3}', b'{"task_instances": [1]}', b"\xff",
     b'{"task_instances": [{"dag_id": 1, "task_id": "t", "dag_run_id": "r"}]}', b"[" * 100_000],
)  # fmt: skip
def test_another_answer_than_expected_is_one_line(api: Api, body: bytes) -> None:
    api.failing = {"/api/v2/dags": (200, "application/json", body)}

    assert "does not answer as Airflow's API does" in failure(reader(api))


def test_fields_of_another_kind_are_unknown(api: Api) -> None:
    """A number that no column can hold, a date that is none."""
    api.tasks = [instance(pid=10**30, start_date="soon", map_index=None, trigger=[], id=4)]

    (event,) = told(reader(api).poll(1))

    assert event.task is not None
    assert (event.recorded_pid, event.start_date, event.trigger_id) == (None, None, None)
    assert (event.task.map_index, event.task.ti_id) == (-1, None)


def test_a_login_that_fails_is_one_line(api: Api) -> None:
    for status, said in ((403, "let us log in"), (200, "does not answer"), (500, "fails")):
        api.failing = {"/auth": (status, "text/html", PASSWORD.encode())}
        assert said in failure(reader(api))


@pytest.mark.parametrize("token", [b'"a\\nb"', b"7", b"null"])
def test_a_token_that_is_none_is_not_used(api: Api, token: bytes) -> None:
    api.failing = {"/auth": (201, "application/json", b'{"access_token": %s}' % token)}

    assert "gives no token" in failure(reader(api))


def test_a_slow_server_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.1)
    api.delay_s = 0.5

    assert "does not answer within" in failure(reader(api))


def test_nobody_listening_is_one_line() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"

        line = failure(Rest(url, LOGIN, since_epoch_ns=0))

    assert line == f"Airflow's API at {url} cannot be reached: Connection refused"


def test_a_server_that_speaks_no_http_is_one_line(api: Api) -> None:
    """Neither another protocol nor TLS where there is none ends in a trace."""
    assert "cannot be reached" in failure(
        Rest(api.url.replace("http:", "https:"), LOGIN, since_epoch_ns=0)
    )


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


def test_no_proxy_is_asked_for_loopback(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert reader(api).poll(1) == []


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:8080", "http://h:8080"),
        ("https://h/airflow/", "https://h/airflow"),
        ("http://[::1]:8080/api/v1", "http://[::1]:8080"),
        ("http://h/api/v2/", "http://h"),
    ],
)
def test_an_address_is_taken_with_or_without_its_end(url: str, base: str) -> None:
    assert checked_url(url) == base


@pytest.mark.parametrize(
    "url",
    ["http://u:s3cret@h", "http://s3cret@h", "http://u:s3/cret@h", "https://h/?token=s3cret",
     "ftp://h", "h:8080", "http://", "http://h:99999", "http://h:x", "", "http://h/a b",
     "http://h/\n", "http://[::1", "http://h/#s3cret"],
)  # fmt: skip
def test_another_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_url(url)

    assert "s3" not in str(caught.value)
    assert ("public" in str(caught.value)) == ("@" in url)


def test_secrets_are_taken_out_of_the_environment(tmp_path: Path) -> None:
    """What is traced inherits neither; a repr holds neither."""
    path = tmp_path / "password"
    path.write_text("pa55\r\n")
    environ = {
        "PIDTRAIL_AIRFLOW_USER": "u",
        "PIDTRAIL_AIRFLOW_PASSWORD_FILE": str(path),
        "PIDTRAIL_AIRFLOW_TOKEN": "t0ken",
        "HOME": "/",
    }
    given = take_credentials(environ)

    assert (given.user, given.password, given.token) == ("u", "pa55", "t0ken")
    assert "PIDTRAIL_AIRFLOW_TOKEN" not in environ
    assert "pa55" not in repr(given)
    assert "t0ken" not in repr(given)


@pytest.mark.parametrize(
    "environ",
    [
        {"USER": "u"},
        {"PASSWORD": "s3cret"},
        {"USER": "a:b", "PASSWORD": "s3cret"},
        {"TOKEN": "s3cret\nX: y"},
        {"TOKEN": "s3cret é"},
        {"TOKEN": "s3cret", "TOKEN_FILE": "/dev/null"},
        {"TOKEN_FILE": "/dev/null"},
        {"TOKEN_FILE": "/nonexistent/file"},
        {"USER": "u", "PASSWORD_FILE": "/proc/self"},
    ],
)
def test_credentials_that_cannot_be_used_are_refused(environ: dict[str, str]) -> None:
    named = {f"PIDTRAIL_AIRFLOW_{name}": value for name, value in environ.items()}
    with pytest.raises(UsageError) as caught:
        take_credentials(named)

    assert "s3cret" not in str(caught.value)
    assert "PIDTRAIL_AIRFLOW_" in str(caught.value)


class Broken:
    """A database that cannot be read."""

    problem: str | None = None

    def poll(self, ts_boot_ns: int) -> list[Event]:
        """Fail."""
        raise DatabaseError(f"no database at {ts_boot_ns:0.0f}"[:11])

    def close(self) -> None:
        """Do nothing."""


def until_drained(claims: Samplers) -> list[Event]:
    end = time.monotonic() + 5
    while not (events := claims.drain()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return events


def test_database_and_api_are_read_side_by_side(api: Api) -> None:
    """One that fails hinders the other in nothing, and each names its own problem."""
    api.tasks = [instance()]
    claims = Samplers([Sampler(Broken()), Sampler(reader(api), what="Airflow's API")])
    assert claims.problems() == [
        "Airflow's database has not answered yet",
        "Airflow's API has not answered yet",
    ]
    claims.start()

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
    end = time.monotonic() + 5
    while sampler.problems() == ["Airflow's API has not answered yet"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    sampler.stop()

    (line,) = sampler.problems()
    assert "does not let this user read task instances (403)" in line
