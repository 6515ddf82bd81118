"""
Runs one test program under one source, and keeps what both said.

A program is started behind a gate: it is held before its exec, the source is
opened on it, and only then it is let go, so that every record of its life is due.
The end is known, not waited for by the clock: each process that was born has been
reaped, and nothing about the subtree can come after that.

This process makes itself a subreaper meanwhile, so orphans come here and not to
an init that is different on every machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from pidtrail.events import Event, Exec, Exit, Fork, Lost, Observed, Reap, Title
from pidtrail.sources import proc
from pidtrail.sources.source import Source
from tests.programs.build import program

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 60
PAUSE_S = 0.002

LIFE_ENDS = {True: ["exit", "reap"], False: ["exit"]}
LIFECYCLE = Fork | Exec | Title | Exit | Reap
E = TypeVar("E")


class Told(msgspec.Struct):
    """
    One story from both sides.

    `lines` is what the program said of itself; `snapshot` and `events` what the
    source said; `wstatus` what the kernel told us of `root`, the program.
    """

    root: int
    wstatus: int
    agent: int
    lines: list[dict[str, Any]]
    snapshot: list[Event]
    events: list[Event]
    ends: list[str]

    def said(self, part: str) -> dict[str, Any]:
        """Return the one line of a part of the story."""
        (line,) = self.all_said(part)
        return line

    def all_said(self, part: str) -> list[dict[str, Any]]:
        """Return the lines of a part of the story, in order."""
        return [line for line in self.lines if line["at"] == part]

    def collected(self, pid: int) -> dict[str, Any]:
        """Return what wait4 told the parent of `pid`."""
        (line,) = [line for line in self.all_said("collected") if line["pid"] == pid]
        return line

    def of(self, kind: type[E], pid: int) -> list[E]:
        """Return all records of one kind about one process."""
        return [event for event in self.events if isinstance(event, kind) and event.pid == pid]

    def only(self, kind: type[E], pid: int) -> E:
        """Return the one record of a kind about a process."""
        (event,) = self.of(kind, pid)
        return event

    def life(self, pid: int) -> list[str]:
        """Return the names of the lifecycle records of a process, in order."""
        return [
            type(event).__name__.lower()
            for event in self.events
            if isinstance(event, LIFECYCLE) and event.pid == pid
        ]

    def born(self) -> set[int | None]:
        """Return the pids of all processes that the source saw being born."""
        return {event.pid for event in self.events if isinstance(event, Fork)}


class Story:
    """A program behind a gate and a source beside it; use as a context manager."""

    def __init__(self, source: Source, name: str, *arguments: str) -> None:
        self.source = source
        self.command = [str(program("gate")), str(program(name)), *arguments]
        self.snapshot: list[Event] = []
        self.events: list[Event] = []
        self.alive: dict[tuple[int | None, int | None], Event] = {}
        self.root_status: int | None = None
        self.opened_ns = 0

    def __enter__(self) -> Self:
        set_subreaper(on=True)
        # A file never makes the program wait for us, as a pipe would; writes to it append.
        self.output = tempfile.TemporaryFile("a+")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=self.output, bufsize=0
        )
        # The gate speaks after its exec is over; Popen returns a little before.
        self.wait_for(lambda: len(self.said()) == 1, "the gate")
        return self

    def attach(self, *, migrations: bool = False) -> None:
        """Open the source on the program, and take its snapshot."""
        self.source.open([self.process.pid], migrations=migrations)
        self.opened_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.snapshot = self.source.snapshot()
        for event in self.snapshot:
            self.alive[identity(event)] = event

    def release(self) -> None:
        """Let the program go."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"!")

    def finish(self) -> Told:
        """Read until every process of the subtree has been reaped."""
        try:
            self.wait_for(self.read_on, "the end of all processes")
        except TimeoutError as error:
            left = [f"{type(event).__name__} {event.key}" for event in self.alive.values()]
            raise TimeoutError(f"{error}; not seen to their end: {left}") from None
        return self.told()

    def told(self) -> Told:
        """Return what is known by now."""
        assert self.root_status is not None
        return Told(
            self.process.pid,
            self.root_status,
            os.getpid(),
            self.said(),
            self.snapshot,
            self.events,
            LIFE_ENDS[self.source.fidelity.has_reaps],
        )

    def read_on(self) -> bool:
        """Read one batch; tell whether the story is over."""
        batch = self.source.read()
        self.events += batch
        for event in batch:
            if isinstance(event, Fork | Exit):
                self.alive[identity(event)] = event
            if isinstance(event, Reap if self.source.fidelity.has_reaps else Exit):
                self.alive.pop(identity(event), None)
        if not batch:
            self.collect_orphans()
        return self.root_gone() and not self.alive and not batch

    def root_gone(self) -> bool:
        """Reap the program itself if it has ended; tell whether it has."""
        if self.root_status is None:
            pid, status, _ = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.root_status = status
                self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.root_status is not None

    def collect_orphans(self) -> None:
        """Reap the dead processes that were left to us."""
        for pid, _ in self.alive:
            if pid is None or pid == self.process.pid:
                continue
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue

    def said(self) -> list[dict[str, Any]]:
        """Return the whole lines that the program wrote so far."""
        size = os.fstat(self.output.fileno()).st_size
        text = os.pread(self.output.fileno(), size, 0).decode()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Look again until a condition holds. Raises TimeoutError."""
        limit = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > limit:
                raise TimeoutError(f"waited {PATIENCE_S} s in vain for {what}")
            time.sleep(PAUSE_S)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing behind: no probe, no process, no descriptor."""
        self.source.close()
        if self.root_status is None:
            self.process.kill()
            self.process.wait()
        for pid, _ in list(self.alive):
            if pid is not None and pid != self.process.pid and self.is_ours(pid):
                os.kill(pid, signal.SIGKILL)
                self.collect_orphans()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.output.close()
        set_subreaper(on=False)

    def is_ours(self, pid: int) -> bool:
        """Tell whether a number still belongs to the process that we saw."""
        ticks = proc.start_ticks(pid)
        return ticks is not None and any(
            event.pid == pid and event.start_ticks == ticks for event in self.alive.values()
        )


