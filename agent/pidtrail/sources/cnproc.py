"""
The messages of the proc connector, parsed (include/uapi/linux/cn_proc.h).

A netlink header (16 bytes), a cn_msg (20), then struct proc_event: what, cpu,
timestamp, and a union of which each event uses the beginning. The layout is
fixed, so one `struct` does; pyroute2's generic parser takes ten times as long.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

FORK: Final = 0x00000001
EXEC: Final = 0x00000002
COMM: Final = 0x00000200
EXIT: Final = 0x80000000
MESSAGE_BYTES: Final = 256

HEAD: Final = struct.Struct("=IHHII" + "IIIIHH" + "IIQ")
PAIR: Final = struct.Struct("=II")
NAMED: Final = struct.Struct("=II16s")
QUAD: Final = struct.Struct("=IIII")
SIX: Final = struct.Struct("=IIIIII")
CN_IDX_PROC: Final = 1


class Message(NamedTuple):
    """
    One event. `counter` counts the messages of `cpu`; `monotonic_ns` is CLOCK_MONOTONIC.

    For a fork `pid` and `tgid` are the child's. Fields that an event does not
    have are 0 or None.
    """

    what: int
    cpu: int
    counter: int
    monotonic_ns: int
    pid: int
    tgid: int
    parent_tgid: int = 0
    exit_code: int = 0
    comm: str | None = None


def parse(data: bytes) -> Message | None:
    """Return the message in a datagram, None if it is not one of the proc connector. Total."""
    try:
        (_, _, _, _, _, index, _, counter, _, _, _, what, cpu, stamp) = HEAD.unpack_from(data)
        if index != CN_IDX_PROC:
            return None
        at = HEAD.size
        if what == FORK:
            _, parent_tgid, pid, tgid = QUAD.unpack_from(data, at)
            return Message(what, cpu, counter, stamp, pid, tgid, parent_tgid)
        if what == EXIT:
            pid, tgid, code, _, _, parent_tgid = SIX.unpack_from(data, at)
            return Message(what, cpu, counter, stamp, pid, tgid, parent_tgid, code)
        if what == COMM:
            pid, tgid, name = NAMED.unpack_from(data, at)
            comm = name.partition(b"\0")[0].decode("utf-8", "replace")
            return Message(what, cpu, counter, stamp, pid, tgid, comm=comm)
        pid, tgid = PAIR.unpack_from(data, at)
        return Message(what, cpu, counter, stamp, pid, tgid)
    except struct.error:
        return None
