"""One event as one short line for people."""

from __future__ import annotations

from pidtrail.clock import rfc3339
from pidtrail.codec import type_name
from pidtrail.events import (
    AirflowFact,
    Event,
    Exec,
    Exit,
    Fork,
    Lost,
    Migrate,
    Observed,
    Oom,
    Reap,
    Signal,
    TaskReported,
    Title,
)
from pidtrail.reports.escape import visible
from pidtrail.reports.process import signal_name, task_label

LONGEST = 160
"""Columns for what a process calls itself."""


def render_event(event: Event, wall_offset_ns: int) -> str:
    """Return `TIME KIND PID what happened`, time of the day in UTC; unknown is `?`."""
    moment = rfc3339(event.ts_boot_ns + wall_offset_ns)[11:23]
    pid = "" if event.pid is None else f" {event.pid}"
    task = "" if event.task is None else f"  {visible(task_label(event.task), 100)}"
    told = what(event)
    return f"{moment} {visible(type_name(event), 20):<8}{pid}{f' {told}' if told else ''}{task}"


def what(event: Event) -> str:  # noqa: C901, PLR0912 (one case per kind of record)
    """Return what an event tells beside its process, escaped."""
    match event:
        case Fork():
            creator = "" if event.creator_pid is None else f", forked by {event.creator_pid}"
            return f"born of {known(event.ppid)}{creator} {name(event.comm)}"
        case Exec():
            thread = "" if event.old_tid is None else f" (by thread {event.old_tid})"
            program = event.filename if event.argv is None else command(event.argv)
            return f"runs {name(program)}{thread}"
        case Title():
            return f"calls itself {name(event.title if event.title is not None else event.comm)}"
        case Exit():
            return ending(event)
        case Reap():
            waited = "" if event.zombie_ns is None else f" after {event.zombie_ns / 1e6:.1f} ms"
            return f"collected{waited}"
        case Signal():
            return f"is sent {signal_known(event.sig)} {sender(event)}"
        case Oom():
            return f"is the victim of an out-of-memory kill {name(event.victim_comm)}"
        case Migrate():
            cpus = f"from CPU {known(event.from_cpu)} to {known(event.to_cpu)}"
            return f"thread {known(event.tid)} moves {cpus}"
        case Observed():
            if event.log_path is not None:
                return f"has the log open: {name(event.log_path)}"
            state = "is dead, not collected" if event.dead else "is there"
            shown = event.comm if event.argv is None else command(event.argv)
            return f"{state}, child of {known(event.ppid)} {name(shown)}"
        case TaskReported(via="plugin"):
            return f"tells through Airflow's plugin: {name(event.state)}"
        case TaskReported():
            return f"Airflow records pid {known(event.recorded_pid)}, {name(event.state)}"
        case AirflowFact():
            return f"Airflow's table {name(event.table)}: {name(event.event)}"
        case Lost():
            return f"{known(event.count)} events: {name(event.reason)}"
    return ""


def ending(event: Exit) -> str:
    """Return how a process ended."""
    if event.termsig is not None:
        core = ", core dumped" if event.core_dumped else ""
        return f"ends by {signal_name(event.termsig)}{core}"
    return f"ends with {known(event.exit_code)}"


def sender(event: Signal) -> str:
    """Return who sent a signal."""
    if event.sender_pid is None:
        return "by the kernel"
    return f"by {event.sender_pid} {name(event.sender_comm)}"


def signal_known(number: int | None) -> str:
    """Return a signal's name, or `?`."""
    return "?" if number is None else signal_name(number)


def command(argv: list[str]) -> str:
    """Return a command line as one text."""
    return " ".join(argv)


def name(text: str | None) -> str:
    """Return a text that someone else chose, on one line, or `?`."""
    return "?" if text is None else visible(text, LONGEST)


def known(number: int | None) -> str:
    """Return a number, or `?`."""
    return "?" if number is None else str(number)
