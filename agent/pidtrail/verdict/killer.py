"""
Who ended a process of an attempt, and why, in as far as Airflow's own records tell.

The kernel tells who sent the signal. That a supervisor sent one has a reason, which
stands in the row of the task instance or in the audit log: the answer to its
heartbeat is made of nothing else (3.x api_fastapi/execution_api/routes/
task_instances.py ti_heartbeat, 2.x jobs/local_task_job_runner.py heartbeat_callback).
That the kernel sent SIGKILL has one too, where a container's first process ended.
"""

from __future__ import annotations

import signal
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from pidtrail.airflow.facts import Role
from pidtrail.clock import NS_PER_SECOND
from pidtrail.verdict.case import CLEAR_EVENTS, FINAL_STATES, SUPERVISING, Case, name_of
from pidtrail.verdict.ending import (
    ENDING,
    HANDLED_WITHIN_NS,
    asked,
    ended_in_words,
    first_ended,
    is_first,
    is_self,
    killed_by,
    sender,
    signal_name,
)
from pidtrail.verdict.model import KilledBy, Who

if TYPE_CHECKING:
    from pidtrail.events import AirflowFact, Record, Signal, TaskReported
    from pidtrail.node import Node

BY_HAND: Final = frozenset({"patch_task_instance", "set_task_instance_state"})
"""Audit names (log.event) of what sets a state by hand: 3.x routes, 2.x REST API."""


class Reason(NamedTuple):
    """Why a supervisor ended its runner, in words, and the records that say so."""

    words: str
    evidence: list[Record]


class Killing(NamedTuple):
    """How a process ended; `words` is a sentence, empty where there is nothing to say."""

    by: KilledBy | None
    words: str
    evidence: list[Record]


def killing(case: Case, node: Node) -> Killing:
    """Return who ended a process, with what is known of the reason."""

    def role_of(other: Node, ts_boot_ns: int) -> str:
        return str(case.role(other, ts_boot_ns))

    by = killed_by(node, case.tree, role_of)
    if by is None or by.sig is None:
        return Killing(by, "", [])
    pid, name = node.key.pid, signal_name(by.sig)
    if by.kind == "oom":
        return Killing(by, f" The kernel ended {pid} for want of memory{used(node)}.", [])
    if by.kind == "self":
        return Killing(by, f" {pid} raised {name} itself.", [])
    sent = asked(node, by.sig)
    if sent is None:
        return Killing(by, f" Who sent {name} to {pid} was not seen.", [])
    first, words = series(node, sent)
    reason = why(case, node, first) if by.sender is not None else with_first(case, node, sent)
    if by.sender is not None and by.sender.pid is None:
        return Killing(by, f" Who sent {words} to {pid} was not seen.", [first, sent])
    text = f" {pid} was sent {words} by {in_words(case, node, by.sender)}"
    if reason is None and by.sender is None and is_first_unknown(case, node, sent):
        text += ", as it does to all in a PID namespace whose process 1 ends (unknown here)"
    if by.kind == "exit" and node.exit is not None:
        after = (node.exit.ts_boot_ns - sent.ts_boot_ns) / NS_PER_SECOND
        text += f", {after:.1f} s before its end"
    if reason is None:
        return Killing(by, f"{text}.", [first, sent])
    told = KilledBy(by.kind, by.sig, by.sender, reason.words)
    return Killing(told, f"{text}: {reason.words}.", [first, sent, *reason.evidence])


def used(node: Node) -> str:
    """Return in words how much memory an out-of-memory victim had."""
    if node.oom is None or node.oom.anon_rss_kib is None:
        return ""
    return f", of which it had {node.oom.anon_rss_kib // 1024} MiB"


def series(node: Node, last: Signal) -> tuple[Signal, str]:
    """Return the first ending signal of the sender of the last one, and all of them in words."""
    mine = [
        s
        for s in node.signals
        if s.sig in ENDING
        and (s.sender_pid, s.sender_start_ticks) == (last.sender_pid, last.sender_start_ticks)
        and 0 <= last.ts_boot_ns - s.ts_boot_ns < HANDLED_WITHIN_NS
        and not is_self(s, node)
    ] or [last]
    words = signal_name(mine[0].sig)
    for before, after in pairwise(mine):
        if after.sig != before.sig:
            gap = (after.ts_boot_ns - before.ts_boot_ns) / NS_PER_SECOND
            words += f" and, {gap:.1f} s later, {signal_name(after.sig)}"
    return mine[0], words


