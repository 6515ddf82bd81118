"""
Who a process is, asked of the kernel at this instant: /proc, and its pidfd.

None of this comes from the process itself. A process that is gone has no identity
any more: `probe` then raises ProcessLookupError.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from pidtrail.events import Event, Fork
from pidtrail.lab.model import Identity
from pidtrail.sources import proc

if TYPE_CHECKING:
    from collections.abc import Iterable


def probe(pid: int) -> Identity:
    """Return who has the number `pid` now. Raises ProcessLookupError if nobody does."""
    pidfd = os.pidfd_open(pid)
    try:
        ticks = proc.start_ticks(pid)
        status = status_of(pid)
        fields = proc.stat_fields(pid)
        tids = threads_of(pid)
        namespace = namespace_of(pid)
        inode = os.fstat(pidfd).st_ino if has_pidfs() else None
    finally:
        os.close(pidfd)
    if ticks is None or fields is None or ticks != proc.start_ticks(pid):
        raise ProcessLookupError(3, f"process {pid} is gone")
    numbers = [int(word) for word in status.get("NSpid", "").split()] or None
    return Identity(
        pid=pid,
        pid_ns=namespace,
        start_ticks=ticks,
        pidfs_inode=inode,
        ns_pids=numbers,
        ppid=int(fields[1]) or None,
        tids=tids,
        pgid=int(fields[2]),
        sid=int(fields[3]),
        uid=int(status["Uid"].split()[0]),
        tracer=int(status.get("TracerPid", "0")) or None,
        comm=status.get("Name"),
        at_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )


def state_of(pid: int) -> str | None:
    """Return the state letter of /proc/PID/stat (T is stopped), or None for one that is gone."""
    fields = proc.stat_fields(pid)
    return fields[0] if fields else None


def status_of(pid: int) -> dict[str, str]:
    """Return /proc/PID/status as a mapping. Raises ProcessLookupError."""
    raw = proc.read_bytes(pid, "status")
    if not raw:
        raise ProcessLookupError(3, f"process {pid} is gone")
    lines = raw.decode("utf-8", "replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def threads_of(pid: int) -> list[int] | None:
    """Return the tids of a process, or None."""
    try:
        return sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return None


def namespace_of(pid: int) -> int | None:
    """Return the inode of a process's own PID namespace, or None where it may not be seen."""
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


@functools.cache
def has_pidfs() -> bool:
    """
    Return whether a pidfd's inode is the process's own (fs/pidfs.c, Linux 6.9).

    Before, all pidfds shared the one inode of anon_inodefs.
    """
    inodes = set()
    for pid in (os.getpid(), 1 if os.getpid() != 1 else os.getppid()):
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        inodes.add(os.fstat(pidfd).st_ino)
        os.close(pidfd)
    return len(inodes) > 1


def of_birth(fork: Fork) -> Identity:
    """Return who a process is by the record of its birth: all that is to be had once it is gone."""
    assert fork.pid is not None  # noqa: S101 (our own children have a number here)
    return Identity(
        pid=fork.pid,
        pid_ns=fork.pid_ns,
        start_ticks=fork.start_ticks,
        start_ns=fork.start_ns,
        ns_pids=fork.ns_pids,
        ppid=fork.ppid,
        comm=fork.comm,
        at_ns=fork.ts_boot_ns,
    )


def seen_inside(identity: Identity) -> Identity:
    """Return the same process by the number that it has in its own PID namespace."""
    assert identity.ns_pids  # noqa: S101 (who asks has checked)
    return structs.replace(identity, pid=identity.ns_pids[-1])


def refined(identity: Identity, events: Iterable[Event]) -> Identity:
    """Return an identity with the start time to the nanosecond, if a record carries it."""
    if identity.start_ns is not None:
        return identity
    numbers = {identity.pid, *(identity.ns_pids or ())}
    for event in events:
        if (
            event.start_ns is not None
            and event.pid in numbers
            and event.start_ticks == identity.start_ticks
        ):
            return structs.replace(identity, start_ns=event.start_ns)
    return identity


def is_of(identity: Identity, event: Event) -> bool:
    """Return whether a record speaks of this process."""
    if identity.start_ns is not None and event.start_ns is not None:
        return event.start_ns == identity.start_ns
    return event.pid == identity.pid and event.start_ticks == identity.start_ticks


def same_process(one: Identity, other: Identity) -> bool:
    """Return whether two identities are one process, by the finest that is known of both."""
    for name in ("pidfs_inode", "start_ns"):
        first, second = getattr(one, name), getattr(other, name)
        if first is not None and second is not None:
            return bool(first == second and one.start_ticks == other.start_ticks)
    # Within one tick the number tells two processes apart (a PID comes back later than that).
    first = (one.ns_pids or [one.pid])[0]
    second = (other.ns_pids or [other.pid])[0]
    return one.start_ticks is not None and (one.start_ticks, first) == (other.start_ticks, second)
