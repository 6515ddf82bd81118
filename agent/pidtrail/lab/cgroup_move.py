"""
Moving between cgroups, as a container runtime or systemd does.

kernel/cgroup/cgroup.c cgroup_migrate_execute changes `task_struct.cgroups`; a PID
belongs to a PID namespace, which a cgroup is not.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Final

from pidtrail.lab import cgroup
from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.model import Check

ROUNDS: Final = 20


class CgroupMove(Experiment):
    """To and fro between two cgroups; a child born in each shows by its cgroup where that was."""

    name = "cgroup-move"
    claim = "A process keeps its PID when it is moved to another cgroup"
    headline = ("cgroup_moves",)
    wants = least(children=2 * ROUNDS, cgroup_moves=2 * ROUNDS)

    def missing(self) -> str | None:
        """Root and version 2 are needed: records carry the cgroup of version 2."""
        if cgroup.tops()[0] is None:
            return "it needs cgroup version 2, mounted anywhere"
        return need_root()

    def act(self, bench: Bench) -> Pair:
        """Move it, and let it fork there."""
        top = cgroup.tops()[0]
        assert top is not None  # noqa: S101 (see missing)
        places = [bench.cgroup(top, "left"), bench.cgroup(top, "right")]
        subject = bench.fork()
        before = subject.probe()
        for _ in range(ROUNDS):
            for place in places:
                try:
                    place.add(subject.pid)
                except OSError as error:
                    raise Skip(f"it may not be moved to {place.path}: {error}") from error
                subject.ask("forks", count=1)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how often it was seen in another cgroup than before."""
        ids = [fork.cgroup_id for fork in trial.born_of(trial.before)]
        return {"cgroups": len(set(ids)), "cgroup_moves": sum(map(operator.ne, ids, [None, *ids]))}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that it was in the two by turns."""
        ids = [fork.cgroup_id for fork in trial.born_of(trial.before)]
        yield Check(
            "its children were born in two cgroups by turns",
            len(set(ids)) == 2 and all(map(operator.ne, ids[1:], ids)),
        )
