"""A private MariaDB server: passwords on, every statement logged, to be stopped at will."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql  # type: ignore[import-untyped]

from demo.airflow_host import free_ports

ACCOUNT = "mysql"
USER = "airflow"
PASSWORD = "hunter2-p@ss/w:rd"
_QUOTED = "hunter2-p%40ss%2Fw%3Ard"
MYSQLCLIENT = Path("/usr/lib/python3/dist-packages/MySQLdb")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class MariaDb:
    """
    One server with folder, socket and port of its own on 127.0.0.1, in a time zone that is not UTC.

    Run as the user mysql, as MariaDB refuses root. `stop` and `start` may follow each
    other; `remove` ends it for good.
    """

    kind = "mysql"
    now = "utc_timestamp(6)"

    def __init__(self) -> None:
        self._account = pwd.getpwnam(ACCOUNT)
        self._folder = Path(tempfile.mkdtemp(prefix="pidtrail-mariadb-"))
        os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        self._log, self._statements = self._folder / "log", self._folder / "statements"
        self.socket = self._folder / "socket"
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        installed = self._spawn(
            *("mariadb-install-db", "--no-defaults", f"--datadir={self._folder / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        assert installed.wait(120) == 0, self._log.read_text()
        self._first = self._folder / "first.sql"
        self._first.write_text(
            "CREATE DATABASE IF NOT EXISTS empty;\n"
            f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION;\n"
        )

    def url(self, database: str = "empty", password: str = _QUOTED) -> str:
        """Return the URL of one of its databases, as it stands in airflow.cfg."""
        return f"mysql+mysqldb://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def airflow_settings(self, database: str, home: Path) -> dict[str, str]:
        """
        Return what makes an Airflow use one of its databases, with the distribution's mysqlclient.

        Airflow's environment is made by the same interpreter; a link to the module in `home`
        keeps all else of the distribution's out of it. 3.x's second, asynchronous way into
        the database would need aiomysql, and nothing here goes it.
        """
        modules = home / "modules"
        modules.mkdir()
        (modules / "MySQLdb").symlink_to(MYSQLCLIENT)
        return {
            "PYTHONPATH": str(modules),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.url(database),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"sqlite+aiosqlite:///{home}/none.db",
        }

    def connect(self, database: str | None = None) -> pymysql.connections.Connection:
        """Return a connection that commits each statement, as one of Airflow's."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            database=database,
            autocommit=True,
            init_command="SET time_zone = '+00:00'",
        )

    def start(self) -> None:
        """Serve, and wait until it answers."""
        self._process = self._spawn(
            *("mariadbd", "--no-defaults", f"--datadir={self._folder / 'data'}"),
            *("--bind-address=127.0.0.1", f"--port={self.port}", f"--socket={self.socket}"),
            *("--default-time-zone=+05:30", "--explicit-defaults-for-timestamp=1"),
            f"--init-file={self._first}",
            *("--character-set-server=utf8mb4", "--innodb-flush-log-at-trx-commit=0"),
            *("--general-log=1", f"--general-log-file={self._statements}"),
        )
        end = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
            except pymysql.err.OperationalError:
                assert time.monotonic() < end, self._log.read_text()
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End at once, with all its connections."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Stop, and delete the data."""
        self.stop()
        shutil.rmtree(self._folder)

    def statements(self, database: str) -> list[str]:
        r"""
        Return what pidtrail's connections to a database have asked so far, oldest first.

        They are told from others by what they alone do: begin read-only transactions.
        A line of the log is `[TIME] ID COMMAND\tTEXT`; a server that was started again
        gives out the same ids again.
        """
        connections: list[list[str]] = []
        mine: dict[str, list[str]] = {}
        for line in self._statements.read_text(errors="replace").splitlines():
            head, _, text = line.rpartition("\t")
            number, command = ([""] * 2 + head.split())[-2:]
            if command == "Connect":
                mine[number] = []
                if f" on {database} " in text:
                    connections.append(mine[number])
            elif command == "Query" and number in mine:
                mine[number].append(text)
        return [
            text
            for texts in connections
            if any("READ ONLY" in text for text in texts)
            for text in texts
        ]

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        found = shutil.which(program, path=_PATH)
        assert found is not None
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [found, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._account.pw_uid,
                group=self._account.pw_gid,
                extra_groups=[],
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
            )
