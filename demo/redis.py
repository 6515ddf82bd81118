"""
A Redis server of our own, for as long as the stage stands: broker and result backend of Celery.

Only the distribution's package `redis-server` is needed: its service is neither
used nor touched.
"""

from __future__ import annotations

import shutil
import subprocess

from demo.processes import Ledger, Manner, StageError, listeners, wait_until

_ENVIRON = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
_ANSWER_TIMEOUT_S = 10


class Redis:
    """One server on a port of 127.0.0.1, in a folder of its own; nothing of it reaches a disk."""

    def __init__(self, ledger: Ledger, port: int) -> None:
        self._ledger = ledger
        self._port = port

    @property
    def url(self) -> str:
        """URL of the server, without the number of a database."""
        return f"redis://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve; raises `StageError`."""
        server = shutil.which("redis-server")
        if server is None:
            raise StageError("no redis-server: install the package redis-server")
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "save": "",
            "appendonly": "no",
            "maxmemory": "64mb",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        piece = self._ledger.spawn(
            "redis", [server, *options], _ENVIRON, Manner(cwd=self._ledger.make_folder("redis"))
        )

        def is_up() -> bool:
            self._ledger.check()
            return piece.process.pid in listeners(self._port)

        wait_until(is_up, within_s=20, what=f"Redis on port {self._port}")

    def do(self, *command: str) -> list[str]:
        """Send one command to database 0; return the lines of its answer."""
        done = subprocess.run(
            ["redis-cli", "-h", "127.0.0.1", "-p", str(self._port), "--raw", *command],
            env=_ENVIRON,
            capture_output=True,
            text=True,
            timeout=_ANSWER_TIMEOUT_S,
            check=False,
        )
        # redis-cli says "(error) ..." or the error's code on stdout and still exits with 0.
        if done.returncode or done.stdout.startswith(("ERR ", "WRONGTYPE ")):
            raise StageError(f"redis {command[0]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.splitlines()
