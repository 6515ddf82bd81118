"""
Being traced by a debugger.

kernel/ptrace.c ptrace_attach makes the tracer the task's `parent`, to whom its stops
are reported; `real_parent`, which getppid(2) and /proc show, stays.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from typing import Final

from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check, Identity

ROUNDS: Final = 10
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
WALL: Final = 0x4000_0000


class PtraceAttach(Experiment):
    """Attached and detached; each attach stops it with a SIGSTOP that the kernel sends."""

    name = "ptrace-attach"
    claim = "A process keeps its PID and its parent while a debugger holds it"
    needs = ("sees_short_lived", "has_signals")
    headline = ("attaches",)
    wants = least(SIGSTOP=ROUNDS)

    def act(self, bench: Bench) -> Pair:
        """Attach, look who traces and who is the parent, detach."""
        subject = bench.fork()
        before = subject.probe()
        held = []
        for _ in range(ROUNDS):
            ptrace(PTRACE_ATTACH, subject.pid)
            os.waitpid(subject.pid, WALL)
            held.append(subject.probe_held())
            ptrace(PTRACE_DETACH, subject.pid)
        subject.ask("number")
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after, {"held": held})

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how often it was held."""
        return {"attaches": len(trial.facts["held"])}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that it was held, by us, as a child of its own parent."""
        held: list[Identity] = trial.facts["held"]
        yield Check("it was traced", all(who.tracer not in {None, who.pid} for who in held))
        yield Check(
            "while traced it had the same parent",
            {who.ppid for who in held} == {trial.before.ppid},
        )
        yield Check("and the same number", {who.pid for who in held} == {trial.before.pid})
        sent = trial.signals(trial.before, signal.SIGSTOP)
        yield Check("nobody but the kernel stopped it", all(e.sender_pid is None for e in sent))


def ptrace(request: int, pid: int) -> None:
    """Do what ptrace calls a request. Raises Skip where it is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, None, None) == -1:
        why = os.strerror(ctypes.get_errno())
        raise Skip(f"it needs ptrace, which is not allowed here ({why}; see Yama's ptrace_scope)")
