"""
Source `connector`: the kernel's netlink process connector (drivers/connector/cn_proc.c).

Theory of operation
-------------------
The kernel tells of every fork, exec, exit and rename on the host, by number
only, and only inside the initial PID namespace; since 6.6 also to users without
privileges. The subtree is kept here. What a number does not tell is joined from
/proc while the process is still there: its start, its arguments. A start is
taken only if it fits the time of the fork, so that another process that has
the number by now is not taken for it; a process that was gone already has
`start_ticks` None and is told apart by `born_ns`.

Exits are of threads. A process ends when its last thread does, so threads are
counted. Each message carries a counter of its CPU: a gap in it is exactly what
was lost. After an overflow we rename ourselves once on every CPU, to the same
name, which makes the kernel say all counters.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from pidtrail.clock import TICK_NS
from pidtrail.errors import SourceUnavailable
from pidtrail.events import (
    Event,
    Exec,
    Exit,
    Fidelity,
    Fork,
    Lost,
    Observed,
    Title,
    decode_wstatus,
)
from pidtrail.sources import cnproc, proc
from pidtrail.sources.core import INITIAL_PID_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

RECEIVE_BYTES: Final = 32 << 20
BATCH: Final = 2000
SO_RCVBUFFORCE: Final = 33
"""include/uapi/asm-generic/socket.h; not in Python's socket module."""


@dataclass(slots=True)
class Member:
    """A traced process: what identifies it, how many threads it has, what it last called itself."""

    start_ticks: int | None
    born_ns: int
    threads: int = 1
    argv: list[str] | None = None

    def head(self, pid: int) -> dict[str, int | None]:
        """Return the identifying fields of its records."""
        if self.start_ticks is None:
            return {"pid": pid, "start_ticks": None, "born_ns": self.born_ns}
        return {"pid": pid, "start_ticks": self.start_ticks}


