"""
A restart: the supervisor is killed and started again, and its child lives on.

SIGKILL ends one process and none of its children; those get another parent
(kernel/exit.c forget_original_parent). The new supervisor knows nothing of them and
starts a new process: now there are two.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

from pidtrail.events import Exit, Signal
from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check, Expected


class Restart(Experiment):
    """The worker of the killed supervisor is compared with that of the new one."""

    name = "restart"
    claim = (
        "After a restart a new process runs; the old one lives on, reparented, its PID unchanged"
    )
    family = "new"
    expected = Expected(pid_changed=True, same_process=False, parent_changed=True)
    wants = least(fork=2)

    def act(self, bench: Bench) -> Pair:
        """Kill a supervisor, start another one, and look at both workers."""
        supervisor = bench.fork()
        worker = bench.fork(supervisor)
        before = worker.probe()
        supervisor.send(signal.SIGKILL)
        bench.await_end(supervisor)
        bench.stage.ask("wait")
        again = bench.fork()
        successor = bench.fork(again)
        orphan, after = worker.probe(), successor.probe()
        for puppet in (worker, successor, again):
            bench.dismiss(puppet)
        return Pair(before, after, {"supervisor": supervisor.pid, "orphan": orphan})

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield what became of the supervisor and its worker."""
        killed = trial.facts["supervisor"]
        ends = [e for e in trial.events if isinstance(e, Exit) and e.pid == killed]
        yield Check("the supervisor was killed", [e.termsig for e in ends] == [signal.SIGKILL])
        senders = {e.sender_pid for e in trial.events if isinstance(e, Signal) and e.pid == killed}
        yield Check("by the lab, if the source reports signals", killed not in senders)
        orphan, birth = trial.facts["orphan"], trial.birth(trial.before)
        yield Check(
            "its worker lived on with the same number and start",
            (orphan.pid, orphan.start_ticks) == (trial.before.pid, trial.before.start_ticks),
        )
        yield Check(
            "as a child of another parent",
            birth is not None and birth.ppid == killed and orphan.ppid != killed,
        )
