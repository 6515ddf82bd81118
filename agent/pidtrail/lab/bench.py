"""
The bench: puppets, and a source that watches them from before their first act.

A first puppet, the stage, is started and held; the source is opened on it; then all
others are forked from it, so that the kernel reports the whole life of each, and the
counters in its exit record are of the experiment alone.

The lab's own process adopts the orphans meanwhile, so that they come to no init that
may be different on every machine, and is the one to collect them. In the end nothing
is left: see `__exit__`, and leftovers.py for a lab that was killed.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pidtrail.events import Event, Exit, Fork, Observed, Reap
from pidtrail.lab import cgroup, leftovers
from pidtrail.lab.identity import probe
from pidtrail.lab.model import Identity
from pidtrail.sources import proc
from pidtrail.sources.ladder import open_best
from pidtrail.sources.source import Source

PATIENCE_S: Final = 20.0
TURN_S: Final = 0.005
UCRED: Final = struct.Struct("3i")
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37
CHILD: Final = Path(__file__).with_name("child.py")

E = TypeVar("E", bound=Event)
Key = tuple[int, int | None]


class Skip(Exception):
    """The experiment cannot be done, or not be evidenced, here; the text says what it needs."""


class Puppet:
    """A puppet by its channel and its number, which the kernel tells us with each message."""

    def __init__(self, bench: Bench, channel: socket.socket) -> None:
        self.bench = bench
        self.channel = channel
        self.pid = 0
        self.inner_pid = 0
        self.pidfd = -1

    def greet(self) -> None:
        """Wait for its hello; who sent it is the kernel's word (unix(7) SCM_CREDENTIALS)."""
        message, self.pid = self.bench.hear(self)
        self.inner_pid = message["hello"]
        if self.pidfd < 0:
            self.pidfd = os.pidfd_open(self.pid)

    def ask(self, do: str, *fds: int, **arguments: Any) -> Any:
        """Let it do something, and return what it answers. Raises OSError if it failed at it."""
        self.tell(do, *fds, **arguments)
        return self.answer()

    def tell(self, do: str, *fds: int, **arguments: Any) -> None:
        """Let it do something without waiting for it."""
        socket.send_fds(self.channel, [json.dumps({"do": do, **arguments}).encode()], fds)

    def answer(self) -> Any:
        """Return what it answers to what it was told."""
        message, _ = self.bench.hear(self)
        if "error" in message:
            raise OSError(message["errno"] or 0, message["error"])
        return message["answer"]

    def probe(self) -> Identity:
        """
        Return who it is, from the kernel, with all records up to now read.

        It is found by its channel and not by the number that it had: it says
        something, and the kernel tells under which number. So a number that changed
        would be seen, and not be taken for a process that is gone.
        """
        self.tell("number")
        _, self.pid = self.bench.hear(self)
        return self.probe_held()

    def probe_held(self) -> Identity:
        """Return who has its last known number, for one that cannot speak just now."""
        self.bench.drain()
        return probe(self.pid)

    def send(self, number: int) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self.pidfd, number)


