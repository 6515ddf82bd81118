"""
Plays all cases of CeleryExecutor on one real Airflow: what `pidtrail trace` watches in its tests.

    python -m tests.airflow.celery_driver VERSION HOME RESULT PORT

PORT is PostgreSQL's. RESULT (JSON) tells who was killed, which process
was which worker, and what was seen of them. Status 0 when all was played and
nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from demo.airflow_host import AirflowHost, free_ports
from demo.environment import Release, say
from demo.processes import (
    Identity,
    Ledger,
    Piece,
    StageError,
    identity_of,
    is_alive,
    send_signal,
    wait_until,
)
from demo.redis import Redis
from demo.witness import Note
from pidtrail.airflow.running import airflow_roots
from tests.airflow.glance import PIDTRAIL, glance
from tests.airflow.performance import perform
from tests.airflow.postgres3 import stage_on_postgres
from tests.airflow.tracing import give_plugin

DAGS = Path(__file__).with_name("celery_dags")
RUN_ID = "test"
SHORT = ("plain", "retry", "reschedule", "mapped")
HELD = ("kill_runner", "kill_pool", "redelivered", "adopted", "restart", "kill_worker")
SLOTS = 6
REFUSED = {
    "2": "Task is not able to be run",
    "3": "Task already running elsewhere, ignoring redelivered message",
}

ADOPTED = "Adopted the following"
# What a pool process shows from its first task on: in 3.3 the id of the last one.
SERVED = {"2": b":ForkPoolWorker-", "3": b"airflow supervisor: "}


def dag_id(case: str) -> str:
    """Name of the DAG of a case."""
    return f"celery_{case}"


def settings_of(broker: str) -> dict[str, str]:
    """Return what makes it an Airflow with CeleryExecutor on this Redis."""
    return {
        "CORE__EXECUTOR": "CeleryExecutor",
        "CELERY__BROKER_URL": f"{broker}/0",
        "CELERY__RESULT_BACKEND": f"{broker}/1",
        # Asking for results starts as many processes, for each round a new pool.
        "CELERY__SYNC_PARALLELISM": "1",
    }


class Play:
    """One Airflow, its workers, and what is done to them."""

    def __init__(self, host: AirflowHost, redis: Redis, major: str) -> None:
        self.host = host
        self.redis = redis
        self.refused, self.served = REFUSED[major], SERVED[major]
        self.begin = time.monotonic()
        self.workers: dict[str, Piece] = {}
        self.done: dict[str, Any] = {"kills": {}, "states": {}, "workers": {}}

    def tell(self, line: str) -> None:
        """Say how far the play is."""
        say(f"[{time.monotonic() - self.begin:5.1f} s] {line}")

    def start_worker(self, name: str, queue: str, slots: int) -> None:
        """Start one Celery worker for one queue."""
        self.workers[name] = worker = self.host.spawn(
            f"worker-{name}",
            *("celery", "worker", "--skip-serve-logs", "--concurrency", str(slots)),
            # No --celery-hostname: with it the pool of 3.15.2 stays idle (airflow#59707).
            *("--queues", queue),
            *("--pid", str(self.host.home / f"worker-{name}.pid")),
            *("--without-mingle", "--without-gossip"),
        )
        self.done["workers"][name] = worker.process

    def begun(self, case: str) -> Note:
        """Wait until a case's task runs user code; return its first note."""
        return self.host.wait_for_note(dag_id(case), within_s=90)[0]

    def let_go(self, case: str) -> None:
        """Let the held tasks of a case end."""
        (self.host.notes_folder / f"{dag_id(case)}.go").touch()

    def end_of(self, *cases: str) -> None:
        """Wait for the end of the runs of these cases."""
        for case in cases:
            self.done["states"][case] = self.host.wait_for_end(dag_id(case), RUN_ID, within_s=90)
        self.tell(", ".join(f"{case}: {self.done['states'][case]}" for case in cases))

    def kill(self, case: str, victim: Identity) -> None:
        """SIGKILL one process."""
        if not send_signal(victim, signal.SIGKILL):
            raise StageError(f"process {victim.pid} ended before it could be killed")
        self.done["kills"][case] = victim
        self.tell(f"{case}: {victim.pid} was killed")

    def redeliver(self, case: str, queue: str) -> None:
        """Put the message of a running task into its queue again, as kombu does after a while."""
        for line in self.redis.do("HVALS", "unacked"):
            message = json.loads(line)[0]
            # In 3.x a workload, as JSON within JSON.
            body = base64.b64decode(message["body"]).replace(b"\\", b"")
            if f'"{dag_id(case)}"'.encode() in body:
                message["headers"]["redelivered"] = True
                self.redis.do("LPUSH", queue, json.dumps(message))
                return
        raise StageError(f"no message of {case} is unacknowledged")

    def wait_for_refusal(self, case: str, worker: str) -> None:
        """Wait until the second start of a case's task was refused, in words of 2.x or 3.x."""
        logs = [self.workers[worker].log, *self.host.home.rglob(f"dag_id={dag_id(case)}/**/*.log")]

        def is_refused() -> bool:
            return any(self.refused in log.read_text(errors="replace") for log in logs)

        wait_until(is_refused, within_s=60, what=f"the refusal of a second start of {case}")
        self.tell(f"{case}: a second start was refused")

    def restart_scheduler(self) -> None:
        """Restart the scheduler; the new one adopts what the old one had queued."""
        self.host.stop_scheduler()
        self.host.start_scheduler()
        log = self.host.scheduler_log
        wait_until(lambda: ADOPTED in log.read_text(errors="replace"), within_s=60, what=ADOPTED)
        self.tell("the scheduler was restarted, and has adopted what runs")

    def look_at_idle_worker(self) -> None:
        """Ask doctor; attach to the main worker, which is idle, and SIGKILL a pool process."""
        told = subprocess.run([PIDTRAIL, "doctor", "--json"], capture_output=True, check=True)
        self.done["doctor"] = json.loads(told.stdout)["airflow"]
        self.done["roots"] = airflow_roots()
        worker, home = self.workers["main"].process, self.host.home
        self.done["children"] = children_of(worker.pid)
        with glance(home / "idle.db", worker.pid):
            idle = [pid for pid in children_of(worker.pid) if self.served in title_of(pid)]
            victim = next(filter(None, map(identity_of, idle)))
            self.kill("idle", victim)
            wait_until(lambda: not is_alive(victim), within_s=30, what="the end of a pool process")


