"""
What the service tells its manager: sd_notify(3), by hand.

One datagram of a few words to a socket whose name stands in the environment: the protocol
is promised to stay, and fewer lines than what uses a library for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from pidtrail.reports.escape import visible

MOST_STATUS: Final = 200


class Notifier:
    """
    Tells the manager how it goes; nothing where there is none.

    Takes the variables out of the environment: nobody else is to speak for us.
    `watchdog_s` is how often at most the manager wants to hear that the loop turns, or None.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.address = environ.pop("NOTIFY_SOCKET", "")
        limit_us = environ.pop("WATCHDOG_USEC", "")
        whose = environ.pop("WATCHDOG_PID", "") or str(os.getpid())
        watched = limit_us.isdigit() and int(limit_us) > 0 and whose == str(os.getpid())
        self.watchdog_s = int(limit_us) / 1e6 / 2 if watched else None
        self.alive_s = 0.0
        self.status = ""

    def ready(self) -> None:
        """Say that the start is over: the source is attached, or that settings are taken over."""
        self.send("READY=1")

    def reloading(self) -> None:
        """Say that settings are read again; `ready` says that this is over."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self.send("STOPPING=1")

    def turned(self, now_s: float) -> None:
        """Say that the loop turns, if it is time; `now_s` is any monotonic clock."""
        if self.watchdog_s is not None and now_s - self.alive_s >= self.watchdog_s:
            self.alive_s = now_s
            self.send("WATCHDOG=1")

    def tell(self, status: str) -> None:
        """Say in a line what there is, if it is another one than before."""
        if status != self.status:
            self.status = status
            self.send(f"STATUS={visible(status, MOST_STATUS)}")

    def send(self, words: str) -> None:
        """Send a datagram; a manager that does not listen is no reason to end."""
        # A name that begins with @ is in the abstract namespace (unix(7)).
        address = self.address.replace("@", "\0", 1) if self.address[:1] == "@" else self.address
        if not address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending,
        ):
            sending.sendto(words.encode(), address)