def identity(event: Event) -> tuple[int | None, int | None]:
    """Return pid and the finest start time there is."""
    return event.pid, event.start_ticks if event.start_ns is None else event.start_ns


def own_pid_max() -> bool:
    """Tell whether a PID namespace has a kernel.pid_max of its own, which a test may lower."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return (int(major), int(minor)) >= (6, 14)


def set_subreaper(*, on: bool) -> None:
    """Adopt orphans of our descendants, or no longer (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def tell(source: Source, name: str, *arguments: str, migrations: bool = False) -> Told:
    """Run one program from its exec to the end of its last process."""
    with Story(source, name, *arguments) as story:
        story.attach(migrations=migrations)
        story.release()
        told = story.finish()
    check(told)
    return told


def check(told: Told) -> None:
    """
    Assert what holds for every story in which nothing was lost.

    Numbers without holes; one birth, one end and one reaping for each process, in
    this order and never back in time; every parent known.
    """
    assert [event for event in told.events if isinstance(event, Lost)] == []
    numbers = [event.seq for event in [*told.snapshot, *told.events]]
    assert numbers == list(range(1, len(numbers) + 1))

    known = {identity(event): event for event in told.snapshot}
    lives: dict[tuple[int | None, int | None], list[Event]] = {key: [] for key in known}
    for event in told.events:
        if isinstance(event, LIFECYCLE):
            lives.setdefault(identity(event), []).append(event)
    parents = {(life[0].pid, life[0].start_ticks) for life in lives.values()}
    for key, life in lives.items():
        forks = 0 if key in known else 1
        kinds = [type(event) for event in life]
        assert kinds.count(Fork) == forks, (key, kinds)
        assert kinds[:forks] == [Fork] * forks, (key, kinds)
        names = [kind.__name__.lower() for kind in kinds]
        assert [name for name in names if name in {"exit", "reap"}] == told.ends, (key, kinds)
        assert names[-len(told.ends) :] == told.ends, (key, kinds)
        times = [event.ts_boot_ns for event in life]
        assert times == sorted(times), (key, times)
        if isinstance(birth := life[0], Fork):
            assert birth.start_ns is None or birth.start_ns <= birth.ts_boot_ns
            assert (birth.ppid, birth.parent_start_ticks) in parents


def observed(told: Told) -> Observed:
    """Return the snapshot's record of the program behind its gate."""
    (event,) = told.snapshot
    assert isinstance(event, Observed)
    return event
