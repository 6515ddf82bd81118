"""
What an experiment is: something done to children of ours, and what is to be seen of it.

`act` does it on a bench and says who to compare; `checks` judges the records. Judging
is pure: it sees what was captured and nothing else, so a test can hand it records of
a kernel that does not exist.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple

from pidtrail.codec import type_name
from pidtrail.events import Event, Exec, Exit, Fidelity, Fork, Lost, Migrate, Observed, Signal
from pidtrail.lab.bench import Bench
from pidtrail.lab.identity import is_of
from pidtrail.lab.model import Check, Expected, Family, Identity

COUNTERS: Final = (
    *("voluntary_switches", "involuntary_switches"),
    *("minor_faults", "major_faults", "migrations"),
)


class Pair(NamedTuple):
    """
    Who to compare: before and after, or the one process and the other.

    `facts` are what else was asked of the kernel meanwhile, for `checks`.
    """

    before: Identity
    after: Identity
    facts: dict[str, Any] = {}  # noqa: RUF012 (never written to)


class Trial(NamedTuple):
    """All that was captured of one experiment: what is judged."""

    before: Identity
    after: Identity
    events: list[Event]
    facts: dict[str, Any] = {}  # noqa: RUF012 (never written to)

    def about(self, identity: Identity) -> list[Event]:
        """Return the records of one process."""
        return [event for event in self.events if is_of(identity, event)]

    def born_of(self, identity: Identity) -> list[Fork]:
        """Return the births of a process's children."""
        return [
            event
            for event in self.events
            if isinstance(event, Fork)
            and event.ppid == identity.pid
            and event.parent_start_ticks == identity.start_ticks
        ]

    def birth(self, identity: Identity) -> Fork | None:
        """Return the record of a process's birth, if there is one."""
        return next((e for e in self.about(identity) if isinstance(e, Fork)), None)

    def exit(self, identity: Identity) -> Exit | None:
        """Return the record of a process's end, if there is one."""
        return next((e for e in self.about(identity) if isinstance(e, Exit)), None)

    def execs(self, identity: Identity) -> list[Exec]:
        """Return the programs that a process became, in order."""
        return [e for e in self.about(identity) if isinstance(e, Exec)]

    def signals(self, identity: Identity, number: int) -> list[Signal]:
        """Return the signals of one kind that a process was sent."""
        return [e for e in self.about(identity) if isinstance(e, Signal) and e.sig == number]

    def moves(self, identity: Identity) -> list[Migrate]:
        """Return the moves of a process between CPUs."""
        return [e for e in self.about(identity) if isinstance(e, Migrate)]

    def lost(self) -> bool:
        """Return whether any record was lost: then nothing may rest on a count being exact."""
        return any(isinstance(event, Lost) for event in self.events)


class Experiment:
    """
    One experiment; a subclass for each.

    `claim` is what we expect of the kernel. `wants` are the least counts (see
    `exercised`) without which nothing was tested; `headline` names those that a table
    shows. `needs` are fields of Fidelity.
    """

    name: ClassVar[str]
    claim: ClassVar[str]
    family: ClassVar[Family] = "keeps"
    expected: ClassVar[Expected] = Expected(
        pid_changed=False, same_process=True, parent_changed=False
    )
    needs: ClassVar[tuple[str, ...]] = ("sees_short_lived",)
    wants: ClassVar[Mapping[str, int]] = MappingProxyType({})
    headline: ClassVar[tuple[str, ...]] = ()
    migrations: ClassVar[bool] = False

    def missing(self) -> str | None:
        """Return what this host lacks for it, or None."""
        return None

    def act(self, bench: Bench) -> Pair:
        """Do it, and return who to compare. Raises Skip."""
        raise NotImplementedError

    def counts(self, trial: Trial) -> dict[str, int]:  # noqa: ARG002 (for those who count)
        """Return what else is counted, beside the kinds of records and the kernel's counters."""
        return {}

    def checks(self, trial: Trial) -> Iterator[Check]:  # noqa: ARG002 (for those who check)
        """Yield what else is expected, beside `expected`."""
        yield from ()

    def notes(self, trial: Trial) -> list[str]:  # noqa: ARG002 (for those who have any)
        """Return what a reader should know beside: what was not testable, what a host does."""
        return []


def lacking(fidelity: Fidelity, source: str, needs: tuple[str, ...]) -> str | None:
    """Return what a source would have to know for an experiment and does not, or None."""
    missing = [name for name in needs if not getattr(fidelity, name)]
    if not missing:
        return None
    return f"source {source} cannot evidence it: it declares {', '.join(missing)} False"


def exercised(trial: Trial) -> dict[str, int]:
    """
    Return how often what happened to the processes compared.

    A kind of record each, signals by name, the births of their children, and, where
    both are one process, the kernel's counters of its whole life from its exit record.
    """
    counted: Counter[str] = Counter()
    for event in trial.events:
        if isinstance(event, Lost):
            counted["lost"] += event.count or 1
        elif is_of(trial.before, event) or is_of(trial.after, event):
            if isinstance(event, Observed):
                continue
            counted[type_name(event)] += 1
            if isinstance(event, Signal) and event.sig is not None:
                counted[signal.Signals(event.sig).name] += 1
    counted["children"] = len(trial.born_of(trial.before))
    found = dict(counted)
    end = trial.exit(trial.before)
    if end is not None and end == trial.exit(trial.after):
        found |= {name: value for name in COUNTERS if (value := getattr(end, name)) is not None}
    return {name: number for name, number in found.items() if number}


def least(**counts: int) -> Mapping[str, int]:
    """Return the least counts of what must have been seen."""
    return MappingProxyType(counts)


def need_root() -> str | None:
    """Return that root is needed, or None for root."""
    return None if os.geteuid() == 0 else f"it needs root (this is uid {os.geteuid()})"
