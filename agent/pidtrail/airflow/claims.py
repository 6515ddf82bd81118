"""
What Airflow's processes tell of themselves: the agent's end of the plugin's socket.

A bound UNIX datagram socket, to which `airflow/plugin.py` sends one JSON object per hook,
schema `pidtrail.claim/1`. Anybody on the host may send there, so:

Rule 1: who sent it is what the kernel says (SCM_CREDENTIALS, unix(7): the thread group
        that called send, numbered in the reader's PID namespace), never the message.
        Only who has CAP_SYS_ADMIN could forge that.
Rule 2: size and rate are bounded, and what is not understood or one too many is counted.
Rule 3: it is a claim. `correlate` believes it of a process that it knows to have been
        alive then, and that no runner started.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from pidtrail.airflow.rows import uuid
from pidtrail.clock import NS_PER_SECOND, ticks_of
from pidtrail.errors import PidtrailError
from pidtrail.events import Event, TaskRef, TaskReported

ORIGIN: Final = "airflow-plugin"
SOCKET: Final = "/run/pidtrail/claims.sock"
SOCKET_VARIABLE: Final = "PIDTRAIL_CLAIMS"
MAX_BYTES: Final = 8192
SOCKET_MODE: Final = 0o622
"""A task may run as any user. To send takes the right to write and no other (unix(7))."""
FOLDER_MODE: Final = 0o755
MOST_PER_SECOND: Final = 200
BURST: Final = 1000
"""So many at once: each attempt sends two, and a host starts some dozens a second at most."""
MOST_PER_DRAIN: Final = 2000
"""Read and thrown away at some 2 µs each, so that a flood takes little and is counted."""
UCRED: Final = struct.Struct("=3i")
"""pid, uid, gid (include/linux/socket.h struct ucred)."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=250)]
Small = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Big = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Message(msgspec.Struct, frozen=True):
    """One datagram of the plugin; fields of newer ones are passed over."""

    schema: Literal["pidtrail.claim/1"]
    event: Literal["running", "success", "failed", "skipped"]
    dag_id: Name
    task_id: Name
    run_id: Name
    map_index: Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
    try_number: Small
    pid: Small
    boot_ns: Big
    start_ticks: Big | None = None
    pid_ns: Big | None = None
    ti_id: Annotated[str, msgspec.Meta(max_length=36)] | None = None
    hostname: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    state: Literal["running", "success", "failed", "skipped", "up_for_retry"] | None = None

    @property
    def task(self) -> TaskRef:
        """The attempt that it speaks of."""
        return TaskRef(
            self.dag_id,
            self.task_id,
            self.run_id,
            self.map_index,
            self.try_number or None,
            uuid(self.ti_id),
        )


DECODER: Final = msgspec.json.Decoder(Message)

PROBLEMS: Final = {
    "unreadable": "{} messages to the plugin's socket were not understood",
    "too many": "{} messages to the plugin's socket were dropped: over "
    f"{MOST_PER_SECOND} a second were sent",
    "nameless": "{} messages of the plugin came from a process that could not be told from others "
    "that had its number",
    "other": "{} messages of the plugin named another process than the one that sent them; they "
    "were taken as that one's",
}


