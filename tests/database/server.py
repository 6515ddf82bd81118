"""A private PostgreSQL server: passwords on, every statement logged, to be stopped at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]

from demo.airflow_host import free_ports

USER = "postgres"
PASSWORD = "hunter2-p@ss/w:rd"
_QUOTED = "hunter2-p%40ss%2Fw%3Ard"


class Server:
    """
    One cluster in a folder of its own, on a free port of 127.0.0.1.

    Run as the user postgres, as PostgreSQL refuses root. `stop` and `start` may follow
    each other; `remove` ends it for good.
    """

    kind = "postgresql"
    now = "now()"

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        self._binaries = found[-1].parent
        self._account = pwd.getpwnam(USER)
        self._folder = Path(tempfile.mkdtemp(prefix="pidtrail-postgres-"))
        os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        self._log = self._folder / "log"
        (self.port,) = free_ports(1)
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        os.chown(secret, self._account.pw_uid, self._account.pw_gid)
        self._run(
            *("initdb", "--pgdata", str(self._folder / "data"), "--username", USER),
            *("--auth", "scram-sha-256", "--pwfile", str(secret), "--no-sync", "--no-instructions"),
        )
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", password: str = _QUOTED) -> str:
        """Return the SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg2://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg2.extensions.connection:
        """Return a connection that commits each statement, as another program's."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            application_name="airflow",
        )
        connection.autocommit = True
        return connection

    def start(self) -> None:
        """Serve, and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "64MB",
            "log_statement": "all",
            "log_line_prefix": "[%a] ",
            "lc_messages": "C",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data", *options],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._account.pw_uid,
                group=self._account.pw_gid,
                extra_groups=[],
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            )
        end = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
            except psycopg2.OperationalError:
                assert time.monotonic() < end, self._log.read_text()
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End at once, with all its connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        """Stop, and delete the cluster."""
        self.stop()
        shutil.rmtree(self._folder)

    def statements(self) -> list[str]:
        """Return the first lines of all that pidtrail has asked so far."""
        prefix = "[pidtrail] LOG:  statement: "
        return [
            line.removeprefix(prefix)
            for line in self._log.read_text(errors="replace").splitlines()
            if line.startswith(prefix)
        ]

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments],
            check=True,
            capture_output=True,
            cwd=self._folder,
            user=self._account.pw_uid,
            group=self._account.pw_gid,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
