"""
Processes that we start: remembered, found again, stopped; nobody else's.

A process is ours if its environment carries our mark, or it works in one of the
stage's own folders. Both are needed: setproctitle(3) wipes the environment of
Airflow's workers and runners, and BashOperator changes the working folder but
passes the environment on. Neither is lost when a parent dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple, TypeVar

from demo import BUILD

MARK_VARIABLE = "PIDTRAIL_STAGE"
STATES = BUILD / "stages"

_POLL_S = 0.1
_PATIENCE = 3
# PROC_PID_INIT_INO (include/linux/proc_ns.h): /proc/self/ns/pid of the host.
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_ZOMBIE_STATES = ("Z", "X")

_T = TypeVar("_T")


class Identity(NamedTuple):
    """One process of this boot: pid, and start time in USER_HZ ticks."""

    pid: int
    start_ticks: int


class StageError(Exception):
    """The stage cannot be set, or the play does not go on; the text says why."""


def wait_until(condition: Callable[[], _T], *, within_s: float, what: str) -> _T:
    """
    Return the first true value of `condition`; `StageError` if it does not come.

    `within_s` is what a machine with nothing else to do has room for; a busy one is given more.
    """
    patience_s = _PATIENCE * within_s
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise StageError(f"{what}: not within {patience_s:g} s")
        time.sleep(_POLL_S)
    return value


def identity_of(pid: int) -> Identity | None:
    """Return the living process that has this number now; None for none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # comm may hold spaces and parentheses, so the fields start behind the last ")" (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in _ZOMBIE_STATES else Identity(pid, int(fields[19]))


def own_identity() -> Identity:
    """Return which process this is."""
    identity = identity_of(os.getpid())
    assert identity is not None  # we run
    return identity


def is_alive(process: Identity) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    return identity_of(process.pid) == process


