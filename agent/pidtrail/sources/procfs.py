"""
Source `procfs`: look into /proc again and again. The last rung of the ladder.

Theory of operation
-------------------
A poll lists /proc once. The list has the inode of each directory, and a new
(pid, inode) pair is a new process: only those are opened, so thousands of
processes that stay as they are cost one listing. A new process whose parent is
traced joins. One that lost its parent before we looked joins if its session was
opened by a traced process: sessions are inherited and cannot be entered.

Nothing in /proc tells that a process changed. Those that are young are looked at
again after 0.1, 0.3, 1, 3 and 10 seconds, because that is when programs exec and
name themselves; later every 10 seconds; those that look like Airflow's workers
and supervisors, which rename themselves for every task, at every poll. Whose
parent vanishes is looked at at once.

Who lives and dies between two polls is never seen: `missed.miss_rate` says how many.
Times are those of the look, not of what it shows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pidtrail.airflow.facts import Role
from pidtrail.airflow.identify import shown_facts
from pidtrail.errors import SourceUnavailable, UsageError
from pidtrail.events import Event, Exec, Exit, Fidelity, Fork, Observed, Reap, Title
from pidtrail.redact import redact_argv, redact_text
from pidtrail.sources.missed import expected_miss
from pidtrail.sources.procdir import TEXT_BYTES, ProcDirectory, Stat, arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT_INTERVAL_S: Final = 0.1
SECOND_NS: Final = 1_000_000_000
LOOKS_NS: Final = tuple(int(age * SECOND_NS) for age in (0.1, 0.3, 1, 3, 10))
"""The ages at which a process is looked at again."""
LATER_NS: Final = 10 * SECOND_NS
RENAME_THEMSELVES: Final = frozenset({Role.EXECUTOR_WORKER, Role.SUPERVISOR, Role.CELERY_WORKER})


@dataclass(slots=True)
class Member:
    """
    A traced process as it looked last.

    `cmdline` is None for a process without memory of its own, a zombie; `exe`
    also where we may not know it.
    """

    start_ticks: int
    ppid: int
    comm: str
    cmdline: bytes | None
    exe: str | None
    seen_ns: int
    next_look_ns: int = 0
    dead: bool = False

    @property
    def argv(self) -> list[str] | None:
        """The command line in parts; a rewritten title is one."""
        return arguments(self.cmdline) if self.cmdline is not None else None


class ProcfsSource:
    """
    Polls /proc; see sources/source.py for the methods.

    `root` is where /proc is and `now_ns` tells CLOCK_BOOTTIME: seams for tests.
    """

    name = "procfs"

    def __init__(
        self,
        interval_s: float = DEFAULT_INTERVAL_S,
        root: Path = Path("/proc"),
        now_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        if not interval_s > 0:
            raise UsageError("the interval must be more than 0 seconds")
        self.fidelity = Fidelity(
            # Of who lives long enough, and as they are when we look.
            has_argv=False,
            has_titles=False,
            has_wstatus=False,
            has_start_ns=False,
            has_counters=False,
            has_signals=False,
            sees_short_lived=False,
            counts_loss=False,
            expected_miss=expected_miss(interval_s),
            has_identity=False,
            has_lineage=False,
            has_reaps=False,
        )
        self.interval_ns = max(1, int(interval_s * SECOND_NS))
        self.proc = ProcDirectory(root)
        self.now_ns = now_ns
        self.members: dict[int, Member] = {}
        self.inodes: dict[int, int] = {}
        self.due_ns = 0
        self.seq = 0
        self.told: set[str] = set()

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:
        """Find the roots and all that descends from them now. Raises SourceUnavailable."""
        if migrations:
            raise SourceUnavailable("/proc does not tell of migrations")
        numbers = self.proc.numbers()
        if numbers is None:
            raise SourceUnavailable(
                f"there is no /proc to read at {self.proc.root}",
                "mount -t proc proc /proc",
            )
        now_ns = self.now_ns()
        self.inodes = numbers
        wanted = set(roots)
        for _ in self.joining(numbers, now_ns, wanted):
            pass
        self.due_ns = now_ns + self.interval_ns

    def follow(self, roots: Sequence[int]) -> None:
        """Take the roots and all below them into the subtree; the births of others are to come."""
        others = {p: i for p, i in (self.proc.numbers() or {}).items() if p not in self.members}
        for pid, _ in self.joining(others, self.now_ns(), set(roots)):
            # So that it is missed in the next list, should it end before.
            self.inodes[pid] = others[pid]

    def snapshot(self) -> list[Event]:
        """Return the traced processes as they were last seen."""
        return [self.observed(pid, member, member.seen_ns) for pid, member in self.members.items()]

    def read(self) -> list[Event]:
        """Look into /proc if it is time, and return what became different."""
        now_ns = self.now_ns()
        if now_ns < self.due_ns:
            return []
        # On a grid, so that a caller who comes late now and then does not stretch the interval.
        self.due_ns += self.interval_ns
        if self.due_ns <= now_ns:
            self.due_ns = now_ns + self.interval_ns
        return list(self.poll(now_ns))

    def last(self) -> list[Event]:
        """Look once more: the interval may be much longer than what the end waits for."""
        return list(self.poll(self.now_ns()))

    def until_due_s(self) -> float:
        """Return how long until the next look, so that whoever calls `read` can be in time."""
        return max(0, self.due_ns - self.now_ns()) / SECOND_NS

    def poll(self, now_ns: int) -> Iterator[Event]:
        """Look once, and yield what became different."""
        numbers = self.proc.numbers()
        if numbers is None:
            return
        new = dict(numbers.items() - self.inodes.items())
        left = {pid for pid in self.inodes.keys() - numbers.keys() if pid in self.members}
        self.inodes = numbers
        for pid in sorted(left):
            yield from self.ended(pid, now_ns)
        for pid in [pid for pid in new if pid in self.members]:
            stat = self.proc.stat(pid)
            # The same start: only the inode is new. None: gone again, and the next list says so.
            if stat is None or stat.start_ticks == self.members[pid].start_ticks:
                del new[pid]
            else:
                left.add(pid)
                yield from self.ended(pid, now_ns)
        for pid, member in self.joining(new, now_ns):
            yield self.born(pid, member, now_ns)
            yield self.observed(pid, member, now_ns)
        for pid, member in list(self.members.items()):
            # Whose parent is gone was adopted by somebody.
            if member.next_look_ns <= now_ns or member.ppid in left:
                yield from self.look(pid, now_ns)

    def joining(
        self, candidates: dict[int, int], now_ns: int, wanted: set[int] | None = None
    ) -> Iterator[tuple[int, Member]]:
        """Take in those that are wanted, or else belong to who is in, parents first; yield them."""
        stats: dict[int, Stat] = {}
        children: dict[int, list[int]] = {}
        for pid in candidates:
            stat = self.proc.stat(pid)
            if stat is None:
                continue
            stats[pid] = stat
            children.setdefault(stat.ppid, []).append(pid)
        waiting = [
            pid
            for pid, stat in stats.items()
            if (self.belongs(stat) if wanted is None else pid in wanted)
        ]
        while waiting:
            pid = waiting.pop(0)
            if pid in self.members:
                continue
            member = self.members[pid] = self.first_look(pid, stats[pid], now_ns)
            yield pid, member
            waiting += children.get(pid, ())

    def belongs(self, stat: Stat) -> bool:
        """
        Tell whether a process is of the subtree.

        setsid(2) makes a session, named by the number of its maker, that only
        descendants can be in; the number is not given again while it lasts.
        """
        leader = self.members.get(stat.session)
        return stat.ppid in self.members or (
            leader is not None and leader.start_ticks <= stat.start_ticks
        )

    def first_look(self, pid: int, stat: Stat, now_ns: int) -> Member:
        """Return a process as it looks now."""
        member = Member(
            start_ticks=stat.start_ticks,
            ppid=stat.ppid,
            comm=stat.comm,
            cmdline=self.proc.cmdline(pid),
            exe=self.proc.exe(pid),
            seen_ns=now_ns,
            dead=stat.dead,
        )
        self.plan(member, now_ns)
        return member

    def plan(self, member: Member, now_ns: int) -> None:
        """Decide when to look at a process next."""
        # Ages count from when it was first seen: for its start there are only ticks.
        age_ns = now_ns - member.seen_ns
        ages = (look_ns for look_ns in LOOKS_NS if look_ns > age_ns)
        member.next_look_ns = (
            now_ns
            if renames_itself(member.argv)
            else member.seen_ns + next(ages, age_ns + LATER_NS)
        )

    def look(self, pid: int, now_ns: int) -> Iterator[Event]:
        """Look at a process again, and yield what became different about it."""
        member = self.members[pid]
        stat = self.proc.stat(pid)
        if stat is None:
            self.plan(member, now_ns)
            return
        if stat.start_ticks != member.start_ticks:
            # The number was given again between the listing and this look.
            self.inodes.pop(pid, None)
            yield from self.ended(pid, now_ns)
            return
        if stat.dead:
            member.next_look_ns = now_ns + LATER_NS
            if not member.dead:
                member.dead = True
                yield self.exited(pid, member, now_ns)
            return
        if stat.ppid != member.ppid:
            member.ppid = stat.ppid
            yield self.observed(pid, member, now_ns)
        yield from self.became(pid, member, stat.comm, now_ns)
        self.plan(member, now_ns)

    def became(self, pid: int, member: Member, comm: str, now_ns: int) -> Iterator[Event]:
        """
        Yield an exec or a title, if the command line or the name is another one.

        setproctitle(3) leaves one argument and the program as it was; all else is an exec. Where
        we may not know the program, a title is what has a space in it.
        """
        cmdline, exe = self.proc.cmdline(pid), self.proc.exe(pid)
        renamed = comm != member.comm
        member.comm = comm
        known = exe is not None and member.exe is not None
        same_exe = not known or exe == member.exe
        if cmdline is None or (cmdline == member.cmdline and same_exe):
            if renamed:
                yield self.title(pid, member, None, now_ns)
            return
        member.cmdline, member.exe = cmdline, exe if exe is not None else member.exe
        argv = arguments(cmdline)
        if len(argv) == 1 and (same_exe if known else " " in argv[0]):
            yield self.title(pid, member, argv[0], now_ns)
            return
        yield Exec(
            self.next_seq(),
            now_ns,
            self.name,
            pid,
            member.start_ticks,
            argv=redact_argv(argv),
            argv_truncated=len(cmdline) == TEXT_BYTES,
            comm=comm,
        )

    def ended(self, pid: int, now_ns: int) -> Iterator[Event]:
        """Yield the end of a process that is not there any more."""
        member = self.members.pop(pid)
        if not member.dead:
            yield self.exited(pid, member, now_ns)
        yield Reap(self.next_seq(), now_ns, self.name, pid, member.start_ticks)

    def born(self, pid: int, member: Member, now_ns: int) -> Fork:
        """Return the birth of a process; whose parent is not traced had another one before."""
        parent = self.members.get(member.ppid)
        return Fork(
            self.next_seq(),
            now_ns,
            self.name,
            pid,
            member.start_ticks,
            ppid=member.ppid if parent is not None else None,
            parent_start_ticks=parent.start_ticks if parent is not None else None,
            comm=member.comm,
        )

    def observed(self, pid: int, member: Member, now_ns: int) -> Observed:
        """Return what /proc shows of a process."""
        parent = self.members.get(member.ppid)
        if parent is not None:
            parent_ticks: int | None = parent.start_ticks
        else:
            stat = self.proc.stat(member.ppid) if member.ppid else None
            parent_ticks = stat.start_ticks if stat is not None else None
        return Observed(
            self.next_seq(),
            now_ns,
            self.name,
            pid,
            member.start_ticks,
            ppid=member.ppid or None,
            parent_start_ticks=parent_ticks,
            comm=member.comm,
            argv=redact_argv(member.argv) if member.argv is not None else None,
            cgroup=self.proc.cgroup(pid),
            ns_pids=self.proc.ns_pids(pid),
            pid_ns=self.proc.namespace(pid),
            dead=member.dead,
        )

    def title(self, pid: int, member: Member, title: str | None, now_ns: int) -> Title:
        """Return a rename; without a title only the comm is another one."""
        return Title(
            self.next_seq(),
            now_ns,
            self.name,
            pid,
            member.start_ticks,
            title=redact_text(title) if title is not None else None,
            comm=member.comm,
        )

    def exited(self, pid: int, member: Member, now_ns: int) -> Exit:
        """Return the end of a process, of which /proc keeps no status that we may rely on."""
        return Exit(
            self.next_seq(), now_ns, self.name, pid, member.start_ticks, ppid=member.ppid or None
        )

    def problems(self) -> list[str]:
        """Return each kind of trouble with /proc once, when it was met first."""
        fresh = [trouble for trouble in self.proc.troubles if trouble not in self.told]
        self.told.update(fresh)
        return [f"cannot read /proc as it should be: {trouble}" for trouble in fresh]

    def next_seq(self) -> int:
        """Take the next number of the stream, for a record that comes from elsewhere."""
        self.seq += 1
        return self.seq

    def close(self) -> None:
        """Forget everything. May be called twice."""
        self.members.clear()
        self.inodes.clear()


def renames_itself(argv: list[str] | None) -> bool:
    """Tell whether a command line is of an Airflow process that gets a new title for each task."""
    if argv is None:
        return False
    facts = shown_facts(argv)
    return facts is not None and facts.role in RENAME_THEMSELVES