def play(stage: Play) -> dict[str, Any]:
    """Play all cases, as many at once as can be; return what was done."""
    host = stage.host
    host.start()
    stage.start_worker("main", "default", SLOTS)
    stage.start_worker("restarted", "restarted", 1)
    stage.start_worker("killed", "killed", 1)
    host.wait_for_dags({dag_id(case) for case in (*SHORT, *HELD)})
    stage.tell("Airflow is ready")
    for case in (*HELD, *SHORT):
        host.trigger(dag_id(case), RUN_ID)

    stage.begun("redelivered")
    stage.redeliver("redelivered", "default")
    stage.kill("kill_runner", Identity(*stage.begun("kill_runner").identity))
    orphan = Identity(*stage.begun("kill_pool").identity)
    stage.kill("kill_pool", pool_process_above(orphan, stage.workers["main"]))
    stage.begun("restart")
    stop_as_systemd_does(host, stage.workers["restarted"])
    stage.start_worker("again", "restarted", 1)
    survivor = Identity(*stage.begun("kill_worker").identity)
    stage.kill("kill_worker", stage.workers["killed"].process)
    host.ended_on_purpose(stage.workers["killed"])
    stage.wait_for_refusal("redelivered", "main")
    stage.let_go("redelivered")
    stage.begun("adopted")
    stage.restart_scheduler()
    stage.let_go("adopted")
    stage.let_go("kill_pool")
    stage.end_of(*SHORT, "redelivered", "adopted", "kill_runner", "restart")
    wait_until(lambda: not is_alive(orphan), within_s=60, what="the end of the orphan")

    # A worker gives back whatever was not acknowledged for its visibility_timeout, of all queues.
    wait_until(
        lambda: stage.redis.do("HLEN", "unacked") == ["1"],
        within_s=60,
        what="the acknowledgement of all messages but that of the killed worker",
    )
    stage.look_at_idle_worker()
    host.settings["CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"] = "1"
    stage.start_worker("rescue", "killed", 1)
    stage.wait_for_refusal("kill_worker", "rescue")
    stage.let_go("kill_worker")
    wait_until(lambda: not is_alive(survivor), within_s=60, what="the end of the survivor")
    stage.tell("all was played")
    return stage.done


def pool_process_above(runner: Identity, worker: Piece) -> Identity:
    """Return the child of a Celery worker that a runner descends from."""
    pid, above = runner.pid, parent_of(runner.pid)
    while above not in (worker.process.pid, 0):
        pid, above = above, parent_of(above)
    found = identity_of(pid)
    if found is None or not is_alive(runner):
        raise StageError(f"runner {runner.pid} ended too early")
    return found


def title_of(pid: int) -> bytes:
    """Return what a process calls itself."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def children_of(pid: int) -> list[int]:
    """Return the children of the first thread of a process (proc(5))."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def parent_of(pid: int) -> int:
    """Return the pid of the parent of a process; 0 for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def stop_as_systemd_does(host: AirflowHost, worker: Piece) -> None:
    """SIGTERM to every process of a worker at once (systemd.kill(5), KillMode=control-group)."""
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        process = identity_of(pid)
        if int(stat[3]) == worker.process.pid and process is not None:
            send_signal(process, signal.SIGTERM)
    host.ended_on_purpose(worker)


def on_stage(release: Release, ledger: Ledger, port: int | None) -> dict[str, object]:
    """Play all cases on a release, with a broker of its own."""
    assert port is not None
    redis = Redis(ledger, *free_ports(1))
    host = stage_on_postgres(release)(release, ledger, DAGS, port=port)
    host.settings |= settings_of(redis.url)
    give_plugin(host.home)
    redis.start()
    return play(Play(host, redis, release.version[0]))


if __name__ == "__main__":
    sys.exit(perform(on_stage))
