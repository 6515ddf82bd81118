"""
One attempt laid out for the rules: what was recorded when, who ran, who came next.

Nothing here concludes. Everything a rule asks for twice has a name here.
"""

from __future__ import annotations

import signal
from collections import defaultdict
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from pidtrail.airflow.facts import Role, is_address, short
from pidtrail.attribution import facts_of
from pidtrail.clock import epoch_ns_of_text, rfc3339, wall_ns
from pidtrail.members import is_sudo, role_at

if TYPE_CHECKING:
    from pidtrail.correlate import Correlation
    from pidtrail.events import AirflowFact, Exec, Header, Observed, TaskRef, TaskReported
    from pidtrail.members import Member
    from pidtrail.node import Node
    from pidtrail.taskrun import TaskRun

WAITING_STATES: Final = frozenset({"queued", "scheduled", None})
"""In these the row still shows the pid of the run before (airflow dagrun.py schedule_tis)."""
PARKED_STATES: Final = frozenset({"up_for_reschedule", "deferred"})
FINAL_STATES: Final = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})
SERVICES: Final = frozenset({Role.SCHEDULER, Role.CELERY_WORKER})
"""What an operator starts and restarts, and what executor workers are forked by."""
SUPERVISING: Final = SERVICES | {Role.SUPERVISOR, Role.EXECUTOR_WORKER}
CLEAR_EVENTS: Final = (
    "clear",
    "confirm",
    "dagrun_clear",
    "clear_dag_run",
    "post_clear_task_instances",
    "set_task_instance_state",
)
"""Audit names (log.event) of what clears or resets by hand: 2.x views, 3.x routes."""
OUTLIVED_NS: Final = 250_000_000
"""A runner that ends this long after its supervisor was not simply stopped together with it."""
REFUSED_WITHIN_NS: Final = 10_000_000_000
"""Without a record of who sent SIGKILL: how long a runner lives that was refused its start."""


class Scope(NamedTuple):
    """
    What all cases of a stream share.

    `names` are those of this host and of its containers, `own_names` those under
    which the numbers of our own PID namespace are recorded. `instances` are the attempts
    by task instance.
    """

    header: Header
    correlation: Correlation
    ended_ns: int
    names: frozenset[str]
    own_names: frozenset[str]
    instances: dict[tuple[object, ...], list[TaskRun]]


def scope_of(header: Header, correlation: Correlation, ended_ns: int) -> Scope:
    """
    Return what all cases share.

    A name under which Airflow recorded the number of a runner that was seen
    here is a name of this host, or of a container on it. So a host that changed its
    name, or calls itself by another in Airflow, is not taken for another host.
    """
    own_names = {short(header.host), "localhost"}
    names = set(own_names)
    for run in correlation.runs:
        nodes = [member.node for member in run.runners]
        for report in run.reports:
            if not report.hostname:
                continue
            if any(report.recorded_pid in node.numbers for node in nodes):
                names.add(short(report.hostname))
            if any(report.recorded_pid == node.key.pid for node in nodes):
                own_names.add(short(report.hostname))
    instances: dict[tuple[object, ...], list[TaskRun]] = defaultdict(list)
    for run in correlation.runs:
        instances[run.instance].append(run)
    return Scope(header, correlation, ended_ns, frozenset(names), frozenset(own_names), instances)


