"""
Another process group, another session.

kernel/sys.c setpgid and ksys_setsid attach the process to another struct pid for
PIDTYPE_PGID and PIDTYPE_SID (kernel/pid.c change_pid); PIDTYPE_TGID is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator

from pidtrail.lab.bench import Bench
from pidtrail.lab.experiment import Experiment, Pair, Trial, least
from pidtrail.lab.model import Check


class SetsidSetpgid(Experiment):
    """A group of its own and back, then a session of its own; a child is born in each."""

    name = "setsid-setpgid"
    claim = "A process keeps its PID in another process group or session"
    wants = least(children=3)

    def act(self, bench: Bench) -> Pair:
        """Change group and session."""
        subject = bench.fork()
        before = subject.probe()
        subject.ask("setpgid", group=0)
        subject.ask("forks", count=1)
        subject.ask("setpgid", group=before.pgid)
        subject.ask("forks", count=1)
        subject.ask("setsid")
        subject.ask("forks", count=1)
        after = subject.probe()
        bench.dismiss(subject)
        return Pair(before, after)

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that it came into a group and a session of its own."""
        before, after = trial.before, trial.after
        yield Check("it leads a new session", before.sid != after.sid == after.pid)
        yield Check("it leads a new group", before.pgid != after.pgid == after.pid)
