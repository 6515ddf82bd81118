"""`pidtrail tree`: who descends from whom."""

from __future__ import annotations

import sys

import click
import msgspec

from pidtrail.cli.stream import Stream, socket_option
from pidtrail.correlate import gather
from pidtrail.errors import UsageError
from pidtrail.reports.process import labels_of, tree_report
from pidtrail.reports.text import in_order, keys_of_task, print_tree
from pidtrail.service.protocol import Request


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--task",
    metavar="DAG.TASK",
    help="Only the processes of this task, what they started, and their ancestors.",
)
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Print pidtrail.tree/1 instead.")
def tree(file: str | None, task: str | None, socket_path: str, as_json: bool) -> None:
    """
    Show the processes of a recording, or of the running service, as a tree.

    One line per process, below who forked it: pid, role in Airflow, title or
    command line, when it lived, how it ended, how often the kernel moved it
    between CPUs and switched it out. A process keeps its place when it is
    reparented. FILE is a recording, a JSONL stream, or `-` for JSONL on stdin.
    Without FILE it is what the service on this host has seen since the last boot.

    \b
    Examples:
      pidtrail tree --task sales.load
      pidtrail tree session.db
      pidtrail tree session.db --task sales.load
      pidtrail tree session.db --json | jq '.processes[] | select(.role == "runner")'
    """  # noqa: D301 (click wants the character \b itself)
    if task is not None and "." not in task:
        raise UsageError(f"--task wants DAG.TASK, not {task}")
    stream = Stream(file, socket_path, Request("history", last_boot=True))
    # There is one; of an older service, which tells of all, the last one counts.
    for header, events in stream.boots():  # noqa: B007 (used below)
        grown, reports, facts, *_ = gather(events)
    labels = labels_of(grown, reports, facts)
    if not as_json:
        print_tree(grown, header, file=sys.stdout, task=task, labels=labels)
        return
    shown = None if task is None else keys_of_task(grown, labels, task)
    report = tree_report(grown, header, labels, in_order(grown, shown), stream.problems)
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