class ConnectorSource:
    """The proc connector; see sources/source.py for the methods."""

    name = "connector"
    fidelity = Fidelity(
        has_argv=True,
        has_titles=True,
        has_wstatus=True,
        has_start_ns=False,
        has_counters=False,
        has_signals=False,
        sees_short_lived=True,
        counts_loss=True,
        expected_miss=(
            "arguments, titles and start times of processes that end before they are looked up "
            "in /proc; who called fork under CLONE_PARENT"
        ),
    )

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.members: dict[int, Member] = {}
        self.seq = 0
        self.counters: dict[int, int] = {}
        self.read_ns = 0
        self.overflowed = False
        self.offset_ns = 0

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:
        """Listen, then find what is there. Raises SourceUnavailable."""
        if migrations:
            raise SourceUnavailable("the proc connector does not tell of migrations")
        if Path("/proc/self/ns/pid").stat().st_ino != INITIAL_PID_NS:
            raise SourceUnavailable(
                "the proc connector speaks only in the initial PID namespace (cn_proc_mcast_ctl)"
            )
        self.socket = listen()
        self.set_clock()
        self.adopt(roots)

    def set_clock(self) -> None:
        """Note how far CLOCK_BOOTTIME is ahead of the connector's clock, CLOCK_MONOTONIC."""
        self.read_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.offset_ns = self.read_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def adopt(self, roots: Sequence[int]) -> None:
        """Take the roots and all that descends from them now into the subtree."""
        children = proc.children_of_all()
        waiting = list(roots)
        while waiting:
            pid = waiting.pop()
            ticks = proc.start_ticks(pid)
            if ticks is None:
                continue
            known = self.members.get(pid)
            if known is None or known.start_ticks != ticks:
                self.members[pid] = Member(ticks, 0, proc.thread_count(pid) or 1, proc.argv(pid))
                waiting += children.get(pid, ())
            else:
                known.threads = proc.thread_count(pid) or known.threads
                waiting += [child for child in children.get(pid, ()) if child not in self.members]

    def snapshot(self) -> list[Event]:
        """Return the traced processes as /proc shows them now."""
        self.adopt(list(self.members))
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        events: list[Event] = []
        for pid, member in self.members.items():
            fields = proc.stat_fields(pid)
            if fields is None or proc.start_ticks(pid) != member.start_ticks:
                continue
            events.append(
                Observed(
                    self.next_seq(), now_ns, self.name,
                    **member.head(pid),  # type: ignore[arg-type]
                    ppid=int(fields[1]) or None,
                    parent_start_ticks=proc.start_ticks(int(fields[1])),
                    comm=proc.comm(pid),
                    argv=proc.argv(pid),
                    cgroup=proc.cgroup(pid),
                    ns_pids=proc.ns_pids(pid),
                    dead=fields[0] == "Z" and member.threads <= 1,
                )
            )  # fmt: skip
        return events

    def read(self) -> list[Event]:
        """Return one batch of messages. Raises SourceUnavailable if the socket is gone."""
        assert self.socket is not None  # noqa: S101 (open comes first)
        events: list[Event] = []
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        receive = self.socket.recv
        for _ in range(BATCH):
            try:
                data = receive(cnproc.MESSAGE_BYTES)
            except BlockingIOError:
                if not self.overflowed:
                    break
                self.overflowed = False
                say_counters()
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise SourceUnavailable(f"the netlink socket is gone: {error}") from error
                self.overflowed = True
                continue
            self.take(data, events)
        self.read_ns = now_ns
        return events

    def take(self, data: bytes, events: list[Event]) -> None:
        """Take in one message."""
        message = cnproc.parse(data)
        if message is None:
            events.append(
                self.lost(None, f"a message of {len(data)} bytes that is none of cn_proc")
            )
            return
        expected = self.counters.get(message.cpu)
        self.counters[message.cpu] = (message.counter + 1) & 0xFFFFFFFF
        if expected is not None and message.counter != expected:
            missing = (message.counter - expected) & 0xFFFFFFFF
            events.append(self.lost(missing, "receive buffer full: events of the whole host"))
        what = message.what
        if what == cnproc.FORK:
            self.on_fork(message, events)
        elif message.tgid in self.members:
            if what == cnproc.EXIT:
                self.on_exit(message, events)
            elif what == cnproc.EXEC:
                self.on_exec(message, events)
            elif what == cnproc.COMM and message.pid == message.tgid:
                self.on_comm(message, events)

    def on_fork(self, message: cnproc.Message, events: list[Event]) -> None:
        """Take in a new thread or process."""
        if message.pid != message.tgid:
            member = self.members.get(message.tgid)
            if member is not None:
                member.threads += 1
            return
        parent = self.members.get(message.parent_tgid)
        if parent is None:
            return
        ts_ns = message.monotonic_ns + self.offset_ns
        ticks = fitting(proc.start_ticks(message.pid), ts_ns)
        member = self.members[message.pid] = Member(ticks, ts_ns, argv=parent.argv)
        events.append(
            Fork(
                self.next_seq(), ts_ns, self.name,
                **member.head(message.pid),  # type: ignore[arg-type]
                ppid=message.parent_tgid,
                parent_start_ticks=parent.start_ticks,
                parent_born_ns=parent.born_ns if parent.start_ticks is None else UNSET,
            )
        )  # fmt: skip

    def on_exec(self, message: cnproc.Message, events: list[Event]) -> None:
        """Take in a new program image: by now all other threads are gone (fs/exec.c de_thread)."""
        pid, member = message.tgid, self.members[message.tgid]
        member.threads = 1
        ts_ns = message.monotonic_ns + self.offset_ns
        argv = proc.argv(pid) if self.is_there(pid, member) else None
        member.argv = argv
        events.append(
            Exec(
                self.next_seq(), ts_ns, self.name,
                **member.head(pid),  # type: ignore[arg-type]
                argv=argv,
                argv_truncated=False if argv is not None else None,
                comm=proc.comm(pid) if argv is not None else None,
            )
        )  # fmt: skip
        numbers = proc.ns_pids(pid) if argv is not None else None
        if numbers is not None and len(numbers) > 1:
            events.append(
                Observed(
                    self.next_seq(), ts_ns, self.name,
                    **member.head(pid),  # type: ignore[arg-type]
                    ns_pids=numbers,
                )
            )  # fmt: skip

    def on_comm(self, message: cnproc.Message, events: list[Event]) -> None:
        """Take in a rename; one argument that was not there before is a title."""
        pid, member = message.tgid, self.members[message.tgid]
        argv = proc.argv(pid) if self.is_there(pid, member) else None
        title = argv[0] if argv is not None and len(argv) == 1 and argv != member.argv else None
        events.append(
            Title(
                self.next_seq(), message.monotonic_ns + self.offset_ns, self.name,
                **member.head(pid),  # type: ignore[arg-type]
                title=title,
                comm=message.comm,
            )
        )  # fmt: skip

    def on_exit(self, message: cnproc.Message, events: list[Event]) -> None:
        """
        Take in the end of a thread, which is the end of the process if it was the last.

        Its exit code is then the group's: every thread that exit_group or a
        signal ends has it (kernel/exit.c do_group_exit).
        """
        pid, member = message.tgid, self.members[message.tgid]
        member.threads -= 1
        if member.threads > 0:
            return
        del self.members[pid]
        exit_code, termsig, core_dumped = decode_wstatus(message.exit_code)
        events.append(
            Exit(
                self.next_seq(), message.monotonic_ns + self.offset_ns, self.name,
                **member.head(pid),  # type: ignore[arg-type]
                wstatus=message.exit_code,
                exit_code=exit_code,
                termsig=termsig,
                core_dumped=core_dumped,
                ppid=message.parent_tgid or None,
            )
        )  # fmt: skip

    def is_there(self, pid: int, member: Member) -> bool:
        """Return whether the number still belongs to this process."""
        ticks = proc.start_ticks(pid)
        if member.start_ticks is None:
            return fitting(ticks, member.born_ns) is not None
        return ticks == member.start_ticks

    def lost(self, count: int | None, reason: str) -> Lost:
        """Return a `lost` record that covers the span since the last look."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.seq += (count or 0) + 1
        return Lost(
            self.seq, now_ns, self.name,
            count=count, from_ns=self.read_ns, to_ns=now_ns, reason=reason,
        )  # fmt: skip

    def next_seq(self) -> int:
        """Take the next number of the stream, for a record that comes from elsewhere."""
        self.seq += 1
        return self.seq

    def close(self) -> None:
        """Stop listening. May be called twice."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self.members.clear()


