"""
A parent that dies: the child gets another parent, by design, and keeps its number.

kernel/exit.c forget_original_parent gives the children of a dying process to the
nearest subreaper above, else to the init of its PID namespace (find_new_reaper):
`real_parent` is written, nothing else of the child.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check, Expected


class Reparent(Experiment):
    """The parent exits; the orphan lives on."""

    name = "reparent"
    claim = "When its parent dies a process gets another parent and keeps its PID"
    expected = Expected(pid_changed=False, same_process=True, parent_changed=True)
    headline = ("adoptions",)
    wants = least(fork=1, exit=1)

    def act(self, bench: Bench) -> Pair:
        """Let a parent exit before its child."""
        parent = bench.fork()
        subject = bench.fork(parent)
        before = subject.probe()
        bench.dismiss(parent)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how many parents it had beyond the first."""
        return {"adoptions": int(trial.before.ppid != trial.after.ppid)}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that its records tell of both parents."""
        birth, end = trial.birth(trial.before), trial.exit(trial.before)
        if birth is None or end is None:
            return
        yield Check("it was born of the first parent", birth.ppid == trial.before.ppid)
        if end.ppid is not None:
            yield Check("and ended as a child of another", end.ppid == trial.after.ppid)


class Subreaper(Reparent):
    """A subreaper in between adopts the orphan, and when that dies, the next one above does."""

    name = "subreaper"
    claim = "A subreaper adopts an orphan, and when it dies the next one does; the PID stays"

    def act(self, bench: Bench) -> Pair:
        """Let the parent exit, then the subreaper."""
        reaper = bench.fork()
        reaper.ask("subreaper")
        parent = bench.fork(reaper)
        subject = bench.fork(parent)
        before = subject.probe()
        bench.dismiss(parent)
        between = subject.probe().ppid
        bench.dismiss(reaper)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after, {"reaper": reaper.pid, "between": between})

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how often it was adopted."""
        parents = [trial.before.ppid, trial.facts["between"], trial.after.ppid]
        return {"adoptions": sum(map(operator.ne, parents[1:], parents))}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield also that it was the subreaper who adopted it first."""
        yield from super().checks(trial)
        yield Check("the subreaper adopted it", trial.facts["between"] == trial.facts["reaper"])
