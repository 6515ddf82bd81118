"""The socket on which the kernel tells of processes, and how to make it say all counters."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Final

from pidtrail.errors import SourceUnavailable

RECEIVE_BYTES: Final = 32 << 20
SO_RCVBUFFORCE: Final = 33
"""include/uapi/asm-generic/socket.h; not in Python's socket module."""


def listen(receive_bytes: int) -> socket.socket:
    """
    Return a socket on which the kernel tells of processes. Raises SourceUnavailable.

    pyroute2 does the handshake; its own reader takes 115-143 µs per message and
    loses most of them in a storm, so the messages are read from a plain socket.
    """
    from pyroute2.netlink.connector.cn_proc import ProcEventSocket  # noqa: PLC0415 (28 MB)

    connector = ProcEventSocket()
    try:
        connector.bind()
        connector.control(listen=True)
        plain = socket.socket(fileno=os.dup(connector.fileno()))
    except Exception as error:
        raise SourceUnavailable(f"the kernel refuses the proc connector: {error}") from error
    finally:
        connector.close()
    plain.setblocking(False)  # noqa: FBT003 (socket's signature)
    try:
        plain.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_bytes)
    except PermissionError:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    return plain


def say_counters() -> None:
    """
    Make the kernel send one message from each CPU, so that its counter is known.

    Where that is not allowed (a /proc that cannot be written, a seccomp filter), a counter is
    known with the next message that its CPU sends anyway.
    """
    allowed = os.sched_getaffinity(0)
    comm = Path("/proc/thread-self/comm")
    try:
        name = comm.read_text()
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            comm.write_text(name)
    except OSError:
        return
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)
