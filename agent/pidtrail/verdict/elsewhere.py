"""The rules for a number that means another thing here: by namespace, by host, by time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pidtrail.airflow.facts import STANDING
from pidtrail.clock import NS_PER_SECOND
from pidtrail.verdict.ending import ended_in_words
from pidtrail.verdict.finding import Finding, facts_of, runner_facts

if TYPE_CHECKING:
    from pidtrail.events import Record
    from pidtrail.node import Node
    from pidtrail.verdict.case import Case

START_SLACK_NS: Final = 30 * NS_PER_SECOND
"""A runner is born within this of the row's start_date: 2.x some seconds after, 3.x before."""


def match_via_namespace(case: Case) -> Finding | None:
    """
    The recorded PID is the process that ran the attempt, numbered by another PID namespace.

    Concludes: no mismatch. Airflow runs in a container or another namespace and
    recorded the number that the process has there; here it has another.
    Needs: the process's numbers in all namespaces (NSpid) and a row with one of them.
    Cannot tell: two containers apart by the number alone; it rests on the runner
    having been identified by its log, title or lineage.
    """
    pid = case.recorded_pid
    member = case.runner_with(pid)
    if pid is None or member is None or member is not case.runner or member.node.key.pid == pid:
        return None
    node = member.node
    numbers = " ".join(str(number) for number in node.ns_pids or ())
    name = case.own_reports[-1].hostname
    there = f" by {name}" if name is not None else ""
    return Finding(
        "match-via-namespace", "match", "proved",
        f"PID {pid}, recorded{there} for {case.name()}, is process {node.key.pid} here"
        f"{case.where(node)}: one process with a number in each PID namespace ({numbers}); "
        f"it {ended_in_words(node)}.",
        [*facts_of(node), *numbered(node), *case.own_reports[-1:]],
    )  # fmt: skip


def other_host(case: Case) -> Finding | None:
    """
    The PID was recorded on another host, where numbers mean other processes.

    Concludes: the row names a host, or an address, that is not this one's nor known to
    be of a container on it, and no process of the attempt has that number here. If one
    ran here all the same, that is a conflict: Airflow has it running elsewhere. Weak if that
    one is in a PID namespace of its own: the row's host may be what its container is called.
    Needs: the row's hostname, compared without its domain with this host's, or with its
    addresses, and with those under which runners seen here were recorded, whatever they are; and
    of a process that ran here, its numbers in all PID namespaces.
    Cannot tell: a container or pod on this host that nothing seen here ran in, from
    another host; nor hosts recorded by a loopback address (Debian's 127.0.1.1) from each
    other.
    """
    pid = case.recorded_pid
    if pid is None or case.runner_with(pid) is not None:
        return None
    row = [report for report in case.own_reports if report.recorded_pid is not None][-1]
    if not case.is_elsewhere(row.hostname):
        return None
    here = [m for m in case.runners if m not in case.refused]
    if here and (numbers_unknown(case) or has_inside(case, here[-1].node, pid)):
        return None
    ran, unknowns = ", which ran none of its processes", []
    contained = bool(here) and len(here[-1].node.ns_pids or ()) > 1
    if here:
        node = here[-1].node
        ran = f", where process {node.key.pid}{case.where(node)} ran it all the same"
    if contained:
        name = f"what the container of process {node.key.pid} is called"
        unknowns = [f"whether {row.hostname} is {name}: then it is this host"]
    return Finding(
        "other-host", "conflict" if here else "explained", "weak" if contained else "strong",
        f"PID {pid} of {case.name()} was recorded on host {row.hostname}, not here on "
        f"{case.scope.header.host}{ran}.",
        [*runner_facts(case), row],
        (f"who was process {pid} on {row.hostname}: pidtrail has to run there to tell", *unknowns),
    )  # fmt: skip


def has_inside(case: Case, node: Node, pid: int) -> bool:
    """
    Return whether a number is, in the PID namespace of a runner's own, one of its chain's.

    Then the row's host is the container that all of them are in, and another level is on record.
    """
    if node.pid_ns is None or len(node.ns_pids or ()) < 2:
        return False
    kin = [*case.chain(node)[1:], *case.tree.descendants(node.key)]
    return any(
        one.pid_ns == node.pid_ns and one.ns_pids is not None and one.ns_pids[-1] == pid
        for one in kin
    )


def pid_reused(case: Case) -> Finding | None:
    """
    The number on record belongs to another process by now: the kernel gave it out again.

    Concludes: who has the number now started after the attempt's own process can
    have: after its end, or after the row says that the attempt had started or
    ended. To signal that number would hit the wrong process.
    Needs: the start of the process that has the number, in the PID namespace that
    it was recorded in, and the end of the attempt's, or the row's dates. The row must
    still stand (running, deferred, waiting for a retry or a poke), or its own process
    not have been seen; else the number is history and the verdict is another.
    Cannot tell: what the attempt's process was where it was not seen itself, and
    then nothing of a number that was recorded in another container.
    """
    pid = case.recorded_pid
    if pid is None:
        return None
    row, member = case.own_reports[-1], case.runner_with(pid)
    holder = None
    if member is not None and row.state in STANDING:
        since = member.node.ended_ns
        born = case.moment(member.node.started_ns)
        words = f"its own, which started {born}, {ended_in_words(member.node)}"
    elif not case.runners and row.next_method is None and case.counts_here(row.hostname):
        begun, ended = case.boot_ns(row.start_date), case.boot_ns(row.end_date)
        since = ended if ended is not None else begun and begun + START_SLACK_NS
        words = "its own was not seen"
    else:
        return None
    if since is not None:
        holder = case.holder(pid, member)
    if holder is None or since is None or (holder.started_ns or 0) <= since:
        return None
    here = "" if holder.key.pid == pid else f" (process {holder.key.pid} here{case.where(holder)})"
    return Finding(
        "pid-reused", "explained", "proved" if member is not None else "strong",
        f"PID {pid}, recorded for {case.name()}, belongs by now to another process, "
        f"{holder.comm or 'whose name was not seen'}{here}, which started "
        f"{case.moment(holder.started_ns)}; {words}. Recorded state: {row.state}.",
        [*runner_facts(case), *facts_of(holder), row],
        () if member is not None else ("the attempt's own process: it was not seen",),
    )  # fmt: skip


def numbers_unknown(case: Case) -> list[str]:
    """Return in words that a runner may have numbers in namespaces which the source cannot see."""
    if case.scope.header.fidelity.has_identity:
        return []
    pids = [str(m.node.key.pid) for m in case.runners if m.node.ns_pids is None]
    source = case.scope.header.source
    return [f"other numbers of process {', '.join(pids)}: {source} does not tell"] if pids else []


def numbered(node: Node) -> list[Record]:
    """Return the record that tells a process's numbers in all namespaces."""
    told = [r for r in (node.fork, *node.observed) if r is not None and r.ns_pids is not None]
    return [*told[:1]]
