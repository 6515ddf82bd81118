"""Who is at the other end of a UNIX stream socket, by the kernel's word when it connected."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import struct
from typing import Final, NamedTuple

UCRED: Final = struct.Struct("=3i")
"""pid, uid, gid (include/linux/socket.h struct ucred)."""
SO_PEERGROUPS: Final = 59
"""include/uapi/asm-generic/socket.h; Python has no name for it."""
MOST_BYTES: Final = 1024
"""What Python's getsockopt takes: 256 groups."""


class Peer(NamedTuple):
    """A process that connected: its pid then, and whose it was."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer_of(connection: socket.socket) -> Peer:
    """
    Return who connected (SO_PEERCRED and SO_PEERGROUPS, unix(7)).

    Who is in more groups than fit gets those that the user database gives. Raises OSError.
    """
    pid, uid, gid = credentials(connection)
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MOST_BYTES)
        groups = {one for (one,) in struct.iter_unpack("=I", found)}
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        groups = groups_by_name(uid, gid)
    return Peer(pid, uid, frozenset({gid, *groups}))


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of who connected (SO_PEERCRED, unix(7)). Raises OSError."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, uid, gid = UCRED.unpack(found)
    return pid, uid, gid


def groups_by_name(uid: int, gid: int) -> set[int]:
    """Return the groups that the user database has for a user, none if it does not know him."""
    try:
        return set(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return set()


def group_id(name: str) -> int | None:
    """Return the number of a group, None if there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
