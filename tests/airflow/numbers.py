"""
Makes the numbers of a PID namespace go by, with processes that end at once.

    python -m tests.airflow.numbers wrap 0     until they begin again from below
    python -m tests.airflow.numbers pass N     until N is free, and is the next to be given
    python -m tests.airflow.numbers hold N     until a process got N, which then stays

Status 1 if that does not come: somebody keeps the number.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path

FIRST_AGAIN = 300
"""kernel/pid.c RESERVED_PIDS: lower numbers are given once only."""
ENOUGH = 20_000
PATIENCE_S = 20.0


def is_taken(number: int) -> bool:
    """Whether a process, a thread or a zombie has a number: the kernel gives none of them twice."""
    return Path(f"/proc/{number}").exists()


def is_next(number: int, after: int) -> bool:
    """Whether a number is the first free one behind another, round the end."""
    if after < number:
        return all(map(is_taken, range(after + 1, number)))
    end = int(Path("/proc/sys/kernel/pid_max").read_text())
    return all(map(is_taken, itertools.chain(range(after + 1, end), range(FIRST_AGAIN, number))))


def wait_until_free(number: int) -> None:
    """Wait for who has a number to be collected; a supervisor of 3.x may take 5 s for it."""
    limit = time.monotonic() + PATIENCE_S
    while is_taken(number) and time.monotonic() < limit:
        time.sleep(0.02)


def main(what: str, wanted: int) -> int:
    """Fork until it is so."""
    if what != "wrap":
        wait_until_free(wanted)
    before = os.getpid()
    for _ in range(ENOUGH):
        pid = os.fork()
        if pid == 0:
            if what == "hold" and os.getpid() == wanted:
                signal.pause()
            os._exit(0)
        os.waitpid(pid, 0)
        if what == "hold" and pid == wanted:
            return 0
        if what == "wrap" and pid < before:
            return 0
        if what == "pass" and is_next(wanted, pid):
            return 0
        before = pid
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
