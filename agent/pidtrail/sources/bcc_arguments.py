"""
What bcc's programs see without the kernel's structures: the tracepoints' arguments.

They tell numbers and names, so start times, arguments and titles are joined from
/proc while the process is there; what was gone by then is None. The numbers are
those of the first PID namespace, so in another one this does not open. Who was
there before is found in /proc, after attaching.
"""

from __future__ import annotations

import importlib
import os
import re
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import UNSET, structs

from pidtrail.errors import SourceUnavailable
from pidtrail.events import INITIAL_PID_NS, Event, Exec, Exit, Fidelity, Fork, Observed, Reap, Title
from pidtrail.redact import redact_argv
from pidtrail.sources import core, proc, wire
from pidtrail.sources.bcc_program import compile_text
from pidtrail.sources.bcc_table import BPF_NOEXIST, Table
from pidtrail.sources.member import Member, fitting
from pidtrail.sources.procdir import ProcDirectory, Stat, arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
HOOKS: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "task:task_newtask": ("on_fork", frozenset({"pid", "clone_flags"})),
    "sched:sched_process_exec": ("on_exec", frozenset({"pid", "old_pid", "filename"})),
    "task:task_rename": ("on_rename", frozenset({"pid", "newcomm"})),
    "sched:sched_process_exit": ("on_exit", frozenset({"pid"})),
    "sched:sched_process_free": ("on_free", frozenset({"pid"})),
}
FIELD: Final = re.compile(r"^\tfield:.*?(\w+)(?:\[\w*\])?;", re.MULTILINE)
TRACKED: Final = struct.Struct("=QQII")
SUSPENDED_NS: Final = 10_000_000
ENDING_S: Final = 0.2
U64: Final = struct.Struct("=Q")
E = TypeVar("E", bound=Event)


