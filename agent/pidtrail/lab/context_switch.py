"""
Being switched out and in.

kernel/sched/core.c __schedule picks the next task and counts `nvcsw` or `nivcsw` in
the one that leaves; context_switch changes registers, stack and address space. None
of it writes an identity.
"""

from __future__ import annotations

import os
from typing import Final

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least

SWITCHES: Final = 100_000


class ContextSwitch(Experiment):
    """Ping-pong over two pipes: for each byte the process waits, and another one runs."""

    name = "context-switch"
    claim = "A process keeps its PID when it is switched out and in"
    needs = ("sees_short_lived", "has_counters")
    wants = least(context_switches=SWITCHES)

    def act(self, bench: Bench) -> Pair:
        """Play; each round is one switch at least."""
        subject = bench.fork()
        # On one CPU the two can only take turns.
        os.sched_setaffinity(subject.pid, {min(os.sched_getaffinity(subject.pid))})
        before = subject.probe()
        subject.ask("ping", rounds=SWITCHES + 100)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """
        Return all switches: it waits for its partner, or is put aside when that wakes up.

        Which of the two is the scheduler's choice; the partner's turn comes either way.
        """
        end = trial.exit(trial.before)
        if end is None or end.voluntary_switches is None or end.involuntary_switches is None:
            return {}
        return {"context_switches": end.voluntary_switches + end.involuntary_switches}
