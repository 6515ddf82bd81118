"""
A host of its own for an agent: `… world FOLDER`, as the first process of a PID namespace.

An agent finds every Airflow of its host, so its host must be ours alone. It starts first, then
the scheduler; what users are told while all of it runs is written to `told.json` in FOLDER,
and at the end what is told of both tries.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pidtrail import codec
from pidtrail.service.client import Answer
from pidtrail.service.protocol import Request
from tests.service.test_users import GID, GROUP, NOBODYS_GID, USER, explained

PATIENCE_S = 60
FILLER = "x" * 120
CONFIG = """
[capture]
source = "core"
[airflow]
plugin = false
[history]
directory = "{folder}/history"
[socket]
path = "{folder}/pidtrail.sock"
group = "{group}"
"""
AIRFLOW = "from tests.service.scheduler_stand_in import main\nmain()\n"
Found = TypeVar("Found")


class World:
    """The agent, the scheduler, and what users are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "pidtrail.sock"
        self.told: dict[str, Any] = {}
        config, airflow = folder / "pidtrail.toml", folder / "airflow"
        config.write_text(CONFIG.format(folder=folder, group=GROUP))
        airflow.write_text(AIRFLOW)
        with (folder / "agent.log").open("wb") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "pidtrail", "agent", "--config", str(config)], stderr=log
            )
        self.until(self.path.exists)
        self.scheduler = subprocess.Popen(
            [sys.executable, str(airflow), "scheduler", str(folder), FILLER]
        )

    def until(self, look: Callable[[], Found | None]) -> Found:
        """Return what is found, once it is. Raises TimeoutError, also if the agent has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            if self.agent.poll() is not None:
                raise TimeoutError(f"the agent ended with {self.agent.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not found: {look}")
            time.sleep(0.05)
        return found

    def runner(self, number: int) -> int:
        """Return the number of a try's runner, once the agent tells of it too."""
        file = self.folder / f"runner-{number}"
        pid = self.until(lambda: int(file.read_text()) if file.exists() else None)

        def is_told() -> bool:
            told = self.ask("explain", "--json", "--try", str(number))
            found = json.loads(told["out"])["verdicts"] if told["status"] == 0 else []
            return any(pid == one["pid"] for verdict in found for one in verdict["processes"])

        self.until(is_told)
        return pid

    def ask(self, *words: str, is_member: bool = True) -> dict[str, Any]:
        """Return what a user is told, who is a member of the group or not."""
        groups = [GID] if is_member else []
        done = explained(self.path, USER, NOBODYS_GID, *groups, words=words)
        return {"status": done.returncode, "out": done.stdout, "err": done.stderr}

    def watch(self, runner: int) -> list[tuple[str, int | None]]:
        """Ask for what happens now, let a runner go; return types and numbers up to its end."""
        answer = Answer(str(self.path), Request("live"))
        found = []
        for _, events in answer.boots():
            for event in events:
                found.append((codec.type_name(event), event.pid))
                if found[-1] == ("observed", runner):
                    (self.folder / "go-2").touch()
                if found[-1] == ("exit", runner):
                    answer.close()
                    return found
        raise TimeoutError(f"the end of {runner} was not told")

    def play(self) -> None:
        """Let both tries run, ask during the second, and end all."""
        first = self.runner(1)
        (self.folder / "go-1").touch()
        second = self.runner(2)
        line = f"Recorded pid {first} does not match the current pid {second}"
        self.told = {
            "pids": [self.scheduler.pid, first, second],
            "tree": self.ask("tree", "--json"),
            "message": self.ask("explain", "--message", line, "--json"),
            "outside": self.ask("explain", is_member=False),
        }
        self.told["live"] = self.watch(second)
        self.scheduler.wait(PATIENCE_S)
        self.agent.terminate()
        self.told["agent"] = self.agent.wait(PATIENCE_S)
        self.told["after"] = self.ask("explain")
        (self.folder / "told.json").write_text(json.dumps(self.told))


if __name__ == "__main__":
    World(Path(sys.argv[1])).play()