def in_words(case: Case, node: Node, who: Who | None) -> str:
    """Return in words who sent a process a signal."""
    if who is None:
        return "the kernel"
    name = f"{(who.comm or 'process').strip()} {who.pid}"
    role = (who.role or "").replace("_", " ")
    if (work := work_of(case, who)) is not None:
        return f"{name}, {work}"
    match who.role:
        case "service_manager" | "container_runtime" | "container_init":
            return f"the {role}, {name}"
        case None:
            return f"{name}, which is outside of what was traced"
        case "other":
            return f"{name}, which is not one of Airflow's own"
    is_above = any(is_who(one, who) for one in case.chain(node)[1:])
    return f"its {role} {who.pid}" if is_above else f"{role} {who.pid}, which is not above it"


def work_of(case: Case, who: Who) -> str | None:
    """Return in words for which attempt a sender ran user code, None if for none."""
    for run in (case.run, *case.scope.correlation.runs):
        task = "the task itself" if run is case.run else name_of(run.task)
        for member in run.members:
            if is_who(member.node, who) and member.role is not Role.SUPERVISOR:
                is_child = member.role is Role.OPERATOR_CHILD
                return f"a child of {task}" if is_child else f"which ran {task}"
    return None


def is_who(node: Node, who: Who) -> bool:
    """Return whether a process is the one that is meant."""
    return node.key[:2] == (who.pid, who.start_ticks)


def why(case: Case, node: Node, sent: Signal) -> Reason | None:
    """
    Return why a supervisor sent the first of its signals, None for others and where nothing tells.

    Only what Airflow's rows said before the signal counts: the runner's own
    handling of it writes into them too.
    """
    above = next((n for n in case.chain(node)[1:] if is_sender(n, sent)), None)
    ran = any(member.node is node for member in case.run.runners)
    if above is None or not ran or case.role(above, sent.ts_boot_ns) not in SUPERVISING:
        return None
    if any(member.node is node for member in case.refused):
        return Reason("Airflow refused its start, or its API could not be reached", [])
    itself = [
        s for s in above.signals
        if s.sig in ENDING and 0 <= sent.ts_boot_ns - s.ts_boot_ns < HANDLED_WITHIN_NS
        and not is_self(s, above)
    ]  # fmt: skip
    if itself:
        by = sender(itself[-1], case.tree, lambda n, ts: str(case.role(n, ts)))
        name, whom = signal_name(itself[-1].sig), in_words(case, above, by)
        words = f"{above.key.pid} had itself been sent {name} by {whom}"
        return Reason(words, [itself[-1]])
    return refusal(case, node, sent.ts_boot_ns)


def with_first(case: Case, node: Node, sent: Signal) -> Reason | None:
    """Return why the kernel sent SIGKILL: the end of process 1 of a PID namespace; None else."""
    first = first_ended(node, sent, case.tree) if sent.sig == signal.SIGKILL else None
    if first is None or first.exit is None:
        return None

    def role_of(other: Node, ts_boot_ns: int) -> str:
        return str(case.role(other, ts_boot_ns))

    role = role_of(first, sent.ts_boot_ns)
    who = Who(*first.key[:2], "container_init" if role == "other" else role, first.comm)
    words = f"process 1 of its PID namespace, {in_words(case, node, who)}, {ended_in_words(first)}"
    by, last = killed_by(first, case.tree, role_of), asked(first, first.exit.termsig)
    if by is None or last is None or by.kind in {"oom", "self"}:
        want = " for want of memory" if by is not None and by.kind == "oom" else ""
        return Reason(words + want, [first.exit])
    if by.kind == "exit":
        words += f" after {signal_name(last.sig)}"
    deeper = with_first(case, first, last) if by.sender is None else None
    after = f", for {deeper.words}" if deeper is not None else ""
    return Reason(
        f"{words} from {in_words(case, first, by.sender)}{after}",
        [first.exit, last, *(deeper.evidence if deeper is not None else [])],
    )


def is_first_unknown(case: Case, node: Node, sent: Signal) -> bool:
    """Return whether SIGKILL came to a process below a process 1 that nothing is known of."""
    within = len(node.ns_pids or ()) > 1
    return sent.sig == signal.SIGKILL and within and not any(map(is_first, case.chain(node)))


