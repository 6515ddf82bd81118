"""
execve by a thread that is not the leader: the one case where a task's own number changes.

fs/exec.c de_thread ends all other threads, the leader too, and gives the thread that
stays the leader's tid and start time (exchange_tids). So the process keeps its PID and
the thread loses its tid: a tid is not a PID.
"""

from __future__ import annotations

from collections.abc import Iterator

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check


class ExecFromThread(Experiment):
    """A second thread executes a program."""

    name = "exec-from-thread"
    claim = "When a thread calls execve the process keeps its PID; the thread's own tid changes"
    wants = least(exec=1)

    def act(self, bench: Bench) -> Pair:
        """Start a thread and let that one execute."""
        subject = bench.fork()
        subject.ask("thread")
        before = subject.probe()
        bench.exec(subject, "again_from_thread")
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how many threads there were."""
        return {"threads_before": len(trial.before.tids or ())}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield what became of the numbers of the two threads."""
        before, after, pid = trial.before.tids, trial.after.tids, trial.before.pid
        yield Check("there were two threads", before is not None and len(before) == 2)
        yield Check("one is left, with the number of the process", after == [pid])
        record = next(iter(trial.execs(trial.before)), None)
        # In a PID namespace below the first the kernel's event has no number that we could use.
        if record is not None and record.old_tid is not None:
            yield Check(
                "it was the other thread that called execve",
                record.old_tid != pid and record.old_tid in (before or ()),
            )

    def notes(self, trial: Trial) -> list[str]:
        """Return the tid that went."""
        gone = set(trial.before.tids or ()) - set(trial.after.tids or ())
        return [f"the thread had tid {tid} and then {trial.before.pid}" for tid in sorted(gone)]
