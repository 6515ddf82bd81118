"""
Being stopped and continued.

kernel/signal.c do_signal_stop parks the threads in TASK_STOPPED; SIGCONT wakes them
(prepare_signal). A state is written, no identity.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Final

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.identity import state_of
from pidtrail.lab.model import Check

ROUNDS: Final = 20


class StopContinue(Experiment):
    """SIGSTOP and SIGCONT; what it is told while stopped is done when it goes on."""

    name = "stop-continue"
    claim = "A process keeps its PID when it is stopped and continued"
    headline = ("SIGSTOP", "SIGCONT")
    needs = ("sees_short_lived", "has_signals")
    wants = least(SIGSTOP=ROUNDS, SIGCONT=ROUNDS, children=ROUNDS)

    def act(self, bench: Bench) -> Pair:
        """Stop it, tell it to fork, and let it go on."""
        subject = bench.fork()
        before = subject.probe()
        for _ in range(ROUNDS):
            subject.send(signal.SIGSTOP)
            bench.wait_for(lambda: state_of(subject.pid) == "T", "that it stopped")
            subject.tell("forks", count=1)
            subject.send(signal.SIGCONT)
            subject.answer()
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that each child was born after the SIGCONT of its round."""
        ups = [e.ts_boot_ns for e in trial.signals(trial.before, signal.SIGCONT)]
        births = [e.ts_boot_ns for e in trial.born_of(trial.before)]
        yield Check(
            "it did nothing while stopped",
            len(ups) == len(births)
            and all(up < birth for up, birth in zip(ups, births, strict=True)),
        )
