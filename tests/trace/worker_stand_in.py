"""
An executor worker of Airflow 3.x with a task that ignores SIGTERM, by their titles alone.

Airflow itself is not there: what is under test is who ends them. A title is written
over the arguments, which must be as long, and then the process is renamed: so does
setproctitle(3). With `OBEYS` in the environment the task does not ignore SIGTERM; `READY` names
the file that says that it runs. SIGUSR1 makes it fill 200 MiB.
"""

import ctypes
import os
import signal
from pathlib import Path

TASK = "01a201d9-c083-7000-8000-000000000001"
PR_SET_NAME = 15


def call_oneself(title: str) -> None:
    """Take a title."""
    # arg_start and arg_end, fields 48 and 49 (proc(5)); comm may hold spaces.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(begin)
        memory.write(title.encode().ljust(end - begin, b"\0"))
    ctypes.CDLL(None).prctl(PR_SET_NAME, title[:15].encode())


if __name__ == "__main__":
    call_oneself(f"airflow worker -- LocalExecutor: {TASK}")
    if os.fork() == 0:
        if "OBEYS" not in os.environ:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda *_: b"x" * (200 << 20))
        call_oneself(f"airflow worker -- {TASK}")
        Path(os.environ.get("READY", "/run/ready")).touch()
    while True:
        signal.pause()
