"""
The rules: why the recorded PID is, or is not, the one that ran.

Each is a small pure function of one Case that returns a Finding or None. They
are asked in the order of RULES and the first answer stands: first what is wrong
with the record itself, then who came later, then the plain match, and at last
what could not be found. Families of rules have files of their own: `chain`,
`superseded`, `orphans`, `double`, `elsewhere`. A rule's name is its code; its docstring is what
`pidtrail explain --code` prints: what it concludes, what it needs, what it
cannot tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.airflow.facts import Role
from pidtrail.airflow.identify import merge
from pidtrail.verdict.case import WAITING_STATES, Case, command_of, name_of
from pidtrail.verdict.chain import (
    ancestor_recorded,
    descendant_observed,
    impersonation,
    levels_facts,
    way_in_words,
)
from pidtrail.verdict.double import aborted_start, concurrent_duplicate, stale_executor_event
from pidtrail.verdict.elsewhere import (
    match_via_namespace,
    numbers_unknown,
    other_host,
    pid_reused,
)
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.finding import Finding, facts_of, runner_facts
from pidtrail.verdict.orphans import orphan_reset, orphaned_still_running
from pidtrail.verdict.sudo import refusal_by_sudo
from pidtrail.verdict.superseded import (
    clear,
    deferral,
    heartbeat_timeout,
    reschedule,
    retry,
    worker_restart,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidtrail.events import TaskRef
    from pidtrail.members import Claim


def unrecorded_test(case: Case) -> Finding | None:
    """
    `airflow tasks test` ran the user code, and no record of it is kept.

    Concludes: there is nothing to compare. The command runs the task in its own
    process, without scheduler, executor or supervisor.
    Needs: the command line of that process from the kernel.
    Cannot tell: whether its row carried the PID for a while. 2.x never commits the
    row (it uses a run named `__airflow_temporary_run_…`); 3.x records the PID and
    removes the row at the end (cli/commands/task_command.py task_test @ 2.11.2 and
    3.3.2): where it was read in time the verdict is match.
    """
    runner = case.runner
    if runner is None or case.recorded_pids or command_of(runner.node) != "tasks test":
        return None
    return Finding(
        "unrecorded-test", "explained", "proved",
        f"No PID is recorded for {case.name()}: `airflow tasks test` ran it in its own process, "
        f"{runner.node.key.pid}, and Airflow keeps no row of that; it "
        f"{ended_in_words(runner.node)}.",
        [*facts_of(runner.node), *runner.node.execs[-1:], *case.reports[-1:]],
    )  # fmt: skip


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
    if runner in case.refused or refusal_by_sudo(case) is not None:
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
    has not come; 0.2 to 5 s after the fork in 2.x. Or the supervisor of 2.x has said
    `running` and has not forked the runner yet: strong.
    Needs: a living runner and Airflow's rows, none with a pid of this attempt. Or a living
    supervisor that shows this attempt, and a source that would have seen the runner.
    Cannot tell: whether it will be written; if the runner dies first the verdict
    becomes died-unrecorded.
    """
    runner = case.runner
    if case.recorded_pids or not case.reports:
        return None
    if runner is None:
        return not_forked_yet(case)
    if runner.node.ended_ns is not None:
        return None
    return Finding(
        "not-recorded-yet", "explained", "proved",
        f"Process {runner.node.key.pid} runs {case.name()} and Airflow has not recorded it yet.",
        [*facts_of(runner.node), *case.reports[-1:]],
    )  # fmt: skip


def not_forked_yet(case: Case) -> Finding | None:
    """Conclude that a supervisor has begun the attempt and started no process for it yet."""
    row = case.last_report
    if row is None or row.state != "running" or missed_in_words(case) is not None:
        return None
    # Another installation may have a supervisor of the same names.
    if case.scope.correlation.several:
        return None
    nodes = (case.tree.node(key) for key, said in case.claims.items() if shows(said, case.task))
    found = [node for node in nodes if node is not None and node.alive_at(case.ended_ns)]
    if len(found) != 1:
        return None
    return Finding(
        "not-recorded-yet", "explained", "strong",
        f"Supervisor {found[0].key.pid} has begun {case.name()} and has not started its process "
        "yet: there is no PID to record.",
        [*facts_of(found[0]), row],
    )  # fmt: skip


