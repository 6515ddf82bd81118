"""
Plays two schedulers on one host, one of which is killed: Airflow 3.x on PostgreSQL.

    python -m tests.airflow.two_schedulers_driver VERSION HOME RESULT PORT

PORT is PostgreSQL's. RESULT (JSON) tells which scheduler ran which run, and which was
killed. Status 0 when all was played and nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter

from demo.airflow_host import AirflowHost
from demo.environment import Release, say
from demo.processes import (
    Identity,
    Ledger,
    StageError,
    identity_of,
    is_alive,
    send_signal,
    wait_until,
)
from demo.witness import Note
from tests.airflow.endings import parent_of
from tests.airflow.held_driver import DAGS, LIMITS, TOGETHER_FOR_S
from tests.airflow.performance import perform
from tests.airflow.postgres3 import Airflow3OnPostgres

DAG_ID = "case_reset"
SLOTS = 14
# The survivor has slots for all that the other one had.
MOST_RUNS = SLOTS - 1
# Who is dead is found by its own heartbeat, before that of the tasks is missed.
GIVING_UP = LIMITS | {"SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60"}


class TwoSchedulers3(Airflow3OnPostgres):
    """Airflow 3.x with two schedulers that give up on each other within seconds."""

    def __init__(self, release: Release, ledger: Ledger, port: int) -> None:
        super().__init__(release, ledger, DAGS, port=port, parallelism=SLOTS)

    def version_settings(self) -> dict[str, str]:
        """Lower the limits."""
        return super().version_settings() | GIVING_UP

    def start(self) -> None:
        """Start the second scheduler too."""
        super().start()
        self._second = self.spawn("second", "scheduler", "--skip-serve-logs")

    @property
    def schedulers(self) -> tuple[Identity, Identity]:
        """Both schedulers."""
        return self.scheduler, self._second.process

    def kill(self, pid: int) -> tuple[Identity, Identity]:
        """SIGKILL one of the schedulers; return it, and the one that is left."""
        first, second = self.schedulers
        if pid == first.pid:
            return self.kill_scheduler(), second
        if not send_signal(second, signal.SIGKILL):
            raise StageError("the second scheduler ended too early")
        self.ended_on_purpose(self._second)
        return second, first


def scheduler_of(note: Note, schedulers: tuple[Identity, Identity]) -> int:
    """Return the pid of the scheduler that a running task descends from."""
    pid = note.pid
    while pid not in (0, 1):
        if pid in (one.pid for one in schedulers):
            return pid
        pid = parent_of(pid)
    raise StageError(f"process {note.pid} is below neither scheduler")


def share(host: TwoSchedulers3) -> dict[str, int]:
    """Start runs until both schedulers have some and one has two; return who has which."""
    found: dict[str, int] = {}
    for number in range(MOST_RUNS):
        host.trigger(DAG_ID, f"run-{number}")
        note = host.wait_for_note(DAG_ID, count=number + 1, within_s=60)[-1]
        found[note.run_id] = scheduler_of(note, host.schedulers)
        if number > 1 and len(set(found.values())) == 2:
            return found
    raise StageError(f"one scheduler took all of {MOST_RUNS} runs")


def play(host: TwoSchedulers3) -> dict[str, object]:
    """
    Kill the scheduler that has more tasks, and one task's supervisor; let all end then.

    The other scheduler runs again what it had. The old processes are told to stop
    by their supervisors, but for the one that has none.
    """
    host.start()
    host.wait_for_dags({DAG_ID})
    shared = share(host)
    say(f"who runs what: {shared}")
    victim, _ = Counter(shared.values()).most_common(1)[0]
    noted = {note.run_id: note for note in host.notes()}
    alone, *others = [noted[run_id] for run_id, pid in shared.items() if pid == victim]
    supervisor = identity_of(alone.ppid)
    if supervisor is None or not send_signal(supervisor, signal.SIGKILL):
        raise StageError(f"the supervisor of {alone.pid} ended too early")
    killed, survivor = host.kill(victim)
    host.wait_for_note(DAG_ID, count=len(shared) + 1 + len(others), within_s=60)
    say("the other scheduler runs again what the killed one had")
    let_go(host, [Identity(*one.identity) for one in others], Identity(*alone.identity))
    states = {run_id: host.wait_for_end(DAG_ID, run_id, within_s=40) for run_id in shared}
    return {
        "shared": shared,
        "killed": killed,
        "survivor": survivor,
        "states": states,
        "alone": alone.run_id,
    }


def let_go(host: AirflowHost, heard: list[Identity], alone: Identity) -> None:
    """Wait until Airflow has ended whom it hears; then let the one without supervisor end."""
    time.sleep(TOGETHER_FOR_S)
    wait_until(
        lambda: not any(map(is_alive, heard)), within_s=40, what="the end of the first processes"
    )
    if not is_alive(alone):
        raise StageError(f"process {alone.pid}, which nobody hears, has ended too early")
    (host.notes_folder / f"{DAG_ID}-1.go").touch()
    wait_until(lambda: not is_alive(alone), within_s=40, what="the end of who was not heard")
    (host.notes_folder / f"{DAG_ID}-2.go").touch()


def on_stage(release: Release, ledger: Ledger, port: int | None) -> dict[str, object]:
    """Play on a release."""
    assert port is not None
    return play(TwoSchedulers3(release, ledger, port))


if __name__ == "__main__":
    sys.exit(perform(on_stage))
