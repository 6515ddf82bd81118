"""
Another name, as setproctitle gives Airflow's processes.

fs/exec.c __set_task_comm writes 16 bytes of `task_struct.comm`; the title is written
by the process over its own argv.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pidtrail.events import Title
from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check

ROUNDS: Final = 10
COMM: Final = 15
"""include/linux/sched.h TASK_COMM_LEN, without the NUL."""


class Rename(Experiment):
    """Titles such as Airflow gives."""

    name = "rename"
    claim = "A process keeps its PID when it changes its title (setproctitle)"
    needs = ("sees_short_lived", "has_titles")
    wants = least(title=ROUNDS)

    def act(self, bench: Bench) -> Pair:
        """Give it one title after another."""
        subject = bench.fork()
        before = subject.probe()
        for turn in range(ROUNDS):
            subject.ask("title", text=title_of(turn))
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that each title was seen."""
        texts = [title_of(turn) for turn in range(ROUNDS)]
        seen = [e for e in trial.about(trial.before) if isinstance(e, Title)]
        yield Check(
            "each name was reported, in order",
            [e.comm for e in seen] == [text[:COMM] for text in texts],
        )
        # Where the title is joined from /proc it may be a later one already.
        yield Check("and no title that it never had", {e.title for e in seen} <= {None, *texts})
        yield Check("its name is another one", trial.before.comm != trial.after.comm)


def title_of(turn: int) -> str:
    """Return a title that differs within the bytes that the kernel keeps of a name."""
    return f"try {turn}: lab task runner"