def send_signal(process: Identity, sig: signal.Signals) -> bool:
    """
    Signal this very process; False if it is gone.

    The pidfd is opened before the start time is compared: a number that was
    given to another process in between is never signalled.
    """
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(pidfd, sig)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def listeners(port: int) -> set[int]:
    """Return the pids of all processes that listen on this TCP port of 127.0.0.1."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        # Address as hex in host byte order; 0A is TCP_LISTEN (include/net/tcp_states.h).
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    return {pid for pid in _all_pids() if inodes & _open_files(pid)}


class Piece(NamedTuple):
    """One part of the stage: a process that leads its own session."""

    name: str
    process: Identity
    popen: subprocess.Popen[bytes]
    log: Path
    ending: signal.Signals


class Manner(NamedTuple):
    """
    How a part is run, where it is not the ordinary way.

    `user` needs root; `cwd` must be one of the stage's folders (None: its home).
    With `pipes`, stdin and stdout are pipes. `ending` asks the part to end;
    parts that end by another signal than SIGTERM are ended last.
    """

    user: str | None = None
    cwd: Path | None = None
    pipes: bool = False
    ending: signal.Signals = signal.SIGTERM


ORDINARY = Manner()


class Ledger:
    """
    Starts processes, and stops them with all that came of them.

    What it started is also in a file, which outlives a killed driver: the next
    stage ends what was left. `home` must be a folder of this stage alone.
    """

    def __init__(self, home: Path) -> None:
        clear_leftovers()
        self.home = home
        self._pieces: list[Piece] = []
        self._folders = [home]
        self.mark = f"{os.getpid()}-{time.time_ns()}"
        STATES.mkdir(parents=True, exist_ok=True)
        self._state = STATES / f"{self.mark}.json"
        # Not by its number is a driver known to live: another stage may be in another PID
        # namespace, and a lock is the same in all. No part inherits it.
        self._lock = _lock_of(self._state)
        if self._lock is None:
            raise StageError(f"{self._state} is in use")
        self._remember()

    def spawn(
        self,
        name: str,
        argv: list[str],
        environ: dict[str, str],
        manner: Manner = ORDINARY,
    ) -> Piece:
        """Start one part in its own session, logging to `home/NAME.log`."""
        log = self.home / f"{name}.log"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                argv,
                env=environ | {MARK_VARIABLE: self.mark},
                cwd=manner.cwd or self.home,
                stdin=subprocess.PIPE if manner.pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if manner.pipes else output,
                stderr=output,
                start_new_session=True,
                user=manner.user,
                group=manner.user,
                extra_groups=None if manner.user is None else [],
            )
        process = identity_of(popen.pid)
        if process is None:
            raise StageError(f"{name} ended at once; see {log}")
        piece = Piece(name, process, popen, log, manner.ending)
        self._pieces.append(piece)
        self._remember()
        return piece

    def make_folder(self, name: str) -> Path:
        """Make a temporary folder that is removed when all is stopped; the home stays."""
        folder = Path(tempfile.mkdtemp(prefix=f"pidtrail-{name}-"))
        self._folders.append(folder)
        self._remember()
        return folder

    def check(self) -> None:
        """Raise `StageError` with the end of its log if a part that should run has ended."""
        for piece in self._pieces:
            status = piece.popen.poll()
            if status is not None:
                tail = " | ".join(piece.log.read_text(errors="replace").splitlines()[-4:])
                raise StageError(f"{piece.name} ended with status {status}: {tail}")

    def is_ours(self, pid: int) -> bool:
        """Whether the process with this number belongs to this stage."""
        return _belongs(pid, self._folders, self.mark)

    def forget(self, piece: Piece) -> None:
        """Take a part that was ended on purpose from the list of those that should run."""
        self._pieces.remove(piece)

    def stop_all(self, *, grace_s: float = 6) -> None:
        """
        End every part, then every process that came of any, also reparented ones.

        Parts have `grace_s` seconds together; what is left gets SIGKILL.
        """
        pieces, self._pieces = self._pieces, []
        deadline = time.monotonic() + grace_s
        for last in (False, True):
            ending = [piece for piece in pieces if (piece.ending != signal.SIGTERM) is last]
            for piece in ending:
                send_signal(piece.process, piece.ending)
            for piece in ending:
                try:
                    piece.popen.wait(max(0.5, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    piece.popen.kill()
                    piece.popen.wait()
        _end_all(self._folders, self.mark)
        _remove(self._folders[1:])
        if self._lock is not None:
            _forget_state(self._state, self._lock)
            self._lock = None

    def _remember(self) -> None:
        content = {
            "boot_id": _boot_id(),
            "pid_ns": _pid_namespace(),
            "folders": [str(folder) for folder in self._folders],
            "mark": self.mark,
            "processes": [piece.process for piece in self._pieces],
        }
        unfinished = self._state.with_suffix(".part")
        unfinished.write_text(json.dumps(content))
        unfinished.replace(self._state)


def clear_leftovers() -> None:
    """End what drivers that were killed have left, as their files tell."""
    for state in STATES.glob("*.json"):
        lock = _lock_of(state)
        if lock is None:
            continue
        try:
            left = json.loads(state.read_text())
        except FileNotFoundError:
            pass  # another driver has just ended, and removed its own
        else:
            own = _pid_namespace()
            if own not in (left["pid_ns"], _INITIAL_PID_NAMESPACE):
                os.close(lock)
                continue  # from here its processes cannot be seen, let alone ended
            folders = [Path(folder) for folder in left["folders"]]
            if left["boot_id"] == _boot_id():
                if left["pid_ns"] == own:
                    for pid, start_ticks in left["processes"]:
                        send_signal(Identity(pid, start_ticks), signal.SIGKILL)
                _end_all(folders, left["mark"])
            _remove(folders[1:])
        _forget_state(state, lock)


def _lock_of(state: Path) -> int | None:
    """Return a descriptor with the lock on the file of a driver; None if that lives."""
    lock = os.open(state.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _forget_state(state: Path, lock: int) -> None:
    state.unlink(missing_ok=True)
    state.with_suffix(".lock").unlink(missing_ok=True)
    os.close(lock)


def stop_on_signals() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into a `StageError`: all is stopped on the way out."""
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        # A second Ctrl-C must not interrupt the stopping that the first one began.
        for sig in endings:
            signal.signal(sig, signal.SIG_IGN)
        raise StageError(f"stopped by {signal.Signals(signum).name}")

    for sig in endings:
        signal.signal(sig, interrupt)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(folders: list[Path], mark: str) -> None:
    def none_left() -> bool:
        ours = [pid for pid in _all_pids() if _belongs(pid, folders, mark)]
        for process in filter(None, map(identity_of, ours)):
            send_signal(process, signal.SIGKILL)
        return not ours

    wait_until(none_left, within_s=10, what="the end of all processes of the stage")


def _belongs(pid: int, folders: list[Path], mark: str) -> bool:
    if pid == os.getpid() or identity_of(pid) is None:
        return False
    try:
        folder = Path(f"/proc/{pid}/cwd").readlink()
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return folder in folders or f"{MARK_VARIABLE}={mark}".encode() in environ.split(b"\0")


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            found.add(str(entry.readlink()))
    except OSError:
        pass  # it ended while we looked
    return found
