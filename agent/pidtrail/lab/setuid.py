"""
Another user.

kernel/cred.c commit_creds puts new credentials on the task; a PID is none of them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Final

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.model import Check

NOBODY: Final = 65_534
"""The overflow uid: it exists everywhere and owns nothing (kernel.overflowuid)."""


class Setuid(Experiment):
    """Root becomes nobody; a signal to itself, before and after, shows by whom it was sent."""

    name = "setuid"
    claim = "A process keeps its PID when it becomes another user (setuid)"
    needs = ("sees_short_lived", "has_signals")
    headline = ("users",)
    wants = least(SIGCONT=2)

    def missing(self) -> str | None:
        """Only root may become another user."""
        return need_root()

    def act(self, bench: Bench) -> Pair:
        """Become nobody."""
        subject = bench.fork()
        before = subject.probe()
        subject.ask("raise_signal", sig=signal.SIGCONT)
        subject.ask("setuid", uid=NOBODY)
        subject.ask("raise_signal", sig=signal.SIGCONT)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return as how many users it sent a signal."""
        sent = trial.signals(trial.before, signal.SIGCONT)
        return {"users": len({record.sender_uid for record in sent})}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that the user is another one, and the sender the same process."""
        sent = trial.signals(trial.before, signal.SIGCONT)
        yield Check(
            "its signals came from two users",
            [record.sender_uid for record in sent] == [trial.before.uid, NOBODY],
        )
        yield Check(
            "and from one process", {record.sender_pid for record in sent} == {trial.before.pid}
        )
        yield Check("the user is another one", trial.after.uid == NOBODY != trial.before.uid)
