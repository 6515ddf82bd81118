"""A stand-in for Airflow's web server (2.x) and api-server (3.x): what `Rest` asks, no more."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from pidtrail.airflow.credentials import Credentials
from pidtrail.airflow.rest import Rest
from pidtrail.errors import ApiError
from pidtrail.events import Event, TaskReported

USER, PASSWORD = "reader", "s3cret-pa55"
LOGIN = Credentials(USER, PASSWORD)
EARLY = "2026-01-01T00:00:00.250000Z"


def instance(task: str = "t", try_number: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a task instance as the API gives it."""
    return {
        "dag_id": "d",
        "task_id": task,
        "dag_run_id": "r+1",
        "map_index": -1,
        "try_number": try_number,
        "max_tries": 3,
        "state": "running",
        "pid": 4000 + try_number,
        "hostname": "vm",
        "unixname": "airflow",
        "start_date": EARLY,
        "end_date": None,
        "queued_when": EARLY,
        "operator": "PythonOperator",
        "executor": None,
        "trigger": None,
        **fields,
    }


def entry(number: int, event: str, **fields: Any) -> dict[str, Any]:
    """Return an entry of the audit log as the API gives it, written now."""
    return {
        "event_log_id": number,
        "when": datetime.now(UTC).isoformat(),
        "dag_id": "d",
        "task_id": "t",
        "run_id": "r+1",
        "map_index": -1,
        "try_number": 1,
        "event": event,
        "logical_date": EARLY,
        "owner": "anna",
        "extra": None,
        **fields,
    }


class Api:
    """
    A server on loopback. What it holds may be changed while it runs.

    `failing` maps the beginning of a path to (status, content type, body).
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.tasks: list[dict[str, Any]] = []
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.log: list[dict[str, Any]] = []
        self.tokens = ["token-1"]
        self.password = PASSWORD
        self.open_to_all = False
        self.page = 100
        self.failing: dict[str, tuple[int, str, bytes]] = {}
        self.delay_s = 0.0
        self.requests: list[tuple[str, str, dict[str, list[str]], str | None]] = []
        self.url = ""

    def asked(self, end: str = "") -> list[str]:
        """Return method and path of each request whose path ends so."""
        return [f"{method} {path}" for method, path, *_ in self.requests if path.endswith(end)]

    def answer(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, str, bytes, dict[str, str]]:
        """Return status, content type, body and further headers."""
        parts = urlsplit(target)
        path, query = parts.path, parse_qs(parts.query)
        authorization = headers.get("Authorization")
        self.requests.append((method, path, query, authorization))
        time.sleep(self.delay_s)
        for beginning, (status, kind, content) in self.failing.items():
            if path.startswith(beginning):
                return status, kind, content, {"Location": "http://127.0.0.1:1/elsewhere"}
        api = "/api/v2" if self.version.startswith("3") else "/api/v1"
        if method == "POST" and path == "/auth/token" and api == "/api/v2":
            return self._login(body)
        if method != "GET":
            return self._json({}, 405)
        if path == f"{api}/version":
            return self._json({"version": self.version, "git_version": None})
        if not path.startswith(f"{api}/"):
            # Whatever a 3.x server does not know is its page.
            if api == "/api/v2" and not path.startswith("/api/"):
                return 200, "text/html", b"<!doctype html><title>Airflow</title>", {}
            return self._json({"detail": "Not Found"}, 404)
        if not self.open_to_all and not self._knows(authorization, api):
            # 2.11.2 says "forbidden" of a wrong password.
            status = 401 if api == "/api/v2" else 403
            return self._json({"detail": f"no: {authorization}"}, status)
        return self._told(path.removeprefix(api), query)

    def _login(self, body: bytes) -> tuple[int, str, bytes, dict[str, str]]:
        if json.loads(body) != {"username": USER, "password": self.password}:
            return self._json({"detail": "Invalid credentials"}, 401)
        return self._json({"access_token": self.tokens[-1]}, 201)

    def _told(
        self, path: str, query: dict[str, list[str]]
    ) -> tuple[int, str, bytes, dict[str, str]]:
        if path.endswith("/tries"):
            found = self.history.get(unquote(path))
            if found is None:
                return self._json({"detail": "not found"}, 404)
            return self._json({"task_instances": found, "total_entries": len(found)})
        if path == "/eventLogs":
            return self._audit_log(query)
        found = self.tasks
        if "state" in query:
            found = [row for row in found if row["state"] in query["state"]]
        offset, limit = int(query["offset"][0]), min(self.page, int(query["limit"][0]))
        page = found[offset : offset + limit]
        return self._json({"task_instances": page, "total_entries": len(found)})

    def _audit_log(self, query: dict[str, list[str]]) -> tuple[int, str, bytes, dict[str, str]]:
        """Return entries as get_event_logs does: before 2.10 it knows no `after`."""
        assert query["order_by"] == ["-event_log_id"]
        found = sorted(self.log, key=lambda entry: -entry["event_log_id"])
        if "after" in query:
            assert not self.version.startswith("2.9")
            found = [entry for entry in found if entry["when"] > query["after"][0]]
        offset, limit = int(query["offset"][0]), min(self.page, int(query["limit"][0]))
        page = found[offset : offset + limit]
        return self._json({"event_logs": page, "total_entries": len(found)})

    def _knows(self, authorization: str | None, api: str) -> bool:
        if api == "/api/v2":
            return authorization == f"Bearer {self.tokens[-1]}"
        basic = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        return authorization == f"Basic {basic}"

    @staticmethod
    def _json(content: Any, status: int = 200) -> tuple[int, str, bytes, dict[str, str]]:
        return status, "application/json", json.dumps(content).encode(), {}


@contextmanager
def serving(api: Api, *, certificate: tuple[Path, Path] | None = None) -> Iterator[Api]:
    """Serve on a free port of 127.0.0.1; over TLS with a certificate and its key."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, content, further = api.answer(self.command, self.path, self.headers, body)
            try:
                self.send_response(status)
                for name, value in (("Content-Type", kind), *further.items()):
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that does not trust us hangs up

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    scheme = "http" if certificate is None else "https"
    api.url = f"{scheme}://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reader(api: Api, credentials: Credentials = LOGIN) -> Rest:
    """Return a reader of a stand-in."""
    return Rest(api.url, credentials, since_epoch_ns=time.time_ns())


def told(events: list[Event]) -> list[TaskReported]:
    """Return the claims, of which a poll brings nothing but."""
    assert all(isinstance(event, TaskReported) for event in events)
    return [event for event in events if isinstance(event, TaskReported)]


def failure(source: Rest) -> str:
    """Poll, which must fail; return the error: one line, no secret."""
    with pytest.raises(ApiError) as caught:
        source.poll(1)
    line = str(caught.value)
    assert "\n" not in line
    assert PASSWORD not in line
    assert "token-1" not in line
    return line