def shows(said: list[Claim], task: TaskRef) -> bool:
    """Return whether a supervisor shows an attempt, by its title or arguments and its open log."""
    shown = [claim.task for claim in said if claim.role is Role.SUPERVISOR and claim.task]
    tried = [one.try_number for one in shown if one.try_number is not None]
    return bool(tried) and all(merge(one, task) is not None for one in shown)


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
            if last.recorded_pid in member.node.numbers:
                number = run.task.try_number
                words = "an earlier try" if number is None else f"try {number}"
                return Finding(
                    "stale-between-tries", "explained", "proved",
                    f"The row of {case.name()} still shows PID {last.recorded_pid}: that process "
                    f"ran {words} and {ended_in_words(member.node)}; this "
                    f"attempt is {last.state or 'not scheduled yet'} and has no process.",
                    [*facts_of(member.node), last],
                )  # fmt: skip
    return None


def match(case: Case) -> Finding | None:
    """
    The recorded PID is the process that ran the attempt.

    Concludes: no mismatch. With run_as_user 2.x records the process below sudo,
    3.x the sudo that it started: the summary then names both. One process of
    `airflow dags test` is that of every task and try that it ran.
    Needs: a row of the attempt with a pid, and the runner with that very number.
    Cannot tell: what somebody else compared it with; nor why other processes ran the same
    try before it, where no row tells of pokes or deferrals: then it is strong at most.
    """
    runner = case.runner
    if runner is None or case.recorded_pid != runner.node.key.pid:
        return None
    before = case.runners[:-1]
    words, unknowns = "", []
    if before:
        pids = ", ".join(str(member.node.key.pid) for member in before)
        which = "process" if len(before) == 1 else "processes"
        words = f" Before it {which} {pids} ran the same try; no row tells why."
        unknowns = ["why the attempt had several processes: no row tells"]
    levels = case.levels(runner)
    if levels[-1] is not runner.node:
        return Finding(
            "match", "match", "strong" if before else "proved",
            f"Recorded PID {runner.node.key.pid} is sudo, which is what Airflow 3.x starts and "
            f"records for another user's task; user code of {case.name()} ran below it, in "
            f"process {levels[-1].key.pid}, which {ended_in_words(levels[-1])}.{words}",
            [*levels_facts(levels), *case.own_reports[-1:]],
            tuple(unknowns),
        )  # fmt: skip
    return Finding(
        "match", "match", "strong" if before else "proved",
        f"Recorded PID {runner.node.key.pid} is the process that ran {case.name()}"
        f"{way_in_words(case, runner)}; it {ended_in_words(runner.node)}.{words}",
        [*levels_facts(levels), *case.own_reports[-1:]],
        tuple(unknowns),
    )  # fmt: skip


def never_seen(case: Case) -> Finding | None:
    """
    Airflow recorded a PID, and no process of that attempt was ever seen here.

    Concludes: in the observed span no process ran this attempt below what is traced.
    Needs: a pid recorded as this attempt's own, a source that misses neither short lives
    nor titles, and no loss since the attempt began. Weak where the row names no host, or
    one by a loopback address.
    Cannot tell: whether it ran outside the traced subtree, on another host, or
    before the recording began.
    """
    pid = case.recorded_pid
    if case.runners or pid is None or (case.last_report is not None
                                       and case.last_report.state in WAITING_STATES):  # fmt: skip
        return None
    if missed_in_words(case) is not None:
        return None
    known = known_as(case, pid)
    other = f" The process with that number, {known}, is another one." if known else ""
    row = case.own_reports[-1]
    unknowns: list[str] = []
    if not row.hostname:
        unknowns = [f"on which host PID {pid} was recorded: the row names none"]
    elif case.is_any_host(row.hostname):
        unknowns = [f"which host {row.hostname} is: every host calls itself so"]
    return Finding(
        "never-seen", "conflict", "weak" if unknowns else "strong",
        f"Airflow recorded PID {pid} for {case.name()}, and no process of it was seen.{other}",
        [row],
        tuple(unknowns),
    )  # fmt: skip


def known_as(case: Case, pid: int) -> str | None:
    """Return in words which process of another attempt, or of none, has a recorded number here."""
    rows = [row for row in case.own_reports if row.recorded_pid == pid]
    nodes = case.tree.with_pid(pid) if rows and case.counts_here(rows[-1].hostname) else []
    if not nodes:
        return None
    for run in case.scope.correlation.runs:
        for member in run.members:
            if run is not case.run and member.node is nodes[-1] and member in run.runners:
                return f"which ran {name_of(run.task)}"
    role = case.role_words(nodes[-1])
    if role != "other":
        return f"{'an' if role[0] in 'aeo' else 'a'} {role}"
    return (nodes[-1].comm or "").strip() or "whose name was not seen"


