"""
The wire of the BPF programs, parsed: bpf/event.h in Python.

Only layout lives here. Each `struct.Struct` mirrors one C struct without its
trailing bytes; tests/unit/test_abi.py compiles the header and compares sizes and
offsets. Records made by our own programs are trusted to be well-formed; a kind or
a length that does not fit raises WireError, which is a bug, not a user's input.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pidtrail.clock import TICK_NS
from pidtrail.events import (
    Event,
    Exec,
    Exit,
    Fork,
    Migrate,
    Observed,
    Oom,
    Reap,
    Signal,
    Title,
)
from pidtrail.redact import redact_argv, redact_text
from pidtrail.wstatus import decode_wstatus

if TYPE_CHECKING:
    from collections.abc import Callable

ABI_VERSION: Final = 1
NS_LEVELS: Final = 8
ORIGIN: Final = "core"

KIND_FORK, KIND_EXEC, KIND_TITLE, KIND_EXIT, KIND_REAP = 1, 2, 3, 4, 5
KIND_SIGNAL, KIND_OOM, KIND_MIGRATE, KIND_TASK, KIND_SELF = 6, 7, 8, 9, 10

KIND = struct.Struct("=I")
HEAD = struct.Struct("=IIQQ")
FORK = struct.Struct("=IIQQIIQQII8I16s")
EXEC = struct.Struct("=IIQQQIIII16s256s")
TITLE = struct.Struct("=IIQQII16s2048s")
EXIT = struct.Struct("=IIQQIIQQQQQQQQQ")
REAP = struct.Struct("=IIQQQ")
SIGNAL = struct.Struct("=IIQQiiIIQ16s")
OOM = struct.Struct("=IIQQQQII16s")
MIGRATE = struct.Struct("=IIQQIIII")
TASK = struct.Struct("=IIQQIIQQQII8I16s")
LOSSES = struct.Struct("=QQQ")
PROCESS_KEY = struct.Struct("=QII")
ZOMBIE = struct.Struct("=QII")
CONFIG = struct.Struct("=IIII")

Buffer = bytes | bytearray | memoryview


class WireError(ValueError):
    """A record does not have the form that bpf/event.h gives it."""


def text(raw: bytes) -> str:
    """Return bytes up to the first NUL as text; what is not UTF-8 becomes U+FFFD."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def arguments(raw: bytes) -> list[str]:
    """Return NUL separated arguments; a last one without its NUL was cut short."""
    if not raw:
        return []
    return [part.decode("utf-8", "replace") for part in raw.removesuffix(b"\0").split(b"\0")]


def ns_numbers(level: int, numbers: tuple[int, ...]) -> list[int] | None:
    """Return a process's numbers outermost first; None if nested too deep to be known."""
    return list(numbers[: level + 1]) if level < NS_LEVELS else None


