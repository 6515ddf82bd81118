"""
Plays all cases on one real Airflow: what `pidtrail trace` watches in these tests.

    python -m tests.airflow.driver VERSION HOME RESULT PORT

PORT is PostgreSQL's. RESULT (JSON) tells who was killed by whom and
how each run ended. Of pidtrail it needs to read recordings. Status 0 when all was played and
nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.airflow_host import AirflowHost
from demo.environment import Release, say
from demo.processes import (
    Identity,
    Ledger,
    StageError,
    identity_of,
    is_alive,
    own_identity,
    send_signal,
    wait_until,
)
from demo.stage import Flips, flip_affinity
from tests.airflow import endings, venv_tools
from tests.airflow.performance import perform
from tests.airflow.postgres3 import stage_on_postgres

DAGS = Path(__file__).with_name("dags")
RUN_ID = "test"
FIRST = (
    "long",
    "kill_supervisor",
    "kill_runner",
    "reschedule",
    "deferral",
    "mapped",
    "retry",
    "bash",
    "own_user",
)
LAST = "kill_scheduler"
# Airflow 3.x cannot take a result from a runner without supervisor: its row stays
# `running` until the heartbeat timeout, so this run has no end within a test.
ENDLESS = "kill_supervisor"
FLIP_FOR_S = 8.0
PARALLELISM = 12


def dag_id(case: str) -> str:
    """Name of the DAG of a case."""
    return f"case_{case}"


def kill(victim: Identity) -> dict[str, object]:
    """SIGKILL one process from this one; return who was killed by whom, and when."""
    at_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if not send_signal(victim, signal.SIGKILL):
        raise StageError(f"process {victim.pid} ended before it could be killed")
    return {"victim": victim, "killer": own_identity(), "at_boot_ns": at_boot_ns}


def kill_parent(runner: Identity, ppid: int) -> dict[str, object]:
    """SIGKILL the supervisor of a runner."""
    supervisor = identity_of(ppid)
    if supervisor is None or not is_alive(runner):
        raise StageError(f"runner {runner.pid} or its supervisor {ppid} ended too early")
    return kill(supervisor)


def play(host: AirflowHost, major: str) -> dict[str, object]:
    """Run all cases, as many at once as can be; return what was done."""
    begin = time.monotonic()

    def tell(line: str) -> None:
        say(f"[{time.monotonic() - begin:5.1f} s] {line}")

    venv_tools.provide(host.home)
    host.start()
    ends = endings.Endings(host, major)
    host.wait_for_dags({dag_id(case) for case in (*FIRST, LAST, *endings.cases(major))})
    tell("Airflow is ready")
    with ends.stage(), ThreadPoolExecutor() as pool:
        host.trigger(dag_id(endings.EARLY), RUN_ID)
        ends.runner(endings.EARLY)
        for case in (*FIRST, *endings.cases(major)):
            if case not in (endings.EARLY, *endings.LATE):
                host.trigger(dag_id(case), RUN_ID)
        long = Identity(*host.wait_for_note(dag_id("long"), within_s=60)[0].identity)
        flipping = pool.submit(flip_affinity, long, seconds=FLIP_FOR_S)
        orphan_note = host.wait_for_note(dag_id("kill_supervisor"), within_s=60)[0]
        orphan = Identity(*orphan_note.identity)
        supervisor = kill_parent(orphan, orphan_note.ppid)
        (host.home / "supervisor-killed").touch()
        runner = kill(Identity(*host.wait_for_note(dag_id("kill_runner"), within_s=60)[0].identity))
        tell("a supervisor and a runner were killed")
        ends.end_all()
        tell("all that wait for their end were ended")
        flips: Flips = flipping.result()
        tell(f"the affinity of the long task was changed {flips.count} times")
        states = {
            case: host.wait_for_end(dag_id(case), RUN_ID, within_s=100)
            for case in FIRST
            if case != ENDLESS
        }
        wait_until(
            lambda: not is_alive(orphan),
            within_s=60,
            what="the end of the runner without supervisor",
        )
        if major == "3":
            ends.look_late()
        states |= ends.wait_for_ends()
    tell(f"ended: {states}")

    host.trigger(dag_id(LAST), RUN_ID)
    survivor = Identity(*host.wait_for_note(dag_id(LAST), within_s=30)[0].identity)
    killed = host.kill_scheduler()
    scheduler = {
        "victim": killed,
        "killer": own_identity(),
        "at_boot_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    }
    time.sleep(3)  # the experiment itself: a scheduler that is down for a while
    host.start_scheduler()
    tell("the scheduler was killed and started again")
    wait_until(
        lambda: not is_alive(survivor),
        within_s=60,
        what="the end of the task of a killed scheduler",
    )
    states[LAST] = host.wait_for_end(dag_id(LAST), RUN_ID, within_s=60)
    tell(f"ended: {states[LAST]}")
    return {
        "states": states,
        "kills": {
            "kill_supervisor": supervisor,
            "kill_runner": runner,
            "kill_scheduler": scheduler,
        }
        | ends.done,
        "flips": flips.count,
        "flips_refused": flips.reason,
    }


def on_stage(release: Release, ledger: Ledger, port: int | None) -> dict[str, object]:
    """Play all cases on a release."""
    assert port is not None
    stage = stage_on_postgres(release)
    host = stage(release, ledger, DAGS, port=port, parallelism=PARALLELISM, with_triggerer=True)
    return play(host, release.version.partition(".")[0])


if __name__ == "__main__":
    sys.exit(perform(on_stage))