class Case:
    """A task instance attempt, its runners, its siblings and what Airflow said of them."""

    def __init__(self, run: TaskRun, scope: Scope) -> None:
        self.run = run
        self.task = run.task
        self.scope = scope
        self.tree = scope.correlation.tree
        self.claims = scope.correlation.claims
        self.ended_ns = scope.ended_ns
        own = {member.node.key for member in run.runners}
        # The first that names a process counts.
        self.roles = {member.node.key: member.role for member in reversed(run.members)}
        # What ran in the very same process (`airflow dags test`) supersedes nothing.
        self.siblings = [
            r
            for r in scope.instances.get(run.instance, ())
            if r is not run and own.isdisjoint(member.node.key for member in r.runners)
        ]

    @cached_property
    def runners(self) -> list[Member]:
        """The processes that ran the attempt, oldest first; refused ones only if all were."""
        return [m for m in self.run.runners if m not in self.refused] or self.run.runners

    @cached_property
    def refused(self) -> list[Member]:
        """
        The runners of 3.x that were killed because Airflow refused their start.

        Their supervisor kills them with SIGKILL, before any user code and without
        SIGTERM (sdk execution_time/supervisor.py _on_child_started @ 1.3.2), and no
        row ever carries their pid.
        """
        recorded = {report.recorded_pid for report in self.reports}
        return [
            member
            for member in self.run.runners
            if self.task.ti_id is not None
            and self.reports
            and not member.node.numbers & recorded
            and self.killed_at_birth(member.node)
        ]

    def killed_at_birth(self, node: Node) -> bool:
        """Return whether a process was killed by its parent, or by who knows whom soon, alone."""
        if node.exit is None or node.exit.termsig != signal.SIGKILL or node.birth_parent is None:
            return False
        if node.oom is not None or self.tree.children(node.key):
            return False
        if node.signals:
            parent = node.birth_parent[:2]
            senders = {(s.sig, (s.sender_pid, s.sender_start_ticks)) for s in node.signals}
            return senders == {(signal.SIGKILL, parent)}
        lived = node.exit.ts_boot_ns - (node.started_ns or 0)
        return not self.scope.header.fidelity.has_signals and lived < REFUSED_WITHIN_NS

    @property
    def runner(self) -> Member | None:
        """The latest of them."""
        return self.runners[-1] if self.runners else None

    @property
    def reports(self) -> list[TaskReported]:
        """What Airflow claimed of this attempt, in order of time."""
        return self.run.reports

    @property
    def last_report(self) -> TaskReported | None:
        """The latest claim about the attempt's current row; history rows are not current."""
        current = [r for r in self.reports if r.table != "task_instance_history"]
        return current[-1] if current else (self.reports[-1] if self.reports else None)

    @cached_property
    def own_reports(self) -> list[TaskReported]:
        """Claims whose pid is its own: not those of a row that waits and shows the run before."""
        pids = {number for member in self.runners for number in member.node.numbers}
        return [r for r in self.reports if r.state not in WAITING_STATES or r.recorded_pid in pids]

    @cached_property
    def recorded_pids(self) -> list[int]:
        """The pids that Airflow recorded as this attempt's, in order, each once."""
        found: list[int] = []
        for report in self.own_reports:
            if report.recorded_pid is not None and report.recorded_pid not in found:
                found.append(report.recorded_pid)
        return found

    @property
    def recorded_pid(self) -> int | None:
        """The pid that Airflow recorded last as this attempt's."""
        with_pid = [r for r in self.own_reports if r.recorded_pid is not None]
        return with_pid[-1].recorded_pid if with_pid else None

    def runner_with(self, pid: int | None) -> Member | None:
        """Return the latest runner that has this number in any PID namespace, or None."""
        return next((m for m in reversed(self.runners) if pid in m.node.numbers), None)

    def holder(self, pid: int, member: Member | None) -> Node | None:
        """
        Return the process outside of the attempt that has a number now, or None.

        In the PID namespace in which `member` had it; None for a member asks for ours.
        """
        if member is None or member.node.key.pid == pid:
            found = self.tree.with_pid(pid)
        else:
            inside = (member.node.pid_ns, pid)
            found = [
                node
                for node in self.tree.nodes.values()
                if node.ns_pids and (node.pid_ns, node.ns_pids[-1]) == inside
            ]
        own = [one.node for one in self.run.members]
        living = [n for n in found if n not in own and n.alive_at(self.ended_ns)]
        return max(living, key=lambda node: node.started_ns or 0, default=None)

    def where(self, node: Node) -> str:
        """Return in words which container and pod a process is in, "" where none is known."""
        place = self.tree.place(node)
        container = f" in container {place.container_id[:12]}" if place.container_id else ""
        pod = f" of pod {place.pod_uid}" if place.pod_uid else ""
        return container + pod if container else pod.replace(" of", " in", 1)

    def moment(self, ts_boot_ns: int | None) -> str:
        """Return an instant as a sentence gives it: UTC to the millisecond."""
        if ts_boot_ns is None:
            return "at an unknown time"
        return f"{rfc3339(wall_ns(ts_boot_ns, self.scope.header.wall_offset_ns))[:23]}Z"

    def boot_ns(self, date: str | None) -> int | None:
        """Return CLOCK_BOOTTIME of a date that Airflow wrote, None if there is none."""
        epoch_ns = None if date is None else epoch_ns_of_text(date)
        return None if epoch_ns is None else epoch_ns - self.scope.header.wall_offset_ns

    def is_elsewhere(self, hostname: str | None) -> bool:
        """Return whether a recorded host is another one."""
        if not hostname:
            return False
        if is_address(hostname):
            return self.is_foreign(hostname)
        return short(hostname) not in self.scope.names and not is_address(self.scope.header.host)

    def is_foreign(self, address: str) -> bool:
        """
        Return whether an address is none of this host's, nor of a container seen on it.

        A loopback address may be any host's, and so may all where ours are not known.
        """
        own = self.scope.header.addresses
        if own is None or address in self.scope.names:
            return False
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return not found.is_loopback and str(found) not in own

    def is_any_host(self, hostname: str) -> bool:
        """Return whether a host is given by a loopback address, and no runner here had that."""
        try:
            return hostname not in self.scope.names and ip_address(hostname).is_loopback
        except ValueError:
            return False

    def counts_here(self, hostname: str | None) -> bool:
        """Return whether a number recorded on a host may be one of our PID namespace."""
        if not hostname:
            return True
        if is_address(hostname):
            contained = hostname in self.scope.names - self.scope.own_names
            return not contained and not self.is_foreign(hostname)
        return short(hostname) in self.scope.own_names

    @property
    def states(self) -> list[str | None]:
        """The states that were seen, in order."""
        return [report.state for report in self.reports]

    @cached_property
    def later(self) -> TaskRun | None:
        """The next attempt of the same task instance, if there is one."""
        own = self.task.try_number
        if own is None:
            return None
        after = [s for s in self.siblings if (s.task.try_number or 0) > own]
        return min(after, key=lambda run: run.task.try_number or 0) if after else None

    @cached_property
    def earlier(self) -> list[TaskRun]:
        """The attempts before this one, latest first."""
        own = self.task.try_number or 0
        before = [s for s in self.siblings if (s.task.try_number or 0) < own]
        return sorted(before, key=lambda run: -(run.task.try_number or 0))

    def events_named(self, *names: str) -> list[AirflowFact]:
        """Return the audit rows of these names that speak of this attempt or its task instance."""
        return [f for f in self.run.facts if f.table == "log" and f.event in names]

    def rows_of(self, table: str) -> list[AirflowFact]:
        """Return the other rows of a table that speak of this attempt."""
        return [fact for fact in self.run.facts if fact.table == table]

    def chain(self, node: Node) -> list[Node]:
        """Return a process and its ancestors by birth."""
        return self.tree.lineage(node.key)

    def levels(self, member: Member) -> list[Node]:
        """Return what a supervisor started down to user code: sudo's levels, then the runner."""
        inner = member.node
        if is_sudo(inner):
            below = {node.key for node in self.tree.descendants(inner.key)}
            ran = [m.node for m in self.run.members if m.role is Role.RUNNER]
            inner = next((node for node in ran if node.key in below), inner)
        levels = [inner]
        for ancestor in self.chain(inner)[1:]:
            if not is_sudo(ancestor):
                break
            levels.append(ancestor)
        return levels[::-1]

    def role(self, node: Node, ts_boot_ns: int | None = None) -> Role:
        """Return what a process is, at an instant if one is given."""
        role = self.roles.get(node.key, Role.SUPERVISOR)
        if role is not Role.SUPERVISOR:
            return role
        role = role_at(self.claims.get(node.key, ()), ts_boot_ns)
        # Below 3.3 a pool process of Celery keeps its title while it supervises a runner.
        if role is Role.EXECUTOR_WORKER and self.supervises(node, ts_boot_ns):
            return Role.SUPERVISOR
        return role

    def supervises(self, node: Node, ts_boot_ns: int | None) -> bool:
        """Return whether a process is the parent of a runner that lives, or lived at an instant."""
        own = [m.node for m in self.run.runners if m.node.birth_parent == node.key]
        at_ns = self.ended_ns if ts_boot_ns is None else ts_boot_ns
        return any(runner.alive_at(at_ns) for runner in own)

    def role_words(self, node: Node, ts_boot_ns: int | None = None) -> str:
        """Return the role of a process as a sentence gives it."""
        return str(self.role(node, ts_boot_ns)).replace("_", " ")

    def supervisors_dead_before(self, node: Node) -> list[Node]:
        """Return what supervised a process and ended clearly before it."""
        until = self.lived_until(node)
        return [
            ancestor
            for ancestor in self.chain(node)[1:]
            if self.role(ancestor) in SUPERVISING
            and ancestor.ended_ns is not None
            and ancestor.ended_ns + OUTLIVED_NS < until
        ]

    def lived_until(self, node: Node) -> int:
        """
        Return until when a process certainly lived: CLOCK_BOOTTIME in nanoseconds.

        Its end, or that of the stream while nothing told of one. But an end that only a later
        look found may have been long before, within the loss that held its record.
        """
        ended_ns = node.ended_ns if node.ended_ns is not None else self.ended_ns
        if node.exit is not None:
            return ended_ns
        alive_ns = max(node.last_alive_ns, node.started_ns or 0)
        lost = [
            loss.from_ns or 0
            for loss in self.tree.losses
            if (loss.to_ns or loss.ts_boot_ns) > alive_ns and (loss.from_ns or 0) < ended_ns
        ]
        return max(alive_ns, min(lost)) if lost else ended_ns

    def service_of(self, node: Node) -> Node | None:
        """Return the scheduler or Celery worker that a process descends from, or None."""
        return next((n for n in self.chain(node)[1:] if self.role(n) in SERVICES), None)

    def name(self, *, attempt: bool = True) -> str:
        """Return the attempt in words, or its task instance."""
        return name_of(self.task, attempt=attempt)


def name_of(task: TaskRef, *, attempt: bool = True) -> str:
    """Return an attempt in words, or its task instance."""
    if task.dag_id is None:
        return f"task instance {task.ti_id}"
    index = f"[{task.map_index}]" if task.map_index is not None and task.map_index >= 0 else ""
    number = f" try {task.try_number}" if attempt and task.try_number is not None else ""
    return f"{task.dag_id}.{task.task_id or '?'}{index}{number}"


def command_of(node: Node) -> str | None:
    """Return the Airflow command that a process executed last, e.g. `tasks test`, or None."""
    records: list[Observed | Exec] = [*node.observed, *node.execs]
    said = [facts.command for record in records if (facts := facts_of(record))]
    return next((command for command in reversed(said) if command), None)


def overlap_ns(case: Case, one: Node, other: Node) -> int:
    """Return for how long two processes lived at once; no more than was seen of them."""
    if one.started_ns is None or other.started_ns is None:
        return 0
    ends = [case.lived_until(node) for node in (one, other)]
    return max(0, min(ends) - max(one.started_ns, other.started_ns))
