"""
A retry: the supervisor runs a failing child again.

Nothing in the kernel connects the two attempts but their parent. The second has
another number because it is another process (kernel/fork.c copy_process), and not
because the first one's changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.fork import TWO
from pidtrail.lab.model import Check

FAILURE: Final = 1


class Retry(Experiment):
    """The first attempt fails, the second succeeds."""

    name = "retry"
    claim = "A retry is a new process with a new PID; the first attempt's never changed"
    family = "new"
    expected = TWO
    headline = ("fork", "exit")
    wants = least(fork=2, exit=2)

    def act(self, bench: Bench) -> Pair:
        """Let a supervisor run an attempt, collect it, and run another one."""
        supervisor = bench.fork()
        first = bench.fork(supervisor)
        before = first.probe()
        bench.dismiss(first, code=FAILURE)
        second = bench.fork(supervisor)
        after = second.probe()
        bench.dismiss(second)
        bench.dismiss(supervisor)
        return Pair(before, after, {"supervisor": supervisor.pid})

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that one parent ran both, one after the other."""
        births = [trial.birth(trial.before), trial.birth(trial.after)]
        yield Check(
            "one supervisor forked both",
            all(birth is not None and birth.ppid == trial.facts["supervisor"] for birth in births),
        )
        failed, last = trial.exit(trial.before), births[1]
        yield Check(
            "the first had failed before the second was born",
            failed is not None
            and last is not None
            and failed.exit_code == FAILURE
            and failed.ts_boot_ns < last.ts_boot_ns,
        )
