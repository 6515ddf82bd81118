"""
The play that is traced: three situations in which people see PIDs differ.

    python -m demo.stage HOME RESULT

starts Airflow 3.3.2 in HOME and runs (a) a task that fails once, (b) a long
task that is moved between CPUs from here, (c) a task during which the
scheduler is killed with SIGKILL and started again. RESULT (JSON) tells what
was done to whom, HOME/notes what the tasks wrote of themselves. Status 0 when
all was played to the end and nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.airflow3 import Airflow3
from demo.environment import InstallError, install, say
from demo.processes import (
    Identity,
    Ledger,
    StageError,
    clear_leftovers,
    is_alive,
    own_identity,
    stop_on_signals,
)

DAGS = Path(__file__).with_name("dags")
VERSION = "3.3.2"
RUN_ID = "demo"
RETRY, LONG, RESTART = "pidtrail_retry", "pidtrail_long", "pidtrail_restart"

_FLIP_EVERY_S = 0.020
_FLIP_FOR_S = 20.0
_DOWN_FOR_S = 3.0


@dataclass(frozen=True)
class Flips:
    """
    What was done to (b): how often its affinity was set to another CPU.

    `reason` says why it could not be done, else None.
    """

    pid: int
    start_ticks: int
    count: int
    seconds: float
    cpus: list[int]
    reason: str | None


@dataclass(frozen=True)
class Restart:
    """
    What was done to (c); times are seconds since the epoch.

    `task_lived` is whether the task's first process was still there when the
    new scheduler had been started.
    """

    killed_scheduler: Identity
    killer: Identity
    killed_at: float
    new_scheduler: Identity
    started_at: float
    task_lived: bool


def flip_affinity(
    process: Identity, *, seconds: float = _FLIP_FOR_S, every_s: float = _FLIP_EVERY_S
) -> Flips:
    """
    Allow a process one CPU after the other, a new one every `every_s` seconds; then all again.

    Ends early if the process does. On a host with one CPU nothing is done, and `reason` says so.
    """
    cpus = sorted(os.sched_getaffinity(process.pid))
    if len(cpus) < 2:
        return Flips(
            *process,
            0,
            0.0,
            cpus,
            "this host lets us use one CPU only: there is nowhere to move to",
        )
    begin = time.monotonic()
    count = 0
    reason = None
    try:
        # From absolute times, so that a late wake-up does not shift all that follow.
        while (now := time.monotonic()) < begin + seconds and is_alive(process):
            os.sched_setaffinity(process.pid, {cpus[count % len(cpus)]})
            count += 1
            time.sleep(max(0.0, begin + count * every_s - now))
        os.sched_setaffinity(process.pid, cpus)
    except ProcessLookupError:
        reason = "the process ended before the flipping did"
    return Flips(*process, count, round(time.monotonic() - begin, 3), cpus, reason)


def restart_scheduler(host: Airflow3, task: Identity) -> Restart:
    """Kill the scheduler with SIGKILL, start a new one three seconds later."""
    killer = own_identity()
    killed = host.kill_scheduler()
    killed_at = time.time()
    time.sleep(
        _DOWN_FOR_S
    )  # the experiment itself: long enough for anything tied to the parent to end
    new = host.start_scheduler()
    return Restart(killed, killer, killed_at, new, time.time(), is_alive(task))


def play(host: Airflow3) -> dict[str, object]:
    """Run the three situations; return what was done, as JSON can hold it."""
    begin = time.monotonic()

    def tell(line: str) -> None:
        say(f"[{time.monotonic() - begin:5.1f} s] {line}")

    tell(f"starting Airflow {VERSION} in {host.home}")
    host.start()
    host.wait_for_dags({RETRY, LONG, RESTART})
    tell("Airflow is ready; (a) a failing task with one retry, (b) a long-running task")
    host.trigger(LONG, RUN_ID)
    host.trigger(RETRY, RUN_ID)
    long = Identity(*host.wait_for_note(LONG, within_s=60)[0].identity)
    tell(f"(b) runs as pid {long.pid}; moving it between CPUs for {_FLIP_FOR_S:g} s")
    flips = flip_affinity(long)
    tell(
        f"(b) affinity was changed {flips.count} times"
        + (f" ({flips.reason})" if flips.reason else "")
    )
    # (c) may begin while (b) ends; its scheduler is killed only when (a) and (b) are over.
    host.trigger(RESTART, RUN_ID)
    states = {dag: host.wait_for_end(dag, RUN_ID, within_s=60) for dag in (RETRY, LONG)}
    running = Identity(*host.wait_for_note(RESTART, within_s=60)[0].identity)
    tell(f"(a) ended: {states[RETRY]}; (b) ended: {states[LONG]}; (c) runs as pid {running.pid}")
    tell(f"(c) SIGKILL to the scheduler, pid {host.scheduler.pid}")
    restart = restart_scheduler(host, running)
    tell(f"(c) a new scheduler is pid {restart.new_scheduler.pid}; waiting for the end of the task")
    states[RESTART] = host.wait_for_end(RESTART, RUN_ID, within_s=90)
    tell(f"(c) ended: {states[RESTART]}; stopping Airflow")
    return {
        "version": VERSION,
        "states": states,
        "flips": asdict(flips),
        "restart": asdict(restart),
    }


def main(home: Path, result: Path) -> int:
    """Play, stop everything, write the result; status as the module says."""
    stop_on_signals()
    try:
        release = install(VERSION)
        clear_leftovers()
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        ledger = Ledger(home)
        try:
            done = play(Airflow3(release, ledger, DAGS, parallelism=4))
        finally:
            ledger.stop_all()
    except (StageError, InstallError) as error:
        say(f"the demo's Airflow: {error}")
        return 1
    result.write_text(json.dumps(done, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