def missed_in_words(case: Case) -> str | None:
    """Return why a process of the attempt may have been there unseen, None if it cannot."""
    fidelity = case.scope.header.fidelity
    if not (fidelity.sees_short_lived and fidelity.has_titles and fidelity.has_argv):
        return f"source {case.scope.header.source} may have missed it, or not known it for one"
    named = [n for n in case.tree.with_pid(case.recorded_pid or 0) if case.role(n) is Role.RUNNER]
    if any(claim.task is None for node in named for claim in case.claims.get(node.key, ())):
        return f"process {case.recorded_pid} runs a task and does not say which: its title is cut"
    begun = [case.boot_ns(row.start_date) or row.ts_boot_ns for row in case.reports]
    since = min(begun, default=0)
    if any((lost.to_ns or lost.ts_boot_ns) >= since for lost in case.tree.losses):
        return "records were lost meanwhile"
    return None


def undetermined(case: Case) -> Finding:
    """
    The evidence does not decide it, and this says what is missing.

    Concludes: nothing.
    Needs: nothing.
    Cannot tell: the rest; `unknowns` lists what would be needed.
    """
    missing = []
    if case.run.could_be:
        places = " or ".join(case.run.could_be)
        missing.append(f"of which Airflow the process or the row of this name is: {places}")
    if not case.reports:
        missing.append("what Airflow recorded: no row of this attempt was read")
    elif not case.recorded_pids:
        missing.append("the recorded PID: no row of this attempt carried one")
    if not case.runners:
        why = missed_in_words(case)
        missing.append(f"the process: none of this attempt was seen{f'; {why}' if why else ''}")
    elif len(case.runners) > 1:
        missing.append("why the attempt had several processes: no row tells")
        if case.reports and all(report.via == "rest" for report in case.reports):
            missing.append(
                "the pokes of a sensor: Airflow's API does not list them, its database does"
            )
    elif case.recorded_pids:
        known = known_as(case, case.recorded_pid or 0)
        pid = f"{case.recorded_pid} ({known})" if known else str(case.recorded_pid)
        what = f"why PID {pid} is on record" if known else f"who was process {pid}"
        missing.append(f"{what}: it is not the runner nor above it")
        over = [one for one in case.recorded_pids if case.runner_with(one) is not None]
        if over:
            missing[-1] = (
                f"who wrote PID {pid} over {over[-1]}, which is the process that ran "
                f"it: {case.recorded_pid} is no process of this attempt"
            )
        missing += numbers_unknown(case)
    return Finding(
        "undetermined", "undetermined", "weak",
        f"{case.name()}: not determined; missing is {'; '.join(missing) or 'a rule for this'}.",
        [*runner_facts(case), *case.reports[-1:]],
        tuple(missing),
    )  # fmt: skip


RULES: Final[tuple[Callable[[Case], Finding | None], ...]] = (
    # Nothing can be compared: there is no number, no process yet, or it is another host's.
    unrecorded_test,
    died_unrecorded,
    not_recorded_yet,
    stale_between_tries,
    other_host,
    # The number on record is a wrong process of the right chain, whatever became of the attempt.
    ancestor_recorded,
    descendant_observed,
    # Airflow gave the attempt up or began it anew. What it wrote down as its reason comes before
    # what is inferred from lives and deaths, and any reason before "two at once": an overlap that
    # has a reason is told with the reason. A retry is the weakest of them, for it follows on most.
    stale_executor_event,
    heartbeat_timeout,
    orphan_reset,
    worker_restart,
    clear,
    concurrent_duplicate,
    retry,
    # The number that the row goes on showing is another process's by now, so that whatever the
    # attempt's own process went through, nobody may take the number for it.
    pid_reused,
    orphaned_still_running,
    # Several processes under one try number, as it should be, or one that was not let start.
    reschedule,
    deferral,
    aborted_start,
    # The record is right: what may look wrong about it comes before the plain match.
    impersonation,
    match_via_namespace,
    match,
    # The process was not found.
    never_seen,
    undetermined,
)
"""In the order in which they are asked; the first answer stands."""


def code_of(rule: Callable[[Case], Finding | None]) -> str:
    """Return the code of a rule: its name with hyphens."""
    return rule.__name__.replace("_", "-")
