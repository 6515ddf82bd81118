"""
Another scheduling policy or nice value.

kernel/sched/syscalls.c __sched_setscheduler (in older kernels sched/core.c) takes the task
off its queue and puts it on another, with other priorities.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from typing import Final

from pidtrail.events import Title
from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.model import Check

POLICIES: Final = {
    "batch": (os.SCHED_BATCH, 0),
    "idle": (os.SCHED_IDLE, 0),
    "fifo": (os.SCHED_FIFO, 1),
    "rr": (os.SCHED_RR, 1),
    "other": (os.SCHED_OTHER, 0),
}
ROUNDS: Final = 4


class SchedulingClass(Experiment):
    """Through all policies, with a sign of life under each: it renames its task to the policy."""

    name = "scheduling-class"
    claim = "A process keeps its PID under another scheduling policy or nice value"
    headline = ("policy_changes",)
    needs = ("sees_short_lived", "has_titles")
    wants = least(title=(len(POLICIES) + 1) * ROUNDS)

    def missing(self) -> str | None:
        """Real-time policies need root."""
        return need_root()

    def act(self, bench: Bench) -> Pair:
        """Give it each policy, then another nice value."""
        subject = bench.fork()
        before = subject.probe()
        for _ in range(ROUNDS):
            for name, (policy, priority) in POLICIES.items():
                try:
                    os.sched_setscheduler(subject.pid, policy, os.sched_param(priority))
                except OSError as error:
                    raise Skip(f"policy {name} is not allowed here: {error.strerror}") from error
                if os.sched_getscheduler(subject.pid) != policy:
                    raise Skip(f"this kernel did not take policy {name}")
                subject.ask("sign", name=name)
            os.setpriority(os.PRIO_PROCESS, subject.pid, 10)
            subject.ask("sign", name="nice")
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how often it gave a sign of life under another policy than before."""
        signs = [e.comm for e in trial.about(trial.before) if isinstance(e, Title)]
        return {"policy_changes": sum(map(operator.ne, signs, [None, *signs]))}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that it gave a sign of life under each."""
        signs = [e.comm for e in trial.about(trial.before) if isinstance(e, Title)]
        yield Check("it ran under each policy, in order", signs == [*POLICIES, "nice"] * ROUNDS)