def fitting(start_ticks: int | None, born_ns: int) -> int | None:
    """
    Return a start time from /proc if it can be that of a process born just before `born_ns`.

    copy_process takes the start time some microseconds before it tells of the
    fork, so it is in the same tick or in the one before.
    """
    if start_ticks is None:
        return None
    return start_ticks if 0 <= born_ns // TICK_NS - start_ticks <= 1 else None


def listen() -> socket.socket:
    """
    Return a socket on which the kernel tells of processes. Raises SourceUnavailable.

    pyroute2 does the handshake; its own reader takes 115-143 µs per message and
    loses most of them in a storm, so the messages are read from a plain socket.
    """
    from pyroute2.netlink.connector.cn_proc import ProcEventSocket  # noqa: PLC0415 (28 MB)

    connector = ProcEventSocket()
    try:
        connector.bind()
        connector.control(listen=True)
        plain = socket.socket(fileno=os.dup(connector.fileno()))
    except Exception as error:
        raise SourceUnavailable(f"the kernel refuses the proc connector: {error}") from error
    finally:
        connector.close()
    plain.setblocking(False)  # noqa: FBT003 (socket's signature)
    try:
        plain.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
    except PermissionError:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    return plain


def say_counters() -> None:
    """Make the kernel send one message from each CPU, so that its counter is known."""
    allowed = os.sched_getaffinity(0)
    comm = Path("/proc/thread-self/comm")
    name = comm.read_text()
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            comm.write_text(name)
    finally:
        os.sched_setaffinity(0, allowed)
