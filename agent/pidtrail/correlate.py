"""
Which processes belong to which task instance attempt, and why.

Joins three things: the tree (what the kernel did), what processes said of
themselves (open logs, the plugin, titles, arguments), and what Airflow claims. The result
is one TaskRun per attempt, with its processes and its claims side by side; no
opinion yet: that is the verdict's.

The runner of an attempt is where the tree says, not who says so: a fork of a
runner carries the runner's title on (multiprocessing copies it), but it
descends from the runner and is an operator's child.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from msgspec import structs

from pidtrail.airflow.facts import Role, uuid_in
from pidtrail.airflow.identify import merge
from pidtrail.airflow.lognames import LogNames
from pidtrail.events import AirflowFact, Event, ProcessKey, TaskRef, TaskReported
from pidtrail.installations import Installations, once
from pidtrail.members import (
    BEST_FIRST,
    PLUGIN,
    RUNS_USER_CODE,
    Claim,
    Member,
    below_runner,
    claims_of,
    hear,
    is_errand,
    levels_of,
    role_at,
)
from pidtrail.node import Node, when
from pidtrail.taskrun import TaskRun, beginning, same_run, speaks_of
from pidtrail.tree import ProcessTree, order

NOT_KNOWN: Final = "one whose database is not known"
MAX_CHILDREN: Final = 200
"""Operator children listed per attempt; a task may start any number of them."""


class Gathered(NamedTuple):
    """A stream taken apart: what the kernel did, what Airflow claims, and the observed span."""

    tree: ProcessTree
    reports: list[TaskReported]
    facts: list[AirflowFact]
    first_ns: int
    last_ns: int


def gather(events: Iterable[Event]) -> Gathered:
    """Take a stream apart."""
    tree = ProcessTree()
    reports: list[TaskReported] = []
    facts: list[AirflowFact] = []
    first_ns = last_ns = 0
    for event in events:
        first_ns = first_ns or event.ts_boot_ns
        last_ns = max(last_ns, event.ts_boot_ns)
        if isinstance(event, TaskReported):
            reports.append(event)
        elif isinstance(event, AirflowFact):
            facts.append(event)
        else:
            tree.apply(event)
    return Gathered(tree, reports, facts, first_ns, last_ns)


class Correlation(NamedTuple):
    """
    All attempts of a stream, in the order in which they began.

    `several` says whether they may be of more than one installation of Airflow.
    """

    tree: ProcessTree
    runs: list[TaskRun]
    claims: dict[ProcessKey, list[Claim]]
    several: bool = False


class Correlator:
    """One pass over a tree and Airflow's claims; see the head of this file."""

    def __init__(
        self, tree: ProcessTree, reports: Iterable[TaskReported], facts: Iterable[AirflowFact]
    ) -> None:
        self.tree = tree
        ordered = sorted(reports, key=when)
        self.reports = [report for report in ordered if report.via != PLUGIN]
        self.facts = sorted(facts, key=when)
        log_names = LogNames()
        for fact in self.facts:
            log_names.learn(fact)
        told = ((key, claims_of(node, log_names)) for key, node in tree.nodes.items())
        # Oldest first, so that the order in which records arrived decides nothing.
        self.claims = dict(sorted((pair for pair in told if pair[1]), key=lambda p: order(p[0])))
        self.names: dict[str, TaskRef] = {}
        self.by_job: dict[tuple[str | None, int], TaskRef] = {}
        self.runs: dict[tuple[object, ...], TaskRun] = {}
        self.told = hear(tree, self.claims, [report for report in ordered if report.via == PLUGIN])
        self.installed = Installations(tree, self.claims, self.reports, self.facts)
        if self.installed.same:
            self.facts = once(self.facts)

    def correlate(self) -> Correlation:
        """Return the attempts."""
        self.learn()
        found = sorted(self.find_runners(), key=lambda pair: order(pair[0].node.key))
        runners = {member.node.key for member, _ in found}
        for member, task in found:
            run = self.run_of(task, self.installed.of(member.node, task))
            levels = levels_of(self.tree, self.claims, member)
            run.members += levels
            self.add_family(run, member.node, runners, {level.node.key for level in levels})
        for report in self.reports:
            if report.task is not None:
                airflow = self.installed.of_report(report)
                self.run_of(report.task, airflow).reports.append(report)
        for told in self.told:
            if told.task is not None:
                self.run_of(told.task, self.installed.of_report(told)).told.append(told)
        if self.installed.several:
            self.place()
        self.share()
        self.settle()
        self.add_facts()
        ordered = sorted(self.runs.values(), key=beginning)
        return Correlation(self.tree, ordered, self.claims, self.installed.several)

    def learn(self) -> None:
        """Collect what a 3.x UUID and a 2.x job id stand for."""
        for report in self.reports:
            if report.task is None:
                continue
            if (named := uuid_in(report)) is not None:
                self.name(report.task.ti_id or "", named)
            # A row keeps the job of its last run, so only a running or ended one is its own.
            if report.job_id is not None and report.state not in {"queued", "scheduled", None}:
                self.by_job[self.installed.of_report(report), report.job_id] = report.task
        for claims in self.claims.values():
            ti_id = None
            for claim in claims:
                if claim.task is not None:
                    ti_id = claim.task.ti_id or ti_id
                    if claim.by in BEST_FIRST and ti_id is not None:
                        self.name(ti_id, claim.task)
                elif claim.role is Role.EXECUTOR_WORKER:
                    ti_id = None

    def name(self, ti_id: str, task: TaskRef) -> None:
        """Note what a UUID stands for."""
        known = self.names.get(ti_id)
        both = merge(known, task) if known is not None else task
        if both is not None:
            self.names[ti_id] = merge(both, TaskRef(ti_id=ti_id)) or both

    def find_runners(self) -> Iterator[tuple[Member, TaskRef]]:
        """Yield every process that ran a task instance's user code, with whose it was."""
        known: dict[ProcessKey, bool | None] = {}
        for key, node in self.tree.nodes.items():
            own = [c for c in self.claims.get(key, ()) if c.role in RUNS_USER_CODE and c.task]
            if own:
                if not below_runner(self.tree, self.claims, node, known):
                    yield from self.runners_by_word(node, own)
                continue
            found = self.runner_by_lineage(node)
            if found is not None:
                yield found

    def runners_by_word(self, node: Node, own: list[Claim]) -> Iterator[tuple[Member, TaskRef]]:
        """Yield a runner with each attempt that it ran: `airflow dags test` runs one by one."""
        told = {claim.task: claim for claim in reversed(own) if claim.by == PLUGIN}
        if len(told) < 2:
            yield self.runner_by_word(node, own)
            return
        for task, claim in told.items():
            if task is not None:
                yield Member(node, Role.RUNNER, PLUGIN, claim.seq), task

    def runner_by_word(self, node: Node, own: list[Claim]) -> tuple[Member, TaskRef]:
        """Return a runner that said itself what it is: the best word first, the rest merged in."""
        said = [*own, *(c for c in self.claims[node.key] if c.by == "log")]
        said.sort(key=lambda claim: BEST_FIRST.get(claim.by, len(BEST_FIRST)))
        # Below sudo the last word of 3.x names no task instance, so it is not among `own`.
        last = [c.role for c in self.claims[node.key] if c.role in RUNS_USER_CODE][-1]
        role = Role.SUDO if last is Role.SUDO else Role.RUNNER
        return Member(node, role, said[0].by, said[0].seq), self.resolved(node, said)

    def runner_by_lineage(self, node: Node) -> tuple[Member, TaskRef] | None:
        """
        Return a process as runner that never said so: a child of a busy supervisor.

        It ended, or was killed, before it named itself (up to 7 s after the
        fork on a cold 3.x worker). What else a supervisor forks are errands.
        """
        if node.fork is None or node.birth_parent is None or is_errand(node):
            return None
        claim = self.busy_at(node.birth_parent, node.fork.ts_boot_ns)
        if claim is None or claim.role is not Role.SUPERVISOR or claim.task is None:
            return None
        if any(c.role is Role.SUPERVISOR for c in self.claims.get(node.key, ())):
            return None
        if claim.lingers and self.is_idle(node.birth_parent, claim, node.fork.ts_boot_ns):
            return None
        task = self.resolved(node, [claim])
        return Member(node, Role.RUNNER, "lineage", node.fork.seq), task

    def is_idle(self, key: ProcessKey, claim: Claim, ts_boot_ns: int) -> bool:
        """
        Return whether a process whose title lingers may have been done with its task instance.

        So if the title was found and not seen to be set, or if it has forked since:
        it forks one runner for each.
        """
        return claim.by != "title" or any(
            child.fork is not None and claim.ts_boot_ns <= child.fork.ts_boot_ns < ts_boot_ns
            for child in self.tree.children(key)
        )

    def busy_at(self, key: ProcessKey, ts_boot_ns: int) -> Claim | None:
        """Return what a process last said of its role before an instant, None if nothing."""
        claims = self.claims.get(key, ())
        until = bisect_right(claims, ts_boot_ns, key=lambda claim: claim.ts_boot_ns)
        said = (claims[at] for at in range(until - 1, -1, -1))
        return next((claim for claim in said if claim.by in {"title", "argv"}), None)

    def resolved(self, node: Node, own: list[Claim]) -> TaskRef:
        """
        Return all that is known of the task instance attempt that a runner works for.

        A 2.x title names neither map index nor try: they come from its open log,
        its supervisor's (held open as well, with the command as title), or the
        row that carries its job id.
        """
        task = own[0].task
        assert task is not None  # noqa: S101 (callers pass claims that name one)
        candidates = [claim.task for claim in own[1:]]
        candidates += [c.task for c in self.claims.get(node.key, ()) if c.by == "log"]
        candidates += [claim.task for claim in self.claims_meanwhile(node)]
        airflow = self.installed.of(node, task)
        numbers = [c.job_id for c in own if c.job_id is not None]
        candidates += [self.by_job.get((airflow, number)) for number in numbers]
        for other in candidates:
            if other is not None:
                task = merge(task, other) or task
        if task.ti_id is not None and task.ti_id in self.names:
            task = merge(task, self.names[task.ti_id]) or task
        return task

    def claims_meanwhile(self, child: Node) -> list[Claim]:
        """Return what a parent claimed while it worked for this child."""
        if child.fork is None or child.birth_parent is None:
            return []
        claims = self.claims.get(child.birth_parent, [])
        first = last = bisect_right(claims, child.fork.ts_boot_ns, key=lambda c: c.ts_boot_ns)
        while last < len(claims) and claims[last].by != "title":
            last += 1
        while first > 0 and claims[first - 1].by != "title":
            first -= 1
        # With that title itself, and what was claimed in its very moment.
        start = claims[first - 1].ts_boot_ns if first > 0 else 0
        first = bisect_left(claims, start, key=lambda claim: claim.ts_boot_ns)
        end = claims[last].ts_boot_ns if last < len(claims) else sys.maxsize
        return [claim for claim in claims[first:last] if claim.ts_boot_ns < end]

    def run_of(self, task: TaskRef, airflow: str | None) -> TaskRun:
        """Return the attempt that a reference means, made if it is new."""
        if task.ti_id is not None and task.ti_id in self.names:
            task = merge(task, self.names[task.ti_id]) or task
        key: tuple[object, ...]
        if task.dag_id is None:
            key = (airflow, "ti", task.ti_id)
        else:
            key = (airflow, task.dag_id, task.task_id, task.run_id, task.map_index, task.try_number)
        run = self.runs.get(key)
        if run is None:
            run = self.runs[key] = TaskRun(task, airflow)
        else:
            run.task = merge(run.task, task) or run.task
        return run

    def add_family(
        self, run: TaskRun, runner: Node, runners: set[ProcessKey], levels: set[ProcessKey]
    ) -> None:
        """Add a runner's supervisor, and what descends from the runner."""
        for ancestor in self.tree.lineage(runner.key)[1:2]:
            role = self.role_at(ancestor, runner.fork.ts_boot_ns if runner.fork else None)
            # A pool process of Celery before 3.3 says nothing of the task that it supervises.
            known = role in {Role.SUPERVISOR, Role.EXECUTOR_WORKER}
            if known and all(m.node is not ancestor for m in run.members):
                run.members.append(Member(ancestor, Role.SUPERVISOR, "lineage", None))
        count = 0
        for child in self.tree.descendants(runner.key):
            if child.key in runners or child.key in levels:
                continue
            count += 1
            if count <= MAX_CHILDREN:
                run.members.append(Member(child, Role.OPERATOR_CHILD, "lineage", None))
            else:
                run.children_left_out += 1

    def role_at(self, node: Node, ts_boot_ns: int | None) -> Role:
        """Return the role of a process, at an instant if one is given."""
        return role_at(self.claims.get(node.key, ()), ts_boot_ns)

    def place(self) -> None:
        """
        Join what is of no known installation with the one that it must be of.

        Where it could be of several it is joined with none, and it is said of it, and of those
        whose process it may be.
        """
        known: dict[str | None, list[TaskRun]] = defaultdict(list)
        for run in self.runs.values():
            if run.airflow is not None:
                known[run.task.dag_id].append(run)
        for key, run in list(self.runs.items()):
            if run.airflow is not None:
                continue
            task = structs.replace(run.task, try_number=None)
            others = [one for one in known[run.task.dag_id] if speaks_of(task, one.task)]
            names = sorted({other.airflow for other in others if other.airflow})
            if len(names) == 1 and not self.installed.unlocated:
                del self.runs[key]
                self.run_of(run.task, names[0]).take(run)
            elif names:
                run.could_be = (*names, *((NOT_KNOWN,) if self.installed.unlocated else ()))
                for other in others:
                    if run.runners and not other.runners:
                        other.could_be = run.could_be

    def share(self) -> None:
        """
        Give a process that runs a whole DAG, `airflow dags test`, to each attempt that it ran.

        Its command line names the DAG alone; the rows of one of its runs carry its
        pid. It made that run itself, so the last one recorded is its own.
        """
        for key, run in list(self.runs.items()):
            if run.task.dag_id is None or run.task.task_id is not None or run.reports:
                continue
            pids = {member.node.key.pid for member in run.runners}
            own = [
                (other, report)
                for other in self.runs.values()
                if other.airflow == run.airflow
                and other.task.dag_id == run.task.dag_id
                and not other.runners
                for report in other.reports
                if report.recorded_pid in pids
            ]
            last = max(own, key=lambda pair: pair[1].ts_boot_ns, default=None)
            if last is None:
                continue
            ran = {id(other): other for other, _ in own if same_run(other, last[0])}
            for other in ran.values():
                other.members += run.members
                other.children_left_out += run.children_left_out
            del self.runs[key]

    def settle(self) -> None:
        """
        Join attempts that are only partly named with the one they must be.

        A 2.x runner that died before anyone saw its log is known without its
        try: the attempt whose row carries its pid is meant, or the only one.
        """
        for key, run in list(self.runs.items()):
            if run.reports or None not in (run.task.map_index, run.task.try_number):
                continue
            others = [
                other
                for other in self.runs.values()
                if other is not run
                and other.airflow == run.airflow
                and speaks_of(run.task, other.task)
            ]
            pids = {number for member in run.runners for number in member.node.numbers}
            named = [o for o in others if any(r.recorded_pid in pids for r in o.reports)]
            bare = [o for o in others if not o.runners]
            for choice in (named, others, bare):
                if len(choice) == 1:
                    choice[0].take(run)
                    del self.runs[key]
                    break

    def add_facts(self) -> None:
        """Give each row of Airflow's history to the attempts it speaks of, or that it queued."""
        # What names a DAG run speaks of no other: not each row is held against each attempt.
        named: dict[tuple[str | None, str | None], list[TaskRun]] = defaultdict(list)
        queued: dict[str, list[TaskRun]] = defaultdict(list)
        for run in self.runs.values():
            jobs = [r.queued_by_job_id for r in run.reports if r.queued_by_job_id is not None]
            if jobs:
                queued[str(jobs[-1])].append(run)
            named[run.task.dag_id, run.task.run_id].append(run)
            if run.task.run_id is not None:
                named[run.task.dag_id, None].append(run)
        for fact in self.facts:
            task = fact.task
            if task is None:
                meant = queued.get(fact.row_id or "", []) if fact.table == "job" else []
            else:
                if task.ti_id is not None and task.dag_id is None and task.ti_id in self.names:
                    task = self.names[task.ti_id]
                meant = [
                    run
                    for run in named.get((task.dag_id, task.run_id), ())
                    if speaks_of(task, run.task)
                ]
            if fact.airflow is not None and self.installed.several:
                airflow = self.installed.one(fact.airflow)
                meant = [run for run in meant if run.airflow == airflow]
            elif len({run.airflow for run in meant}) > 1:
                continue
            for run in meant:
                run.facts.append(fact)


def correlate(
    tree: ProcessTree, reports: Iterable[TaskReported], facts: Iterable[AirflowFact]
) -> Correlation:
    """Return which processes belong to which task instance attempt."""
    return Correlator(tree, reports, facts).correlate()
