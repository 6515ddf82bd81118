"""
Plays a working day of Airflow 2.x beside the agent, and asks the agent about it while it runs.

    python -m tests.airflow.asked2_driver VERSION HOME RESULT PORT

To be run in a PID namespace of its own, for an agent follows every Airflow of its host. Airflow
(LocalExecutor and CeleryExecutor on PostgreSQL, at PORT) starts before the agent: by then no
part of it has an environment any more. Tasks go wrong in the ways that users ask about, then
the scheduler is killed and started again. What Airflow wrote in its logs is what a member of the
group asks the agent about. RESULT (JSON) has these lines, the PIDs, and what the member was told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.airflow2 import Airflow2
from demo.airflow_host import free_ports
from demo.environment import Release
from demo.processes import Identity, Ledger, StageError, identity_of, is_alive, wait_until
from demo.redis import Redis
from demo.witness import Note
from tests.airflow.asked_driver import PIDTRAIL, SETTINGS, ask
from tests.airflow.celery_driver import settings_of
from tests.airflow.driver import kill
from tests.airflow.endings import parent_of
from tests.airflow.performance import perform
from tests.service.test_users import GROUP

DAGS = Path(__file__).with_name("asked_dags")
RUN_ID, TASK = "asked", "t"
RUNNING = ("own_user", "celery", "killed", "unheard")
LINES = {
    "own_user": "does not match the current pid",
    "killed": "exited with return code",
    "unheard": "Detected zombie job",
    "unloaded": "state attribute is queued",
    "celery": "Executing command in Celery",
}
"""What users ask about: words of 2.x's, by the case that makes it write them."""
IN_TASK_LOG = ("own_user", "killed")


class Asked2(Airflow2):
    """2.x with both executors, which gives up a task within seconds."""

    def __init__(self, release: Release, ledger: Ledger, port: int | None) -> None:
        super().__init__(release, ledger, DAGS, parallelism=6, port=port)
        self.redis = Redis(ledger, *free_ports(1))

    def version_settings(self) -> dict[str, str]:
        """Lower the limits."""
        own = {
            "CORE__EXECUTOR": "LocalExecutor,CeleryExecutor",
            "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "6",
            "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "3",
        }
        return super().version_settings() | settings_of(self.redis.url) | own

    def start(self) -> None:
        """Start the broker first, and a worker."""
        self.redis.start()
        super().start()
        self.worker = self.spawn(
            *("worker", "celery", "worker", "--skip-serve-logs", "--concurrency", "1"),
            *("--without-mingle", "--without-gossip"),
        )


def settings_of_agent(folder: Path, database: str = "") -> Path:
    """Write the agent's settings; return where they are."""
    folder.mkdir(exist_ok=True)
    config = folder / "pidtrail.toml"
    text = SETTINGS.format(folder=folder, group=GROUP)
    config.write_text(text.replace("[airflow]", f'[airflow]\ndb = "{database}"'))
    return config


@contextmanager
def agent(folder: Path, log: Path, *before: str, database: str = "") -> Iterator[None]:
    """Run an agent, with a command before it; return when it has found out about databases."""
    config = settings_of_agent(folder, database)
    command = [*before, str(PIDTRAIL), "--log-format", "json", "agent", "--config", str(config)]
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until((folder / "pidtrail.sock").exists, within_s=60, what=f"the socket of {log.stem}")
        yield
        if started.poll() is not None:
            raise StageError(f"the agent ended with {started.returncode}")
    finally:
        started.terminate()
        started.wait(40)


