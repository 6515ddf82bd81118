"""Which Airflow processes run here: real processes that show Airflow's titles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pidtrail.airflow.facts import Role
from pidtrail.airflow.running import Running, airflow_processes, airflow_roots

Start = Callable[..., tuple[int, int]]
IDLE = "airflow worker -- LocalExecutor: <idle>"
SCHEDULER = """
import os, subprocess
# cat waits for ever on a FIFO that it may write to itself; so does tee, whatever its arguments.
fifo = os.open({fifo!r}, os.O_RDWR)
worker = subprocess.Popen({argv!r}, executable={executable!r}, stdin=fifo)
print(worker.pid, flush=True)
worker.wait()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a scheduler with a worker, and returns both pids."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = tmp_path / "airflow"
    started: list[subprocess.Popen[str]] = []

    def run(executable: str = "/bin/cat", *behind: str) -> tuple[int, int]:
        text = SCHEDULER.format(fifo=str(fifo), argv=[IDLE, *behind], executable=executable)
        program.write_text(text)
        scheduler = subprocess.Popen(
            # As a #! line has it executed, which may hold no blanks and 255 bytes at most.
            [sys.executable, program, "scheduler"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        started.append(scheduler)
        assert scheduler.stdout is not None
        return scheduler.pid, int(scheduler.stdout.readline())

    yield run
    for scheduler in started:
        os.killpg(scheduler.pid, signal.SIGKILL)
        scheduler.wait()
        assert scheduler.stdout is not None
        scheduler.stdout.close()


def seen(pid: int, *, orphaned: bool = False) -> Running:
    """Return what is said of a process once it has its title, and has lost its parent if asked."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = [one for one in airflow_processes() if one.pid == pid]
        if found and found[0].abandoned is orphaned:
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"{pid}: {found}")


@pytest.mark.parametrize(
    "worker_argv", [("/bin/cat",), ("/usr/bin/tee", "", "", "")], ids=["bare", "zeros behind it"]
)
def test_a_title_is_one_text_whatever_is_behind_it(
    start: Start, worker_argv: tuple[str, ...]
) -> None:
    """A title has blanks, and zeros up to the end of the memory that the arguments had."""
    _, worker = start(*worker_argv)

    assert seen(worker).role is Role.EXECUTOR_WORKER


def test_a_worker_below_a_scheduler_is_not_abandoned(
    start: Start,
) -> None:
    scheduler, worker = start()

    assert seen(scheduler).role is Role.SCHEDULER
    assert seen(worker).ppid == scheduler


def test_a_worker_of_a_killed_scheduler_is_abandoned(
    start: Start,
) -> None:
    """It lives on below another parent, and nobody will give it work."""
    scheduler, worker = start()
    seen(worker)
    os.kill(scheduler, signal.SIGKILL)

    assert seen(worker, orphaned=True).role is Role.EXECUTOR_WORKER


def test_what_a_killed_scheduler_left_is_followed_after_the_living(start: Start) -> None:
    """Its workers may run user code still; a worker below its scheduler is followed with it."""
    killed, left = start()
    seen(left)
    scheduler, worker = start()
    seen(worker)
    os.kill(killed, signal.SIGKILL)
    seen(left, orphaned=True)

    roots = airflow_roots()

    assert roots.index(scheduler) < roots.index(left)
    assert worker not in roots
