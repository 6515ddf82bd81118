"""
One process with several numbers: PID namespaces, as every container has one.

kernel/pid.c alloc_pid takes one number in each namespace from the process's own up to
the first, at fork; `struct pid` keeps them all in numbers[]. Who asks sees the one of
the namespace that he is in (pid_nr_ns).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pidtrail.events import Fork
from pidtrail.lab.bench import Bench, Puppet
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.identity import seen_inside
from pidtrail.lab.model import Check, Expected

LEVELS: Final = 2


class PidNamespace(Experiment):
    """A process two namespaces down: by the lab's number, and by the one that it sees itself."""

    name = "pid-namespace"
    claim = "One process has another number in each PID namespace, all at once"
    family = "numbers"
    expected = Expected(pid_changed=True, same_process=True, parent_changed=False)
    headline = ("numbers",)
    wants = least(fork=1, numbers=LEVELS + 1)

    def missing(self) -> str | None:
        """Only root makes PID namespaces without more ado."""
        return need_root()

    def act(self, bench: Bench) -> Pair:
        """Go down two levels, with some more births so that the numbers differ."""
        init: Puppet | None = None
        ancestors: list[Puppet] = []
        for level in range(LEVELS):
            maker = bench.fork(init)
            maker.ask("unshare_pid")
            init = bench.fork(maker)
            init.ask("forks", count=3 + 4 * level)
            ancestors += [maker, init]
        subject = bench.fork(init)
        before = subject.probe()
        said = subject.ask("number")
        after = seen_inside(subject.probe())
        for puppet in (subject, *reversed(ancestors)):
            bench.dismiss(puppet)
        return Pair(before, after, {"said": said})

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how many numbers the kernel gave it."""
        birth = trial.birth(trial.before)
        return {"numbers": len((birth.ns_pids if birth else None) or ())}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that record, /proc and the process itself agree on the numbers."""
        birth = trial.birth(trial.before)
        numbers = (birth.ns_pids if isinstance(birth, Fork) else None) or []
        shown = trial.before.ns_pids or []
        yield Check(
            "the record of its birth has the numbers that /proc shows",
            bool(shown) and numbers[-len(shown) :] == shown,
        )
        yield Check("getpid() gives the innermost", trial.facts["said"] == trial.after.pid)
        yield Check("the numbers differ", len(set(numbers[-LEVELS - 1 :])) == LEVELS + 1)
