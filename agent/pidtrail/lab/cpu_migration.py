"""
Moving between CPUs, in one thread and in several.

kernel/sched/core.c set_task_cpu writes `task_struct.cpu` and counts
`se.nr_migrations`; the PID is in `task_struct.pid`, `tgid` and `thread_pid`, which
only kernel/fork.c and fs/exec.c write. The event is keyed by the task that is moved:
`current` at that moment is the stopper thread, a waker or a softirq.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Final

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check

MOVES: Final = 1_000
THREADS: Final = 4


class CpuMigration(Experiment):
    """One thread, made to move again and again."""

    name = "cpu-migration"
    claim = "A process keeps its PID when it moves between CPU cores"
    needs = ("sees_short_lived", "has_counters")
    wants = least(migrate=MOVES)
    migrations = True

    def missing(self) -> str | None:
        """Two CPUs are needed."""
        if len(os.sched_getaffinity(0)) < 2:
            return "it needs two CPUs that this process may use; here is one"
        return None

    def act(self, bench: Bench) -> Pair:
        """Let it choose another CPU, some more times than needed."""
        subject = bench.fork()
        before = subject.probe()
        # The first of them may be where it is already.
        subject.ask("flip", cpus=sorted(os.sched_getaffinity(0))[:8], count=MOVES + 50)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return on how many CPUs it was."""
        moves = trial.moves(trial.before)
        return {"cpus": len({move.to_cpu for move in moves} | {move.from_cpu for move in moves})}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that each move was its own, and that two ways of counting agree."""
        moves, end = trial.moves(trial.before), trial.exit(trial.before)
        yield Check(
            "each move is of the thread with the number of the process",
            all(move.tid == trial.before.pid for move in moves),
        )
        yield from agreement(trial)
        yield Check("it ended by itself", end is not None and end.exit_code == 0)


class CpuMigrationThreads(CpuMigration):
    """Several threads of one process, each moving on its own."""

    name = "cpu-migration-threads"
    claim = "A process keeps its PID, and its threads their tids, when threads move between cores"

    def act(self, bench: Bench) -> Pair:
        """Let several threads do so."""
        subject = bench.fork()
        before = subject.probe()
        cpus = sorted(os.sched_getaffinity(0))[:8]
        subject.ask("flip_threads", cpus=cpus, count=MOVES // THREADS + 50, threads=THREADS)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return also how many threads moved often."""
        by_thread = Counter(move.tid for move in trial.moves(trial.before))
        often = [tid for tid, count in by_thread.items() if count >= MOVES // THREADS // 2]
        return super().counts(trial) | {"threads": len(often)}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that several threads moved, and that two ways of counting agree."""
        yield Check(f"{THREADS} threads moved", self.counts(trial)["threads"] == THREADS)
        yield from agreement(trial)


def agreement(trial: Trial) -> Iterator[Check]:
    """Yield that the kernel's own counter at exit is the number of records, if none was lost."""
    end = trial.exit(trial.before)
    if not trial.lost() and end is not None and end.migrations is not None:
        yield Check(
            "the counter at exit is the number of moves reported",
            end.migrations == len(trial.moves(trial.before)),
        )