def logged(log: Path, event: str) -> list[dict[str, Any]]:
    """Return the lines of an agent's log about one thing."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def look_without_memory(folder: Path, host: Asked2) -> dict[str, Any]:
    """Return what agents that may not read the memory of others say, with `db` set and without."""
    found = {}
    blind = ("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "--")
    for name, database in (("unset", ""), ("set", host.database)):
        log = host.home / f"agent-{name}.log"
        with agent(folder / name, log, *blind, database=database):
            found[name] = logged(log, "airflow database")
    return found


def wait_for_line(log: Path, *words: str) -> str:
    """Wait for the line of a log that has all these words."""

    def found() -> str | None:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return next((line for line in lines if all(word in line for word in words)), None)

    line = wait_until(found, within_s=60, what=f"{words[0]} in {log}")
    assert line is not None  # wait_until returns true values only
    return line


class Play:
    """What is done, and what was written of it."""

    def __init__(self, host: Asked2, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.lines: dict[str, str] = {}

    def begun(self, case: str) -> Note:
        """Wait until a case's task runs user code; return its note."""
        return self.host.wait_for_note(f"case_{case}", within_s=90)[0]

    def let_go(self, case: str) -> None:
        """Let a case's task end."""
        (self.host.notes_folder / f"case_{case}-1.go").touch()

    def read(self, *cases: str) -> None:
        """Wait for the lines that cases make Airflow write."""
        home = self.host.home
        for case in cases:
            log = self.host.scheduler_log
            if case == "celery":
                log = self.host.worker.log
            if case in IN_TASK_LOG:
                run = home / f"logs/dag_id=case_{case}/run_id={RUN_ID}"
                log = run / f"task_id={TASK}/attempt=1.log"
            own = case in IN_TASK_LOG
            self.lines[case] = wait_for_line(log, LINES[case], "" if own else f"case_{case}")

    def fail(self) -> dict[str, Note]:
        """Run all that goes wrong, side by side; return who ran."""
        for case in (*RUNNING, "unloaded"):
            self.host.trigger(f"case_{case}", RUN_ID)
        notes = {case: self.begun(case) for case in RUNNING}
        kill(Identity(*notes["killed"].identity))
        self.end_chain(notes["unheard"])
        self.read(*LINES)
        for case in ("own_user", "celery"):
            self.let_go(case)
        for case in (*RUNNING, "unloaded"):
            self.host.wait_for_end(f"case_{case}", RUN_ID, within_s=60)
        # A row says that it is over before its process is.
        ran = [Identity(*note.identity) for note in notes.values()]
        wait_until(lambda: not any(map(is_alive, ran)), within_s=30, what="the end of all tasks")
        return notes

    def end_chain(self, note: Note) -> None:
        """Kill a task's process with its supervisor and worker: nobody is left to tell of it."""
        chain = [note.pid, note.ppid, parent_of(note.ppid)]
        # The worker first: it would tell of the supervisor.
        for victim in map(identity_of, reversed(chain)):
            if victim is None:
                raise StageError(f"the chain of {note.pid} ended too early")
            kill(victim)

    def restart(self, log: Path) -> tuple[Identity, Note]:
        """Kill the scheduler, start another; return it, and who ran when the agent had found it."""
        self.host.kill_scheduler()
        new = self.host.start_scheduler()
        wait_until(
            lambda: any(line["pid"] == new.pid for line in logged(log, "follows")),
            within_s=30,
            what="the agent's next scheduler",
        )
        self.host.trigger("case_later", RUN_ID)
        note = self.begun("later")
        self.let_go("later")
        self.host.wait_for_end("case_later", RUN_ID, within_s=60)
        return new, note


def questions(lines: dict[str, str], notes: dict[str, Note]) -> dict[str, list[str]]:
    """Return what is asked, by a name."""
    asked = {f"line {case}": ["--message", line] for case, line in lines.items()}
    asked |= {f"task {case}": ["--dag", f"case_{case}", "--task", TASK] for case in notes}
    # Of a line that names nobody the user says which task's log it stood in.
    asked["line killed"] += asked["task killed"]
    return asked | {"pid killed": ["--pid", str(notes["killed"].pid)]}


def play(host: Asked2, folder: Path) -> dict[str, Any]:
    """Play all, ask all; return what was done and told."""
    host.start()
    host.wait_for_dags({f"case_{case}" for case in (*RUNNING, "unloaded", "later")})
    first = host.scheduler
    shown = Path(f"/proc/{first.pid}/environ").read_bytes()
    log = host.home / "agent.log"
    stage = Play(host, folder)
    with agent(folder / "agent", log), ThreadPoolExecutor() as pool:
        blind = pool.submit(look_without_memory, folder, host)
        notes = stage.fail()
        second, notes["later"] = stage.restart(log)
        asked = questions(stage.lines, notes)
        socket = folder / "agent"
        told = pool.map(lambda words: ask(socket, "explain", *words, "--json"), asked.values())
        return {
            "database": host.database,
            "variables": shown.count(b"="),
            "schedulers": [first.pid, second.pid],
            "driver": os.getpid(),
            "worker": host.worker.process.pid,
            "lines": stage.lines,
            "pids": {case: note.pid for case, note in notes.items()},
            "told": dict(zip(asked, told, strict=True)),
            "found": logged(log, "airflow database"),
            "blind": blind.result(),
        }


def on_stage(release: Release, ledger: Ledger, port: int | None) -> dict[str, Any]:
    """Start Airflow, then the agent."""
    with tempfile.TemporaryDirectory(prefix="pidtrail-asked.") as made:
        folder = Path(made)
        folder.chmod(0o755)
        return play(Asked2(release, ledger, port), folder)


if __name__ == "__main__":
    sys.exit(perform(on_stage))
