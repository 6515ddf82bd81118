"""
Another program in the same process: execve.

fs/exec.c begin_new_exec replaces the address space and counts `self_exec_id`; pid,
tgid and start time are those of fork.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check

ROUNDS: Final = 5


class ExecImage(Experiment):
    """Several programs, one after another."""

    name = "exec"
    claim = "A process keeps its PID and start time when it becomes another program (execve)"
    wants = least(exec=ROUNDS)

    def act(self, bench: Bench) -> Pair:
        """Execute again and again."""
        subject = bench.fork()
        before = subject.probe()
        for _ in range(ROUNDS):
            bench.exec(subject)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that the kernel counted images while the start stayed."""
        ids = [record.exec_id for record in trial.execs(trial.before)]
        told = [number for number in ids if number is not None]
        if told:
            yield Check(
                "each program has the next exec_id",
                told == list(range(told[0], told[0] + len(ids))),
            )
        yield Check("the start time stays", trial.before.start_ticks == trial.after.start_ticks)
