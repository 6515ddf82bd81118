"""
A shell: which process holds which PID, for a pipeline and for a single command.

A shell forks for each part of a pipeline. For the only command of `sh -c` some shells
skip the fork and execve in their own process, so that the command has the shell's PID:
bash does, dash 0.5.12 does not. The notes say what the shells of this host do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Final

from pidtrail.events import Event, Exec, Fork
from pidtrail.lab.bench import Bench, Puppet, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.fork import TWO
from pidtrail.lab.identity import of_birth
from pidtrail.lab.model import Check

PIPELINE: Final = "sleep 0.02 | cat; exit 0"
SINGLE: Final = "sleep 0.02"


class ShellPipeline(Experiment):
    """`sh -c` with two commands in a pipeline, and with one command."""

    name = "shell-pipeline"
    claim = "Each part of a shell pipeline is a process of its own, with its own PID"
    family = "new"
    expected = TWO
    wants = least(children=2)

    def act(self, bench: Bench) -> Pair:
        """Run both, each to its end."""
        pipeline = run(bench, "/bin/sh", PIPELINE)
        single = {"sh": run(bench, "/bin/sh", SINGLE).pid}
        if (bash := shutil.which("bash")) is not None:
            single["bash"] = run(bench, bash, SINGLE).pid
        births = bench.of(Fork, pipeline)
        parts = born_of(bench.events, pipeline)
        if not births or not parts:
            raise Skip("the source did not report the shell's children")
        return Pair(of_birth(births[0]), of_birth(parts[-1]), {"single": single})

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that each part became its command in a process of its own."""
        shell = trial.before.pid
        parts = [fork.pid for fork in trial.born_of(trial.before)]
        ran = {e.pid for e in trial.events if isinstance(e, Exec) and e.pid in parts}
        yield Check("two parts, two processes", len(parts) == len(ran) == 2)
        yield Check("none of them is the shell's", shell not in parts)

    def notes(self, trial: Trial) -> list[str]:
        """Return what this host's shells do with a single command."""
        told = []
        for name, pid in trial.facts["single"].items():
            programs = [e for e in trial.events if isinstance(e, Exec) and e.pid == pid]
            where = "with the shell's PID (execve, no fork)" if programs[1:] else "in a new process"
            told.append(f"{name} -c COMMAND: the command runs {where}")
        return told


def run(bench: Bench, shell: str, text: str) -> Puppet:
    """Let a puppet become a shell that runs this, to its end."""
    puppet = bench.fork()
    puppet.tell("become", argv=[shell, "-c", text])
    bench.await_end(puppet)
    bench.stage.ask("wait")
    return puppet


def born_of(events: list[Event], puppet: Puppet) -> list[Fork]:
    """Return the births of a puppet's children."""
    return [e for e in events if isinstance(e, Fork) and e.ppid == puppet.pid]
