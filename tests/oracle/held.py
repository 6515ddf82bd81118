"""
A program of tests/programs, held before its exec until it may go, and its end in any case.

What it says goes to a file, which never makes it wait for us. Leaving the context
kills it with all that descends from it: no test leaves a process behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pidtrail.sources import proc
from tests.programs.build import program

PATIENCE_S = 60.0


class Held:
    """A program behind the gate; `pid` is its number before and after its exec."""

    def __init__(self, name: str, *arguments: str, before: tuple[str, ...] = ()) -> None:
        self.command = [*before, str(program("gate")), str(program(name)), *arguments]

    def __enter__(self) -> Self:
        self.output = tempfile.TemporaryFile("a+")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=self.output, bufsize=0
        )
        self.pid = self.process.pid
        # Popen returns a little before the exec is over.
        wait_for(lambda: len(self.said()) > 0, "the gate")
        return self

    def release(self) -> None:
        """Let the program go."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"!")

    def ended(self) -> bool:
        """Tell whether the program has ended and was reaped."""
        return self.process.poll() is not None

    def size(self) -> int:
        """Return how many bytes it has said, which costs nothing to ask."""
        return os.fstat(self.output.fileno()).st_size

    def said(self, part: str | None = None) -> list[dict[str, Any]]:
        """Return the whole lines it wrote so far, or those of a part of its story."""
        text = os.pread(self.output.fileno(), self.size(), 0).decode()
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [line for line in lines if part is None or line["at"] == part]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            kill_tree(self.pid)
            self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.output.close()


def kill_tree(root: int) -> None:
    """Kill a process of ours and whoever descends from it, until there is nobody else."""
    # Stopped first, it forks no more and stays the ancestor of the rest.
    os.kill(root, signal.SIGSTOP)
    for _ in range(100):
        children, waiting, found = proc.children_of_all(), [root], []
        while waiting:
            found += (next_ones := children.get(waiting.pop(), []))
            waiting += next_ones
        living = [pid for pid in found if (proc.stat_fields(pid) or "Z")[0] != "Z"]
        if not living:
            break
        for pid in living:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    os.kill(root, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Look again until a condition holds. Raises TimeoutError."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.002)
