"""
What a process costs: its CPU clock, its memory, its end.

The CPU clock of a process (clock_getcpuclockid(3)) counts in nanoseconds and over
all its threads, so it can be read at the instant when set-up is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.programs.build import program

STEP_S = 0.02
PATIENCE_S = 120
SETTLE_S = 15
CPUCLOCK_SCHED = 2


def cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads of a process (include/linux/posix-timers_types.h)."""
    return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Look again until a condition holds. Raises TimeoutError."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {seconds} s in vain for {what}")
        time.sleep(STEP_S)


@dataclass
class Cost:
    """What one tool took, in the end."""

    attach_s: float = 0.0
    cpu_before_ns: int = 0
    cpu_ns: int = 0
    rss_kib: int = 0
    peak_kib: int = 0
    wstatus: int = 0


@dataclass
class Watched:
    """A started tool: waits for it to be ready, to be idle, to be gone."""

    process: subprocess.Popen
    started_s: float
    cost: Cost = field(default_factory=Cost)
    gone: bool = False

    def ready(self, is_ready: Callable[[int], bool]) -> None:
        """Wait until it is attached, and note when and at what cost so far."""
        pid = self.process.pid
        limit = self.started_s + 30
        while not is_ready(pid):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise TimeoutError(f"{self.process.args!r} did not attach")
            time.sleep(0.002)
        self.cost.attach_s = time.monotonic() - self.started_s
        self.cost.cpu_before_ns = cpu_ns(pid)

    def look(self) -> bool:
        """Note its memory; reap it if it has ended by itself, and tell whether it has."""
        if self.gone:
            return True
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.cost.peak_kib = int(line.split()[1])
            elif line.startswith("VmRSS:"):
                self.cost.rss_kib = int(line.split()[1])
        pid, wstatus, used = os.wait4(self.process.pid, os.WNOHANG)
        if pid:
            self.gone = True
            self.process.returncode = os.waitstatus_to_exitcode(wstatus)
            self.cost.wstatus = wstatus
            self.cost.cpu_ns = int((used.ru_utime + used.ru_stime) * 1e9)
        return self.gone

    def idle(self) -> bool:
        """Tell whether it is gone, or has taken under 0.5 % of a CPU for 0.4 s."""
        if self.look():
            return True
        before = cpu_ns(self.process.pid)
        time.sleep(0.4)
        return self.look() or cpu_ns(self.process.pid) - before < 2_000_000

    def stop(self) -> Cost:
        """Wait until it has done its work, end it, and return what it took."""
        # Who watches the whole host is never idle while others fork there.
        with contextlib.suppress(TimeoutError):
            wait_for(self.idle, f"{self.process.args!r} to be idle", SETTLE_S)
        if not self.gone:
            self.process.send_signal(signal.SIGINT)
        wait_for(self.look, f"the end of {self.process.args!r}", 30)
        return self.cost

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if not self.gone:
            self.process.kill()
            self.process.wait()
            self.gone = True


@dataclass(frozen=True)
class Took:
    """How long a storm took by the clock, and in CPU time, in which others' load does not count."""

    wall_ns: int
    cpu_ns: int


class Storm:
    """The storm program behind its gate; the same for everyone who watches."""

    def __init__(self, forks: int, width: int) -> None:
        command = [str(program("gate")), str(program("storm")), str(forks), str(width)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # the gate says that it is there

    @property
    def pid(self) -> int:
        """Return the number of the parent of all."""
        return self.process.pid

    def run(self) -> Took:
        """Let it go, wait for its end, and return how long it says it took."""
        said, _ = self.process.communicate(b"!", timeout=PATIENCE_S)
        line = json.loads(said)
        return Took(line["elapsed_ns"], line["cpu_ns"])

    def kill(self) -> None:
        """End it if it never ran."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()
