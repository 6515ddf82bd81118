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
counted, as long as each message since its birth was heard; of the others /proc
must say which exit was the last. Each message carries a counter of its CPU: a
gap in it is exactly what was lost. At the start and after an overflow we rename
ourselves once on every CPU, to the same name, so that the kernel says all counters.
"""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from pidtrail.clock import TICK_NS
from pidtrail.errors import SourceUnavailable
from pidtrail.events import (
    INITIAL_PID_NS,
    Event,
    Exec,
    Exit,
    Fidelity,
    Fork,
    Lost,
    Observed,
    Title,
)
from pidtrail.sources import cnproc, proc
from pidtrail.sources.cnsocket import RECEIVE_BYTES, listen, say_counters
from pidtrail.sources.member import Member, fitting
from pidtrail.wstatus import decode_wstatus

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH: Final = 2000
ALIVE_AFTER_NS: Final = 50_000_000
"""Who is no zombie so long after the exit of a thread has others that live."""


class ConnectorSource:
    """The proc connector; see sources/source.py for the methods."""

    name = "connector"
    fidelity = Fidelity(
        # Joined from /proc, so not of a process that ends at once.
        has_argv=False,
        has_titles=False,
        has_identity=False,
        # The creator under CLONE_PARENT is not told.
        has_lineage=False,
        has_reaps=False,
        has_wstatus=True,
        has_start_ns=False,
        has_counters=False,
        has_signals=False,
        sees_short_lived=True,
        counts_loss=True,
        expected_miss=(
            "arguments, titles and start times of processes that end before they are looked up "
            "in /proc; who called fork under CLONE_PARENT; after a loss, a process whose birth was "
            "lost and whose parent has ended since"
        ),
    )

    def __init__(self, receive_bytes: int = RECEIVE_BYTES) -> None:
        self.receive_bytes = receive_bytes
        self.socket: socket.socket | None = None
        self.members: dict[int, Member] = {}
        self.doubtful: dict[int, tuple[Member, cnproc.Message]] = {}
        self.missing: dict[int, Member] = {}
        self.losses = 0
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
        self.socket = listen(self.receive_bytes)
        self.set_clock()
        say_counters()
        self.adopt(roots)

    def follow(self, roots: Sequence[int]) -> None:
        """Take the roots and all below them into the subtree; what was heard is read later."""
        self.adopt(roots)

    def set_clock(self) -> None:
        """
        Note how far CLOCK_BOOTTIME is ahead of the connector's clock, CLOCK_MONOTONIC.

        An interruption between two readings makes the difference smaller, so the largest is right.
        """
        readings = []
        for _ in range(10):
            self.read_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            readings.append(self.read_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        self.offset_ns = max(readings)

    def adopt(self, roots: Sequence[int]) -> None:
        """Take the roots and all that descends from them now into the subtree."""
        began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        children = proc.children_of_all()
        waiting = list(roots)
        while waiting:
            pid = waiting.pop()
            ticks = proc.start_ticks(pid)
            known = self.members.get(pid)
            # Who was born since then may be another, to whom the number went; we hear of it.
            if ticks is None or ticks * TICK_NS > began_ns or (known and known.owns(ticks)):
                continue
            self.members[pid] = Member(
                ticks, 0, argv=proc.argv(pid), losses=self.losses, found=True
            )
            waiting += children.get(pid, ())

    def look(self) -> None:
        """Adopt whom we did not hear of; note who is not there any more, or is another."""
        self.missing = {
            pid: member
            for pid, member in self.members.items()
            if not member.owns(proc.start_ticks(pid))
        }
        children = proc.children_of_all()
        known = self.members.keys() - self.missing.keys()
        self.adopt([child for pid in known for child in children.get(pid, ())])

    def snapshot(self) -> list[Event]:
        """Return the traced processes as /proc shows them now."""
        self.look()
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        events: list[Event] = []
        for pid, member in self.members.items():
            fields = proc.stat_fields(pid)
            if fields is None or not member.owns(proc.start_ticks(pid)):
                continue
            ppid = proc.ppid(pid)
            events.append(
                Observed(
                    self.next_seq(), now_ns, self.name,
                    **member.head(pid),  # type: ignore[arg-type]
                    ppid=ppid,
                    parent_start_ticks=proc.start_ticks(ppid) if ppid is not None else None,
                    comm=proc.comm(pid),
                    argv=proc.argv(pid),
                    cgroup=proc.cgroup(pid),
                    ns_pids=proc.ns_pids(pid),
                    dead=proc.is_dead(fields),
                )
            )  # fmt: skip
        return events

    def read(self) -> list[Event]:
        """Return one batch of messages. Raises SourceUnavailable if the socket is gone."""
        assert self.socket is not None  # noqa: S101 (open comes first)
        events: list[Event] = []
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        receive = self.socket.recv
        drained = False
        for _ in range(BATCH):
            try:
                data = receive(cnproc.MESSAGE_BYTES)
            except BlockingIOError:
                if drained := not self.overflowed:
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
        if self.doubtful:
            self.settle(events, now_ns)
        if drained and self.missing:
            self.forget_missing()
        self.read_ns = now_ns
        return events

    def last(self) -> list[Event]:
        """Return nothing: whose end is in doubt after a `read` was alive when it looked."""
        return []

    def forget_missing(self) -> None:
        """Drop whom the last look missed: all that was said before it has been heard by now."""
        for pid, member in self.missing.items():
            if self.members.get(pid) is member and pid not in self.doubtful:
                del self.members[pid]
        self.missing.clear()

    def settle(self, events: list[Event], now_ns: int) -> None:
        """Ask /proc whether those whose threads are not counted have ended."""
        for pid, (member, message) in list(self.doubtful.items()):
            fields = proc.stat_fields(pid)
            there = fields is not None and member.owns(proc.start_ticks(pid))
            if fields is None or not there or proc.is_dead(fields):
                self.end(pid, member, message, events)
            elif now_ns - message.monotonic_ns - self.offset_ns > ALIVE_AFTER_NS:
                del self.doubtful[pid]

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
        elif self.is_member(message.tgid, message):
            if what == cnproc.EXIT:
                self.on_exit(message, events)
            elif what == cnproc.EXEC:
                self.on_exec(message, events)
            elif what == cnproc.COMM and message.pid == message.tgid:
                self.on_comm(message, events)

    def is_member(self, pid: int, message: cnproc.Message) -> bool:
        """Return whether a message speaks of a process of ours, and not of who has its number."""
        member = self.members.get(pid)
        if member is None:
            return False
        if member.losses == self.losses:
            return True
        ticks = proc.start_ticks(pid)
        # Another's start after the message says nothing of whom the message spoke.
        ts_ns = message.monotonic_ns + self.offset_ns
        return ticks is None or member.owns(ticks) or ticks * TICK_NS > ts_ns

    def on_fork(self, message: cnproc.Message, events: list[Event]) -> None:
        """Take in a new thread or process."""
        pid, ts_ns = message.pid, message.monotonic_ns + self.offset_ns
        if pid != message.tgid:
            if (member := self.members.get(message.tgid)) is not None:
                member.threads += 1
            return
        if pid in self.doubtful:
            self.end(pid, *self.doubtful[pid], events)
        # Whoever had the number has it no more, also if the birth is none of ours.
        known = self.members.pop(pid, None)
        if not self.is_member(message.parent_tgid, message):
            # A root that was found in /proc before we read of its birth.
            if known is not None and self.start_of(known, ts_ns) is not None:
                self.members[pid] = known
            return
        parent = self.members[message.parent_tgid]
        ticks = self.start_of(known, ts_ns) or fitting(proc.start_ticks(pid), ts_ns)
        member = self.members[pid] = Member(ticks, ts_ns, argv=parent.argv, losses=self.losses)
        events.append(
            Fork(
                self.next_seq(), ts_ns, self.name,
                **member.head(pid),  # type: ignore[arg-type]
                ppid=message.parent_tgid,
                parent_start_ticks=parent.start_ticks,
                parent_born_ns=parent.born_ns if parent.start_ticks is None else UNSET,
            )
        )  # fmt: skip

    def start_of(self, known: Member | None, ts_ns: int) -> int | None:
        """
        Return the start of who was found in /proc, if a birth is his, or None.

        It is if nothing was lost, however long it took to be told: his end would have been told
        before the birth of another with his number.
        """
        if known is None or known.start_ticks is None or not known.found:
            return None
        if known.losses == self.losses and known.start_ticks * TICK_NS <= ts_ns:
            return known.start_ticks
        return fitting(known.start_ticks, ts_ns)

    def on_exec(self, message: cnproc.Message, events: list[Event]) -> None:
        """Take in a new program image: by now all other threads are gone (fs/exec.c de_thread)."""
        pid, member = message.tgid, self.members[message.tgid]
        member.threads = 1
        ts_ns = message.monotonic_ns + self.offset_ns
        argv = proc.argv(pid) if member.owns(proc.start_ticks(pid)) else None
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
        argv = proc.argv(pid) if member.owns(proc.start_ticks(pid)) else None
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
        """Take in the end of a thread, which is the end of the process if it was the last."""
        pid, member = message.tgid, self.members[message.tgid]
        member.threads -= 1
        if member.found or member.losses != self.losses:
            self.doubtful[pid] = member, message
        elif member.threads <= 0:
            self.end(pid, member, message, events)

    def end(self, pid: int, member: Member, message: cnproc.Message, events: list[Event]) -> None:
        """
        Tell the end of a process by the exit of its last thread.

        The exit code of that is the group's: every thread that exit_group or a
        signal ends has it (kernel/exit.c do_group_exit).
        """
        self.doubtful.pop(pid, None)
        if self.members.get(pid) is not member:
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

    def lost(self, count: int | None, reason: str) -> Lost:
        """Return a `lost` record that covers the span since the last look."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.losses += 1
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
        self.doubtful.clear()
        self.missing.clear()
