"""
Runs experiments one after another, and judges each.

Before the first, what an abandoned lab left is swept away. What cannot be done or
evidenced here is skipped with the reason; what was done and contradicts its
expectation is a result.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import structs

from pidtrail import __version__
from pidtrail.errors import SourceUnavailable, UsageError
from pidtrail.events import Event
from pidtrail.lab import leftovers
from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.catalogue import EXPERIMENTS
from pidtrail.lab.claims import answers
from pidtrail.lab.experiment import Experiment, Trial, lacking
from pidtrail.lab.judging import judge, skipped
from pidtrail.lab.model import LabReport, Result
from pidtrail.sources.ladder import open_best
from pidtrail.sources.source import Source


class Runner:
    """
    One run of the lab.

    `show` is called with each record as it comes, `begin` with each experiment,
    `done` with each result.
    """

    def __init__(
        self,
        source_name: str,
        *,
        show: Callable[[Event], None] | None = None,
        begin: Callable[[Experiment], None] | None = None,
        done: Callable[[Result], None] | None = None,
    ) -> None:
        self.source_name = source_name
        self.show, self.begin, self.done = show, begin, done
        self.swept: list[str] = []

    def run(self, names: Iterable[str] = ()) -> LabReport:
        """Run the experiments of these names, or all. Raises PidtrailError."""
        chosen = chosen_kinds(names)
        started = time.monotonic()
        self.swept = leftovers.sweep()
        # Once for nothing: without any source there is no lab, which is no result.
        source, refused = open_best(self.source_name, [])
        source.close()
        results = []
        for kind in chosen:
            experiment = kind()
            if self.begin is not None:
                self.begin(experiment)
            result = self.one(experiment, source)
            results.append(result)
            if self.done is not None:
                self.done(result)
        return LabReport(
            results,
            answers(results),
            holds=all(result.holds is not False for result in results),
            version=__version__,
            host=socket.gethostname(),
            kernel=os.uname().release,
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(),
            source=source.name,
            refused=refused,
            seconds=round(time.monotonic() - started, 3),
        )

    def one(self, experiment: Experiment, source: Source) -> Result:
        """Run one experiment, if it can be done here and `source` can carry its evidence."""
        started = time.monotonic()
        reason = experiment.missing() or lacking(source.fidelity, source.name, experiment.needs)
        result = self.attempt(experiment) if reason is None else skipped(experiment, reason)
        return structs.replace(result, seconds=round(time.monotonic() - started, 3))

    def attempt(self, experiment: Experiment) -> Result:
        """Return the result, or why there is none."""
        try:
            with Bench(self.source_name, migrations=experiment.migrations, show=self.show) as bench:
                pair = experiment.act(bench)
                bench.drain()
                events = list(bench.events)
        except (Skip, SourceUnavailable) as reason:
            return skipped(experiment, str(reason))
        except OSError as error:
            # Containers forbid this and that; what it was, the message says.
            return skipped(experiment, f"it could not be done here: {error}")
        return judge(experiment, Trial(pair.before, pair.after, events, pair.facts))


def chosen_kinds(names: Iterable[str]) -> list[type[Experiment]]:
    """Return the experiments of these names, in their own order, or all. Raises UsageError."""
    wanted = list(names)
    for name in wanted:
        if name not in EXPERIMENTS:
            raise UsageError(f"no experiment {name}: `pidtrail lab --list` shows all")
    return [kind for name, kind in EXPERIMENTS.items() if not wanted or name in wanted]
