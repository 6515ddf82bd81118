"""
The cgroup freezer, which container runtimes use to pause.

kernel/signal.c do_freezer_trap (version 2) and kernel/freezer.c __refrigerator
(version 1) put each thread to sleep; nothing but states is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pidtrail.lab import cgroup
from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.model import Check

ROUNDS: Final = 5
FROZEN_S: Final = 0.02
"""How long it is left frozen, with something to do."""


class Freeze(Experiment):
    """Frozen with a fork to do: the child is born after the thaw, of the same parent."""

    name = "freeze"
    claim = "A process keeps its PID when its cgroup is frozen and thawed"
    headline = ("freezes",)
    wants = least(children=ROUNDS)

    def missing(self) -> str | None:
        """Root and one of the two freezers are needed."""
        return need_root() or (
            None if freezer() else "it needs cgroup version 2, or the v1 freezer"
        )

    def act(self, bench: Bench) -> Pair:
        """Freeze it, tell it to fork, wait, thaw it."""
        top = freezer()
        assert top is not None  # noqa: S101 (see missing)
        place = bench.cgroup(top, "freeze")
        subject = bench.fork()
        before = subject.probe()
        place.add(subject.pid)
        spans: list[tuple[int, int]] = []
        for _ in range(ROUNDS):
            set_frozen(place, on=True)
            if not bench.until(lambda: is_frozen(place), 3.0):
                raise Skip("this kernel did not freeze it within 3 s")
            start = now_ns()
            subject.tell("forks", count=1)
            time.sleep(FROZEN_S)
            spans.append((start, now_ns()))
            set_frozen(place, on=False)
            subject.answer()
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after, {"frozen": spans})

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how often the kernel said that it was frozen."""
        return {"freezes": len(trial.facts["frozen"])}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that nothing was born while it was frozen."""
        births = [fork.ts_boot_ns for fork in trial.born_of(trial.before)]
        yield Check(
            "it did nothing while frozen",
            not any(
                start <= birth <= end for birth in births for start, end in trial.facts["frozen"]
            ),
        )


def freezer() -> Path | None:
    """Return where to make a cgroup that can be frozen: version 2 if there is one."""
    unified, controllers = cgroup.tops()
    return unified or controllers.get("freezer")


def set_frozen(place: cgroup.Cgroup, *, on: bool) -> None:
    """Freeze or thaw."""
    if place.has("cgroup.freeze"):
        place.write("cgroup.freeze", str(int(on)))
    elif place.has("freezer.state"):
        place.write("freezer.state", "FROZEN" if on else "THAWED")
    else:
        raise Skip("this kernel has no freezer in its cgroups (version 2 has one since 5.2)")


def is_frozen(place: cgroup.Cgroup) -> bool:
    """Return whether all that is in there is frozen, by the kernel's word."""
    if place.has("cgroup.freeze"):
        return "frozen 1" in place.read("cgroup.events")
    return place.read("freezer.state").strip() == "FROZEN"


def now_ns() -> int:
    """Return the clock of the records."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