def is_sender(node: Node, sent: Signal) -> bool:
    """Return whether a process sent a signal."""
    return node.key[:2] == (sent.sender_pid, sent.sender_start_ticks)


def refusal(case: Case, node: Node, sent_ns: int) -> Reason | None:
    """Return what the row said that made Airflow refuse a heartbeat."""
    since = node.started_ns or 0
    audit = [
        fact for fact in case.events_named(*CLEAR_EVENTS, *BY_HAND)
        if since <= (case.boot_ns(fact.at) or fact.ts_boot_ns) <= sent_ns
    ]  # fmt: skip
    cleared = [fact for fact in audit if fact.event not in BY_HAND]
    rows = [
        r for r in case.reports
        if r.table != "task_instance_history"
        and since <= r.ts_boot_ns and written_ns(case, r) <= sent_ns
    ]  # fmt: skip
    last = rows[-1] if rows else None
    restarting = [r for r in rows if r.state == "restarting"]
    if cleared or restarting:
        return Reason(
            f"{by_whom(cleared)} had cleared the task instance{row_of(cleared)}",
            [*cleared[-1:], *restarting[-1:]],
        )
    if audit:
        state = last.state if last is not None and last.state in FINAL_STATES else None
        words = f"{by_whom(audit)} had set its state{f' to {state}' if state else ''}"
        return Reason(
            words + row_of(audit), [audit[-1], *([last] if state and last is not None else [])]
        )
    if last is None:
        return None
    if last.state in FINAL_STATES:
        timed_out = run_failed(case, since, sent_ns) if last.state == "skipped" else []
        then = ", as the DAG run had failed (dagrun_timeout does that)" if timed_out else ""
        return Reason(f"the row said {last.state} by then{then}", [last, *timed_out])
    return elsewhere(case, node, last)


def written_ns(case: Case, row: TaskReported) -> int:
    """Return when a row came to say this: by its own word, for it is read some time later."""
    return min(row.ts_boot_ns, case.boot_ns(row.updated_at) or row.ts_boot_ns)


def elsewhere(case: Case, node: Node, row: TaskReported) -> Reason | None:
    """Return that a row named another process, None if it named this one."""
    if row.recorded_pid is None or row.state != "running":
        return None
    if row.recorded_pid not in node.numbers:
        words = f"its heartbeat was refused, for the row said PID {row.recorded_pid}"
        return Reason(words, [row])
    hosts = [r.hostname for r in case.reports if r.recorded_pid in node.numbers and r.hostname]
    if row.hostname and row.hostname != hosts[0]:
        words = f"its heartbeat was refused, for the row said host {row.hostname}"
        return Reason(words, [row])
    return None


def run_failed(case: Case, since: int, until: int) -> list[AirflowFact]:
    """Return the row that says that the DAG run failed meanwhile, if there is one."""
    found = [
        fact for fact in case.rows_of("dag_run")
        if fact.event == "failed" and since <= (case.boot_ns(fact.at) or 0) <= until
    ]  # fmt: skip
    return found[-1:]


def by_whom(facts: list[AirflowFact]) -> str:
    """Return in words who did what an audit row tells."""
    owner = (facts[-1].detail or {}).get("owner") if facts else None
    return f"user {owner}" if owner else "somebody"


def row_of(facts: list[AirflowFact]) -> str:
    """Return in words which audit row tells it."""
    return f" (audit row `{facts[-1].event}`)" if facts else ""


def crashes(case: Case) -> list[Killing]:
    """Return the sentences about children of a task that dumped core: the last three."""
    dumped = [
        (member.node, ended)
        for member in case.run.members
        if member.role is Role.OPERATOR_CHILD
        and (ended := member.node.exit) is not None
        and ended.core_dumped
    ]
    return [
        Killing(
            None,
            f" Its child {node.key.pid} ({node.comm or 'no name seen'}) {ended_in_words(node)}.",
            [ended],
        )
        for node, ended in dumped[-3:]
    ]


def killers(case: Case) -> Killing:
    """Return the sentences about all processes of an attempt together; `by` is of none."""
    found = [killing(case, member.node) for member in case.runners if member not in case.refused]
    found += crashes(case)
    return Killing(
        None, "".join(one.words for one in found), [r for one in found for r in one.evidence]
    )
