"""
A scheduler of Airflow 3.x whose one worker runs two tries of a task, by what they show alone.

    python …/airflow scheduler FOLDER FILLER

That is what its command line has to look like; FILLER makes room for titles. Each runner holds
the log of its try open, starts a child, writes its number to `runner-N` in FOLDER and ends when
`go-N` is there: the first in failure, the second well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.trace.worker_stand_in import call_oneself

TASK = "01a201d9-c083-7000-8000-00000000000{}"
LOG = "logs/dag_id=sales/run_id=manual__1/task_id=load/attempt={}.log"


def run(folder: Path, number: int) -> None:
    """Be the runner of a try."""
    call_oneself(f"airflow worker -- {TASK.format(number)}")
    log = folder / LOG.format(number)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w"):
        subprocess.run(["/bin/sleep", "0.01"], check=True)
        here = folder / f"runner-{number}"
        here.with_suffix(".new").write_text(str(os.getpid()))
        here.with_suffix(".new").rename(here)
        while not (folder / f"go-{number}").exists():
            time.sleep(0.01)


def work(folder: Path) -> None:
    """Be the worker, which supervises what it runs."""
    for number in (1, 2):
        call_oneself(f"airflow worker -- LocalExecutor: {TASK.format(number)}")
        runner = os.fork()
        if runner == 0:
            run(folder, number)
            os._exit(number == 1)
        os.waitpid(runner, 0)
    call_oneself("airflow worker -- LocalExecutor: <idle>")
    os._exit(0)


def main() -> None:
    """Be the scheduler, until its worker has nothing to do."""
    if (worker := os.fork()) == 0:
        work(Path(sys.argv[2]))
    os.waitpid(worker, 0)
