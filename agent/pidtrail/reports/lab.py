"""What the lab found, for people: a table for a slide, then a sentence for each claim."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final, TextIO

from pidtrail.lab.model import ClaimAnswer, Family, LabReport, Result
from pidtrail.reports.escape import visible
from pidtrail.reports.terminal import may_colour, painted, width_of

COLUMNS: Final = ("experiment", "claim", "exercised", "before", "after", "verdict")
SECTIONS: Final[dict[Family, str]] = {
    "keeps": "The same process, the same PID",
    "new": "Another PID, because it is another process",
    "numbers": "The same process, several PIDs",
    "reused": "The same PID, several processes",
}
COLOURS: Final = {
    "refuted": "green",
    "true": "green",
    "half true": "cyan",
    "contradicted": "red",
    "not tested": "yellow",
}
WIDTH: Final = 140
"""Columns of the table where the width is not known: in a file, on a slide."""


def print_lab(report: LabReport, *, file: TextIO) -> None:
    """Write a report to a file; width and colour are the file's."""
    file.write(render_lab(report, width=width_of(file), colour=may_colour(file)))


def render_lab(report: LabReport, *, width: int | None = None, colour: bool = False) -> str:
    """Return the table, what else is to be known, and the answer to each claim."""
    lines = table(report, width=width or WIDTH, colour=colour).splitlines()
    lines += remarks(report, colour=colour)
    if report.claims:
        lines += ["", painted("What is said, and what this kernel shows", bold(colour))]
        lines += [claim_text(claim, colour=colour) for claim in report.claims]
    lines += ["", summary(report)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def table(report: LabReport, *, width: int, colour: bool) -> str:
    """Return a row per experiment, in sections."""
    # rich takes 40 ms to load, and most of what runs here never prints a table.
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in COLUMNS:
        right = name in {"before", "after"}
        drawn.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=right or name == "experiment",
            overflow="fold",
        )
    for family, title in SECTIONS.items():
        of_family = [result for result in report.results if result.family == family]
        if of_family:
            drawn.add_row("", Text(title, style="bold"))
        for result in of_family:
            *cells, verdict = row(result)
            drawn.add_row(*map(Text, cells), Text(verdict, style=style_of(result)))
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        color_system="standard" if colour else None,
        force_terminal=colour,
        no_color=not colour,
        legacy_windows=False,
    )
    console.print(drawn, crop=False)
    return file.getvalue()


def row(result: Result) -> tuple[str, ...]:
    """Return the cells of a result, in the order of COLUMNS."""
    return (
        result.name,
        result.claim,
        result.headline or "–",
        "–" if result.before is None else str(result.before.pid),
        "–" if result.after is None else str(result.after.pid),
        verdict_text(result),
    )


def verdict_text(result: Result) -> str:
    """Return what came out, in two or three words."""
    if result.skipped is not None:
        return "skipped"
    if not result.holds:
        return "CONTRADICTED"
    adopted = ", reparented" if result.parent_changed else ""
    return {
        "keeps": f"PID kept{adopted}",
        "new": f"new process{adopted}",
        "numbers": "one process",
        "reused": "two processes",
    }[result.family]


def style_of(result: Result) -> str:
    """Return the colour of a verdict."""
    if result.skipped is not None:
        return "yellow"
    return "green" if result.holds else "red"


def remarks(report: LabReport, *, colour: bool) -> Iterator[str]:
    """Yield what was contradicted, what experiments note, and what was skipped and why."""
    told: list[str] = []
    for result in report.results:
        name = painted(result.name, bold(colour))
        if result.holds is False:
            told.append(f"{name}: {painted(visible(result.conclusion), 'red' if colour else None)}")
        told += [f"{name}: {visible(note)}" for note in result.notes]
        if result.skipped is not None:
            told.append(f"{name}: skipped: {visible(result.skipped)}")
    if told:
        yield ""
        yield from told


def claim_text(claim: ClaimAnswer, *, colour: bool) -> str:
    """Return a claim and its answer, on one line."""
    style = COLOURS[claim.answer] if colour else None
    return f"“{visible(claim.claim)}”: {painted(visible(claim.sentence), style)}"


def summary(report: LabReport) -> str:
    """Return how it went, in one line."""
    held = sum(result.holds is True for result in report.results)
    skipped = sum(result.skipped is not None for result in report.results)
    against = len(report.results) - held - skipped
    where = f"kernel {visible(report.kernel or '?')}, source {visible(report.source or 'none')}"
    took = "" if report.seconds is None else f", {report.seconds:.1f} s"
    return f"{held} as expected, {against} contradicted, {skipped} skipped; {where}{took}"


def bold(colour: bool) -> str | None:  # noqa: FBT001 (whether, and nothing else)
    """Return the style of a head."""
    return "bold" if colour else None
