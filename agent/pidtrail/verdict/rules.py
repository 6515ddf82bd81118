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

from typing import TYPE_CHECKING, Final, NamedTuple

from pidtrail.verdict.case import FINAL_STATES, PARKED_STATES, WAITING_STATES, Case
from pidtrail.verdict.ending import ended_in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidtrail.correlate import Member, TaskRun
    from pidtrail.events import Record, TaskReported
    from pidtrail.tree import Node
    from pidtrail.verdict.model import Confidence, Outcome

TOGETHER_NS: Final = 5_000_000_000
"""A runner that ends this soon around its worker's end went down with it."""
CLEAR_EVENTS: Final = (
    "clear",
    "confirm",
    "dagrun_clear",
    "clear_dag_run",
    "post_clear_task_instances",
    "set_task_instance_state",
)
"""Audit names of what clears or resets a task instance by hand (log.event: 2.x views, 3.x routes)."""


class Finding(NamedTuple):
    """What a rule concluded; `evidence` are the records it stands on."""

    code: str
    outcome: Outcome
    confidence: Confidence
    summary: str
    evidence: list[Record]
    unknowns: tuple[str, ...] = ()


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


def orphan_reset(case: Case) -> Finding | None:
    """
    A scheduler took the attempt for orphaned and started it again while it still ran.

    Concludes: the next attempt was queued after this one's scheduler had ended,
    and while this one's process still lived: a new process, and for a time two.
    Needs: the end of the scheduler, the life of the runner, and the first sign
    of the next attempt.
    Cannot tell: the exact moment of the reset, only the first row that shows it.
    LocalExecutor cannot adopt (executors/local_executor.py
    try_adopt_task_instances); thresholds: scheduler_health_check_threshold,
    orphaned_tasks_check_interval.
    """
    runner, later = case.runner, started(case.later)
    if runner is None or later is None:
        return None
    queued_ns = beginning(later)
    ended = runner.node.ended_ns
    gone = [
        node
        for node in case.supervisors_dead_before(runner.node)
        if node.ended_ns is not None and node.ended_ns < queued_ns
    ]
    if not gone or (ended is not None and ended < queued_ns):
        return None
    scheduler = gone[-1]
    both = "" if ended is not None else " and still runs"
    return Finding(
        "orphan-reset", "explained", "proved",
        f"{case.name()} was started again as try {later.task.try_number} after its "
        f"{case.role(scheduler)} {scheduler.key.pid} had ended, while its process "
        f"{runner.node.key.pid} lived on{both}: {new_pid(later)}.",
        [*facts_of(runner.node), *facts_of(scheduler), *later_evidence(later)],
    )  # fmt: skip


def worker_restart(case: Case) -> Finding | None:
    """
    The process went down with its worker or scheduler, and a restarted one began a new attempt.

    Concludes: the runner ended within seconds of its supervisor, worker or
    scheduler, and the next attempt descends from another scheduler.
    Needs: both ends, and the lineage of the next attempt's process.
    Cannot tell: who restarted the service, unless it descends from what is traced.
    """
    runner, later = case.runner, started(case.later)
    if runner is None or later is None or runner.node.ended_ns is None or not later.runners:
        return None
    ended = runner.node.ended_ns
    down = [
        node
        for node in case.chain(runner.node)[1:]
        if node.ended_ns is not None and abs(node.ended_ns - ended) < TOGETHER_NS
    ]
    mine = case.scheduler_of(runner.node)
    other = case.scheduler_of(later.runners[0].node)
    if not down or mine is None or other is None or mine == other:
        return None
    return Finding(
        "worker-restart", "explained", "proved",
        f"Process {runner.node.key.pid} of {case.name()} {ended_in_words(runner.node)} together "
        f"with its {case.role(down[0])} {down[0].key.pid}; the scheduler that was started after it "
        f"({other.pid}) ran try {later.task.try_number}: {new_pid(later)}.",
        [*facts_of(runner.node), *facts_of(down[0]), *later_evidence(later)],
    )  # fmt: skip


def clear(case: Case) -> Finding | None:
    """
    Somebody cleared the task instance, and Airflow ran it again as a new process.

    Concludes: the next attempt began although this one did not ask for a retry.
    Needs: a row in state `restarting`, an audit row of a clear, or a final state
    before the next attempt.
    Cannot tell: who cleared it, unless the audit row names the owner.
    """
    later = started(case.later)
    if later is None:
        return None
    since, until = beginning(case.run), last_sign(later)
    rows = [f for f in case.events_named(*CLEAR_EVENTS) if since <= f.ts_boot_ns <= until]
    live = [r for r in case.reports if r.table != "task_instance_history"]
    decided = [r for r in live if r.state in FINAL_STATES or r.state == "restarting"]
    if not rows and not decided:
        return None
    why = f"audit row `{rows[-1].event}`" if rows else f"state {decided[-1].state} before it"
    return Finding(
        "clear", "explained", "proved",
        f"{case.name()} was cleared ({why}) and ran again as try {later.task.try_number}: "
        f"{new_pid(later)}.",
        [*runner_facts(case), *rows, *decided[-1:], *later_evidence(later)],
    )  # fmt: skip


