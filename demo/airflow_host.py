"""
A real Airflow in a home of its own, on loopback only; with LocalExecutor if not told otherwise.

`Airflow3` (SQLite, api-server, scheduler, dag-processor) and `Airflow2`
(PostgreSQL, scheduler) share what is here: settings, triggering, waiting,
killing the scheduler and starting it again.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from demo import ROOT
from demo.environment import Release, airflow_environ
from demo.processes import Identity, Ledger, Piece, StageError, send_signal, wait_until
from demo.witness import FOLDER_VARIABLE, Note, read_notes

# Below net.ipv4.ip_local_port_range, so that no outgoing connection takes one meanwhile.
_PORTS = range(20000, 32000)
_TAKEN: list[int] = []
_FINAL = {"success", "failed"}


@dataclass(frozen=True)
class TaskState:
    """What Airflow says of one task instance now."""

    task_id: str
    map_index: int
    try_number: int
    state: str | None


class AirflowHost(ABC):
    """
    One Airflow on stage. `home` must be a folder of this stage alone.

    `parallelism` processes are forked by the scheduler at its start, in 2.x
    and in 3.3.2 alike. The triggerer is started only `with_triggerer`. `settings`
    may be filled: further ones, as `SECTION__NAME`, or other values, for what is
    started from then on.
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
        self.home = ledger.home
        self.notes_folder = self.home / "notes"
        self.settings: dict[str, str] = {}
        # Tasks that are killed leave files behind, as does 2.x's run_as_user: these go with us.
        self._scratch = ledger.make_folder("airflow")
        self._scratch.chmod(0o1777)
        self._release = release
        self._ledger = ledger
        self._dags = dags
        self._parallelism = parallelism
        self._with_triggerer = with_triggerer
        self._scheduler: Piece | None = None
        self._starts = 0

    @abstractmethod
    def start(self) -> None:
        """Start everything; returns as soon as the parts are started, not when they answer."""

    @abstractmethod
    def dags(self) -> set[str]:
        """Names of the DAGs that can be run now; empty while Airflow does not answer."""

    @abstractmethod
    def trigger(self, dag_id: str, run_id: str) -> None:
        """Start one run; raises `StageError`."""

    @abstractmethod
    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """State of one run."""

    @abstractmethod
    def task_states(self, dag_id: str, run_id: str) -> list[TaskState]:
        """States of the task instances of one run."""

    @abstractmethod
    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear all task instances of a run, also running ones, as an operator does."""

    @abstractmethod
    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Set the state of a task instance by hand: `success`, `failed` or `skipped`."""

    @abstractmethod
    def set_pid(self, dag_id: str, run_id: str, task_id: str, pid: int) -> None:
        """Write another pid into the row of a task instance, which no user can."""

    @property
    @abstractmethod
    def database(self) -> str:
        """SQLAlchemy URL of the metadata database."""

    @property
    def scheduler(self) -> Identity:
        """The scheduler that runs now."""
        if self._scheduler is None:
            raise StageError("the scheduler is not running")
        return self._scheduler.process

    def environ(self) -> dict[str, str]:
        """Return the environment of every part: light settings, nothing of the user's shell."""
        settings = {
            "CORE__DAGS_FOLDER": str(self._dags),
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__PARALLELISM": str(self._parallelism),
            "DATABASE__SQL_ALCHEMY_CONN": self.database,
            "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        settings |= self.version_settings() | self.settings
        own = {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            FOLDER_VARIABLE: str(self.notes_folder),
            "TMPDIR": str(self._scratch),
        }
        # Airflow's http clients would ask a proxy of the user's shell for 127.0.0.1.
        inherited = {
            name: value
            for name, value in airflow_environ().items()
            if not name.lower().endswith("_proxy")
        }
        return inherited | own | {f"AIRFLOW__{name}": value for name, value in settings.items()}

    @abstractmethod
    def version_settings(self) -> dict[str, str]:
        """Return settings that only this major version knows, as `SECTION__NAME`."""

    def migrate(self) -> None:
        """Migrate the database, which is served and may be empty. Raises `StageError`."""
        done = subprocess.run(
            [str(self._release.python), str(self._release.command), "db", "migrate"],
            env=self.environ(),
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StageError(f"airflow db migrate failed: {done.stderr.strip()[-400:]}")

    def wait_for_dags(self, names: set[str], *, within_s: float = 120) -> None:
        """Return when all these DAGs can be run."""

        def all_there() -> bool:
            self._ledger.check()
            return names <= self.dags()

        wait_until(
            all_there, within_s=within_s, what=f"Airflow {self._release.version} with its DAGs"
        )

    def wait_for_end(self, dag_id: str, run_id: str, *, within_s: float) -> str:
        """Wait until a run has ended; return `success` or `failed`."""

        def ended() -> str | None:
            self._ledger.check()
            state = self.run_state(dag_id, run_id)
            return state if state in _FINAL else None

        return wait_until(ended, within_s=within_s, what=f"the end of {dag_id}") or ""

    def wait_for_note(
        self, dag_id: str, phase: str = "begin", *, count: int = 1, within_s: float
    ) -> list[Note]:
        """Wait until a DAG's tasks have written so many notes of a phase; oldest first."""

        def written() -> list[Note]:
            self._ledger.check()
            notes = [note for note in self.notes() if (note.dag_id, note.phase) == (dag_id, phase)]
            return notes if len(notes) >= count else []

        return wait_until(written, within_s=within_s, what=f"{count} x {phase} of {dag_id}")

    def notes(self) -> list[Note]:
        """Return what all tasks have written of themselves until now, oldest first."""
        return read_notes(self.notes_folder)

    def start_scheduler(self) -> Identity:
        """Start a scheduler; the one before must be gone."""
        self._starts += 1
        # Its log server would listen on all addresses, and nobody here reads logs through it.
        self._scheduler = self.spawn(f"scheduler-{self._starts}", "scheduler", "--skip-serve-logs")
        return self._scheduler.process

    def kill_scheduler(self) -> Identity:
        """SIGKILL the scheduler alone, as the OOM killer would; return which process that was."""
        scheduler = self._scheduler
        if scheduler is None or not send_signal(scheduler.process, signal.SIGKILL):
            raise StageError("there is no scheduler to kill")
        self.ended_on_purpose(scheduler)
        self._scheduler = None
        return scheduler.process

    def stop_scheduler(self) -> Identity:
        """Ask the scheduler to end, and wait for it; return which process that was."""
        scheduler = self._scheduler
        if scheduler is None or not send_signal(scheduler.process, signal.SIGTERM):
            raise StageError("there is no scheduler to stop")
        self.ended_on_purpose(scheduler)
        self._scheduler = None
        return scheduler.process

    @property
    def scheduler_log(self) -> Path:
        """What the scheduler that runs now says."""
        if self._scheduler is None:
            raise StageError("the scheduler is not running")
        return self._scheduler.log

    def ended_on_purpose(self, piece: Piece) -> None:
        """Wait for the end of a part that somebody asked to end; it is no fault of the stage."""
        self._ledger.forget(piece)
        wait_until(
            lambda: piece.popen.poll() is not None, within_s=60, what=f"the end of {piece.name}"
        )

    def spawn(self, name: str, *command: str) -> Piece:
        """Start one `airflow` command as a part of the stage."""
        # Through the interpreter: a #! line is limited to 255 bytes (BINPRM_BUF_SIZE).
        argv = [str(self._release.python), str(self._release.command), *command]
        return self._ledger.spawn(name, argv, self.environ())

    def prepare_home(self) -> None:
        """Make the folders that Airflow and the tasks write to."""
        self.notes_folder.mkdir(parents=True, exist_ok=True)


def free_ports(count: int) -> list[int]:
    """
    Ports of 127.0.0.1 that nobody listens on now, and no other call anywhere on this host returned.

    The second for as long as this process lives: a server is started some time after its port
    was chosen. Raises `StageError`.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        if _is_free(port) and _take(port):
            found.append(port)
    if len(found) < count:
        raise StageError(f"no {count} ports of 127.0.0.1 are free from {_PORTS[0]} to {_PORTS[-1]}")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _take(port: int) -> bool:
    """Mark a port as ours, if nobody has: by an abstract name (unix(7)), which goes with us."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0pidtrail-port-{port}")
    except OSError:
        mark.close()
        return False
    _TAKEN.append(mark.detach())  # open until our end
    return True
