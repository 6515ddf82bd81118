"""
A descriptor behind a thread: who reads there slowly, or not at all, is waited for by the thread.

A thread and not O_NONBLOCK, which is a property of the open file that others share with us, a
shell for one (fcntl(2)). And os.write(2) itself, not Python's stream: a thread that stands in
one holds its lock, without which the interpreter cannot end.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable


class Outlet:
    """
    Bytes on their way to a descriptor, in order, from the making to `end`.

    `put` never blocks. `held` is how many bytes are not written yet, to be bounded by who puts
    them there. `error` is why no more will be written. `more` is asked by the thread for
    something to add, whenever all was written, with `changed` held.
    """

    def __init__(self, fd: int, more: Callable[[], bytes] = bytes) -> None:
        self.fd = fd
        self.more = more
        self.changed = threading.Condition()
        self.waiting: deque[bytes] = deque()
        self.held = 0
        self.error: OSError | None = None
        self.ended = False
        self.thread = threading.Thread(target=self.run, name=f"pidtrail-fd-{fd}", daemon=True)
        self.thread.start()

    def put(self, data: bytes) -> None:
        """Have this written after what was put before; after an error it is thrown away."""
        with self.changed:
            if self.error is None:
                self.waiting.append(data)
                self.held += len(data)
                self.changed.notify_all()

    def end(self) -> None:
        """Let what is held be written, and no more come."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def drained(self, seconds: float) -> bool:
        """Wait for so long at most; return whether nothing that was put is held any more."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.held, seconds)

    def finished(self, seconds: float) -> bool:
        """Wait after `end`, for so long at most; return whether all is written, or cannot be."""
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def run(self) -> None:
        """Write until the end, or until that cannot be."""
        try:
            while (data := self.take()) is not None:
                write(self.fd, data)
                with self.changed:
                    self.held -= len(data)
                    self.changed.notify_all()
        except OSError as error:
            with self.changed:
                self.error = error
                self.waiting.clear()
                self.held = 0
                self.changed.notify_all()

    def take(self) -> bytes | None:
        """Return what is to be written next, None at the end."""
        with self.changed:
            while not self.waiting:
                if data := self.more():
                    self.held += len(data)
                    return data
                if self.ended:
                    return None
                self.changed.wait()
            return self.waiting.popleft()


def write(fd: int, data: bytes) -> None:
    """Write all of it, however long that takes, also where somebody set O_NONBLOCK."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()
