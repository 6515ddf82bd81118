"""
What people say of Airflow's PIDs, held against what the kernel showed.

Each claim is one pure function of the `Evidence`; nothing is known beforehand.
Where the data does not decide it, the answer is `undetermined`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from demo.witness import Note
from pidtrail.verdict.model import ProcessReport, Recorded, Verdict

Answer = Literal["true", "false", "partly", "undetermined"]

# States in which a task instance waits for a process (airflow TaskInstanceState).
_WAITING = {None, "up_for_retry", "scheduled", "queued"}


class Evidence(NamedTuple):
    """
    All that a claim may be judged by.

    `retry`, `long` and `restart` are the verdicts of the three DAGs, by try.
    `played` is what `demo.stage` did; `swap_kib` the host's swap space.
    """

    retry: list[Verdict]
    long: list[Verdict]
    restart: list[Verdict]
    notes: list[Note]
    played: dict[str, Any]
    swap_kib: int

    @property
    def verdicts(self) -> list[Verdict]:
        """All attempts, in the order of the three situations."""
        return [*self.retry, *self.long, *self.restart]


class Finding(NamedTuple):
    """An answer to a claim, and the sentence of evidence for it."""

    answer: Answer
    evidence: str


def runners(verdicts: list[Verdict]) -> list[ProcessReport]:
    """Return the processes that ran user code, without those whose pid nobody knows."""
    return [
        process
        for verdict in verdicts
        for process in verdict.processes
        if process.role == "runner" and process.pid is not None
    ]


def disagreements(evidence: Evidence) -> list[str]:
    """
    Compare pidtrail's runners with what the tasks wrote down; one line per difference.

    A process is the same if pid and start time are.
    """
    found = {(process.pid, process.start_ticks) for process in runners(evidence.verdicts)}
    noted = {note.identity for note in evidence.notes}
    return [
        *(f"the task ran as pid {pid}, which no verdict names" for pid, _ in noted - found),
        *(f"a verdict names pid {pid}, which no task wrote down" for pid, _ in found - noted),
    ]


def retry_gets_new_pid(evidence: Evidence) -> Finding:
    """A retry runs under a new PID."""
    processes = [runners([verdict]) for verdict in evidence.retry]
    if len(processes) < 2 or not all(processes):
        return Finding(
            "undetermined", f"{len(evidence.retry)} tries were seen, not two with a process"
        )
    first, second = processes[0][-1], processes[1][0]
    if (first.pid, first.start_ticks) == (second.pid, second.start_ticks):
        return Finding("false", f"both tries ran in the same process, pid {first.pid}")
    parent = second.birth_parent
    text = f"try 1 ran as pid {first.pid}, try 2 as pid {second.pid}, another process"
    if parent is not None and parent.pid is not None:
        text += f" that {parent.role or 'process'} {parent.pid} forked"
    return Finding("true" if first.pid != second.pid else "partly", text)


def moving_changes_pid(evidence: Evidence) -> Finding:
    """Moving between cores changes the PID."""
    flips = evidence.played.get("flips", {})
    if flips.get("reason") and not flips.get("count"):
        return Finding("undetermined", str(flips["reason"]))
    processes = runners(evidence.long)
    if not processes or any(process.migrations is None for process in processes):
        return Finding("undetermined", "the migrations of the task's process are not known")
    moved = sum(process.migrations or 0 for process in processes)
    if not moved:
        return Finding("undetermined", "the task's process was never moved")
    numbers = {process.pid for process in processes}
    pids = ", ".join(map(str, sorted(pid for pid in numbers if pid is not None)))
    text = (
        f"moved {moved} times between CPUs ({flips.get('count', 0)} times told to from outside, "
        f"in {flips.get('seconds', 0):.0f} s); pid from begin to end: {pids}"
    )
    if any(verdict.pid_changed_in_kernel for verdict in evidence.long):
        return Finding("true", text)
    if len(processes) > 1:
        return Finding("undetermined", f"{text}; the task had {len(processes)} processes")
    return Finding("false", text)


def swapping_changes_pid(evidence: Evidence) -> Finding:
    """Swapping changes the PID."""
    processes = runners(evidence.verdicts)
    known = [process.major_faults for process in processes if process.major_faults is not None]
    changed = any(verdict.pid_changed_in_kernel for verdict in evidence.verdicts)
    text = f"{sum(known)} pages were read back from disk (major faults) in {len(known)} processes"
    if evidence.swap_kib:
        text += f", on a host with {evidence.swap_kib // 1024} MiB of swap"
    else:
        text += "; this host has no swap, so they were pages of files, not of plain memory"
    if changed:
        return Finding("partly", f"{text}; a pid changed, for whatever reason")
    if not sum(known):
        return Finding("undetermined", text)
    return Finding("false", f"{text}; no process changed its pid")


def switching_changes_pid(evidence: Evidence) -> Finding:
    """A context switch changes the PID."""
    processes = runners(evidence.verdicts)
    voluntary = sum(process.voluntary_switches or 0 for process in processes)
    involuntary = sum(process.involuntary_switches or 0 for process in processes)
    if not voluntary + involuntary:
        return Finding("undetermined", "no context switches were counted")
    text = (
        f"{voluntary + involuntary} context switches ({voluntary} voluntary, {involuntary} "
        f"involuntary) in {len(processes)} processes"
    )
    if any(verdict.pid_changed_in_kernel for verdict in evidence.verdicts):
        return Finding("partly", f"{text}; a pid changed, for whatever reason")
    return Finding("false", f"{text}; none changed its pid")


def restart_ends_tasks(evidence: Evidence) -> Finding:
    """A worker restart ends all running tasks and gives them new PIDs."""
    processes = runners(evidence.restart)
    restart = evidence.played.get("restart")
    if not processes or restart is None:
        return Finding("undetermined", "no process of the task, or no restart, was seen")
    first, later = processes[0], processes[1:]
    ended = _epoch(first.ended)
    if ended is None:
        return Finding("undetermined", f"the end of pid {first.pid} was not seen")
    lived_s = ended - float(restart["killed_at"])
    if lived_s < 0:
        return Finding("undetermined", f"pid {first.pid} had ended before the scheduler was killed")
    text = (
        f"SIGKILL to the scheduler, pid {restart['killed_scheduler'][0]}: the task's process, "
        f"pid {first.pid}, lived on for {lived_s:.1f} s and {how_it_ended(first)}"
    )
    if first.reparented_to is not None:
        text += f", its parent then being {first.reparented_to}"
    if later:
        text += f"; then came pid {', '.join(str(process.pid) for process in later)}"
    else:
        text += "; no other process ran the task"
    survived = bool(restart["task_lived"]) and first.termsig is None
    if survived and not later:
        return Finding("false", text)
    return Finding("partly" if survived or not later else "true", text)


def record_keeps_first_pid(evidence: Evidence) -> Finding:
    """The record keeps the first PID."""
    processes = [runners([verdict]) for verdict in evidence.retry]
    if len(processes) < 2 or not all(processes):
        return Finding("undetermined", "no task with two processes was seen")
    first, last = processes[0][0].pid, processes[-1][-1].pid
    seen = [record for verdict in evidence.retry for record in verdict.recorded]
    row = sorted(filter(_is_current_row, seen), key=lambda record: record.seen_at or "")
    if not row or first == last:
        return Finding(
            "undetermined", "Airflow's row was not seen, or both processes had one number"
        )
    if row[-1].pid == first:
        return Finding("true", f"the row says {first} to the end, while the last try ran as {last}")
    if row[-1].pid != last:
        return Finding(
            "undetermined", f"the row says {row[-1].pid} in the end, which is neither try"
        )
    text = f"the row went from {first} to {last}"
    stale = [record for record in row if record.pid == first and record.state in _WAITING]
    if any(record.pid == first and record.table == "task_instance_history" for record in seen):
        text += f"; task_instance_history keeps {first} for try 1"
    if stale:
        states = sorted({record.state or "none" for record in stale})
        text += f"; between the tries ({', '.join(states)}) it still said {first}, a dead process"
        return Finding("partly", text)
    return Finding("false", text)


CLAIMS: dict[str, Callable[[Evidence], Finding]] = {
    "a retry runs under a new PID": retry_gets_new_pid,
    "moving between cores changes the PID": moving_changes_pid,
    "swapping changes the PID": swapping_changes_pid,
    "a context switch changes the PID": switching_changes_pid,
    "a worker restart ends all running tasks and gives them new PIDs": restart_ends_tasks,
    "the record keeps the first PID": record_keeps_first_pid,
}


def how_it_ended(process: ProcessReport) -> str:
    """Say in a few words how a process ended, and who killed it."""
    killed = process.killed_by
    if process.ended is None:
        return "was not seen to end"
    if killed is not None and killed.kind == "oom":
        return "was killed by the OOM killer"
    if process.termsig is not None:
        sender = killed.sender if killed is not None else None
        by = f" from {sender.comm or sender.role or 'pid'} {sender.pid}" if sender else ""
        return f"ended by signal {process.termsig}{by}"
    return f"exited with {'?' if process.exit_code is None else process.exit_code}"


def _is_current_row(record: Recorded) -> bool:
    return record.table in (None, "task_instance") and record.pid is not None


def _epoch(time: str | None) -> float | None:
    return None if time is None else dt.datetime.fromisoformat(time).timestamp()