def parse(data: bytes) -> Message | None:
    """Return the message in a datagram, None for anything else."""
    try:
        return DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class ClaimSocket:
    """
    The socket at a path, from its making to `stop`. Raises PidtrailError where it cannot be.

    `start_ticks` tells of a pid when its process started (sources/proc.py); `now_ns` is
    CLOCK_BOOTTIME in nanoseconds.
    """

    def __init__(
        self,
        path: str,
        start_ticks: Callable[[int], int | None],
        now_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self.path = path
        self.start_ticks, self.now_ns = start_ticks, now_ns
        self.counts: Counter[str] = Counter()
        self.pid_ns = Path("/proc/self/ns/pid").stat().st_ino
        self.allowance = float(BURST)
        self.emptied_ns = self.filled_ns = now_ns()
        self.socket = bound(path)
        self.inode = Path(path).stat().st_ino
        self.last: list[Event] | None = None

    def wake_fd(self) -> int | None:
        """Return what becomes readable when there is something to drain; None during a flood."""
        return self.socket.fileno() if self.last is None and self.allowance >= 1 else None

    def drain(self) -> list[Event]:
        """Return what was told since the last call. Never blocks."""
        if self.last is None:
            return self.read()
        last, self.last = self.last, []
        return last

    def read(self) -> list[Event]:
        """Return what waits in the socket, as far as rate and number are in bounds."""
        now_ns = self.now_ns()
        gained = (now_ns - self.filled_ns) / NS_PER_SECOND * MOST_PER_SECOND
        self.allowance, self.filled_ns = min(float(BURST), self.allowance + gained), now_ns
        found: list[Event] = []
        for _ in range(MOST_PER_DRAIN):
            try:
                data, ancillary, flags, _ = self.socket.recvmsg(
                    MAX_BYTES, socket.CMSG_SPACE(UCRED.size)
                )
            except BlockingIOError:
                # All that is read from now on was sent later than this.
                self.emptied_ns = now_ns
                break
            if self.allowance < 1:
                self.counts["too many"] += 1
                continue
            self.allowance -= 1
            message = parse(data) if not flags & socket.MSG_TRUNC else None
            sender = sender_of(ancillary)
            if message is None or sender is None:
                self.counts["unreadable"] += 1
            elif (event := self.reported(message, sender, self.now_ns())) is not None:
                found.append(event)
        return found

    def reported(self, message: Message, sender: int, now_ns: int) -> TaskReported | None:
        """Return a message as a record of who sent it, None if that cannot be said."""
        ticks = self.ticks_of_sender(message, sender)
        if ticks is None:
            self.counts["nameless"] += 1
            return None
        if message.pid_ns == self.pid_ns and message.pid != sender:
            self.counts["other"] += 1
        sent = message.boot_ns if self.emptied_ns <= message.boot_ns <= now_ns else now_ns
        return TaskReported(
            seq=0,
            ts_boot_ns=sent,
            origin=ORIGIN,
            pid=sender,
            start_ticks=ticks,
            task=message.task,
            recorded_pid=sender,
            hostname=message.hostname,
            state=message.state,
            via="plugin",
        )

    def ticks_of_sender(self, message: Message, sender: int) -> int | None:
        """
        Return when the sender started, None if it cannot be known.

        Who has the number now and had it already when the socket was last empty sent
        it. The number of one who came later, or of one who is gone, may have been
        another's when it was sent: then the message must say who that was.
        """
        there = self.start_ticks(sender)
        if there is not None and there < ticks_of(self.emptied_ns):
            return there
        return message.start_ticks if there in {None, message.start_ticks} else None

    def poke(self) -> None:
        """Nothing is asked for here: processes tell by themselves."""

    def problems(self) -> list[str]:
        """Return what was not taken in, and how much of it."""
        return [words.format(self.counts[why]) for why, words in PROBLEMS.items()
                if self.counts[why]]  # fmt: skip

    def stop(self) -> None:
        """Take the socket away; what was sent before is there for `drain`. May be called twice."""
        if self.last is not None:
            return
        with contextlib.suppress(OSError):
            if Path(self.path).stat().st_ino == self.inode:
                Path(self.path).unlink()
        self.last = self.read()
        self.socket.close()


def sender_of(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Return the pid that the kernel tells with a datagram; None for one without a number here."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid: int = UCRED.unpack(data)[0]
            return pid or None
    return None


def bound(path: str) -> socket.socket:
    """Return a new socket at a path, in place of one whose owner is gone. Raises PidtrailError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.settimeout(0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if path == SOCKET:
            Path(path).parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
        clear(path)
        made.bind(path)
        Path(path).chmod(SOCKET_MODE)
    except OSError as error:
        made.close()
        raise PidtrailError(
            f"cannot listen for Airflow's plugin at {path}: {error.strerror or error}"
        ) from None
    except PidtrailError:
        made.close()
        raise
    return made


def clear(path: str) -> None:
    """Remove a socket that nobody reads any more. Raises PidtrailError if somebody does."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise PidtrailError(f"cannot listen for Airflow's plugin at {path}: it is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
                return
        raise PidtrailError(
            f"cannot listen for Airflow's plugin at {path}: another process does",
            "name another path; the plugin's is in PIDTRAIL_CLAIMS",
        )
