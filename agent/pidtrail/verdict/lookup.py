"""
What a question needs of a recording that has an index (index.py), however long it is.

Rule 1: the answer is that of the whole stream, to the letter. Where that is not certain,
        nothing is returned, and everything is to be read.
Rule 2: a process is known wholly or not at all, with all above it.

What makes up an attempt is found from its names on: rows and words that name it; of these
the UUIDs and job numbers, which other words may name alone; who spoke such words, or was
born of a supervisor while it did; and what descends from those. Each thing that is found
may add names, so it is looked again until nothing new comes. Then comes what verdicts speak
of besides: other attempts, who sent signals, who had the numbers that were recorded.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from pidtrail.airflow.facts import Role, short
from pidtrail.correlate import Correlation, Correlator, Gathered
from pidtrail.events import Fork, ProcessKey, Signal, TaskRef
from pidtrail.members import RUNS_USER_CODE, Claim
from pidtrail.verdict.known import Known
from pidtrail.words import ABOVE_ALL, SEPARATOR, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pidtrail.events import Header
    from pidtrail.taskrun import TaskRun
    from pidtrail.verdict.known import Indexed
    from pidtrail.verdict.question import Question

SUPERVISES: Final = frozenset({Role.SUPERVISOR, Role.EXECUTOR_WORKER})
MOST_OF_A_HOST: Final = 100
"""So many rows that name another host are looked into, for a process that was seen here."""


class Target(NamedTuple):
    """Attempts that are to be known wholly: of a DAG, of one run of it, of one task."""

    dag_id: str
    run_id: str | None
    task_id: str | None

    def fits(self, task: TaskRef | None) -> bool:
        """Return whether a reference may mean one of them."""
        if task is None or task.dag_id != self.dag_id:
            return False
        return all(
            wanted is None or said is None or wanted == said
            for wanted, said in ((self.run_id, task.run_id), (self.task_id, task.task_id))
        )

    def covers(self, task: TaskRef) -> bool:
        """Return whether they are all of those that a reference may mean."""
        return task.dag_id == self.dag_id and all(
            wanted is None or wanted == said
            for wanted, said in ((self.run_id, task.run_id), (self.task_id, task.task_id))
        )


class Uncertain(Exception):
    """The index does not tell for certain; everything is to be read."""


class Lookup:
    """One question to one index; `gathered` is the answer."""

    def __init__(self, question: Question, index: Indexed, header: Header) -> None:
        self.question, self.index = question, index
        self.own_hosts = {short(header.host), "localhost"}
        self.known = Known(index)
        self.asked: set[ProcessKey] = set()
        self.identified: set[ProcessKey] = set()
        self.candidates: dict[ProcessKey, None] = {}
        self.targets: dict[Target, None] = {}
        self.tis: dict[str, None] = {}
        self.jobs: dict[int, None] = {}
        self.looked: set[object] = set()
        self.hosts: set[str] = set()

    def gathered(self) -> Gathered:
        """Return what is needed. Raises Uncertain, and what the index raises."""
        question = self.question
        if (question.dag_id is None and question.pid is None) or len(self.index.names("a:")) > 1:
            raise Uncertain
        self.known.hear(self.index.named(ABOVE_ALL))
        if question.pid is not None:
            self.begin_with_number(question.pid)
        elif question.dag_id is not None:
            self.aim(Target(question.dag_id, question.run_id, question.task_id))
        found = self.closed()
        while self.load_besides(found):
            found = self.closed()
        return Gathered(
            self.known.tree,
            list(self.known.reports.values()),
            list(self.known.facts.values()),
            self.index.first_ns,
            self.index.last_ns,
        )

    def once(self, what: object) -> bool:
        """Return whether something is asked for the first time."""
        new = what not in self.looked
        self.looked.add(what)
        self.known.grew |= new
        return new

    def aim(self, target: Target) -> None:
        """Want some attempts."""
        if target not in self.targets:
            self.targets[target] = None
            self.known.grew = True

    def aim_at(self, task: TaskRef) -> None:
        """Want the attempts of the same name. Raises Uncertain where that is partly known."""
        if any(target.covers(task) for target in self.targets):
            return
        if task.dag_id is not None:
            if task.run_id is None or task.task_id is None:
                raise Uncertain
            self.aim(Target(task.dag_id, task.run_id, task.task_id))
        else:
            self.want_names([(task.ti_id, None)])

    def load_target(self, target: Target) -> None:
        """
        Take in all words that name some attempts.

        Raises Uncertain if a process named itself so that it may be of these and of
        others: then all of them decide whose it is.
        """
        dag, run, task = target
        index, begin = self.index, f"{target.dag_id}{SEPARATOR}"
        end = f"{SEPARATOR}{task}" if task is not None else ""
        if run is not None:
            for kind in "crf":
                if task is None:
                    self.known.hear(index.beginning(f"{kind}:{begin}{run}{SEPARATOR}"))
                else:
                    self.known.hear(index.named(name_of(kind, dag, run, task)))
            self.known.hear(index.named(name_of("f", dag, run, None)))
            self.known.hear(index.beginning(f"f:{begin}{SEPARATOR}"))
            vague = index.beginning(f"c:{begin}{SEPARATOR}", end)
            vague += index.named(name_of("c", dag, None, None))
            vague += [] if task is None else index.named(name_of("c", dag, run, None))
        else:
            for kind in "crf":
                self.known.hear(index.beginning(f"{kind}:{begin}", end))
            self.known.hear(index.beginning(f"f:{begin}", SEPARATOR))
            vague = [] if task is None else index.beginning(f"c:{begin}", SEPARATOR)
        if vague:
            raise Uncertain

    def is_wanted(self, task: TaskRef | None) -> bool:
        """Return whether a reference may mean an attempt that is wanted."""
        if task is None:
            return False
        return task.ti_id in self.tis or self.is_aimed_at(task)

    def is_aimed_at(self, task: TaskRef) -> bool:
        """Return whether a reference may by its names mean an attempt that is wanted."""
        return any(target.fits(task) for target in self.targets)

    def begin_with_number(self, pid: int) -> None:
        """Want the attempts whose rows carry a number, and those for which its processes worked."""
        for event in self.index.named(f"p:{pid}"):
            if event.task is not None:
                self.aim_at(event.task)
        for node in self.known.load_number(pid):
            self.asked.add(node.key)
            self.identify(node.key)

    def closed(self) -> Correlation:
        """Return the attempts, once nothing new comes. Raises Uncertain."""
        while True:
            self.known.grew = False
            for target in list(self.targets):
                if self.once(target):
                    self.load_target(target)
            for ti_id in list(self.tis):
                if self.once(("t", ti_id)):
                    self.known.hear(self.index.named(f"t:{ti_id}"))
            for job_id in list(self.jobs):
                if self.once(("j", job_id)):
                    self.known.hear(self.index.named(f"j:{job_id}"))
            correlator = Correlator(
                self.known.tree, self.known.reports.values(), self.known.facts.values()
            )
            found = correlator.correlate()
            if found.several:
                raise Uncertain
            self.spread(correlator, found)
            if not self.known.grew:
                return found

    def spread(self, correlator: Correlator, found: Correlation) -> None:
        """Want what else names the attempts that are wanted, or may be of them."""
        names = correlator.names.items()
        self.want_names((t, None) for t, task in names if self.is_aimed_at(task))
        jobs = correlator.by_job.items()
        self.want_names((None, job) for (_, job), task in jobs if self.is_wanted(task))
        rows = [report for report in self.known.reports.values() if self.is_wanted(report.task)]
        self.want_names((row.task.ti_id if row.task else None, row.job_id) for row in rows)
        for scheduler in {row.queued_by_job_id for row in rows} - {None}:
            if self.once(("q", scheduler)):
                self.known.hear(self.index.named(f"q:{scheduler}"))
        for key, claims in found.claims.items():
            for claim in claims:
                if self.is_wanted(claim.task) or claim.job_id in self.jobs:
                    self.follow(key, claims, claim)
        self.spread_from_processes(found)

    def spread_from_processes(self, found: Correlation) -> None:
        """Want the attempts of processes that are to be identified, and all they started."""
        for key in self.asked:
            # A supervisor is a process of all attempts whose runners it forked.
            if any(claim.role in SUPERVISES for claim in found.claims.get(key, ())):
                for child in self.known.load_children(key):
                    self.add_candidate(child)
        for run in found.runs:
            ran = any(member.node.key in self.identified for member in run.runners)
            if ran or (self.asked and self.question.means(run)):
                self.aim_at(run.task)
        for key in list(self.candidates):
            if self.may_run(found, key):
                self.want_candidate(found, key)

    def identify(self, key: ProcessKey) -> None:
        """Want the attempts for which a process worked, or what it descends from."""
        for node in self.known.tree.lineage(key):
            self.add_candidate(node.key)
            self.identified.add(node.key)

    def want_names(self, names: Iterable[tuple[str | None, int | None]]) -> None:
        """Want all words that name some UUIDs or job numbers."""
        for ti_id, job_id in names:
            if ti_id is not None and ti_id not in self.tis:
                self.tis[ti_id] = None
                self.known.grew = True
            if job_id is not None and job_id not in self.jobs:
                self.jobs[job_id] = None
                self.known.grew = True

    def follow(self, key: ProcessKey, claims: list[Claim], claim: Claim) -> None:
        """Take in for whom a process spoke when it named an attempt: itself, or a child."""
        if claim.role in RUNS_USER_CODE or claim.role in {Role.OTHER, Role.OPERATOR_CHILD}:
            self.add_candidate(key)
        if claim.role in RUNS_USER_CODE:
            return
        begin_ns, end_ns = span(claims, claim.ts_boot_ns)
        self.want_names((c.task.ti_id if c.task else None, c.job_id)
                        for c in claims if begin_ns <= c.ts_boot_ns <= end_ns)  # fmt: skip
        if self.once((key, begin_ns, end_ns)):
            for event in self.known.born_of(key):
                meant = isinstance(event, Fork) and begin_ns <= event.ts_boot_ns <= end_ns
                if meant and event.key is not None:
                    self.known.load_lineage(event.key)
                    self.add_candidate(event.key)
        served = [one.task for one in claims if one.role is Role.SUPERVISOR and one.task]
        if claim.role is Role.SUPERVISOR and all(map(self.is_wanted, served)):
            # Also what it had others do for it counts (verdict/sudo.py).
            self.known.load_children(key)

    def add_candidate(self, key: ProcessKey) -> None:
        """Take a process for one that may have run an attempt that is wanted."""
        if key not in self.candidates:
            self.candidates[key] = None
            self.known.grew = True

    def may_run(self, found: Correlation, key: ProcessKey) -> bool:
        """Return whether a process may be a runner, by its own word or by that of its parent."""
        own = found.claims.get(key, ())
        if any(claim.task and claim.role not in SUPERVISES
               for claim in own):  # fmt: skip
            return True
        node = self.known.tree.node(key)
        above = found.claims.get(node.birth_parent, ()) if node and node.birth_parent else ()
        return any(claim.role is Role.SUPERVISOR for claim in above)

    def want_candidate(self, found: Correlation, key: ProcessKey) -> None:
        """Take in the family of a process that may be a runner, and want all that names it."""
        self.known.load_family(key)
        node = self.known.tree.node(key)
        claims = [c for c in found.claims.get(key, ()) if c.role in RUNS_USER_CODE]
        if node is not None and node.fork is not None and node.birth_parent is not None:
            above = found.claims.get(node.birth_parent, [])
            begin_ns, end_ns = span(above, node.fork.ts_boot_ns)
            claims += [c for c in above if begin_ns <= c.ts_boot_ns <= end_ns]
        self.want_names((c.task.ti_id if c.task else None, c.job_id) for c in claims)

    def load_besides(self, found: Correlation) -> bool:
        """
        Take in what verdicts on the attempts asked about speak of besides.

        Returns whether that was anything new. Raises Uncertain.
        """
        self.known.grew = False
        asked = [run for run in found.runs if self.question.means(run)]
        for run in asked:
            self.aim_at(run.task)
            for member in run.runners:
                if member.node.fork is None:
                    # Another number of the same process would be told by its start alone.
                    raise Uncertain
                for event in self.index.named(f"s:{member.node.start_ns}"):
                    if event.key is not None:
                        self.known.load_lineage(event.key)
        instances = {run.instance for run in asked}
        runs = [run for run in found.runs if run.instance in instances]
        self.load_signallers(runs)
        for number in {r.recorded_pid for run in runs for r in run.reports} - {None}:
            if self.once(("n", number)):
                self.known.load_number(number or 0)
                # Of the last one it is said what it did (verdict/rules.py known_as).
                for node in self.known.tree.with_pid(number or 0)[-1:]:
                    self.identify(node.key)
        self.load_hosts(found, runs)
        return self.known.grew

    def load_signallers(self, runs: list[TaskRun]) -> None:
        """Take in who sent signals to the processes of attempts, and to those above them."""
        members = [member.node for run in runs for member in run.members]
        nodes = {node.key: node for one in members for node in self.known.tree.lineage(one.key)}
        for node in nodes.values():
            self.identify(node.key)
        sent: list[Signal] = [record for node in nodes.values() for record in node.signals]
        for record in sent:
            if record.sender_pid is not None:
                key = ProcessKey(record.sender_pid, record.sender_start_ticks)
                self.known.load_lineage(key)
                self.identify(key)

    def load_hosts(self, found: Correlation, runs: list[TaskRun]) -> None:
        """
        Take in what tells whether the hosts in rows are this one (verdict/case.py scope_of).

        A host on which a process of ours was recorded under our number of it is; else all
        rows that name it decide. Raises Uncertain if those are many.
        """
        hosts = {short(r.hostname) for run in runs for r in run.reports if r.hostname}
        hosts -= self.own_hosts | self.hosts
        for run in found.runs:
            pids = {member.node.key.pid for member in run.runners}
            hosts -= {
                short(row.hostname)
                for row in run.reports
                if row.hostname and row.recorded_pid in pids
            }
        for host in hosts:
            rows = self.index.named(f"h:{host}")
            tasks = {row.task for row in rows if row.task is not None}
            if len(tasks) > MOST_OF_A_HOST:
                raise Uncertain
            self.hosts.add(host)
            for task in tasks:
                self.aim_at(task)


def span(claims: list[Claim], ts_boot_ns: int) -> tuple[int, int]:
    """Return between which titles an instant falls, with the moments of both."""
    titles = [claim.ts_boot_ns for claim in claims if claim.by == "title"]
    begin = max((ns for ns in titles if ns <= ts_boot_ns), default=0)
    return begin, min((ns for ns in titles if ns > ts_boot_ns), default=sys.maxsize)
