"""
A new process: fork.

kernel/fork.c copy_process takes a number with kernel/pid.c alloc_pid, before the child
first runs. This is the one place where PIDs come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check, Expected

TWO: Final = Expected(pid_changed=True, same_process=False, parent_changed=False)
"""Two processes with a number each."""


class Birth(Experiment):
    """Someone starts a process; the one that started it stays who it is."""

    family = "new"
    expected = TWO
    how = "fork"
    wants = least(children=1)

    def act(self, bench: Bench) -> Pair:
        """Let a puppet start another one."""
        parent = bench.fork()
        before = parent.probe()
        child = bench.fork(parent, self.how)
        after = child.probe()
        bench.dismiss(child)
        bench.dismiss(parent)
        return Pair(before, after)

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that the one was born of the other."""
        birth = trial.birth(trial.after)
        yield Check(
            "the second was born of the first",
            birth is not None
            and (birth.ppid, birth.parent_start_ticks)
            == (trial.before.pid, trial.before.start_ticks),
        )


class Fork(Birth):
    """Plain fork."""

    name = "fork"
    claim = "fork makes a new process with a PID of its own; the parent keeps its PID"
    how = "fork"


class WithExec(Birth):
    """A birth that is followed by execve: the new number comes from the one, not the other."""

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield also that the number was given before execve, and kept."""
        yield from super().checks(trial)
        birth, execs = trial.birth(trial.after), trial.execs(trial.after)
        yield Check(
            "it had its number before it became another program",
            birth is not None
            and bool(execs)
            and birth.ts_boot_ns < execs[0].ts_boot_ns
            and birth.pid == execs[0].pid,
        )


class VforkExec(WithExec):
    """vfork and execve, as Python's subprocess does it."""

    name = "vfork-exec"
    claim = "vfork gives the new PID; execve in the child keeps it"
    how = "vfork_exec"


class PosixSpawn(WithExec):
    """posix_spawn, as the C library does it."""

    name = "posix-spawn"
    claim = "posix_spawn makes a new process with a PID of its own"
    how = "posix_spawn"


class DoubleFork(Birth):
    """The way of daemons: the process in between exits, and the grandchild is adopted."""

    name = "double-fork"
    claim = "A daemon (double fork) is a new process, and its parent is soon another one"
    expected = Expected(pid_changed=True, same_process=False, parent_changed=True)
    wants = least(fork=2, children=1)

    def act(self, bench: Bench) -> Pair:
        """Let a puppet fork one that forks one and exits."""
        starter = bench.fork()
        before = starter.probe()
        middle = bench.fork(starter)
        daemon = bench.fork(middle)
        daemon.ask("setsid")
        bench.dismiss(middle)
        after = daemon.probe()
        bench.dismiss(daemon)
        bench.dismiss(starter)
        return Pair(before, after, {"middle": middle.pid})

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that lineage goes through the process in between."""
        birth = trial.birth(trial.after)
        middle = trial.facts["middle"]
        yield Check("it was born of the one in between", bool(birth and birth.ppid == middle))
        born = trial.born_of(trial.before)
        yield Check("which was born of the first", [fork.pid for fork in born] == [middle])