class Bench:
    """
    One experiment's processes and records; a context manager.

    `show` is called with each record as it comes.
    """

    def __init__(
        self,
        source_name: str,
        *,
        migrations: bool = False,
        show: Callable[[Event], None] | None = None,
    ) -> None:
        self.source_name = source_name
        self.migrations = migrations
        self.show = show
        self.owner = leftovers.owner()
        self.events: list[Event] = []
        self.alive: dict[Key, int | None] = {}
        self.refused: dict[str, str] = {}
        self.puppets: list[Puppet] = []
        self.cgroups: list[cgroup.Cgroup] = []
        self.source: Source | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.adopted_before = True

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.clear()
            raise
        return self

    def start(self) -> None:
        """Adopt orphans, start the stage and open the source on it."""
        self.adopted_before = adopt_orphans(on=True)
        ours, theirs = channel()
        with theirs:
            # A session of its own: Ctrl-C in the terminal is for us, we then end the rest.
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and file)
                [sys.executable, "-I", "-S", str(CHILD), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    leftovers.VARIABLE: self.owner,
                },
            )
        self.stage = Puppet(self, ours)
        self.puppets.append(self.stage)
        self.stage.greet()
        self.source, self.refused = open_best(
            self.source_name, [self.stage.pid], migrations=self.migrations
        )
        self.take(self.source.snapshot())

    # --- puppets ---

    def fork(self, parent: Puppet | None = None, how: str = "fork", **arguments: Any) -> Puppet:
        """Let a puppet, else the stage, fork another one, and return that."""
        parent = parent or self.stage
        ours, theirs = channel()
        with theirs:
            parent.tell(how, theirs.fileno(), **arguments)
        child = Puppet(self, ours)
        self.puppets.append(child)
        parent.answer()
        child.greet()
        return child

    def exec(self, puppet: Puppet, how: str = "again") -> None:
        """Let a puppet execute its program anew, and wait until that has begun."""
        puppet.tell(how)
        puppet.greet()

    def hear(self, puppet: Puppet) -> tuple[dict[str, Any], int]:
        """Return the next message of a puppet and its sender, reading records while it is due."""
        limit = time.monotonic() + PATIENCE_S
        watched: list[socket.socket | int] = [puppet.channel]
        if puppet.pidfd >= 0:
            watched.append(puppet.pidfd)
        while True:
            ready, _, _ = select.select(watched, [], [], TURN_S)
            if puppet.channel in ready:
                return receive(puppet.channel)
            if puppet.pidfd in ready:
                raise ProcessLookupError(3, f"process {puppet.pid} ended before it answered")
            self.drain()
            if time.monotonic() > limit:
                raise TimeoutError(f"process {puppet.pid} did not answer in {PATIENCE_S:.0f} s")

    def dismiss(self, puppet: Puppet, code: int = 0) -> None:
        """Let a puppet exit and be collected by whoever is its parent; its exit record is read."""
        parent = proc.ppid(puppet.pid)
        puppet.tell("exit", code=code)
        self.await_end(puppet)
        for other in self.puppets:
            if other.pid == parent:
                other.ask("wait")
        self.collect(puppet.pid)
        self.drain()

    def await_end(self, puppet: Puppet) -> None:
        """Wait until a puppet has ended."""
        if not self.until(lambda: bool(select.select([puppet.pidfd], [], [], 0)[0])):
            raise TimeoutError(f"process {puppet.pid} did not end in {PATIENCE_S:.0f} s")
        self.drain()

    def collect(self, pid: int) -> None:
        """Collect a dead process if it is a child of ours; wait for nobody."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)

    def cgroup(self, top: Path, label: str) -> cgroup.Cgroup:
        """Make a cgroup of our own. Raises Skip where that is not allowed."""
        try:
            made = cgroup.Cgroup(top, self.owner, label)
        except OSError as error:
            raise Skip(f"it needs to make a cgroup in {top}: {error.strerror}") from error
        self.cgroups.append(made)
        return made

    # --- records ---

    def drain(self) -> bool:
        """Read all records that are there; return whether there were any."""
        if self.source is None:
            return False
        before = len(self.events)
        while batch := self.source.read():
            self.take(batch)
        return len(self.events) > before

    def take(self, batch: list[Event]) -> None:
        """Keep some records, and who lives by them."""
        for event in batch:
            self.events.append(event)
            if self.show is not None:
                self.show(event)
            if event.pid is None:
                continue
            if isinstance(event, Fork | Observed | Exit):
                self.alive[event.pid, event.start_ticks] = event.start_ns
            elif isinstance(event, Reap):
                self.alive.pop((event.pid, event.start_ticks), None)

    def of(self, kind: type[E], puppet: Puppet) -> list[E]:
        """Return the records of a kind about a puppet."""
        return [e for e in self.events if isinstance(e, kind) and e.pid == puppet.pid]

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
        """Read records until a condition holds; return whether it came to that."""
        limit = time.monotonic() + seconds
        self.drain()
        while not condition():
            if time.monotonic() > limit:
                return False
            time.sleep(TURN_S / 5)
            self.drain()
        return True

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Read records until a condition holds. Raises Skip: the source does not report it."""
        if not self.until(condition, 3.0):
            name = self.source.name if self.source is not None else "?"
            raise Skip(f"source {name} did not report {what}")

    # --- the end ---

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Leave nothing behind: no process, no cgroup, no probe, no descriptor."""
        for made in self.cgroups:
            cgroup.thaw(made.path)
        self.end_all()
        for made in self.cgroups:
            with contextlib.suppress(OSError):
                cgroup.remove(made.path)
        if self.source is not None:
            self.source.close()
            self.source = None
        for puppet in self.puppets:
            puppet.channel.close()
            if puppet.pidfd >= 0:
                os.close(puppet.pidfd)
        self.puppets.clear()
        if not self.adopted_before:
            self.adopted_before = adopt_orphans(on=False) or True

    def end_all(self) -> None:
        """Kill and collect every process that is or may be left."""
        self.show = None
        limit = time.monotonic() + PATIENCE_S
        while True:
            self.drain()
            left = [key for key in self.known() if is_there(key)]
            if not left or time.monotonic() > limit:
                break
            for pid, ticks in left:
                end((pid, ticks))
                if self.process is None or pid != self.process.pid:
                    self.collect(pid)
            if self.process is not None:
                self.process.poll()
            time.sleep(0.001)
        if self.process is not None:
            self.process.wait(PATIENCE_S)

    def known(self) -> set[Key]:
        """Return all processes that were ours, by records and by acquaintance."""
        keys: set[Key] = {(pid, ticks) for pid, ticks in self.alive if ticks is not None}
        if self.process is not None and self.process.returncode is None:
            keys.add((self.process.pid, proc.start_ticks(self.process.pid)))
        # A source that saw nothing, or was never opened, knows of no puppets.
        for puppet in self.puppets:
            if puppet.pidfd >= 0 and not select.select([puppet.pidfd], [], [], 0)[0]:
                keys.add((puppet.pid, proc.start_ticks(puppet.pid)))
        return keys


def channel() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a channel; ours hears from the kernel who speaks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs


def receive(end_of_ours: socket.socket) -> tuple[dict[str, Any], int]:
    """Return one message and its sender's number in our PID namespace."""
    data, extra, _, _ = end_of_ours.recvmsg(65_536, socket.CMSG_SPACE(UCRED.size))
    if not data:
        raise ProcessLookupError(3, "a process of the lab ended before it answered")
    sender = 0
    for level, kind, body in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            sender = array.array("i", body)[0]
    message: dict[str, Any] = json.loads(data)
    return message, sender


def adopt_orphans(*, on: bool) -> bool:
    """
    Be the one to whom orphans below us go, or no more; return whether we were before.

    prctl(2) PR_SET_CHILD_SUBREAPER; kernel/exit.c find_new_reaper.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
    return bool(before.value)


def is_there(key: Key) -> bool:
    """Return whether a process is still in /proc, dead or alive."""
    return key[1] is not None and proc.start_ticks(key[0]) == key[1]


def end(key: Key) -> None:
    """Kill a process, if it is still the one that we mean."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(key[0])
        try:
            if is_there(key):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
