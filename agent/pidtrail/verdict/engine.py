"""From a stream to verdicts: grow the tree, correlate, ask the rules, bound the confidence."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from msgspec import UNSET
from msgspec.structs import replace

from pidtrail.clock import rfc3339, wall_ns
from pidtrail.correlate import Correlation, Gathered, correlate, gather
from pidtrail.events import Event, Header, ProcessKey
from pidtrail.members import Member
from pidtrail.node import Node
from pidtrail.taskrun import TaskRun
from pidtrail.verdict.abandoned import abandoned
from pidtrail.verdict.case import WAITING_STATES, Case, scope_of
from pidtrail.verdict.chain import descendant_asked
from pidtrail.verdict.ending import ending_seqs
from pidtrail.verdict.finding import Finding
from pidtrail.verdict.killer import killers, killing
from pidtrail.verdict.model import (
    Confidence,
    ProcessReport,
    Recorded,
    Report,
    Verdict,
    Who,
)
from pidtrail.verdict.question import Question
from pidtrail.verdict.rules import RULES, undetermined
from pidtrail.verdict.sudo import refusal_by_sudo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALL: Final = Question()
STRENGTH: Final[tuple[Confidence, ...]] = ("weak", "strong", "proved")


def judge_stream(
    header: Header,
    events: Iterable[Event],
    *,
    problems: list[str],
    question: Question = ALL,
) -> Report:
    """
    Return the verdict of every task instance attempt in a stream that is asked about.

    `problems` are one-line facts about what could not be read; each verdict
    carries those that bear on it. Where the question has a number, the attempt that it was
    a child of is told as `descendant-observed`.
    """
    return judge_gathered(header, gather(events), problems=problems, question=question)


def judge_gathered(
    header: Header, gathered: Gathered, *, problems: list[str], question: Question = ALL
) -> Report:
    """Return the verdicts of a stream that was taken apart; see `judge_stream`."""
    tree, reports, facts, first_ns, last_ns = gathered
    first_ns = header.began_ns or first_ns
    known = [header.airflow_problem] if header.airflow_problem else []
    judge = Judge(header, correlate(tree, reports, facts), first_ns, last_ns, known + problems)
    judge.question = question
    return judge.report()


def joined(reports: Sequence[Report]) -> Report:
    """
    Return the reports of several boots of a host, oldest first and at least one, as one.

    What is said of the host is the newest's. A verdict of an earlier boot names it: the
    numbers of its evidence and its processes are of that boot.
    """
    newest = reports[-1]
    return replace(
        newest,
        verdicts=[
            verdict if report is newest else replace(verdict, boot_id=report.boot_id or UNSET)
            for report in reports
            for verdict in report.verdicts
        ],
        unknowns=list(dict.fromkeys(line for report in reports for line in report.unknowns)),
        abandoned=[one for report in reports for one in report.abandoned],
        left_out=sum(report.left_out or 0 for report in reports) or UNSET,
    )


class Judge:
    """Asks the rules about each attempt of a correlation."""

    def __init__(
        self,
        header: Header,
        correlation: Correlation,
        first_ns: int,
        last_ns: int,
        problems: list[str],
    ) -> None:
        self.header = header
        self.tree = correlation.tree
        self.correlation = correlation
        self.first_ns, self.last_ns = first_ns, last_ns
        self.scope = scope_of(header, correlation, last_ns)
        self.problems = problems
        self.question = ALL
        self.comms: dict[ProcessKey, str | None] = {}
        by_start: dict[int, list[Node]] = defaultdict(list)
        for node in self.tree.nodes.values():
            if node.start_ns is not None:
                by_start[node.start_ns].append(node)
        self.by_start = by_start

    def report(self) -> Report:
        """Return the verdicts of the attempts asked about that took place in the observed span."""
        runs = [run for run in self.correlation.runs if self.took_place(run)]
        meant = [run for run in runs if self.question.means(run)]
        return Report(
            [self.verdict(run) for run in meant],
            host=self.header.host,
            boot_id=self.header.boot_id,
            source=self.header.source,
            unknowns=list(self.problems),
            # That is about no attempt, and some were asked for.
            abandoned=abandoned(self.correlation, self.wall) if self.question.is_open else [],
            pid_ns=self.header.pid_ns,
            left_out=len(runs) - len(meant) or UNSET,
        )

    def took_place(self, run: TaskRun) -> bool:
        """
        Return whether an attempt is ours to judge.

        Not so a row that ended before we looked, nor one that has not begun and
        shows no pid.
        """
        if run.runners:
            return True
        begun = [r for r in run.reports if r.state not in WAITING_STATES or r.recorded_pid]
        if not begun:
            return False
        began_text = begun[-1].end_date
        if began_text is None:
            return True
        first = rfc3339(wall_ns(self.first_ns, self.header.wall_offset_ns))
        return began_text[:19] >= first[:19]

    def verdict(self, run: TaskRun) -> Verdict:
        """Return the judgement of one attempt."""
        case = Case(run, self.scope)
        pid = self.question.pid
        finding = None if pid is None else descendant_asked(case, pid)
        if run.could_be:
            finding = undetermined(case)
        elif finding is None:
            finding = next(found for rule in RULES if (found := rule(case)) is not None)
        unknowns = [*finding.unknowns, *self.gaps(run)]
        if not run.reports:
            unknowns += self.problems
        ended = killers(case)
        seqs = {record.seq for record in (*finding.evidence, *ended.evidence)}
        for member in run.runners:
            seqs.update(ending_seqs(member.node))
            if member.seq is not None:
                seqs.add(member.seq)
        return Verdict(
            task=run.task,
            recorded=self.recorded(run),
            processes=[self.process(case, member) for member in ordered(run)],
            code=finding.code,
            outcome=finding.outcome,
            confidence=self.bounded(finding, run),
            pid_changed_in_kernel=self.pid_changed(run),
            summary=finding.summary
            + ended.words
            + sudo_in_words(case, finding)
            + numbers_in_words(case, finding)
            + counters_in_words(case),
            evidence=sorted(seqs),
            unknowns=list(dict.fromkeys(unknowns)),
            airflow=run.airflow if self.correlation.several else UNSET,
        )

    def bounded(self, finding: Finding, run: TaskRun) -> Confidence:
        """
        Return a finding's confidence, no higher than the evidence bears.

        A loss within the attempt's lifetime, or a process whose start is not
        known, makes it weak; an attribution by lineage alone, or a source that
        does not see everything, at best strong.
        """
        limit = STRENGTH.index(finding.confidence)
        members = run.runners
        # Also of those that the finding takes from other attempts.
        keys = [m.node.key for m in members]
        keys += [record.key for record in finding.evidence if record.key is not None]
        if self.gaps(run) or any(key.start_ticks is None for key in keys):
            limit = 0
        if any(m.by == "lineage" for m in members) or not self.header.fidelity.sees_short_lived:
            limit = min(limit, 1)
        if not self.header.fidelity.has_wstatus:
            limit = min(limit, 1)
        return STRENGTH[limit]

    def gaps(self, run: TaskRun) -> list[str]:
        """Return the losses that fall into an attempt's lifetime, in words."""
        # Who began nobody knows when may have been there at any loss.
        times = [m.node.started_ns or 0 for m in run.runners]
        times += [r.ts_boot_ns for r in run.reports]
        if not times:
            return []
        begin = min(times)
        ends = [m.node.ended_ns or self.last_ns for m in run.runners] or [max(times)]
        return [
            f"{'an unknown number of' if lost.count is None else lost.count} records lost "
            f"meanwhile: {lost.reason}"
            for lost in self.tree.losses
            if (lost.to_ns or lost.ts_boot_ns) >= begin and (lost.from_ns or 0) <= max(ends)
        ]

    def pid_changed(self, run: TaskRun) -> bool:
        """
        Return whether a process of the attempt was seen under two numbers.

        Looked for, not assumed: the kernel's start time in nanoseconds names a
        process whatever its number. Two CPUs can fork in the same nanosecond, though.
        """
        return any(
            other.key.pid != member.node.key.pid and may_be_one(member.node, other)
            for member in run.runners
            for other in self.by_start.get(member.node.start_ns or 0, ())
        )

    def recorded(self, run: TaskRun) -> list[Recorded]:
        """Return what Airflow recorded, once per change of pid, state or host."""
        found: list[Recorded] = []
        for report in run.reports:
            entry = Recorded(
                report.recorded_pid,
                report.hostname,
                report.state,
                report.via,
                self.wall(report.ts_boot_ns),
                report.task.try_number if report.task else None,
                report.table,
                report.external_executor_id,
            )
            if not found or replace(found[-1], seen_at=None) != replace(entry, seen_at=None):
                found.append(entry)
        return found

    def process(self, case: Case, member: Member) -> ProcessReport:
        """Return what is known of one process."""
        node, ended = member.node, member.node.exit
        first = node.first_parent
        # A 3.x worker supervises one task after the other: what counts is what it was then.
        born_ns = node.fork.ts_boot_ns if node.fork is not None else None
        adopted = ended.ppid if ended is not None else None
        place = self.tree.place(node)
        return ProcessReport(
            role=str(member.role),
            pid=node.key.pid,
            start_ticks=node.key.start_ticks,
            birth_parent=self.parent(case, node, born_ns),
            chain=[self.who(n, case, born_ns) for n in case.chain(node)],
            identified_by=member.by,
            started=self.wall(node.started_ns),
            ended=self.wall(node.ended_ns),
            exit_code=ended.exit_code if ended else None,
            termsig=ended.termsig if ended else None,
            killed_by=killing(case, node).by,
            migrations=ended.migrations if ended else None,
            voluntary_switches=ended.voluntary_switches if ended else None,
            involuntary_switches=ended.involuntary_switches if ended else None,
            major_faults=ended.major_faults if ended else None,
            zombie_ns=node.reap.zombie_ns if node.reap else None,
            reparented_to=adopted if first is not None and adopted != first.pid else None,
            ns_pids=node.ns_pids,
            title=node.title,
            container=place.container_id,
            pod_uid=place.pod_uid,
            unit=place.unit,
            core_dumped=ended.core_dumped if ended else None,
        )

    def parent(self, case: Case, node: Node, born_ns: int | None) -> Who | None:
        """Return the birth parent, also one that is outside of what was traced."""
        key = node.birth_parent
        if key is None:
            return None
        known = self.tree.node(key)
        return (
            self.who(known, case, born_ns) if known is not None else Who(key.pid, key.start_ticks)
        )

    def who(self, node: Node, case: Case, ts_boot_ns: int | None) -> Who:
        """Return a process in short, with its role at an instant."""
        key, role = node.key, str(case.role(node, ts_boot_ns))
        if key not in self.comms:
            # An ancestor is that of a hundred children.
            self.comms[key] = node.comm
        return Who(key.pid, key.start_ticks, role, self.comms[key])

    def wall(self, ts_boot_ns: int | None) -> str | None:
        """Return an instant as RFC 3339, None stays None."""
        if ts_boot_ns is None:
            return None
        return rfc3339(wall_ns(ts_boot_ns, self.header.wall_offset_ns))


