"""
The one loop: source, attribution, sinks. The only place that wires them.

Every turn takes what the source has, adds what became worthwhile to look up
(open task logs, Airflow's database), labels it with task instances and hands
the batch to the sinks. One sequence numbers all of it, so that evidence can
name a record by `seq` alone; its only holes are losses.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import structs

from pidtrail import __version__
from pidtrail.airflow.facts import Role
from pidtrail.attribution import Attribution, facts_of
from pidtrail.errors import SourceUnavailable
from pidtrail.events import (
    EVENT_SCHEMA,
    AirflowFact,
    Event,
    Exec,
    Exit,
    Fork,
    Header,
    Lost,
    Observed,
    ProcessKey,
    Root,
    TaskReported,
    Title,
)
from pidtrail.healing import Healing
from pidtrail.overlap import untold
from pidtrail.sources import proc
from pidtrail.sources.addresses import own_addresses
from pidtrail.sources.holders import Holders
from pidtrail.sources.tasklog import TaskLogs

if TYPE_CHECKING:
    from pidtrail.sinks.sink import Sink
    from pidtrail.sources.source import Source

TURN_SECONDS: Final = 0.04
QUIET_SECONDS: Final = 0.2
"""Without events the loop turns slower: each turn costs some 50 µs."""
SETTLE_SECONDS: Final = 0.3
"""After the end: sched_process_free runs an RCU grace period after the last reaping."""
TELLING: Final = frozenset({Title, Exec, Observed, TaskReported, AirflowFact})
"""The records from which attribution learns."""
MAX_BATCHES: Final = 100
"""Per turn, so that a storm cannot keep the loop from everything else."""
WORKS_FOR_A_TASK: Final = frozenset({Role.SUPERVISOR, Role.RUNNER, Role.SUDO})


StepDown = Callable[[str, Sequence[int]], "Source"]
"""Opens the best source below the one of that name on some pids (sources/ladder.py)."""


class Climbs(Protocol):
    """When and how to get back up to a better source (sources/ladder.py)."""

    def put_off(self, now_ns: int) -> None:
        """Let some time pass, for a source has just failed."""

    def is_due(self, name: str, now_ns: int) -> bool:
        """Return whether to look for a better source than the one of that name."""

    def open(self, name: str, roots: Sequence[int], now_ns: int) -> Source | None:
        """Return a better one, open on some pids, or None."""


class Claims(Protocol):
    """Where what Airflow says comes from (airflow/sampler.py, airflow/claims.py)."""

    def drain(self) -> list[Event]:
        """Return what was said since the last call; never blocks."""

    def poke(self) -> None:
        """Ask for a reading now."""

    def problems(self) -> list[str]:
        """Return what went wrong, one line each."""

    def stop(self) -> None:
        """Read a last time and end."""


class Session:
    """
    One capture: an open source, some sinks, and where Airflow's claims come from.

    `now_ns` is CLOCK_BOOTTIME in nanoseconds; a seam for tests.
    """

    def __init__(
        self,
        source: Source,
        sinks: Sequence[Sink],
        claims: Sequence[Claims] = (),
        step_down: StepDown | None = None,
        now_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self.source = source
        self.sinks = sinks
        self.claims = claims
        self.step_down = step_down
        self.climb: Climbs | None = None
        self.now_ns = now_ns
        self.healing = Healing()
        self.source_failed = False
        self.turned_ns = now_ns()
        self.attribution = Attribution()
        self.task_logs = TaskLogs(self.attribution.log_names)
        self.holders = Holders()
        self.live: set[ProcessKey] = set()
        self.ended: tuple[set[ProcessKey], set[ProcessKey]] = set(), set()
        """Who ended in the turn before, and in this one."""
        self.events = 0
        self.lost = 0

    def resume(self, told: Iterable[Event], alive: Iterable[ProcessKey]) -> None:
        """
        Go on from an earlier session of this boot, before `start`: what holds, and who lived.

        Who ended meanwhile is found dead by the looks that the `lost` record for it leads to.
        """
        for event in told:
            # What was labelled already would teach nothing.
            own = isinstance(event, TaskReported | AirflowFact)
            self.attribution.label(event if own else structs.replace(event, task=None))
        self.live.update(alive)

    def start(self, first: Sequence[AirflowFact | Lost] = ()) -> None:
        """
        Take the snapshot; the source is open already, so nothing falls in between.

        `first` comes before it, as of `tell`.
        """
        self.tell(first)
        self.take_snapshot(self.source.snapshot())

    def tell(self, said: Sequence[AirflowFact | Lost]) -> None:
        """Deliver what others know, such as Airflow's configuration; it gets number and time."""
        now_ns = self.now_ns()
        events: list[Event] = [
            structs.replace(one, seq=self.source.next_seq(), ts_boot_ns=now_ns) for one in said
        ]
        if events:
            self.deliver(events)

    def pause_s(self, count: int) -> float:
        """Return how long to wait after a turn that brought so many records."""
        pause = TURN_SECONDS if count else QUIET_SECONDS
        until_due = getattr(self.source, "until_due_s", None)
        return pause if until_due is None else min(pause, until_due())

    def take_snapshot(self, snapshot: list[Event]) -> None:
        """Deliver a snapshot and count those in it as alive."""
        self.live.update(e.key for e in snapshot if e.key and not getattr(e, "dead", False))
        self.deliver(snapshot)

    def turn(self) -> int:
        """Do one round and return how many records it brought."""
        now_ns = self.now_ns()
        self.ended = self.ended[1], set()
        # Before the source: who claimed something was born before, and its birth is in there.
        said = [event for claims in self.claims for event in claims.drain()]
        self.holders.take(said)
        count = self.drain(now_ns)
        extra: list[Event] = [
            *self.healing.gone(self.live, self.source.name, now_ns),
            *self.task_logs.look(now_ns),
            *filter(self.is_followed, said),
        ]
        if extra:
            self.deliver([structs.replace(e, seq=self.source.next_seq()) for e in extra])
        for event in said:
            if event.key is not None and event.key not in self.live:
                self.attribution.on_exit(event.key)
        if self.healing.is_due(now_ns):
            self.look(now_ns)
        if self.climb is not None and self.climb.is_due(self.source.name, now_ns):
            self.step_up(self.climb, now_ns)
        self.turned_ns = now_ns
        return count + len(extra)

    def follow(self, roots: Sequence[int]) -> None:
        """Follow further processes, and tell who they are; the source stays open."""
        try:
            self.source.follow(roots)
        except SourceUnavailable as error:
            self.replace_source(error, self.now_ns(), roots)
            return
        self.take_snapshot(self.source.snapshot())

    def look(self, now_ns: int) -> None:
        """Look who is there, after a loss; the turn after it says who is gone."""
        before = set(self.live)
        snapshot = self.source.snapshot()
        self.healing.compare(before, snapshot, now_ns)
        self.take_snapshot(snapshot)

    def drain(self, now_ns: int) -> int:
        """Deliver what the source has, replaced if it is gone; return how many records."""
        count = 0
        if self.source_failed:
            return count
        try:
            for _ in range(MAX_BATCHES):
                batch = self.source.read()
                if not batch:
                    break
                self.deliver(batch)
                count += len(batch)
        except SourceUnavailable as error:
            self.replace_source(error, now_ns)
        return count

    def replace_source(
        self, error: SourceUnavailable, now_ns: int, also: Sequence[int] = ()
    ) -> None:
        """
        Go on with the next best source, from who was alive; what fell between is lost.

        It follows `also` too. Raises the error again if there is nothing to step down to.
        """
        if self.step_down is None:
            self.source_failed = True
            raise error
        old = self.source
        old.close()
        self.source = self.step_down(old.name, sorted({*also, *(key.pid for key in self.live)}))
        self.source.seq = old.seq
        reason = f"{old.name} failed: {error}; went on with {self.source.name}"
        lost = Lost(
            self.source.next_seq(), now_ns, self.source.name,
            from_ns=self.turned_ns, to_ns=now_ns, reason=reason,
        )  # fmt: skip
        self.deliver([lost])
        self.take_snapshot(self.source.snapshot())
        if self.climb is not None:
            self.climb.put_off(now_ns)

    def step_up(self, climb: Climbs, now_ns: int) -> None:
        """
        Go on with a better source, if one works by now, and miss nothing between the two.

        Both are open for a moment. The new one counts from where the old one was read for the
        last time: what the old one told by then is left out. Who ended so that neither told it
        is found by the looks as after a loss.
        """
        old = self.source
        new = climb.open(old.name, proc.tops(self.live), now_ns)
        if new is None:
            return
        try:
            told = [*read_all(old), *old.last()]
        except SourceUnavailable as error:
            new.close()
            self.replace_source(error, now_ns)
            return
        self.deliver(told)
        try:
            # Who was born meanwhile is followed already, but not a root that is new.
            new.follow(proc.tops(self.live))
            heard = untold(told, read_all(new))
        except SourceUnavailable:
            new.close()
            return
        old.close()
        self.source, new.seq = new, old.seq
        self.deliver([structs.replace(event, seq=new.next_seq()) for event in heard])
        self.healing.on_loss(self.now_ns())
        self.take_snapshot(new.snapshot())

    def deliver(self, events: list[Event]) -> None:
        """Label a batch and hand it to the sinks."""
        attribution = self.attribution
        labelled = []
        for event in events:
            kind = type(event)
            # As long as nobody works for a task instance, births and ends can belong to none.
            if attribution.labels or kind in TELLING:
                event = attribution.label(event)  # noqa: PLW2901 (it takes the other's place)
            labelled.append(event)
            if kind is Title or kind is Exec or kind is Observed:
                if getattr(event, "dead", False) and event.key is not None:
                    self.on_end(event.key)
                    continue
                self.follow_up(event)
            elif kind is Fork and event.key is not None:
                self.live.add(event.key)
                if event.task is not None:
                    self.follow_up(event)
            elif kind is Exit and event.key is not None:
                self.on_end(event.key)
            elif isinstance(event, Lost):
                self.lost += event.count or 0
                self.healing.on_loss(event.ts_boot_ns)
        self.events += len(labelled)
        for sink in self.sinks:
            sink.write(labelled)

    def is_followed(self, event: Event) -> bool:
        """
        Return whether a claim is Airflow's, or of a process that is followed.

        Any other process can send claims too, and must not fill our disk with them.
        What was sent before this turn or in it is of who lives, or ended since the
        turn before.
        """
        key = event.key
        return key is None or any(key in known for known in (self.live, *self.ended))

    def on_end(self, key: ProcessKey) -> None:
        """Take in that a process ended, or was found dead."""
        self.live.discard(key)
        self.ended[1].add(key)
        self.task_logs.forget(key)
        self.attribution.on_exit(key)

    def follow_up(self, event: Event) -> None:
        """Look for an open task log, and at the database, where a record makes it worthwhile."""
        key = event.key
        if key is None:
            return
        label = self.attribution.labels.get(key)
        if isinstance(event, Fork):
            # A child of a busy supervisor: Airflow writes its pid about now.
            if label is not None and label.role is Role.RUNNER:
                self.poke()
            return
        if isinstance(event, Observed) and event.log_path is not None:
            return
        facts = facts_of(event) if isinstance(event, Title | Exec | Observed) else None
        if facts is not None and facts.task is not None and facts.role in WORKS_FOR_A_TASK:
            self.task_logs.ask(key, self.now_ns())
            if facts.role is Role.RUNNER:
                self.poke()

    def poke(self) -> None:
        """Ask for what Airflow recorded, now."""
        for claims in self.claims:
            claims.poke()

    def problems(self) -> list[str]:
        """Return what went wrong with Airflow's claims, or with reading them, one line each."""
        said = [line for claims in self.claims for line in claims.problems()]
        return [*said, *self.attribution.log_names.problems]

    def finish(self) -> None:
        """Drain what still comes, read Airflow's claims a last time, close everything."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            self.turn()
            time.sleep(TURN_SECONDS)
        if self.healing.looks_left and not self.source_failed:
            self.look(self.now_ns())
        for claims in self.claims:
            claims.stop()
        self.turn()
        if not self.source_failed:
            self.deliver(self.source.last())
        holders = self.holders.look({key.pid for key in self.live}, self.now_ns())
        self.deliver([structs.replace(e, seq=self.source.next_seq()) for e in holders])
        self.source.close()
        for sink in self.sinks:
            sink.close()


def read_all(source: Source) -> list[Event]:
    """Return what a source has by now. Raises SourceUnavailable."""
    found: list[Event] = []
    for _ in range(MAX_BATCHES):
        batch = source.read()
        if not batch:
            break
        found += batch
    return found


def this_place() -> tuple[str, int]:
    """Return within what keys can be compared: this boot, and our PID namespace."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot_id, Path("/proc/self/ns/pid").stat().st_ino


def make_header(
    source: Source,
    roots: Sequence[int],
    refused: dict[str, str],
    airflow_db: str | None = None,
    airflow_problem: str | None = None,
) -> Header:
    """Return the header of a stream that begins now on this host."""
    wall_offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    boot_id, pid_ns = this_place()
    return Header(
        schema=EVENT_SCHEMA,
        host=socket.gethostname(),
        boot_id=boot_id,
        clk_tck=os.sysconf("SC_CLK_TCK"),
        wall_offset_ns=wall_offset_ns,
        source=source.name,
        fidelity=source.fidelity,
        roots=[Root(pid, proc.start_ticks(pid)) for pid in roots],
        version=__version__,
        kernel=os.uname().release,
        pid_ns=pid_ns,
        refused=refused,
        airflow_db=airflow_db,
        airflow_problem=airflow_problem,
        addresses=own_addresses(),
    )