class Parser:
    """
    Turns wire records into events.

    `page_kib` is the size of a page in KiB, `origin` the source whose programs
    write the records; `seq` is what the caller counts.
    """

    def __init__(self, page_kib: int, origin: str = ORIGIN) -> None:
        self.page_kib = page_kib
        self.origin = origin
        self.parsers: dict[int, tuple[int, Callable[[Buffer, int, int, int], Event]]] = {
            KIND_FORK: (FORK.size, self.fork),
            KIND_EXEC: (EXEC.size, self.exec),
            KIND_TITLE: (TITLE.size, self.title),
            KIND_EXIT: (EXIT.size, self.exit),
            KIND_REAP: (REAP.size, self.reap),
            KIND_SIGNAL: (SIGNAL.size, self.signal),
            KIND_OOM: (OOM.size, self.oom),
            KIND_MIGRATE: (MIGRATE.size, self.migrate),
            KIND_TASK: (TASK.size, self.task),
            KIND_SELF: (TASK.size, self.task),
        }

    def parse(self, data: Buffer, offset: int, length: int, seq: int) -> Event:
        """Return the event in `data[offset:offset + length]`. Raises WireError."""
        kind = KIND.unpack_from(data, offset)[0] if len(data) - offset >= KIND.size else 0
        size, parse = self.parsers.get(kind, (0, None))
        if parse is None or not size <= length <= len(data) - offset:
            head = bytes(data[offset : offset + 8])
            raise WireError(f"not a record of ours: {length} bytes, {head!r}")
        return parse(data, offset, length, seq)

    def fork(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_fork."""
        fields = FORK.unpack_from(data, at)
        _, pid, ts, start, ppid, creator, parent_start, cgroup_id, pid_ns, level = fields[:10]
        return Fork(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            None,
            ppid or None,
            parent_start // TICK_NS,
            creator if creator and creator != ppid else None,
            text(fields[18]),
            ns_numbers(level, fields[10:18]),
            pid_ns or None,
            cgroup_id or None,
        )

    def exec(self, data: Buffer, at: int, length: int, seq: int) -> Event:
        """Parse struct pt_exec and the argv bytes behind it; secrets are removed here."""
        (_, pid, ts, start, exec_id, old_tid, argv_len, full_len, name_len, comm, filename) = (
            EXEC.unpack_from(data, at)
        )
        first = at + EXEC.size
        if EXEC.size + argv_len > length:
            msg = f"argv of {argv_len} bytes in a record of {length}"
            raise WireError(msg)
        argv = arguments(bytes(data[first : first + argv_len]))
        return Exec(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            None,
            filename[:name_len].decode("utf-8", "replace") if name_len else None,
            redact_argv(argv) if argv_len or not full_len else None,
            argv_len < full_len,
            old_tid or None,
            exec_id,
            text(comm),
        )

    def title(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_title."""
        _, pid, ts, start, title_len, _truncated, comm, title = TITLE.unpack_from(data, at)
        shown = redact_text(title[:title_len].decode("utf-8", "replace")) if title_len else None
        return Title(
            seq, ts, self.origin, pid or None, start // TICK_NS, start, None, shown, text(comm)
        )

    def exit(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_exit."""
        (_, pid, ts, start, wstatus, ppid, utime, stime, runtime, nvcsw, nivcsw, minor, major) = (
            EXIT_HEAD.unpack_from(data, at)
        )
        migrations, max_rss = EXIT_TAIL.unpack_from(data, at + EXIT_HEAD.size)
        exit_code, termsig, core_dumped = decode_wstatus(wstatus) if wstatus else (0, None, False)
        user_ns, system_ns = split_runtime(utime, stime, runtime) if stime else (runtime, 0)
        return Exit(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            None,
            wstatus,
            exit_code,
            termsig,
            core_dumped,
            ppid or None,
            user_ns,
            system_ns,
            nvcsw,
            nivcsw,
            minor,
            major,
            migrations,
            max_rss * self.page_kib,
        )

    def reap(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_reap."""
        _, pid, ts, start, exit_ts = REAP.unpack_from(data, at)
        return Reap(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            None,
            ts - exit_ts if exit_ts else None,
        )

    def signal(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_signal."""
        _, pid, ts, start, sig, code, sender, uid, sender_start, comm = SIGNAL.unpack_from(data, at)
        by_process = sender_start != 0
        return Signal(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            None,
            sig,
            sender or None,
            sender_start // TICK_NS if by_process else None,
            text(comm) if by_process else None,
            uid if by_process else None,
            code,
        )

    def oom(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_oom."""
        _, pid, ts, start, total, anon, has_rss, _, comm = OOM.unpack_from(data, at)
        return Oom(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            None,
            text(comm) or None,
            total * self.page_kib if has_rss else None,
            anon * self.page_kib if has_rss else None,
        )

    def migrate(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_migrate."""
        _, pid, ts, start, tid, from_cpu, to_cpu, _ = MIGRATE.unpack_from(data, at)
        return Migrate(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            None,
            tid or None,
            from_cpu,
            to_cpu,
        )

    def task(self, data: Buffer, at: int, _length: int, seq: int) -> Event:
        """Parse struct pt_task: a process that was there at the snapshot."""
        (_, pid, ts, start, ppid, dead, parent_start, cgroup_id, exec_id, pid_ns, level, *rest) = (
            TASK.unpack_from(data, at)
        )
        return Observed(
            seq,
            ts,
            self.origin,
            pid or None,
            start // TICK_NS,
            start,
            ppid=ppid or None,
            parent_start_ticks=parent_start // TICK_NS if ppid else None,
            comm=text(rest[8]),
            cgroup_id=cgroup_id or None,
            ns_pids=ns_numbers(level, tuple(rest[:8])),
            pid_ns=pid_ns or None,
            exec_id=exec_id,
            dead=bool(dead),
        )


EXIT_HEAD = struct.Struct("=IIQQIIQQQQQQQ")
EXIT_TAIL = struct.Struct("=QQ")


def split_runtime(utime_ns: int, stime_ns: int, runtime_ns: int) -> tuple[int, int]:
    """
    Divide the precise run time as user and system time were sampled.

    What getrusage(2) shows: the scheduler knows the sum to the nanosecond, the
    tick only samples who had it (kernel/sched/cputime.c cputime_adjust).
    """
    if stime_ns == 0:
        return runtime_ns, 0
    if utime_ns == 0:
        return 0, runtime_ns
    system_ns = runtime_ns * stime_ns // (utime_ns + stime_ns)
    return runtime_ns - system_ns, system_ns
