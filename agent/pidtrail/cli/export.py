"""`pidtrail export`: a stream in the form that other tools read."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import click

from pidtrail.errors import PidtrailError
from pidtrail.sinks.jsonl import JsonLines
from pidtrail.sources.replay import Replay

BATCH: Final = 1000
"""Events in memory at a time."""


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--to",
    "form",
    type=click.Choice(["jsonl"]),
    required=True,
    help="jsonl: the header, then one JSON object per event, with wall time.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of stdout.",
)
def export(file: str, form: str, output: Path | None) -> None:  # noqa: ARG001 (one form so far)
    """
    Write a recording in another form.

    FILE is a recording, a JSONL stream, or `-` for JSONL on stdin. If FILE is
    damaged, all up to the damage is written, and the exit status is 1.

    \b
    Examples:
      pidtrail export session.db --to jsonl | jq 'select(.type == "exit")'
      pidtrail export session.db --to jsonl -o session.jsonl
    """  # noqa: D301 (click wants the character \b itself)
    if output is None:
        write_lines(file, sys.stdout.buffer)
        return
    if file != "-" and output.exists() and output.samefile(file):
        raise PidtrailError(f"{file} would be overwritten by its own export")
    with output.open("wb") as target:
        write_lines(file, target)


def write_lines(name: str, target: BinaryIO) -> None:
    """Copy a stream in batches. Raises PidtrailError at damage, after all that is sound."""
    replay = Replay(name)
    sink = JsonLines(target, replay.header)
    events = replay.events()
    while batch := list(islice(events, BATCH)):
        sink.write(batch)
    sink.close()
    if replay.problem is not None:
        raise PidtrailError(replay.problem)