class Arguments:
    """The programs of bcc_arguments.c, and what /proc adds to them."""

    fidelity: Final = Fidelity(
        has_argv=False,
        has_titles=False,
        has_wstatus=False,
        has_start_ns=False,
        has_counters=False,
        has_signals=False,
        sees_short_lived=True,
        counts_loss=False,
        expected_miss=(
            "exit statuses; arguments, titles and start times of processes that end before they "
            "are looked up in /proc; the parent under CLONE_PARENT and at the end"
        ),
        has_identity=False,
        has_lineage=False,
    )
    now_ns: Final = staticmethod(time.monotonic_ns)
    trusts_group_dead = True
    """A seam for tests: False counts the threads, as on older kernels."""

    def __init__(
        self,
        module: ModuleType,
        transport: Sequence[str],
        next_seq: Callable[[], int],
        *,
        tracefs: Sequence[Path] = TRACEFS,
    ) -> None:
        self.module = module
        self.transport = transport
        self.next_seq = next_seq
        self.tracefs = tracefs
        self.parser = wire.Parser(os.sysconf("SC_PAGE_SIZE") // 1024, "bcc")
        self.proc = ProcDirectory(Path("/proc"))
        self.members: dict[int, Member] = {}
        self.ended: dict[int, Member] = {}
        self.seen: dict[int, tuple[Stat, list[str] | None]] = {}
        self.starts: dict[int, int] = {}
        self.absent: set[int] = set()
        self.bpf: Any = None
        self.looked_ns = 0
        self.gone: dict[int, Member] = {}
        self.renames: dict[int, Title] = {}
        self.offset_ns = 0

    def load(self) -> None:
        """Compile and load. Raises SourceUnavailable."""
        if core.pid_namespace() != INITIAL_PID_NS:
            raise SourceUnavailable("tracepoints tell numbers of the initial PID namespace only")
        flags = self.formats()
        self.set_clock()
        self.bpf = compile_text(
            self.module, "bcc_arguments", [*self.transport, *flags, "-DPT_MONOTONIC"]
        )

    def formats(self) -> list[str]:
        """Return the defines for this kernel's tracepoints. Raises SourceUnavailable."""
        events = next((place / "events" for place in self.tracefs if is_tracefs(place)), None)
        if events is None:
            raise SourceUnavailable(
                "tracefs is not mounted, or may not be read",
                "mount -t tracefs tracefs /sys/kernel/tracing",
            )
        for hook, (_, needed) in HOOKS.items():
            missing = needed - fields(events / hook.replace(":", "/") / "format")
            if missing:
                raise SourceUnavailable(
                    f"this kernel's tracepoint {hook} has no {', '.join(sorted(missing))}"
                )
        # 6.16 and on; before, the program counts the threads.
        found = fields(events / "sched/sched_process_exit/format")
        told = "group_dead" in found and self.trusts_group_dead
        return ["-DPT_GROUP_DEAD_ARGUMENT"] if told else []

    def set_clock(self) -> None:
        """
        Note how far CLOCK_BOOTTIME is ahead of the programs' clock, CLOCK_MONOTONIC.

        It grows in suspend only; smaller differences are between the two calls.
        """
        offset_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        if abs(offset_ns - self.offset_ns) > SUSPENDED_NS:
            self.offset_ns = offset_ns

    def table(self, name: str) -> Table:
        """Return a map."""
        return Table(importlib.import_module("bcc.libbcc").lib, self.bpf[name.encode()])

    def attach(self, roots: Sequence[int], *, migrations: bool) -> None:
        """Attach, then look into /proc until a look adds nobody. Raises SourceUnavailable."""
        if migrations:
            raise SourceUnavailable("without the kernel's structures there are no migrations")
        for hook, (function, _) in HOOKS.items():
            self.bpf.attach_tracepoint(tp=hook.encode(), fn_name=function.encode())
        self.follow(roots)

    def follow(self, roots: Sequence[int]) -> None:
        """Look into /proc for processes and all below them. Raises SourceUnavailable."""
        wanted = set(roots)
        for _ in range(core.MAX_WALKS):
            if not self.adopt(wanted):
                return
        raise SourceUnavailable("the process tree grows faster than it can be read")

    def adopt(self, wanted: set[int]) -> int:
        """Look into /proc once; return how many processes that added to the subtree."""
        subtree, added = self.table("subtree"), 0
        stats = {
            pid: stat
            for pid in self.proc.numbers() or {}
            if pid not in self.members and (stat := self.proc.stat(pid)) is not None
        }
        # For those whose birth is on the way and who may be gone when it comes.
        self.starts.update((pid, stat.start_ticks) for pid, stat in stats.items())
        for pid, stat in sorted(stats.items(), key=lambda item: item[1].start_ticks):
            if pid in wanted or stat.ppid in self.members or subtree.get(key(stat.ppid), 24):
                added += self.take(pid, stat, subtree)
        return added

    def take(self, pid: int, stat: Stat, subtree: Table) -> bool:
        """Take a process that was there before into the subtree; tell whether that was news."""
        cmdline = self.proc.cmdline(pid)
        argv = arguments(cmdline) if cmdline is not None else None
        if pid in self.seen:
            return False
        if not stat.dead:
            entry = TRACKED.pack(0, 0, pid, stat.threads)
            if not subtree.set(key(pid), entry, BPF_NOEXIST):
                # It was born under our eyes, and its birth is on the way.
                return False
            # It may have ended, and the number be another's, before the program knew of it.
            now = self.settled(pid, stat)
            alive = now is not None and now.start_ticks == stat.start_ticks and not now.dead
            if not alive and subtree.delete(key(pid)):
                if now is None or now.start_ticks != stat.start_ticks:
                    return False
                stat = now
        member = Member(stat.start_ticks, 0, stat.threads, argv)
        self.seen[pid] = (stat, argv)
        if stat.dead:
            self.ended[pid] = member
            self.table("zombies").set(key(pid), U64.pack(time.monotonic_ns()), BPF_NOEXIST)
        else:
            self.members[pid] = member
        return True

    def settled(self, pid: int, stat: Stat) -> Stat | None:
        """
        Return what has become of a process that was just made known to the program.

        Who is ending is waited for: only when it is dead is it certain that its
        sched_process_exit is past, and by whether it is still known to the program
        that it came before. A first thread may end long before the others.
        """
        give_up = time.monotonic() + ENDING_S
        now = self.proc.stat(pid)
        while (
            now is not None
            and now.start_ticks == stat.start_ticks
            and now.exiting
            and not now.dead
            and time.monotonic() < give_up
        ):
            time.sleep(ENDING_S / 200)
            now = self.proc.stat(pid)
        return now

    def snapshot(self) -> list[Event]:
        """Return who is traced now, and the first time also who ended since `attach` found it."""
        self.adopt(set())
        found, self.seen = self.seen, {}
        absent = set()
        for pid, member in self.members.items():
            stat = self.proc.stat(pid)
            if stat is None or not self.is_there(member, stat.start_ticks):
                absent.add(pid)
            elif stat.start_ticks == member.start_ticks:
                found[pid] = (stat, proc.argv(pid))
        # Gone at two snapshots in a row, and no end came: it was lost.
        for pid in absent & self.absent:
            del self.members[pid]
        self.absent = absent
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return [
            Observed(
                self.next_seq(),
                now_ns,
                "bcc",
                pid,
                stat.start_ticks,
                ppid=stat.ppid or None,
                parent_start_ticks=proc.start_ticks(stat.ppid) if stat.ppid else None,
                comm=stat.comm,
                argv=redact_argv(argv) if argv is not None else None,
                cgroup=proc.cgroup(pid),
                ns_pids=self.proc.ns_pids(pid),
                pid_ns=self.proc.namespace(pid),
                dead=stat.dead,
            )
            for pid, (stat, argv) in found.items()
        ]

    def complete(self, event: Event) -> Event:
        """Return a record in our clock, with what /proc adds to it."""
        event = structs.replace(
            event, ts_boot_ns=event.ts_boot_ns + self.offset_ns, start_ticks=None, start_ns=None
        )
        pid = event.pid
        if pid is None:
            return event
        if isinstance(event, Fork):
            return self.born(event, pid)
        if isinstance(event, Reap):
            member = self.ended.pop(pid, None)
        elif isinstance(event, Exit):
            member = self.members.pop(pid, None)
            if member is not None:
                self.ended[pid] = member
            event = structs.replace(Exit(event.seq, event.ts_boot_ns, event.origin), pid=pid)
        else:
            member = self.members.get(pid)
        if member is None:
            return event
        if isinstance(event, Exec | Title):
            event = self.renamed(event, pid, member)
        return named(event, member)

    def arrange(self, events: list[Event]) -> list[Event]:
        """
        Return records without the renames that execve itself does (fs/exec.c begin_new_exec).

        They come just before the exec, so a rename waits for the next record of
        its process, or for the next look.
        """
        self.set_clock()
        arranged: list[Event] = []
        waiting, fresh = self.renames, dict[int, Title]()
        for event in events:
            pid = event.pid or 0
            rename = fresh.pop(pid, None) or waiting.pop(pid, None)
            if rename is not None and not (isinstance(event, Exec) and event.comm == rename.comm):
                arranged.append(rename)
            if isinstance(event, Title):
                fresh[pid] = event
            else:
                arranged.append(event)
        arranged += waiting.values()
        self.renames = fresh
        return arranged

    def born(self, event: Fork, pid: int) -> Fork:
        """Return a birth with the start times of child and parent."""
        ticks = fitting(proc.start_ticks(pid), event.ts_boot_ns)
        if ticks is None:
            ticks = fitting(self.starts.get(pid), event.ts_boot_ns)
        parent = self.members.get(event.ppid) if event.ppid is not None else None
        member = Member(ticks, event.ts_boot_ns, argv=parent.argv if parent is not None else None)
        self.members[pid] = member
        unconfirmed = parent is not None and parent.start_ticks is None
        return structs.replace(
            named(event, member),
            parent_start_ticks=parent.start_ticks if parent is not None else None,
            parent_born_ns=parent.born_ns if parent is not None and unconfirmed else UNSET,
            ns_pids=self.proc.ns_pids(pid) if ticks is not None else None,
        )

    def renamed(self, event: Exec | Title, pid: int, member: Member) -> Exec | Title:
        """Return an exec or a rename with what the process shows of itself, if it is there."""
        there = self.is_there(member, proc.start_ticks(pid))
        argv = proc.argv(pid) if there else None
        if isinstance(event, Exec):
            member.argv = argv
            return structs.replace(
                event, argv=argv, argv_truncated=False if argv is not None else None, exec_id=None
            )
        title = argv[0] if argv is not None and len(argv) == 1 and argv != member.argv else None
        return structs.replace(event, title=title)

    def silent_reaps(self, now_ns: int, *, last: bool = False) -> list[Event]:
        """Return the reapings that were not told: gone at two looks, or at the last."""
        if not last and now_ns - self.looked_ns < core.LOOK_AFTER_NS:
            return []
        self.looked_ns = now_ns
        gone = {
            pid: member
            for pid, member in self.ended.items()
            if not self.is_there(member, proc.start_ticks(pid))
        }
        zombies, events = self.table("zombies"), list[Event]()
        for pid, member in gone.items():
            if not last and self.gone.get(pid) is not member:
                continue
            del self.ended[pid]
            # Whoever deletes it reports it: this, or on_free in the meantime.
            if zombies.delete(key(pid)):
                boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                events.append(named(Reap(self.next_seq(), boot_ns, "bcc", pid), member))
        self.gone = gone
        return events

    def is_there(self, member: Member, ticks: int | None) -> bool:
        """Tell whether a number still belongs to a process, if it now has this start."""
        if member.start_ticks is None:
            return fitting(ticks, member.born_ns) is not None
        return ticks == member.start_ticks

    def close(self) -> None:
        """Detach and unload. May be called twice."""
        if self.bpf is not None:
            self.bpf.cleanup()
            self.bpf = None


def named(event: E, member: Member) -> E:
    """Return a record with the identity of its process."""
    born_ns = member.born_ns if member.start_ticks is None else UNSET
    return structs.replace(event, start_ticks=member.start_ticks, born_ns=born_ns)


def key(pid: int) -> bytes:
    """Return a number as the maps have it."""
    return pid.to_bytes(4, "little")


def is_tracefs(place: Path) -> bool:
    """Tell whether there are tracepoints to be read."""
    try:
        return (place / "events/sched").is_dir()
    except OSError:
        return False


def fields(path: Path) -> set[str]:
    """Return the names of a tracepoint's arguments, as its format file has them."""
    try:
        return set(FIELD.findall(path.read_text(encoding="ascii", errors="replace")))
    except OSError:
        return set()
