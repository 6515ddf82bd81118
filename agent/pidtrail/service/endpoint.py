"""The place where the service is asked: a listening UNIX stream socket at a path."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Final

from pidtrail.errors import PidtrailError
from pidtrail.service.protocol import SOCKET

MODE: Final = 0o660
FOLDER_MODE: Final = 0o755
BACKLOG: Final = 16
PROBE_SECONDS: Final = 1.0


class Endpoint:
    """
    The socket at a path, from its making to `close`; open to its owner and to a group.

    One of a killed agent is replaced. PATH.lock beside it is held as long as we live, so
    that of two agents that start at once only one takes the place; it stays there, empty.
    `problem` says why the group could not be given it. Raises PidtrailError.
    """

    def __init__(self, path: str, gid: int | None) -> None:
        self.path = path
        self.problem: str | None = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.lock: int | None = None
        try:
            if path == SOCKET:
                Path(path).parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self.lock = locked(f"{path}.lock", path)
            clear(path)
            self.socket.bind(path)
            self.inode = os.lstat(path).st_ino
            # Nobody gets in before it listens.
            self.give_to(gid)
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.let_go()
            raise PidtrailError(f"cannot listen at {path}: {error.strerror or error}") from None
        except PidtrailError:
            self.let_go()
            raise

    def give_to(self, gid: int | None) -> None:
        """Open it to a group, None for the agent's own."""
        if gid is not None:
            try:
                os.chown(self.path, -1, gid)
            except PermissionError:
                self.problem = f"may not give {self.path} to group {gid}: the agent is not in it"
        Path(self.path).chmod(MODE)

    def let_go(self) -> None:
        """Give up what is held, and leave the path alone."""
        self.socket.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def close(self) -> None:
        """Take the socket away, if it is still ours. May be called twice."""
        if self.lock is None:
            return
        with contextlib.suppress(OSError):
            # Wakes who waits in accept(2); closing alone does not.
            self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self.inode:
                Path(self.path).unlink()
        self.let_go()


def locked(path: str, place: str) -> int:
    """Return a descriptor that holds the lock of a place. Raises PidtrailError if another does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise taken(place) from None
    return descriptor


def clear(path: str) -> None:
    """Remove a socket on which nobody listens any more. Raises PidtrailError if somebody does."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise PidtrailError(f"cannot listen at {path}: it is there and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except OSError:
            # It is there and busy, or of another kind.
            pass
    raise taken(path)


def taken(path: str) -> PidtrailError:
    """Return the error for a place where another process listens."""
    return PidtrailError(
        f"cannot listen at {path}: another process does", "one agent per host; stop the other one"
    )
