"""`pidtrail tree`: who descends from whom."""

from __future__ import annotations

import sys

import click
import msgspec

from pidtrail.cli.since import Since
from pidtrail.cli.stream import Stream, socket_option
from pidtrail.correlate import gather
from pidtrail.errors import UsageError
from pidtrail.reports.escape import visible
from pidtrail.reports.process import labels_of, tree_report
from pidtrail.reports.text import chosen, in_order, print_tree
from pidtrail.service.protocol import Request


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--task",
    metavar="DAG.TASK",
    help="Only the processes of this task, what they started, and their ancestors.",
)
@click.option(
    "--since",
    metavar="T",
    help="Only what lived since, and its ancestors: RFC 3339, or 10m, 2h, 3d before FILE ends or"
    " now.",
)
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Print pidtrail.tree/1 instead.")
def tree(
    file: str | None, *, task: str | None, since: str | None, socket_path: str, as_json: bool
) -> None:
    """
    Show the processes of a recording, or of the running service, as a tree.

    One line per process, below who forked it: pid, role in Airflow, title or
    command line, when it lived, how it ended, how often the kernel moved it
    between CPUs and switched it out. A process keeps its place when it is
    reparented. FILE is a recording, a JSONL stream, or `-` for JSONL on stdin.
    Without FILE it is what the service on this host has seen since the last boot.

    \b
    Examples:
      pidtrail tree --since 10m
      pidtrail tree --task sales.load
      pidtrail tree session.db
      pidtrail tree session.db --task sales.load
      pidtrail tree session.db --json | jq '.processes[] | select(.role == "runner")'
    """  # noqa: D301 (click wants the character \b itself)
    if task is not None and "." not in task:
        raise UsageError(f"--task wants DAG.TASK, not {task}")
    asked = Since.read(since)
    stream = Stream(file, socket_path, Request("history", asked.asked_ns, last_boot=True))
    # There is one; of an older service, which tells of all, the last one counts.
    for header, events in stream.boots():  # noqa: B007 (used below)
        grown, reports, facts, *_ = gather(events)
    labels = labels_of(grown, reports, facts)
    since_ns = asked.before(stream.ended_ns)
    boot_ns = None if since_ns is None else since_ns - header.wall_offset_ns
    shown = chosen(grown, labels, task, boot_ns)
    if as_json:
        report = tree_report(grown, header, labels, in_order(grown, shown), stream.problems)
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
        return
    print_tree(grown, header, file=sys.stdout, shown=shown, labels=labels)
    if shown is not None and not shown:
        whose = "" if task is None else f" of task {visible(task, 200)}"
        click.echo(
            f"no process{whose} was seen" if since is None else f"no process{whose} lived then"
        )
