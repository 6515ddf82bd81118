"""Datagrams as drivers/connector/cn_proc.c makes them, for tests of what reads them."""

from __future__ import annotations

import struct

from pidtrail.sources import cnproc

NLMSG_DONE, CN_VAL_PROC = 3, 1


def message(what: int, payload: bytes, *, cpu: int = 1, counter: int = 7, stamp: int = 99) -> bytes:
    """Return a whole datagram: netlink header, cn_msg, struct proc_event."""
    event = struct.pack("=IIQ", what, cpu, stamp) + payload.ljust(24, b"\0")
    cn_msg = struct.pack("=IIIIHH", 1, CN_VAL_PROC, counter, 0, len(event), 0) + event
    return struct.pack("=IHHII", 16 + len(cn_msg), NLMSG_DONE, 0, counter, 0) + cn_msg


class Kernel:
    """One CPU that counts its messages; `forget` makes some of them get lost."""

    def __init__(self) -> None:
        self.counter = 0

    def forget(self, count: int = 1) -> None:
        """Lose messages."""
        self.counter += count

    def say(self, what: int, payload: bytes, stamp: int) -> bytes:
        """Return the next message."""
        self.counter += 1
        return message(what, payload, counter=self.counter, stamp=stamp)

    def fork(self, parent: int, pid: int, stamp: int, tgid: int | None = None) -> bytes:
        """Let a process, or with `tgid` a thread, be born."""
        tgid = pid if tgid is None else tgid
        return self.say(cnproc.FORK, struct.pack("=4I", parent, parent, pid, tgid), stamp)

    def exec(self, pid: int, stamp: int) -> bytes:
        """Let a process become another program."""
        return self.say(cnproc.EXEC, struct.pack("=2I", pid, pid), stamp)

    def exit(self, tgid: int, stamp: int, code: int = 0, tid: int | None = None) -> bytes:
        """Let a thread end."""
        tid = tgid if tid is None else tid
        return self.say(cnproc.EXIT, struct.pack("=6I", tid, tgid, code, 17, 1, 1), stamp)
