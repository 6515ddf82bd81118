"""`pidtrail tree`: who descends from whom."""

from __future__ import annotations

import sys

import click
import msgspec

from pidtrail.cli.stream import Stream
from pidtrail.correlate import gather
from pidtrail.errors import UsageError
from pidtrail.reports.process import labels_of, tree_report
from pidtrail.reports.text import in_order, keys_of_task, print_tree


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--task",
    metavar="DAG.TASK",
    help="Only the processes of this task, what they started, and their ancestors.",
)
@click.option("--json", "as_json", is_flag=True, help="Print pidtrail.tree/1 instead.")
def tree(file: str | None, task: str | None, as_json: bool) -> None:
    """
    Show the processes of a recording as a tree.

    One line per process, below who forked it: pid, role in Airflow, title or
    command line, when it lived, how it ended, how often the kernel moved it
    between CPUs and switched it out. A process keeps its place when it is
    reparented. FILE is a recording, a JSONL stream, or `-` for JSONL on stdin.

    \b
    Examples:
      pidtrail tree session.db
      pidtrail tree session.db --task sales.load
      pidtrail tree session.db --json | jq '.processes[] | select(.role == "runner")'
    """  # noqa: D301 (click wants the character \b itself)
    if task is not None and "." not in task:
        raise UsageError(f"--task wants DAG.TASK, not {task}")
    stream = Stream(file)
    grown, reports, facts, *_ = gather(stream.events())
    labels = labels_of(grown, reports, facts)
    if not as_json:
        print_tree(grown, stream.header, file=sys.stdout, task=task, labels=labels)
        return
    shown = None if task is None else keys_of_task(grown, labels, task)
    report = tree_report(grown, stream.header, labels, in_order(grown, shown), stream.problems)
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
