"""Verdicts as text for people: a line per attempt, then a sentence for each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

from msgspec import UNSET

from pidtrail.events import INITIAL_PID_NS
from pidtrail.reports.escape import visible
from pidtrail.reports.process import signal_name, task_label
from pidtrail.reports.terminal import painted
from pidtrail.verdict.model import ProcessReport, Report, Verdict, Who

COLOURS: Final = {
    "match": "green",
    "explained": "cyan",
    "conflict": "red",
    "undetermined": "yellow",
}
COLUMNS: Final = (
    *("task", "try", "recorded", "real pid", "chain of parents", "ended"),
    *("moved", "switched", "faults", "verdict", "confidence"),
)
NUMBERS: Final = {"try", "recorded", "real pid", "moved", "switched", "faults"}
UNLIMITED: Final = 10_000
"""Columns where the width is not known: more than any line takes."""


def render_verdicts(report: Report, *, width: int | None = None, colour: bool = False) -> str:
    """
    Return all verdicts; `width` in columns, None for lines of any length.

    `moved` are migrations between CPUs, `switched` voluntary/involuntary context
    switches, `faults` major page faults. Unknown is `?`, none is `–`.
    """
    lines: list[str] = []
    if report.verdicts:
        lines += table(report, width=width, colour=colour).splitlines()
        lines.append("")
        for verdict in report.verdicts:
            lines += sentences(verdict, colour=colour)
    else:
        lines.append("no task instance of Airflow was seen to run")
    left = painted("left behind", "yellow" if colour else None)
    lines += [f"{left}: {visible(one.summary, 2000)}" for one in report.abandoned]
    if report.verdicts and report.pid_ns not in (None, INITIAL_PID_NS):
        lines.append(
            f"PIDs of processes are those of PID namespace {report.pid_ns}, in which pidtrail ran;"
            " the host itself has other numbers for them"
        )
    lines += [painted(f"not known: {visible(text)}", "yellow" if colour else None)
              for text in report.unknowns]  # fmt: skip
    return "".join(f"{line.rstrip()}\n" for line in lines)


def table(report: Report, *, width: int | None, colour: bool) -> str:
    """Return the line per attempt, under a head."""
    # rich takes 40 ms to load, and most of what runs here never prints a table.
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    several = any(verdict.airflow is not UNSET for verdict in report.verdicts)
    for name in (*COLUMNS, *(("Airflow",) if several else ())):
        drawn.add_column(
            name, justify="right" if name in NUMBERS else "left", overflow="fold",
            no_wrap=width is None,
        )  # fmt: skip
    for verdict in report.verdicts:
        *cells, code, confidence = row(verdict)
        style = COLOURS.get(verdict.outcome, "")
        airflow = [Text(visible(verdict.airflow or "?", 80))] if several else []
        drawn.add_row(*map(Text, cells), Text(code, style=style), Text(confidence), *airflow)
    file = io.StringIO()
    console = Console(
        file=file,
        width=UNLIMITED if width is None else width,
        color_system="standard" if colour else None,
        force_terminal=colour,
        no_color=not colour,
        legacy_windows=False,
    )
    console.print(drawn, crop=False)
    return file.getvalue()


def row(verdict: Verdict) -> tuple[str, ...]:
    """Return the cells of one attempt, escaped, in the order of COLUMNS."""
    real = ran(verdict)
    last = real[-1] if real else None
    task = verdict.task
    return (
        visible(task_label(task).removesuffix(f" try {task.try_number}"), 80),
        number(task.try_number),
        recorded_pids(verdict),
        ", ".join(number(process.pid) for process in real) or "–",
        "–" if last is None else chain_text(last),
        "–" if last is None else ending(last),
        "–" if last is None else number(last.migrations),
        "–" if last is None else switches(last),
        "–" if last is None else number(last.major_faults),
        visible(verdict.code, 40),
        f"{verdict.outcome}, {verdict.confidence}",
    )


def ran(verdict: Verdict) -> list[ProcessReport]:
    """
    Return the processes that ran the attempt, oldest first; several after pokes and resumes.

    sudo is one only where nothing is known to have run below it.
    """
    for role in ("runner", "sudo"):
        found = [process for process in verdict.processes if process.role == role]
        if found:
            return found
    return []


def recorded_pids(verdict: Verdict) -> str:
    """Return the pids that Airflow recorded, in order, each once in a row."""
    found: list[int] = []
    for record in verdict.recorded:
        if record.pid is not None and (not found or found[-1] != record.pid):
            found.append(record.pid)
    return ", ".join(map(str, found)) or ("NULL" if verdict.recorded else "–")


def chain_text(process: ProcessReport) -> str:
    """Return the lineage upwards, from the process itself."""
    return " < ".join(who(link) for link in process.chain) or number(process.pid)


def who(link: Who) -> str:
    """Return a process by number and role, or its comm."""
    name = link.role if link.role not in {None, "other"} else link.comm
    return number(link.pid) if name is None else f"{number(link.pid)} {visible(name, 20)}"


def ending(process: ProcessReport) -> str:
    """Return how a process ended, and by whom."""
    if process.ended is None:
        return "alive"
    adopted = "" if process.reparented_to is None else f", reparented to {process.reparented_to}"
    if process.termsig is None:
        return f"exit {number(process.exit_code)}{adopted}"
    words, by = signal_name(process.termsig), process.killed_by
    if by is not None:
        match by.kind:
            case "oom":
                words += ", out of memory"
            case "self":
                words += ", raised by itself"
            case "signal":
                words += f" from {'the kernel' if by.sender is None else who(by.sender)}"
    return words + (", core dumped" if process.core_dumped else "") + adopted


def switches(process: ProcessReport) -> str:
    """Return voluntary/involuntary context switches."""
    if process.voluntary_switches is None and process.involuntary_switches is None:
        return "?"
    return f"{number(process.voluntary_switches)}/{number(process.involuntary_switches)}"


def number(value: int | None) -> str:
    """Return a number, or `?`."""
    return "?" if value is None else str(value)


def sentences(verdict: Verdict, *, colour: bool) -> Iterator[str]:
    """Yield what a person can paste into an incident: the summary, and what is not known."""
    style = COLOURS.get(verdict.outcome) if colour else None
    yield f"{painted(visible(verdict.code, 40), style)}: {visible(verdict.summary, 2000)}"
    if verdict.pid_changed_in_kernel:
        yield painted(
            "    the pid of a living process changed: please report this", "red" if colour else None
        )
    if verdict.airflow is not UNSET:
        yield f"    Airflow at {visible(verdict.airflow or '?', 200)}"
    for text in verdict.unknowns:
        yield painted(f"    not known: {visible(text, 500)}", "dim" if colour else None)
