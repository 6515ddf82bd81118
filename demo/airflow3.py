"""Airflow 3.x on SQLite: api-server, scheduler, dag-processor, triggerer where it is needed."""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import sqlite3
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from demo.airflow_host import AirflowHost, TaskState, free_ports
from demo.environment import Release, airflow_environ, say
from demo.processes import Ledger, StageError, listeners

# Each request that meets SQLite's lock holds all others up for five seconds; see `_opened`.
_ANSWER_TIMEOUT_S = 60
_MOST_ASKED = 5
_PASSWORDS = "simple_auth_manager_passwords.json.generated"
_USER = "stage"


class Airflow3(AirflowHost):
    """
    Airflow 3.x. Its api-server is not optional.

    Tasks report their pid through it (`/execution/task-instances/{id}/run`);
    without it they fail before user code.
    """

    def __init__(
        self,
        release: Release,
        ledger: Ledger,
        dags: Path,
        *,
        parallelism: int = 8,
        with_triggerer: bool = False,
    ) -> None:
        super().__init__(
            release, ledger, dags, parallelism=parallelism, with_triggerer=with_triggerer
        )
        (self._port,) = free_ports(1)
        self._jwt_secret = secrets.token_hex(64)
        self._password = secrets.token_urlsafe(24)
        self._token: str | None = None
        self._api_is_ours = False

    @property
    def database(self) -> str:
        """The SQLite file in the stage's home."""
        return database_url(self.home)

    def version_settings(self) -> dict[str, str]:
        """One secret for scheduler and api-server, ports of our own, no DAG file read twice."""
        return {
            # More than the 40 threads in which the api-server serves (anyio's default). With
            # the default of 5 and 10 more, sixteen tasks that start at once can take all of
            # both, each waiting for the other: no answer for thirty seconds (pool_timeout).
            "DATABASE__SQL_ALCHEMY_POOL_SIZE": "50",
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._port}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{_USER}:admin",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self._port),
            "API__BASE_URL": f"http://127.0.0.1:{self._port}",
            "API__WORKERS": "1",
            "API__SECRET_KEY": self._jwt_secret[:32],
            "API_AUTH__JWT_SECRET": self._jwt_secret,
            "DAG_PROCESSOR__REFRESH_INTERVAL": "3600",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }

    def start(self) -> None:
        """Start all parts at once; the database is a copy of a migrated one."""
        self.prepare_home()
        self.spawn("api-server", "api-server")
        self.spawn("dag-processor", "dag-processor")
        self.start_scheduler()
        if self._with_triggerer:
            self.spawn("triggerer", "triggerer", "--skip-serve-logs")

    def prepare_home(self) -> None:
        """Make folders, a migrated database, and the password of our one user."""
        super().prepare_home()
        # Airflow writes a default one where it finds none, and closes it to others: each part
        # looks, then makes it (write_default_airflow_configuration_if_needed, 3.3.2). Of parts
        # of different users that start at once, the second to make it would end.
        (self.home / "airflow.cfg").touch()
        self.make_database()
        passwords = self.home / _PASSWORDS
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({_USER: self._password}))

    def make_database(self) -> None:
        """Make a migrated database."""
        database = self.home / "airflow.db"
        shutil.copyfile(migrated_template(self._release), database)
        # Kept in the file: readers do not wait for a writer, nor it for them.
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")

    def dags(self) -> set[str]:
        """Names of the DAGs that are serialized; empty while the api-server does not answer."""
        if not self._is_listening():
            return set()
        return {dag["dag_id"] for dag in self._ask("GET", "dags?limit=100")["dags"]}

    def trigger(self, dag_id: str, run_id: str) -> None:
        """Start one run through the public API."""
        self._ask("POST", f"dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None})

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """State of one run."""
        state = self._ask("GET", f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}")["state"]
        return None if state is None else str(state)

    def task_states(self, dag_id: str, run_id: str) -> list[TaskState]:
        """States of the task instances of one run."""
        rows = self._ask("GET", f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances")
        return [
            TaskState(row["task_id"], row["map_index"], row["try_number"], row["state"])
            for row in rows["task_instances"]
        ]

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear through the public API."""
        wanted = {"dag_run_id": run_id, "dry_run": False, "only_failed": False}
        self._ask("POST", f"dags/{dag_id}/clearTaskInstances", wanted)

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Set a state through the public API."""
        run = urllib.parse.quote(run_id)
        self._ask(
            "PATCH", f"dags/{dag_id}/dagRuns/{run}/taskInstances/{task_id}", {"new_state": state}
        )

    def set_pid(self, dag_id: str, run_id: str, task_id: str, pid: int) -> None:
        """Write into the database file."""
        where = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "pid": pid}
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=_ANSWER_TIMEOUT_S)) as base:
            base.execute(
                "UPDATE task_instance SET pid = :pid"
                " WHERE dag_id = :dag_id AND run_id = :run_id AND task_id = :task_id",
                where,
            )
            base.commit()

    def _is_listening(self) -> bool:
        """Whether the api-server listens; `StageError` if somebody else does on its port."""
        if not self._api_is_ours:
            pids = listeners(self._port)
            strangers = [pid for pid in pids if not self._ledger.is_ours(pid)]
            if strangers:
                raise StageError(f"port {self._port} was taken by process {strangers[0]}, not ours")
            self._api_is_ours = bool(pids)
        return self._api_is_ours

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if self._token is None:
            login = {"username": _USER, "password": self._password}
            self._token = self._request("POST", "auth/token", login)["access_token"]
        return self._request(method, f"api/v2/{path}", body)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with _opened(request) as answer:
                return json.load(answer)
        except (urllib.error.URLError, TimeoutError) as error:
            raise StageError(f"the api-server does not do {method} {path}: {error}") from error


def _opened(request: urllib.request.Request) -> Any:
    """
    Return the answer to a request, asked again where SQLite was locked.

    The audit row is written before anything else, in the event loop: if another
    request holds the lock, that cannot go on until "database is locked" after five
    seconds, status 500. Then nothing was done.
    """
    # No proxy of the user's shell for loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = 1
    while True:
        try:
            return opener.open(request, timeout=_ANSWER_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code != 500 or asked == _MOST_ASKED:
                raise
        asked += 1


def database_url(home: Path) -> str:
    """SQLAlchemy URL of the SQLite database of an `Airflow3` in this home."""
    return f"sqlite:///{home / 'airflow.db'}"


def migrated_template(release: Release) -> Path:
    """
    Return an empty, migrated SQLite database of this release.

    Made once per environment (some 10 s). Raises `StageError`.
    """
    template = release.folder / "template.db"
    with (release.folder / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if template.is_file():
            return template
        say(f"migrating an empty database for Airflow {release.version} (once) ...")
        home = release.folder / "template-home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        environ = airflow_environ() | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(home),
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        argv = [str(release.python), str(release.command), "db", "migrate"]
        done = subprocess.run(
            argv, env=environ, cwd=home, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StageError(f"airflow db migrate failed: {done.stderr.strip()[-400:]}")
        (home / "airflow.db").replace(template)
        shutil.rmtree(home)
    return template
