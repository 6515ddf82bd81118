"""
What looks like an Airflow 3 with LocalExecutor, in a file `airflow`: run as `airflow scheduler`.

Each line on stdin is a task instance's UUID: a worker takes it and forks its runner, both with
Airflow's titles. The runner ends when the file FOLDER/UUID is there. A line with another name is
a daemon, called so, that loses its parent at once and ends in the same way. A title is written
over the arguments, which must be as long, and then the process is renamed, as by setproctitle(3).
"""

import ctypes
import os
import sys
import time
from pathlib import Path

PR_SET_NAME = 15
PAUSE_S = 0.02


def call_oneself(title: str) -> None:
    """Take a title."""
    # arg_start and arg_end, fields 48 and 49 (proc(5)); comm may hold spaces.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(begin)
        memory.write(title.encode().ljust(end - begin, b"\0"))
    ctypes.CDLL(None).prctl(PR_SET_NAME, title[:15].encode())


def run(task: str, end: Path) -> None:
    """Be a worker that runs one task instance."""
    call_oneself(f"airflow worker -- LocalExecutor: {task}")
    runner = os.fork()
    if runner == 0:
        call_oneself(f"airflow worker -- {task}")
        while not end.exists():
            time.sleep(PAUSE_S)
        os._exit(0)
    os.waitpid(runner, 0)
    os._exit(0)


def orphan(name: str, end: Path) -> None:
    """Leave a process behind that is nobody's child."""
    if os.fork() == 0:
        call_oneself(name)
        while not end.exists():
            time.sleep(PAUSE_S)
    os._exit(0)


def main() -> None:
    """Be a scheduler."""
    folder = Path(sys.argv[2])
    for line in sys.stdin:
        name = line.strip()
        child = os.fork()
        if child == 0:
            (run if "-" in name else orphan)(name, folder / name)
        if "-" not in name:
            os.waitpid(child, 0)


main()
