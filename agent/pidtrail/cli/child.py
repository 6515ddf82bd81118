"""
The command that `trace -- CMD` starts: forked and held until tracing has begun.

It is forked first and execs only when told, so that the source follows it from
its very first program image on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from typing import TYPE_CHECKING

from pidtrail.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores SIGPIPE and SIGXFSZ, and ignored signals stay ignored over execve (signal(7))."""


class Child:
    """
    A command, forked and waiting to be released.

    `stdout_to_stderr` keeps our own stdout free for events.
    """

    def __init__(self, command: Sequence[str], *, stdout_to_stderr: bool) -> None:
        self.command = list(command)
        self.wstatus: int | None = None
        go_read, self.go = os.pipe()
        self.failed, failed_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.become(go_read, failed_write, stdout_to_stderr=stdout_to_stderr)
        os.close(go_read)
        os.close(failed_write)
        self.pidfd = os.pidfd_open(self.pid)

    def become(self, go: int, failed: int, *, stdout_to_stderr: bool) -> None:
        """Wait for the word, then exec; never returns."""
        try:
            # Our own end of the pipe must go, or we would never see it closed.
            os.close(self.go)
            for number in DEFAULTED:
                signal.signal(number, signal.SIG_DFL)
            if not os.read(go, 1):
                os._exit(1)
            if stdout_to_stderr:
                os.dup2(2, 1)
            os.execvp(self.command[0], self.command)  # noqa: S606 (this is what we are asked for)
        except OSError as error:
            os.write(failed, error.errno.to_bytes(4, "little") if error.errno else b"\0\0\0\0")
        except ValueError:
            # Python's own refusal of an empty name, for which execve(2) has ENOENT.
            os.write(failed, errno.ENOENT.to_bytes(4, "little"))
        finally:
            os._exit(127)

    def release(self) -> None:
        """
        Let it exec.

        Raises CommandError with 127 if there is no such command, 126 if it
        cannot be executed, as a shell says it (POSIX 2.8.2).
        """
        os.write(self.go, b"g")
        os.close(self.go)
        self.go = -1
        said = os.read(self.failed, 4)
        os.close(self.failed)
        self.failed = -1
        if said:
            number = int.from_bytes(said, "little")
            self.wait(None)
            code = 127 if number == errno.ENOENT else 126
            raise CommandError(f"{self.command[0] or repr('')}: {os.strerror(number)}", code)

    def wait(self, timeout: float | None) -> bool:
        """Wait until it has ended, at most `timeout` seconds; return whether it has."""
        if self.wstatus is not None:
            return True
        ready, _, _ = select.select([self.pidfd], [], [], timeout)
        if not ready:
            return False
        _, self.wstatus = os.waitpid(self.pid, 0)
        return True

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self.wstatus is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def end(self, grace_seconds: float) -> None:
        """Ask it to end, and kill it if it does not in time."""
        self.send(signal.SIGTERM)
        if not self.wait(grace_seconds):
            self.send(signal.SIGKILL)
            self.wait(None)

    def abandon(self) -> None:
        """End it before it was released: it sees the pipe closed and exits."""
        if self.go >= 0:
            os.close(self.go)
            self.go = -1
        self.wait(5)

    @property
    def exit_status(self) -> int:
        """Its status as a shell gives it: the exit code, or 128 + N for signal N."""
        if self.wstatus is None:
            return 1
        code = os.waitstatus_to_exitcode(self.wstatus)
        return code if code >= 0 else 128 - code