def may_be_one(one: Node, other: Node) -> bool:
    """
    Return whether two nodes may be one process: not if each has a birth, an end or a parent.

    Nor if the one was seen between two looks at the other: a number that changes is not back.
    """
    if (one.fork and other.fork) or (one.exit and other.exit):
        return False
    parents = {node.first_parent for node in (one, other) if node.first_parent is not None}
    (_, first_until), (second_since, _) = sorted(seen_from_to(node) for node in (one, other))
    return len(parents) < 2 and first_until <= second_since


def seen_from_to(node: Node) -> tuple[int, int]:
    """Return CLOCK_BOOTTIME of a process's first record and of its last, 0 if it has none."""
    records = (node.fork, node.exit, *node.titles, *node.execs, *node.observed)
    times = [record.ts_boot_ns for record in records if record is not None]
    return min(times, default=0), max(times, default=0)


def ordered(run: TaskRun) -> list[Member]:
    """Return an attempt's processes: supervisor, runners and children by time of birth."""
    return sorted(run.members, key=lambda m: (m.node.started_ns or 0, m.node.key.pid))


def sudo_in_words(case: Case, finding: Finding) -> str:
    """Return that sudo started nothing, where the finding is about what came after."""
    refusal = None if finding.code == "aborted-start" else refusal_by_sudo(case)
    return "" if refusal is None else f" No user code ran: {refusal.words}."


