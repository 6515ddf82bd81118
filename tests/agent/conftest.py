"""An agent and what looks like an Airflow, in a PID namespace where nobody else is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pidtrail.events import Event
from pidtrail.history import Boot, History
from pidtrail.sources import proc

PATIENCE_S = 60
STAND_IN = Path(__file__).with_name("stand_in.py")
PIDTRAIL = Path(sys.executable).with_name("pidtrail")
ROOM = "0" * 100


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return what a condition gives when it gives something."""
    limit = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


class Namespace:
    """A PID namespace of its own, with a /proc of its own; who is in it ends with it."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.holder = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sleep", "infinity"]
        )
        self.first = wait_for(lambda: self.child(self.holder.pid), "the namespace")
        wait_for(lambda: proc.comm(self.first) == "sleep", "the namespace's own /proc")

    def child(self, pid: int) -> int | None:
        """Return the process that another one forked."""
        return next(iter(proc.children_of_all().get(pid, ())), None)

    def run(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a program in it; what is returned waits for the program, and has its status."""
        enter = ["nsenter", f"--target={self.first}", "--pid", "--mount", "--"]
        self.started.append(subprocess.Popen([*enter, *command], text=True, **options))
        return self.started[-1]

    def pid(self, started: subprocess.Popen[str]) -> int:
        """Return the number that a started program has outside."""
        found: int = wait_for(lambda: self.child(started.pid), "the program")
        return found

    def has(self, number: int) -> bool:
        """Tell whether somebody in it has a number, dead or alive."""
        return Path(f"/proc/{self.first}/root/proc/{number}").exists()

    def end(self) -> None:
        """End it, and with it all who are in it."""
        self.holder.kill()
        self.holder.wait()
        for started in self.started:
            # It stops with the program that it waits for, and does not go on with it.
            started.send_signal(signal.SIGCONT)
            started.communicate()


class Agent:
    """The service with a folder of its own, as its manager sees it."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace, self.folder = namespace, folder
        self.history = folder / "history"
        self.config = folder / "pidtrail.toml"
        self.configure()
        self.log = folder / "log"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.settimeout(0)
        self.said: list[str] = []
        self.started: subprocess.Popen[str] | None = None

    def configure(self, capture: str = "", history: str = "", asked: str = "asked.sock") -> None:
        """Write its settings; `asked` is the name of its socket."""
        self.config.write_text(
            f"""
            [capture]
            {capture}
            [airflow]
            plugin = "{self.folder}/claims.sock"
            [history]
            directory = "{self.history}"
            {history}
            [socket]
            path = "{self.folder}/{asked}"
            group = "root"
            """,
            encoding="utf-8",
        )

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        notify = str(self.folder / "notify")
        with self.log.open("a") as log:
            self.started = self.namespace.run(
                *(PIDTRAIL, "--log-format", "json", "agent", "--config", self.config),
                env=os.environ | {"NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "1000000"},
                stderr=log,
            )
        self.said.clear()
        wait_for(lambda: "READY=1" in self.heard(), "READY=1")

    @property
    def pid(self) -> int:
        """Its number outside of the namespace."""
        assert self.started is not None
        return self.namespace.pid(self.started)

    def kill(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end, and return its status."""
        assert self.started is not None
        return self.started.wait(PATIENCE_S)

    def heard(self) -> list[str]:
        """Return all that its manager was told since its start."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.said.append(self.manager.recv(4096).decode())
        return self.said

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of one kind."""
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["event"] == event]

    def boot(self) -> Boot | None:
        """Return its history, which is of one boot."""
        boots = History(self.history).boots()
        return boots[0] if boots else None

    def events(self) -> list[Event]:
        """Return all that it recorded by now."""
        boot = self.boot()
        return [] if boot is None else list(boot.events())


class Airflow:
    """What looks like an Airflow."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace, self.folder = namespace, folder
        self.program = folder / "airflow"
        source = STAND_IN.read_text(encoding="utf-8")
        self.program.write_text(source, encoding="utf-8")
        self.scheduler: subprocess.Popen[str] | None = None

    def start(self) -> int:
        """Start a scheduler, and return its number in the namespace."""
        self.scheduler = self.namespace.run(
            # As a #! line has it executed, which may hold no blanks and 255 bytes at most.
            *(sys.executable, self.program, "scheduler", self.folder, ROOM),
            stdin=subprocess.PIPE,
            env=os.environ | {"AIRFLOW_HOME": str(self.folder)},
        )
        return self.number(self.namespace.pid(self.scheduler))

    def number(self, pid: int) -> int:
        """Return what number a process has in the namespace."""
        numbers = proc.ns_pids(pid)
        assert numbers is not None
        return numbers[-1]

    def run(self, task: str) -> None:
        """Let it run a task instance."""
        assert self.scheduler is not None
        assert self.scheduler.stdin is not None
        self.scheduler.stdin.write(f"{task}\n")
        self.scheduler.stdin.flush()

    def finish(self, task: str) -> None:
        """Let a task instance end."""
        (self.folder / task).touch()

    def kill(self, number: int) -> None:
        """Send the scheduler a signal, and wait for its end."""
        assert self.scheduler is not None
        os.kill(self.namespace.pid(self.scheduler), number)
        self.scheduler.wait()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Return a PID namespace."""
    made = Namespace()
    yield made
    made.end()


@pytest.fixture
def agent(namespace: Namespace, tmp_path: Path) -> Iterator[Agent]:
    """Return an agent that does not run yet."""
    made = Agent(namespace, tmp_path)
    yield made
    made.manager.close()


@pytest.fixture
def airflow(namespace: Namespace, tmp_path: Path) -> Airflow:
    """Return an Airflow that does not run yet."""
    return Airflow(namespace, tmp_path)
