"""
What /proc says of one process at this instant.

Every function returns None for a process that is gone, is a zombie, or may not
be looked at: a vanished process is not an error. `start_ticks` tells whether the
pid still belongs to who was asked for; callers that need certainty compare it
after the read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pidtrail.container import cgroup_path
from pidtrail.events import ProcessKey
from pidtrail.redact import redact_argv

PROC = Path("/proc")
MAX_ARGV_BYTES = 16_384
ENV_PREFIX = "AIRFLOW_CTX_"


def read_bytes(pid: int, name: str, limit: int = MAX_ARGV_BYTES) -> bytes | None:
    """Return at most `limit` bytes of /proc/PID/NAME, or None."""
    try:
        # Not through Path: that alone takes as long as all else, and a storm asks for each birth.
        fd = os.open(f"{PROC}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, limit)
    except OSError:
        return None
    finally:
        os.close(fd)


def stat_fields(pid: int) -> list[str] | None:
    """
    Return the fields of /proc/PID/stat from `state` on (field 3 is index 0), or None.

    The comm before them may hold spaces, newlines and parentheses, so the last
    `)` is what ends it (proc_pid_stat(5)).
    """
    raw = read_bytes(pid, "stat", 4096)
    if not raw:
        return None
    fields = raw.rpartition(b")")[2].decode("ascii", "replace").split()
    return fields if len(fields) >= 20 else None


def start_ticks(pid: int) -> int | None:
    """Return the start time in USER_HZ ticks since boot (field 22), or None."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields and fields[19].isdigit() else None


def ppid(pid: int) -> int | None:
    """Return the parent's pid (field 4), or None; also where the parent has no number here."""
    fields = stat_fields(pid)
    return int(fields[1]) or None if fields and fields[1].isdigit() else None


def tops(keys: Iterable[ProcessKey]) -> list[int]:
    """Return the pids of those processes that live and are not below another one of them."""
    alive = {key.pid for key in keys if start_ticks(key.pid) in {key.start_ticks} - {None}}
    return sorted(pid for pid in alive if ppid(pid) not in alive)


def comm(pid: int) -> str | None:
    """Return the name of at most 15 bytes, or None."""
    raw = read_bytes(pid, "comm", 64)
    return raw.rstrip(b"\n").decode("utf-8", "replace") if raw else None


def status_value(pid: int, name: bytes) -> list[bytes] | None:
    """Return the words behind `name:` in /proc/PID/status, or None."""
    raw = read_bytes(pid, "status", 8192)
    for line in (raw or b"").splitlines():
        if line.startswith(name + b":"):
            return line.split()[1:]
    return None


def process_of(tid: int) -> int | None:
    """
    Return the pid of the process that a thread belongs to (Tgid), or None.

    /proc lists processes only, and yet shows any thread to who names it.
    """
    words = status_value(tid, b"Tgid")
    return int(words[0]) if words and words[0].isdigit() else None


def ns_pids(pid: int) -> list[int] | None:
    """Return its numbers from the namespace of this /proc inwards (NSpid), or None."""
    words = status_value(pid, b"NSpid")
    return [int(word) for word in words] if words and all(map(bytes.isdigit, words)) else None


def is_dead(fields: list[str]) -> bool:
    """
    Return whether the fields of a stat file are those of a process that ended.

    A leader that ended before its threads is shown as a zombie too, and is none
    while threads are counted (field 20).
    """
    return fields[0] in {"Z", "X", "x"} and fields[17] in {"0", "1"}


def argv(pid: int) -> list[str] | None:
    """Return the command line with secrets removed, or None; a title comes back as one item."""
    raw = read_bytes(pid, "cmdline")
    if not raw:
        return None
    parts = raw.rstrip(b"\0").split(b"\0")
    return redact_argv([part.decode("utf-8", "replace") for part in parts])


def cgroup(pid: int) -> str | None:
    """Return the path of the cgroup that tells most (see container.py), or None."""
    raw = read_bytes(pid, "cgroup")
    return cgroup_path(raw.decode("utf-8", "replace")) if raw else None


def context_env(pid: int) -> dict[str, str] | None:
    """Return the `AIRFLOW_CTX_*` variables and nothing else, or None if there are none."""
    raw = read_bytes(pid, "environ", 1 << 20)
    if not raw:
        return None
    found = {}
    for part in raw.split(b"\0"):
        name, _, value = part.decode("utf-8", "replace").partition("=")
        if name.startswith(ENV_PREFIX):
            found[name] = value
    return found or None


def open_paths(pid: int) -> list[str] | None:
    """Return what the open descriptors point to, or None; order is that of the descriptors."""
    directory = PROC / str(pid) / "fd"
    try:
        names = os.listdir(directory)  # noqa: PTH208 (names only)
    except OSError:
        return None
    found = []
    for number in sorted(int(name) for name in names if name.isdecimal()):
        try:
            found.append(os.readlink(directory / str(number)))  # noqa: PTH115 (text, may be no path)
        except OSError:
            continue
    return found


def children_of_all() -> dict[int, list[int]]:
    """Return the children of every process, by pid: one pass over /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(PROC):  # noqa: PTH208 (names only, and thousands of them)
        if name.isdigit() and (parent := ppid(int(name))) is not None:
            children.setdefault(parent, []).append(int(name))
    return children
