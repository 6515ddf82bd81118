"""Asking Airflow's REST API: who we are is told to Airflow alone, and every error is one line."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.airflow import client
from pidtrail.airflow.credentials import (
    Credentials,
    checked_url,
    take_credentials,
    take_database,
)
from pidtrail.airflow.rest import Rest
from pidtrail.errors import UsageError
from tests.unit.airflow_api import (
    LOGIN,
    PASSWORD,
    USER,
    Api,
    failure,
    instance,
    reader,
    serving,
)

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

    assert [who[:6] for *_, who in old.requests if who] == ["Basic "] * 3


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
    assert "is it http, not https?" in failure(
        Rest(api.url.replace("http:", "https:"), LOGIN, since_epoch_ns=0)
    )


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


def test_the_database_is_taken_from_a_file_or_out_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("mysql://u:pa55@h/a\n")
    environ = {"PIDTRAIL_AIRFLOW_DB": "postgresql://u:pa55@h/a", "HOME": "/"}

    assert take_database({"PIDTRAIL_AIRFLOW_DB_FILE": str(path)}) == "mysql://u:pa55@h/a"
    assert take_database(environ) == "postgresql://u:pa55@h/a"
    assert environ == {"HOME": "/"}
    assert take_database(environ) is None


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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody vouches for gets no password; SSL_CERT_FILE names who may vouch."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)),
            *("-out", str(certificate), "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    with serving(Api("3.3.2"), certificate=(certificate, key)) as api:
        assert "has a certificate that is not trusted" in failure(reader(api))
        assert api.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        assert reader(api).poll(1) == []
