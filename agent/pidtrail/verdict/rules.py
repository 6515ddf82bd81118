"""
The rules: why the recorded PID is, or is not, the one that ran.

Each is a small pure function of one Case that returns a Finding or None. They
are asked in the order of RULES and the first answer stands: first what is wrong
with the record itself, then who came later, then the plain match, and at last
what could not be found. A rule's name is its code; its docstring is what
`pidtrail explain --code` prints: what it concludes, what it needs, what it
cannot tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.verdict.case import WAITING_STATES, Case
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.finding import Finding, facts_of, runner_facts
from pidtrail.verdict.superseded import (
    clear,
    deferral,
    orphan_reset,
    reschedule,
    retry,
    worker_restart,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def died_unrecorded(case: Case) -> Finding | None:
    """
    The runner died before Airflow had written its PID; the record stays empty.

    Concludes: the row's pid is NULL although a process ran the attempt, and that
    process has ended, so nothing will fill it in.
    Needs: the runner's birth and end from the kernel, and at least one row of the
    attempt, none of which ever carried a pid.
    Cannot tell: how far the user code came. In 2.x the supervisor sets pid NULL
    and the runner writes its own later (models/taskinstance.py
    check_and_change_state_before_execution, _run_raw_task @ 2.10.5); in 3.x the
    supervisor writes it before user code starts.
    """
    runner = case.runner
    if runner is None or runner.node.ended_ns is None or case.recorded_pids or not case.reports:
        return None
    words = ended_in_words(runner.node)
    return Finding(
        "died-unrecorded", "explained", "proved",
        f"No PID is recorded for {case.name()}: process {runner.node.key.pid} ran it, but "
        f"{words} before Airflow wrote its PID.",
        [*facts_of(runner.node), *case.reports[-1:]],
    )  # fmt: skip


def not_recorded_yet(case: Case) -> Finding | None:
    """
    The runner lives and Airflow has not written its PID yet.

    Concludes: pid is NULL, or there is no row yet, because the moment of writing
    has not come; 0.2 to 5 s after the fork in 2.x.
    Needs: a living runner and Airflow's rows, none with a pid of this attempt.
    Cannot tell: whether it will be written; if the runner dies first the verdict
    becomes died-unrecorded.
    """
    runner = case.runner
    if runner is None or runner.node.ended_ns is not None or case.recorded_pids:
        return None
    if not case.reports:
        return None
    return Finding(
        "not-recorded-yet", "explained", "proved",
        f"Process {runner.node.key.pid} runs {case.name()} and Airflow has not recorded it yet.",
        [*facts_of(runner.node), *case.reports[-1:]],
    )  # fmt: skip


def stale_between_tries(case: Case) -> Finding | None:
    """
    The row shows the PID of the attempt before, because this one has not started.

    Concludes: the recorded pid belongs to a process of an earlier attempt; the
    row is scheduled or queued for this one.
    Needs: no process of this attempt, and a row whose pid is a runner of an
    earlier attempt of the same task instance.
    Cannot tell: whether this attempt will start. Both versions leave the pid in
    the row when they schedule the next try (models/dagrun.py schedule_tis).
    """
    last = case.last_report
    if case.runners or last is None or last.state not in WAITING_STATES | {"up_for_retry"}:
        return None
    if last.recorded_pid is None:
        return None
    for run in case.earlier:
        for member in run.runners:
            if member.node.key.pid == last.recorded_pid:
                return Finding(
                    "stale-between-tries", "explained", "proved",
                    f"The row of {case.name()} still shows PID {last.recorded_pid}: that process "
                    f"ran try {run.task.try_number} and {ended_in_words(member.node)}; this "
                    f"attempt is {last.state or 'not scheduled yet'} and has no process.",
                    [*facts_of(member.node), last],
                )  # fmt: skip
    return None


def ancestor_recorded(case: Case) -> Finding | None:
    """
    Another process of the same chain was recorded or compared: one above the runner.

    Concludes: the recorded pid is the runner's supervisor, worker, or another
    ancestor, alive at the same time. Nothing changed its PID; two processes are
    taken for one.
    Needs: the runner's lineage by birth from the kernel.
    Cannot tell: which Airflow setting caused it; impersonation (run_as_user)
    and a wrapper in between look alike from here.
    """
    runner, pid = case.runner, case.recorded_pid
    if runner is None or pid is None or case.runner_with(pid) is not None:
        return None
    for ancestor in case.chain(runner.node)[1:]:
        if ancestor.key.pid == pid:
            role = case.role(ancestor)
            return Finding(
                "ancestor-recorded", "explained", "proved",
                f"Recorded PID {pid} is the {role} above process {runner.node.key.pid}, which ran "
                f"{case.name()}: two processes of one chain, and neither changed its PID.",
                [*facts_of(runner.node), *facts_of(ancestor), *case.own_reports[-1:]],
            )  # fmt: skip
    return None


def orphaned_still_running(case: Case) -> Finding | None:
    """
    The supervisor, worker or scheduler above the runner died; the runner lived on.

    Concludes: the process kept its PID and went on, adopted by another parent.
    Needs: the end of an ancestor that supervises, clearly before the runner's.
    Cannot tell: whether its result will be kept. With LocalExecutor nothing ends a
    runner when its scheduler dies (nothing uses PR_SET_PDEATHSIG); in 3.x a
    runner without its supervisor cannot report and exits with 126.
    """
    for runner in reversed(case.runners):
        gone = case.supervisors_dead_before(runner.node)
        if not gone:
            continue
        node = runner.node
        recorded = case.recorded_pid
        word = (
            "the PID on record all the time"
            if recorded == node.key.pid
            else f"recorded: {recorded}"
        )
        adopted = node.exit.ppid if node.exit is not None else None
        by = f", adopted by process {adopted}" if adopted is not None and case.tree.node(
            node.first_parent) in gone else ""  # fmt: skip
        born_ns = node.fork.ts_boot_ns if node.fork is not None else None
        names = " and ".join(
            f"{case.role(n, born_ns)} {n.key.pid} {ended_in_words(n)}" for n in gone
        )
        return Finding(
            "orphaned-still-running", "explained", "proved",
            f"{names}, and process {node.key.pid} of {case.name()} lived on{by} ({word}); it "
            f"{ended_in_words(node)}.",
            [*facts_of(node), *(r for n in gone for r in facts_of(n)), *case.own_reports[-1:]],
        )  # fmt: skip
    return None


def match(case: Case) -> Finding | None:
    """
    The recorded PID is the process that ran the attempt.

    Concludes: no mismatch.
    Needs: a row of the attempt with a pid, and the runner with that very number.
    Cannot tell: what somebody else compared it with.
    """
    runner = case.runner
    if runner is None or case.recorded_pid != runner.node.key.pid:
        return None
    return Finding(
        "match", "match", "proved",
        f"Recorded PID {runner.node.key.pid} is the process that ran {case.name()}; it "
        f"{ended_in_words(runner.node)}.",
        [*facts_of(runner.node), *case.own_reports[-1:]],
    )  # fmt: skip


def never_seen(case: Case) -> Finding | None:
    """
    Airflow recorded a PID, and no process of that attempt was ever seen here.

    Concludes: in the observed span no process ran this attempt below what is traced.
    Needs: a pid recorded as this attempt's own, and a source that misses nothing.
    Cannot tell: whether it ran outside the traced subtree, on another host, or
    before the recording began.
    """
    pid = case.recorded_pid
    if case.runners or pid is None or (case.last_report is not None
                                       and case.last_report.state in WAITING_STATES):  # fmt: skip
        return None
    same_number = case.tree.with_pid(pid)
    other = (
        f" The process with that number, {same_number[-1].comm}, is another one."
        if same_number
        else ""
    )
    return Finding(
        "never-seen", "conflict", "strong",
        f"Airflow recorded PID {pid} for {case.name()}, and no process of it was seen.{other}",
        [*case.own_reports[-1:]],
    )  # fmt: skip


def undetermined(case: Case) -> Finding:
    """
    The evidence does not decide it, and this says what is missing.

    Concludes: nothing.
    Needs: nothing.
    Cannot tell: the rest; `unknowns` lists what would be needed.
    """
    missing = []
    if not case.reports:
        missing.append("what Airflow recorded: no row of this attempt was read")
    elif not case.recorded_pids:
        missing.append("the recorded PID: no row of this attempt carried one")
    if not case.runners:
        missing.append("the process: none of this attempt was seen")
    elif len(case.runners) > 1:
        missing.append("why the attempt had several processes: no row tells")
    elif case.recorded_pids:
        missing.append(f"who was process {case.recorded_pid}: it is not the runner nor above it")
    return Finding(
        "undetermined", "undetermined", "weak",
        f"{case.name()}: not determined; missing is {'; '.join(missing) or 'a rule for this'}.",
        [*runner_facts(case), *case.reports[-1:]],
        tuple(missing),
    )  # fmt: skip


RULES: Final[tuple[Callable[[Case], Finding | None], ...]] = (
    died_unrecorded,
    not_recorded_yet,
    stale_between_tries,
    ancestor_recorded,
    orphan_reset,
    worker_restart,
    clear,
    retry,
    orphaned_still_running,
    reschedule,
    deferral,
    match,
    never_seen,
    undetermined,
)


def code_of(rule: Callable[[Case], Finding | None]) -> str:
    """Return the code of a rule: its name with hyphens."""
    return rule.__name__.replace("_", "-")
