"""
Reading a /proc that may be anywhere, and may fail under the reader.

For source `procfs`, which reads it all the time: paths are plain text and one
process costs one open. A process that vanished is None and no trouble; a file
that may not be read, is empty or makes no sense is None too, and counted.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from pidtrail.container import cgroup_path

VANISHED: Final = frozenset({errno.ENOENT, errno.ESRCH})
STAT_BYTES: Final = 4096
TEXT_BYTES: Final = 16_384
LAST_FIELD: Final = 19
"""`starttime` is field 22 of proc_pid_stat(5), 19 after `state`."""
PF_EXITING: Final = 0x4
"""In `flags`, field 9 (include/linux/sched.h)."""


class Stat(NamedTuple):
    """One /proc/PID/stat: what is read of it."""

    comm: str
    state: str
    ppid: int
    session: int
    threads: int
    start_ticks: int
    flags: int

    @property
    def exiting(self) -> bool:
        """
        Whether its first thread has begun to end, and perhaps the process with it.

        PF_EXITING is set before sched_process_exit is raised, and the state
        becomes Z or X only after it (kernel/exit.c do_exit).
        """
        return bool(self.flags & PF_EXITING)

    @property
    def dead(self) -> bool:
        """
        Whether the process ended and was not reaped.

        A leader that ended before its threads is shown as a zombie too, and is
        none while threads are counted (fs/proc/array.c do_task_stat, get_nr_threads).
        """
        return self.state in {"Z", "X", "x"} and self.threads <= 1


class ProcDirectory:
    """A directory in the form of /proc; `troubles` counts what could not be read, by reason."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prefix = f"{root}/"
        self.troubles: Counter[str] = Counter()

    def numbers(self) -> dict[int, int] | None:
        """
        Return every pid with the inode of its directory, or None if there is none to be read.

        The kernel makes a new inode when the number goes to another process
        (fs/proc/base.c: it belongs to the struct pid), so that an equal pair
        needs no look inside. It may also make a new one for the same process,
        when memory was short. An empty directory is a /proc that was unmounted,
        not the end of everybody.
        """
        try:
            with os.scandir(self.root) as entries:
                found = {int(entry.name): entry.inode() for entry in entries if is_pid(entry.name)}
        except OSError as error:
            self.troubles[f"{self.root}: {error.strerror}"] += 1
            return None
        if not found:
            self.troubles[f"{self.root}: no processes in it"] += 1
            return None
        return found

    def stat(self, pid: int) -> Stat | None:
        """
        Return /proc/PID/stat, or None.

        The comm may hold spaces, newlines and parentheses, so the last `)` is
        what ends it (proc_pid_stat(5)).
        """
        raw = self.read(pid, "stat", STAT_BYTES)
        if raw is None:
            return None
        head, _, tail = raw.rpartition(b")")
        fields = tail.split()
        try:
            return Stat(
                head.partition(b"(")[2].decode("utf-8", "replace"),
                fields[0].decode("ascii"),
                int(fields[1]),
                int(fields[3]),
                int(fields[17]),
                int(fields[LAST_FIELD]),
                int(fields[6]),
            )
        except (IndexError, ValueError):
            self.troubles["stat: empty" if not raw else "stat: not as proc_pid_stat(5) says"] += 1
            return None

    def read(self, pid: int, name: str, limit: int = TEXT_BYTES) -> bytes | None:
        """Return the first bytes of /proc/PID/NAME, or None."""
        try:
            fd = os.open(f"{self.prefix}{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.failed(name, error)
            return None
        try:
            return os.read(fd, limit)
        except OSError as error:
            self.failed(name, error)
            return None
        finally:
            os.close(fd)

    def link(self, pid: int, name: str) -> str | None:
        """Return where the link /proc/PID/NAME points, or None; a zombie's points nowhere."""
        try:
            return os.readlink(f"{self.prefix}{pid}/{name}")  # noqa: PTH115 (text, may be no path)
        except OSError as error:
            self.failed(name, error)
            return None

    def failed(self, name: str, error: OSError) -> None:
        """Count an error, unless it only says that the process is gone."""
        if error.errno not in VANISHED:
            self.troubles[f"{name}: {error.strerror}"] += 1

    def cmdline(self, pid: int) -> bytes | None:
        """Return the arguments as they stand in memory, or None where there are none (a zombie)."""
        return self.read(pid, "cmdline") or None

    def exe(self, pid: int) -> str | None:
        """Return the path of the program, also after its file was replaced (proc_pid_exe(5))."""
        path = self.link(pid, "exe")
        return path.removesuffix(" (deleted)") if path is not None else None

    def ns_pids(self, pid: int) -> list[int] | None:
        """Return its numbers from the namespace of this /proc inwards (NSpid), or None."""
        for line in (self.read(pid, "status") or b"").splitlines():
            if line.startswith(b"NSpid:"):
                words = line.split()[1:]
                return [int(word) for word in words] if all(map(bytes.isdigit, words)) else None
        return None

    def namespace(self, pid: int) -> int | None:
        """Return the inode of its PID namespace, or None: `pid:[4026531836]` (namespaces(7))."""
        shown = (self.link(pid, "ns/pid") or "").partition("[")[2].rstrip("]")
        return int(shown) if shown.isdigit() else None

    def cgroup(self, pid: int) -> str | None:
        """Return the path of the cgroup that tells most (see container.py), or None."""
        return cgroup_path((self.read(pid, "cgroup") or b"").decode("utf-8", "replace"))


def arguments(cmdline: bytes) -> list[str]:
    """Return what stands between the NULs; a rewritten title is one item, padding left out."""
    return [part.decode("utf-8", "replace") for part in cmdline.rstrip(b"\0").split(b"\0")]


def is_pid(name: str) -> bool:
    """Tell whether an entry of /proc is a process; what looks like a digit to Unicode is not."""
    return name.isascii() and name.isdigit()
