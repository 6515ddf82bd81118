"""`pidtrail lab`: what changes a PID on this kernel, and what does not, by experiment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

import click
import msgspec

from pidtrail.cli.logs import log
from pidtrail.events import Event
from pidtrail.lab.catalogue import EXPERIMENTS
from pidtrail.lab.experiment import Experiment
from pidtrail.lab.runner import Runner, chosen_kinds
from pidtrail.reports.event import render_event
from pidtrail.reports.lab import print_lab
from pidtrail.sources.ladder import AUTO, SOURCES


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--list", "as_list", is_flag=True, help="Name the experiments, and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print pidtrail.lab/1 instead.")
@click.option("--verbose", is_flag=True, help="Show each event as it comes.")
@click.option(
    "--source",
    "source_name",
    type=click.Choice([AUTO, *SOURCES]),
    default=AUTO,
    show_default=True,
    help="Where events come from; auto takes the best that works here.",
)
@click.pass_context
def lab(
    ctx: click.Context,
    names: tuple[str, ...],
    *,
    as_list: bool,
    as_json: bool,
    verbose: bool,
    source_name: str,
) -> None:
    """
    Show by experiment what changes a PID on this kernel, and what does not.

    Each experiment does something to a process of the lab's own (moves it between
    CPUs a thousand times, switches it out, freezes it, kills its parent) while a
    source watches, and compares who it was before and after. NAMEs choose some of
    them. Nothing but the lab's own processes, cgroups and namespaces is touched,
    and nothing of them is left.

    The exit status is 1 if a result contradicts what is expected of Linux. What
    cannot be tested here is skipped, and says what it needs.

    \b
    Examples:
      pidtrail lab
      pidtrail lab cpu-migration context-switch --verbose
      pidtrail lab --json | jq '.results[] | select(.holds == false)'
    """  # noqa: D301 (click wants the character \b itself)
    if as_list and as_json:
        claims = {kind.name: kind.claim for kind in chosen_kinds(names)}
        click.echo(msgspec.json.format(msgspec.json.encode(claims), indent=2))
        return
    if as_list:
        for kind in chosen_kinds(names):
            click.echo(f"{kind.name:<{max(map(len, EXPERIMENTS))}}  {kind.claim}")
        return
    # JSON is for a program to read: what goes on meanwhile is then told on stderr.
    told = sys.stderr if as_json else sys.stdout
    begin = announcer(told) if verbose else announcer(sys.stderr) if sys.stderr.isatty() else None
    runner = Runner(source_name, show=printer(told) if verbose else None, begin=begin)
    report = runner.run(names)
    if runner.swept:
        log.info("removed what a killed lab had left", what=", ".join(runner.swept))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        print_lab(report, file=sys.stdout)
    if not report.holds:
        ctx.exit(1)


def printer(file: TextIO) -> Callable[[Event], None]:
    """Return what shows an event as it comes."""
    offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def show(event: Event) -> None:
        file.write(f"{render_event(event, offset)}\n")
        file.flush()

    return show


def announcer(file: TextIO) -> Callable[[Experiment], None]:
    """Return what says which experiment begins."""

    def begin(experiment: Experiment) -> None:
        file.write(f"{experiment.name}: {experiment.claim}\n")
        file.flush()

    return begin
