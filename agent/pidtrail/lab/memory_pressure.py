"""
Running with too little memory, throttled in a memory cgroup.

mm/memcontrol.c try_charge reclaims when the limit is reached and lets the process
wait (mem_cgroup_handle_over_high); mm/vmscan.c takes pages of any process's memory.
Slow is all that it gets by that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pidtrail.events import Oom
from pidtrail.lab import cgroup
from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.model import Check
from pidtrail.lab.page_out import disk_file

LIMIT: Final = 8 << 20
SIZE: Final = 16 << 20
ROUNDS: Final = 2
FAULTS: Final = SIZE // 4096 * 3 // 2
"""The first time through is one fault a page in any case; the limit makes the others."""


class MemoryPressure(Experiment):
    """A file twice as large as the memory allowed, read through again and again."""

    name = "memory-pressure"
    claim = "A process keeps its PID when it is short of memory and throttled"
    needs = ("sees_short_lived", "has_counters")
    wants = least(major_faults=FAULTS)

    def missing(self) -> str | None:
        """Root and a memory controller are needed."""
        if controller() is None:
            return "it needs the memory controller of cgroup version 1 or 2"
        return need_root()

    def act(self, bench: Bench) -> Pair:
        """Limit it, and let it read more than fits."""
        top = controller()
        assert top is not None  # noqa: S101 (see missing)
        place = bench.cgroup(top, "memory")
        with disk_file() as file:
            file.write(bytes(SIZE))
            file.flush()
            subject = bench.fork()
            before = subject.probe()
            place.add(subject.pid)
            limit(place)
            # Pages that were written are not the kernel's to drop before they are on the disk.
            subject.ask("fsync", file.fileno())
            subject.ask("drop", file.fileno())
            subject.ask("read_through", file.fileno(), size=SIZE, rounds=ROUNDS)
            after = subject.probe()
            hits = times_at_limit(place)
            bench.dismiss(subject)
        return Pair(before, after, {"limit_hits": hits})

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how often the cgroup was at its limit."""
        return {"limit_hits": trial.facts["limit_hits"]}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that it was pressed and not killed."""
        end = trial.exit(trial.before)
        yield Check("its cgroup was at the limit", trial.facts["limit_hits"] > 0)
        killed = any(isinstance(event, Oom) for event in trial.about(trial.before))
        yield Check("it was not killed for it", not killed and bool(end and end.exit_code == 0))


def controller() -> Path | None:
    """Return where to make a cgroup with a memory limit."""
    unified, controllers = cgroup.tops()
    if "memory" in controllers:
        return controllers["memory"]
    if unified is not None:
        try:
            enabled = (unified / "cgroup.subtree_control").read_text(encoding="ascii").split()
        except OSError:
            return None
        return unified if "memory" in enabled else None
    return None


def limit(place: cgroup.Cgroup) -> None:
    """Allow it little memory: in version 2 throttled and not killed, in version 1 reclaimed."""
    for name in ("memory.high", "memory.limit_in_bytes"):
        if place.has(name):
            place.write(name, str(LIMIT))
            return
    raise Skip("the memory controller has no limit to set")


def times_at_limit(place: cgroup.Cgroup) -> int:
    """Return how often the limit was reached, by the cgroup's own counter."""
    if place.has("memory.events"):
        events = dict(line.split() for line in place.read("memory.events").splitlines())
        return int(events["high"])
    return int(place.read("memory.failcnt"))
