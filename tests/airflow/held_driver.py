"""
Plays what happens when Airflow gives up on user code that still lives.

    python -m tests.airflow.held_driver VERSION HOME RESULT [PORT]

PORT is PostgreSQL's, for 2.x. Airflow's limits are lowered, so that it gives up
within seconds. The tasks end when they are told to (`held_dags`). RESULT (JSON)
tells who was killed, what was left of the killed scheduler, and what `pidtrail
doctor` said of that; nothing else of pidtrail is used. Status 0 when all was
played and nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from demo.airflow2 import Airflow2
from demo.airflow3 import Airflow3
from demo.airflow_host import free_ports
from demo.environment import Release, say
from demo.processes import (
    Identity,
    Ledger,
    StageError,
    identity_of,
    is_alive,
    listeners,
    send_signal,
    wait_until,
)
from tests.airflow.glance import PIDTRAIL, glance
from tests.airflow.performance import perform

DAGS = Path(__file__).with_name("held_dags")
RUN_ID = "test"
USER = "stage"
WORKER = "airflow worker -- LocalExecutor"
LIMITS = {
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "5",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
}
LIMITS_2 = LIMITS | {
    "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "8",
    # Longer than a callback takes: who is found a second time before the first callback was served
    # (airflow#51969) fails the try that was queued meanwhile.
    "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "8",
    # How long a second process may go on after the first has written success.
    "CORE__TASK_SUCCESS_OVERTIME": "6",
}
LIMITS_3 = LIMITS | {
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "8",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    # As often as 2.x, so that who is late by some seconds is not given up.
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "WORKERS__MAX_FAILED_HEARTBEATS": "10",
}
# More than the threshold: the first look of the next scheduler resets the orphans, so that the
# heartbeat timeout, eight seconds, never comes before it.
DOWN_FOR_S = 5.5
# More than an ordinary collection of a dead process takes (UNREAPED_NS).
UNREAPED_FOR_S = 3.0
# More than what may be a process that winds down (AT_ONCE_NS).
TOGETHER_FOR_S = 3.0
# More than lies between a row's end_date and the end of the process that wrote it.
APART_S = 6.0


class Hasty2(Airflow2):
    """Airflow 2.x that gives up within seconds, with a webserver."""

    def version_settings(self) -> dict[str, str]:
        """Lower the limits, and let the API be asked with a password."""
        basic = {"API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth"}
        return super().version_settings() | LIMITS_2 | basic

    def start(self) -> None:
        """Start the webserver too, and make its user meanwhile."""
        super().start()
        (self._web,) = free_ports(1)
        self._password = secrets.token_hex(12)
        named = ("-f", "a", "-l", "b", "-r", "Admin", "-e", "a@b.c")
        user = ("users", "create", "-u", USER, "-p", self._password, *named)
        # It makes the roles as the webserver does, and two at once are in each other's way.
        self.ended_on_purpose(self.spawn("user", *user))
        address = ("--hostname", "127.0.0.1", "--port", str(self._web))
        self._webserver = self.spawn("webserver", "webserver", "--workers", "1", *address)

    def api(self) -> tuple[str, str]:
        """Return the address of the API and the password, when it answers."""
        wait_until(lambda: bool(listeners(self._web)), within_s=60, what="the webserver")
        return f"http://127.0.0.1:{self._web}", self._password

    def close_api(self) -> None:
        """Ask the webserver to end; the processors are wanted for what has limits in seconds."""
        self._ledger.forget(self._webserver)
        send_signal(self._webserver.process, signal.SIGTERM)


class Hasty3(Airflow3):
    """Airflow 3.x that gives up within seconds."""

    def version_settings(self) -> dict[str, str]:
        """Lower the limits."""
        return super().version_settings() | LIMITS_3

    def api(self) -> tuple[str, str]:
        """Return the address of the API and the password."""
        return f"http://127.0.0.1:{self._port}", self._password

    def close_api(self) -> None:
        """Go on: without its API 3.x runs nothing."""


class Play:
    """The cases, side by side where the scheduler lives, then those of its death."""

    def __init__(self, host: Hasty2 | Hasty3, *, is_2: bool) -> None:
        self.host = host
        self.is_2 = is_2
        self.begin = time.monotonic()
        self.done: dict[str, object] = {}

    def tell(self, line: str) -> None:
        """Say how far we are."""
        say(f"[{time.monotonic() - self.begin:5.1f} s] {line}")

    def start(self, *cases: str) -> None:
        """Start runs."""
        for case in cases:
            self.host.trigger(f"case_{case}", RUN_ID)

    def running(self, case: str, try_number: int = 1) -> Identity:
        """Wait until a try runs user code; return its process."""

        def found() -> Identity | None:
            notes = [
                note
                for note in self.host.notes()
                if (note.dag_id, note.try_number) == (f"case_{case}", try_number)
            ]
            return Identity(*notes[-1].identity) if notes else None

        found_one = wait_until(found, within_s=60, what=f"try {try_number} of {case}")
        assert found_one is not None  # wait_until returns true values only
        return found_one

    def let_go(self, name: str) -> None:
        """Let a task end, as `held_dags` calls it."""
        (self.host.notes_folder / f"case_{name}.go").touch()

    def gone(self, process: Identity, what: str) -> None:
        """Wait for the end of a process."""
        wait_until(lambda: not is_alive(process), within_s=40, what=f"the end of {what}")

    def above(self, process: Identity, levels: int) -> list[Identity]:
        """Return so many ancestors of a living process, nearest first."""
        found: list[Identity] = []
        for _ in range(levels):
            stat = Path(f"/proc/{(found or [process])[-1].pid}/stat").read_text()
            parent = identity_of(int(stat.rpartition(")")[2].split()[1]))
            if parent is None:
                raise StageError(f"the parent of {process.pid} ended too early")
            found.append(parent)
        return found

    def kill(self, *victims: Identity) -> None:
        """SIGKILL processes, in this order."""
        for victim in victims:
            if not send_signal(victim, signal.SIGKILL):
                raise StageError(f"process {victim.pid} ended before it could be killed")

    def state(self, case: str) -> str | None:
        """State of the only task of a case."""
        rows = self.host.task_states(f"case_{case}", RUN_ID)
        return rows[0].state if rows else None

    def by_api(self) -> AbstractContextManager[None]:
        """Trace the scheduler a second time, with nothing but Airflow's REST API beside it."""
        url, password = self.host.api()
        user = {"PIDTRAIL_AIRFLOW_USER": USER, "PIDTRAIL_AIRFLOW_PASSWORD": password}
        pid = self.host.scheduler.pid
        return glance(self.host.home / "api.db", pid, "--airflow-api", url, environ=user)

    def unheard(self) -> None:
        """Kill a supervisor, and a whole chain; wait until Airflow has given both up."""
        self.start("unheard", "chain")
        old, ended = self.running("unheard"), self.running("chain")
        self.kill(*self.above(old, 1))
        # Below a living worker 2.x hears at once of a dead supervisor.
        self.kill(*reversed(self.above(ended, 2 if self.is_2 else 1)), ended)
        self.tell("a supervisor and a whole chain were killed")
        late = None if self.is_2 else self.stall()
        new = self.running("unheard", 2)
        time.sleep(TOGETHER_FOR_S)
        self.let_go("unheard-2")
        self.gone(new, "the second try of unheard")
        time.sleep(APART_S)
        self.let_go("unheard-1")
        self.gone(old, "the first try of unheard")
        states = {case: self.host.wait_for_end(f"case_{case}", RUN_ID, within_s=40)
                  for case in ("chain", "unheard")}  # fmt: skip
        if late is not None:
            self.gone(late, "the poke that Airflow had failed")
        self.tell(f"Airflow gave them up: {states}")

    def stall(self) -> Identity:
        """
        Let a worker hear late of the end of a poke; return the next poke's process.

        The poke ends slowly after it has told its state. Its worker is stopped
        before its end, and goes on when the next poke runs.
        """
        self.start("late")
        (first,) = self.host.wait_for_note("case_late", within_s=60)
        runner = Identity(*first.identity)
        (worker,) = self.above(runner, 1)
        self.let_go("late-poke")
        with self.unreaped("late", runner, worker):
            second = self.host.wait_for_note("case_late", count=2, within_s=60)[1]
        self.is_in("late", "failed")
        self.tell("a worker that was late with its word failed the next poke")
        return Identity(*second.identity)

    def stall_all(self) -> None:
        """
        Let a worker hear late of the end of a poke while the next one is queued.

        All other workers are stopped: one of them holds the lock of the queue, so
        nobody takes the next poke until the row has failed.
        """
        self.start("late_queued")
        (first,) = self.host.wait_for_note("case_late_queued", within_s=60)
        runner = Identity(*first.identity)
        (worker,) = self.above(runner, 1)
        workers = [identity_of(pid) for pid in workers_of(self.host.scheduler)]
        others = [other for other in workers if other not in (None, worker)]
        with stopped(*filter(None, others)):
            self.let_go("late_queued-poke")
            with self.unreaped("late_queued", runner, worker):
                self.is_in("late_queued", "queued")
            self.is_in("late_queued", "failed")
        self.tell("a worker that was late with its word failed a poke that was queued")

    @contextmanager
    def unreaped(self, case: str, runner: Identity, worker: Identity) -> Iterator[None]:
        """Stop the worker of a poke that has told its state, and let that end."""
        wait_until(
            lambda: self.state(case) not in {"running", "queued", "scheduled", None},
            within_s=40,
            what="the end of the first poke",
        )
        with stopped(worker):
            self.let_go(f"{case}-first")
            self.gone(runner, "the first poke")
            time.sleep(UNREAPED_FOR_S)
            yield

    def is_in(self, case: str, state: str) -> None:
        """Wait until the only task of a case is in a state."""
        wait_until(lambda: self.state(case) == state, within_s=40, what=f"state {state} of {case}")

    @contextmanager
    def deaf_to_the_reset(self, kept: Identity) -> Iterator[None]:
        """
        Stop a supervisor of 2.x while the row of its task is that of no process.

        If it hears twice, two seconds apart, that the row is not running, it ends its
        process; it depends on the machine how long that is so.
        """
        if not self.is_2:
            yield
            return
        wait_until(lambda: self.state("reset") != "running", within_s=40, what="the reset")
        with stopped(*self.above(kept, 1)):
            yield

    def orphans(self) -> None:
        """Kill the scheduler while two tasks run, one of them without supervisor; start another."""
        self.start("reset", "reset_orphan")
        kept, orphan = self.running("reset"), self.running("reset_orphan")
        self.kill(*self.above(orphan, 1))
        scheduler = self.host.kill_scheduler()
        time.sleep(DOWN_FOR_S)
        new = self.host.start_scheduler()
        self.done["schedulers"] = [scheduler, new]
        self.tell("the scheduler was killed and started again")
        with self.deaf_to_the_reset(kept):
            later = {case: self.running(case, 2) for case in ("reset", "reset_orphan")}
        time.sleep(TOGETHER_FOR_S)
        self.tell("both are run again")
        self.let_go("reset_orphan-1")
        self.let_go("reset_orphan-2")
        self.gone(orphan, "the first try of reset_orphan")
        if self.is_2:
            self.let_go("reset-1")
            self.gone(kept, "the first try of reset")
            # Airflow ends it by itself: its row says success.
            self.gone(later["reset"], "the second try of reset")
        else:
            # Airflow ends it by itself: its heartbeat is refused.
            self.gone(kept, "the first try of reset")
        self.let_go("reset-2")
        states = {case: self.host.wait_for_end(f"case_{case}", RUN_ID, within_s=40)
                  for case in ("reset", "reset_orphan")}  # fmt: skip
        for process in later.values():
            self.gone(process, "a second try")
        self.tell(f"ended: {states}")
        self.done["left"] = left_of(scheduler)
        self.done["fed"] = workers_of(new)
        self.done["doctor"] = json.loads(
            subprocess.run(
                [PIDTRAIL, "doctor", "--json"], capture_output=True, check=True, timeout=60
            ).stdout
        )

    def play(self) -> dict[str, object]:
        """Play all; return what was done."""
        self.host.start()
        cases = {"unheard", "chain", "reset", "reset_orphan"} | (
            set() if self.is_2 else {"late", "late_queued"}
        )
        self.host.wait_for_dags({f"case_{case}" for case in cases})
        self.tell("Airflow is ready")
        with self.by_api():
            self.unheard()
        self.host.close_api()
        if not self.is_2:
            self.stall_all()
        self.orphans()
        return self.done


def left_of(scheduler: Identity) -> dict[int, str]:
    """Return the titles of what lives in the session that a scheduler leads, or led, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or identity_of(int(entry.name)) is None:
            continue
        pid = int(entry.name)
        try:
            if os.getsid(pid) != scheduler.pid:
                continue
            title = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        found[pid] = title.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def workers_of(scheduler: Identity) -> list[int]:
    """Return the pids of the workers of a scheduler's executor."""
    return [pid for pid, title in left_of(scheduler).items() if title.startswith(WORKER)]


@contextmanager
def stopped(*processes: Identity) -> Iterator[None]:
    """Stop processes for a time."""
    try:
        for process in processes:
            send_signal(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            send_signal(process, signal.SIGCONT)


def on_stage(release: Release, ledger: Ledger, port: int | None) -> dict[str, object]:
    """Play all cases on a release."""
    is_2 = release.version.startswith("2.")
    host = Hasty2(release, ledger, DAGS, port=port) if is_2 else Hasty3(release, ledger, DAGS)
    return Play(host, is_2=is_2).play()


if __name__ == "__main__":
    sys.exit(perform(on_stage))
