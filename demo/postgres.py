"""
A PostgreSQL server of our own, for as long as the stage stands.

Airflow 2.x refuses LocalExecutor on SQLite (airflow/executors/executor_loader.py
`validate_database_executor_compatibility` @ 2.11.2). Only the distribution's
package `postgresql` is needed: no cluster of it is used or touched.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from pathlib import Path

from demo.processes import Ledger, Manner, StageError, listeners, wait_until

_BINARIES = Path("/usr/lib/postgresql")
_USER = "postgres"


class Postgres:
    """
    One server on a port of 127.0.0.1, in a folder of its own.

    Without password or durability. `local_url` is for who has no network, once it was started.
    """

    def __init__(self, ledger: Ledger, port: int) -> None:
        self._ledger = ledger
        self._port = port
        self._folder = Path()

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the one database."""
        return database_url(self._port)

    @property
    def local_url(self) -> str:
        """SQLAlchemy URL of the one database by a Unix socket, which only root may reach."""
        query = f"host={self._folder}&port={self._port}"
        return f"postgresql+psycopg2://{_USER}@/{_USER}?{query}"

    def start(self) -> None:
        """Make an empty cluster and serve it; raises `StageError`."""
        binaries = _find_binaries()
        account = pwd.getpwnam(_USER)
        # Not below the home: root's folders need not be open to the user postgres.
        self._folder = folder = self._ledger.make_folder("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        made = subprocess.run(
            [
                str(binaries / "initdb"),
                *("--pgdata", str(folder), "--username", _USER),
                *("--auth", "trust", "--encoding", "UTF8", "--no-sync", "--no-instructions"),
            ],
            env=environ,
            cwd=folder,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise StageError(f"initdb failed: {made.stderr.strip()}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "64MB",
            "max_connections": "60",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        piece = self._ledger.spawn(
            "postgres",
            [str(binaries / "postgres"), "-D", str(folder), *options],
            environ,
            # SIGQUIT, immediate shutdown: SIGTERM would wait for orphans that hold a connection.
            Manner(user=_USER, cwd=folder, ending=signal.SIGQUIT),
        )

        def is_up() -> bool:
            self._ledger.check()
            return piece.process.pid in listeners(self._port)

        wait_until(is_up, within_s=20, what=f"PostgreSQL on port {self._port}")


def database_url(port: int) -> str:
    """SQLAlchemy URL of the database that `Postgres` serves on this port."""
    return f"postgresql+psycopg2://{_USER}@127.0.0.1:{port}/{_USER}"


def _find_binaries() -> Path:
    found = sorted(_BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise StageError(f"no PostgreSQL server under {_BINARIES}: install the package postgresql")
    return found[-1].parent
