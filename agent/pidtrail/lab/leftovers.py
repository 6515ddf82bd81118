"""
What a lab that was killed left behind, found by the mark on the thing itself.

Every process of the lab has `PIDTRAIL_LAB=OWNER` in its environment, and every
cgroup is called `pidtrail-lab-OWNER-…`, where OWNER names the lab that made it by
PID namespace, number and start time. A mark is there from the first instant, unlike
a line in a file of states, which a SIGKILL may come before. Whatever bears the mark
of a living lab, or of another PID namespace, is left alone.

Most of it goes by itself: a puppet whose lab is gone reads an end of file. What
cannot read (stopped, frozen) is what the sweep is for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

from pidtrail.lab import cgroup
from pidtrail.sources import proc

VARIABLE: Final = "PIDTRAIL_LAB"
PATIENCE_S: Final = 5.0
DEAD: Final = "ZX"
"""States of /proc/PID/stat: a zombie, and one on its last instructions."""


def owner() -> str:
    """Return the mark of this very process: PID namespace, number and start."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{namespace}-{os.getpid()}-{proc.start_ticks(os.getpid())}"


def is_abandoned(mark: str) -> bool:
    """Return whether a mark is of our PID namespace, and of a lab that is gone."""
    parts = mark.split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return False
    namespace, pid, ticks = map(int, parts)
    if namespace != Path("/proc/self/ns/pid").stat().st_ino:
        return False
    fields = proc.stat_fields(pid)
    return fields is None or fields[0] in DEAD or proc.start_ticks(pid) != ticks


def mark_of(pid: int) -> str | None:
    """Return the mark in the environment of a process, or None."""
    raw = proc.read_bytes(pid, "environ", 1 << 20)
    if not raw:
        return None
    start = f"{VARIABLE}=".encode()
    for part in raw.split(b"\0"):
        if part.startswith(start):
            return part.removeprefix(start).decode("ascii", "replace")
    return None


def marked() -> list[tuple[int, str]]:
    """Return every process that bears a mark, with the mark."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [(pid, mark) for pid in numbers if (mark := mark_of(pid)) is not None]


def sweep() -> list[str]:
    """Remove what abandoned labs left, and return in words what that was."""
    swept = []
    # First the cgroups: what is frozen in one of version 1 cannot even be killed.
    for path in cgroup.found():
        if is_abandoned(cgroup.owner_in(path.name)):
            with contextlib.suppress(OSError):
                cgroup.remove(path)
                swept.append(f"cgroup {path}")
    for pid, mark in marked():
        if is_abandoned(mark) and kill(pid, mark):
            swept.append(f"process {pid}")
    return swept


def kill(pid: int, mark: str) -> bool:
    """Kill a process that bears this mark, and wait until it is dead; return whether it was."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Through the pidfd, so that it is who bore the mark and not the next with its number.
        if mark_of(pid) != mark:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await_end(pid)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(pidfd)


def await_end(pid: int) -> None:
    """Wait until a process has no memory any more: it is dead, if perhaps not collected."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        fields = proc.stat_fields(pid)
        if fields is None or fields[0] in DEAD:
            return
        time.sleep(0.002)
