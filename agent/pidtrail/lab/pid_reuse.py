"""
One number, two processes: PIDs are used again.

kernel/pid.c alloc_pid goes up to pid_max and begins again at 300 (RESERVED_PIDS);
free_pid has given back the numbers of the dead. Since Linux 6.14 pid_max belongs to
the PID namespace, so that in one of our own the numbers run out in some 300 forks and
the host's are left alone. The number is one, the start time and the pidfs inode two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pidtrail.events import Fork
from pidtrail.lab.bench import Bench, Puppet, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.identity import seen_inside
from pidtrail.lab.model import Check, Expected

PID_MAX: Final = 320
LIMIT: Final = 4 * PID_MAX
FIRST_AGAIN: Final = 300
"""include/linux/threads.h and kernel/pid.c RESERVED_PIDS: lower numbers are given once only."""


class PidReuse(Experiment):
    """In a namespace with few numbers: a process, its end, and forks until its number is back."""

    name = "pid-reuse"
    claim = "A PID is used again by another process; start time and pidfs inode tell them apart"
    family = "reused"
    expected = Expected(pid_changed=False, same_process=False, parent_changed=False)
    needs = ("sees_short_lived", "has_start_ns")
    wants = least(fork=2)
    headline = ("forks_in_between",)

    def missing(self) -> str | None:
        """A PID namespace with a pid_max of its own is needed."""
        found = re.match(r"(\d+)\.(\d+)", os.uname().release)
        if found is None or (int(found[1]), int(found[2])) < (6, 14):
            return "it needs Linux 6.14, where each PID namespace has its own pid_max"
        return need_root()

    def act(self, bench: Bench) -> Pair:
        """Have a number given, given back, and given again."""
        host = pid_max()
        maker = bench.fork()
        maker.ask("unshare_pid")
        init = bench.fork(maker)
        init.ask("pid_max", highest=PID_MAX)
        if pid_max() != host:
            Path("/proc/sys/kernel/pid_max").write_text(str(host), encoding="ascii")
            raise Skip("here pid_max of a PID namespace is the host's; it was put back")
        first = self.number(bench, init)
        before = seen_inside(first.probe())
        bench.dismiss(first)
        second = self.number(bench, init)
        after = seen_inside(second.probe())
        for puppet in (second, init, maker):
            bench.dismiss(puppet)
        return Pair(before, after)

    def number(self, bench: Bench, init: Puppet) -> Puppet:
        """Return a process that has the first number that may be used again."""
        return bench.fork(init, "fork_until", number=FIRST_AGAIN, limit=LIMIT)

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how many processes were born in the namespace between the two."""
        births = [trial.birth(trial.before), trial.birth(trial.after)]
        if births[0] is None or births[1] is None:
            return {}
        first, last = births[0].ts_boot_ns, births[1].ts_boot_ns
        between = [
            e
            for e in trial.events
            if isinstance(e, Fork) and e.pid_ns == births[0].pid_ns and first < e.ts_boot_ns < last
        ]
        return {"forks_in_between": len(between)}

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that the kernel gave the number twice, in one namespace, one after the other."""
        first, second = trial.birth(trial.before), trial.birth(trial.after)
        ended = trial.exit(trial.before)
        yield Check(
            "both were born with this number in one PID namespace",
            first is not None
            and second is not None
            and first.pid_ns == second.pid_ns
            and bool(first.ns_pids and second.ns_pids)
            and (first.ns_pids or [])[-1] == (second.ns_pids or [])[-1] == trial.before.pid,
        )
        yield Check(
            "the first had ended before the second was born",
            ended is not None and second is not None and ended.ts_boot_ns < second.ts_boot_ns,
        )
        one, other = trial.before, trial.after
        yield Check("their start times differ", one.start_ns != other.start_ns)
        if one.pidfs_inode is not None:
            yield Check("their pidfs inodes differ", one.pidfs_inode != other.pidfs_inode)


def pid_max() -> int:
    """Return the highest number of our own PID namespace."""
    return int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