def numbers_in_words(case: Case, finding: Finding) -> str:
    """Return which process here a recorded number is, where a namespace lies in between."""
    if finding.code == "match-via-namespace":
        return ""
    parts = [
        f" Recorded PID {pid} is process {node.key.pid} here{case.where(node)}."
        for node in (member.node for member in case.runners)
        for pid in case.recorded_pids
        if pid != node.key.pid and pid in node.numbers
    ]
    return "".join(parts[-3:])


def counters_in_words(case: Case) -> str:
    """Return the sentence that answers the claim that a PID changes on a busy machine."""
    parts = []
    for member in case.runners:
        ended = member.node.exit
        if ended is None or ended.migrations is None:
            continue
        both = (ended.voluntary_switches, ended.involuntary_switches)
        switches = None if None in both else sum(count or 0 for count in both)
        parts.append(
            f" PID {member.node.key.pid} moved between CPUs {counted(ended.migrations, 'time')}, "
            f"was switched out {counted(switches, 'time')}, had "
            f"{counted(ended.major_faults, 'major fault')}; PID unchanged."
        )
    return "".join(parts[-3:])


def counted(number: int | None, noun: str) -> str:
    """Return a number with its noun; a number that is not known is said to be so."""
    if number is None:
        return f"an unknown number of {noun}s"
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