def retry(case: Case) -> Finding | None:
    """
    The attempt failed and Airflow retried it: a new attempt is a new process with a new PID.

    Concludes: a later attempt superseded this one, after this one had failed.
    Needs: a later attempt that started, and the failure: state up_for_retry, a
    history row of the failed try, or the runner's exit.
    Cannot tell: why the user code failed. In 3.x a runner whose task failed may
    still exit with 0, so the row's word counts.
    """
    later = started(case.later)
    if later is None:
        return None
    said = [
        r for r in case.reports
        if r.state == "up_for_retry"
        or (r.table == "task_instance_history" and r.state in {"failed", "up_for_retry"})
    ]  # fmt: skip
    runner = case.runner
    failed = runner is not None and runner.node.exit is not None and runner.node.exit.wstatus != 0
    if not said and not failed and not case.events_named("up_for_retry"):
        return None
    words = ended_in_words(runner.node) if runner is not None else "was not seen"
    pid = runner.node.key.pid if runner is not None else "?"
    return Finding(
        "retry", "explained", "proved" if said else "strong",
        f"{case.name()} failed (process {pid} {words}) and was retried as try "
        f"{later.task.try_number}: {new_pid(later)}.",
        [*runner_facts(case), *said[-1:], *later_evidence(later)],
    )  # fmt: skip


def reschedule(case: Case) -> Finding | None:
    """
    A sensor in mode reschedule: each poke is a process of its own, under one try number.

    Concludes: the attempt has had several processes one after the other, or waits
    between two, because it gave up its slot between pokes.
    Needs: state up_for_reschedule or rows of task_reschedule, and the processes.
    Cannot tell: the pids of pokes that ran before we looked: Airflow overwrites
    them in place and keeps none (task_reschedule has no pid column).
    """
    rows: list[Record] = [r for r in case.reports if r.state == "up_for_reschedule"]
    rows += [*case.rows_of("task_reschedule"), *case.events_named("up_for_reschedule")]
    return several(case, "reschedule", "a poke of a rescheduling sensor", rows)


def deferral(case: Case) -> Finding | None:
    """
    The task deferred itself: it waits without any process and resumes as a new one.

    Concludes: the attempt has had several processes one after the other under one
    try number, or has none now, because it was deferred to the triggerer.
    Needs: state deferred (or a trigger, or the audit row), and the processes.
    Cannot tell: what the trigger waited for. While it is deferred the row shows
    the pid of the process before, which has ended.
    """
    rows: list[Record] = [r for r in case.reports if r.state == "deferred"]
    rows += case.events_named("deferred")
    return several(case, "deferral", "a run up to a deferral or after it", rows)


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
        word = "the PID on record all the time" if recorded == node.key.pid else f"recorded: {recorded}"
        adopted = node.exit.ppid if node.exit is not None else None
        by = f", adopted by process {adopted}" if adopted is not None and case.tree.node(
            node.first_parent) in gone else ""  # fmt: skip
        names = " and ".join(f"{case.role(n)} {n.key.pid} {ended_in_words(n)}" for n in gone)
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
    other = f" The process with that number, {same_number[-1].comm}, is another one." if same_number else ""
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
        f"{case.name()}: not determined; missing is {'; '.join(missing) or 'a rule for this case'}.",
        [*runner_facts(case), *case.reports[-1:]],
        tuple(missing),
    )  # fmt: skip


def several(case: Case, code: str, what: str, rows: list[Record]) -> Finding | None:
    """Conclude that an attempt had one process per `what`, or waits between two."""
    last = case.last_report
    waits = last is not None and last.state in PARKED_STATES
    if not rows or (len(case.runners) < 2 and not waits):  # noqa: PLR2004 (several)
        return None
    pids = ", ".join(str(m.node.key.pid) for m in case.runners) or "none seen"
    recorded = ", ".join(map(str, case.recorded_pids)) or "none"
    now = " It waits now, and the row shows a process that has ended." if waits else ""
    return Finding(
        code, "explained", "proved",
        f"{case.name()} ran as {len(case.runners)} processes under one try number, each {what}: "
        f"{pids}; recorded in turn: {recorded}.{now}",
        [*runner_facts(case), *rows[:1], *rows[-1:]],
    )  # fmt: skip


def started(run: TaskRun | None) -> TaskRun | None:
    """Return an attempt if it has begun: a process, or a row that is past waiting."""
    if run is None:
        return None
    begun = any(r.state not in WAITING_STATES | {"up_for_retry"} for r in run.reports)
    return run if run.runners or begun else None


def beginning(run: TaskRun) -> int:
    """Return CLOCK_BOOTTIME of the first sign of an attempt."""
    signs = [r.ts_boot_ns for r in run.reports[:1]]
    signs += [m.node.started_ns for m in run.runners if m.node.started_ns is not None]
    return min(signs, default=0)


def last_sign(run: TaskRun) -> int:
    """Return CLOCK_BOOTTIME of when an attempt had certainly begun."""
    signs = [r.ts_boot_ns for r in run.reports if r.state not in WAITING_STATES][:1]
    signs += [m.node.started_ns for m in run.runners[:1] if m.node.started_ns is not None]
    return max(signs, default=0)


def new_pid(run: TaskRun) -> str:
    """Return in words under which PID an attempt ran."""
    if run.runners:
        return f"a new process, PID {run.runners[0].node.key.pid}"
    pids = [r.recorded_pid for r in run.reports if r.recorded_pid is not None]
    return f"a new process, recorded as PID {pids[-1]}" if pids else "a new process"


def facts_of(node: Node) -> list[Record]:
    """Return the records that prove a process's life: birth, last title, end."""
    found: list[Record | None] = [node.fork, *node.observed[:1], *node.titles[-1:], node.exit]
    return [record for record in found if record is not None]


def runner_facts(case: Case) -> list[Record]:
    """Return the records that prove the lives of an attempt's runners."""
    return [record for member in case.runners for record in facts_of(member.node)]


def later_evidence(run: TaskRun) -> list[Record]:
    """Return the records that prove that an attempt began."""
    members: list[Member] = run.runners[:1]
    reports: list[TaskReported] = run.reports[:1]
    return [*(record for m in members for record in facts_of(m.node)), *reports]


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

