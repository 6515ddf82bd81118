"""`pidtrail trace`: an on-demand session."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pidtrail.cli.tracing import Trace


@click.command()
@click.option(
    "--source",
    "source_name",
    type=click.Choice(["auto", "core", "bcc", "connector", "procfs"]),
    default="auto",
    show_default=True,
    help="Where events come from; auto takes the best that works here.",
)
@click.option("--pid", "pids", type=int, multiple=True, help="Follow this process and its subtree.")
@click.option("--airflow", is_flag=True, help="Follow the Airflow processes that run here.")
@click.option("--duration", type=float, metavar="SEC", help="End after so many seconds.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "jsonl", "none"]),
    default="tree",
    show_default=True,
    help="What to show; jsonl puts nothing but events on stdout.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SEC",
    help="How often source procfs looks into /proc.  [default: 0.1]",
)
@click.option("--migrations", is_flag=True, help="Report every move of a thread between CPUs.")
@click.option(
    "--airflow-db",
    metavar="URL",
    help="Airflow's metadata database; else from PIDTRAIL_AIRFLOW_DB[_FILE], the environment or"
    " airflow.cfg. A password in it is better kept in the file.",
)
@click.option(
    "--airflow-api",
    metavar="URL",
    help="Airflow's web server or api-server, as http://HOST:PORT; who asks stands in"
    " PIDTRAIL_AIRFLOW_USER and _PASSWORD[_FILE], or PIDTRAIL_AIRFLOW_TOKEN[_FILE].",
)
@click.option(
    "--airflow-plugin",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Listen for Airflow's plugin (see `pidtrail airflow-plugin`) at the socket PATH."
    "  [default: PIDTRAIL_CLAIMS, else /run/pidtrail/claims.sock]",
)
@click.option(
    "--log-template",
    metavar="TEMPLATE",
    help="How Airflow names the logs of tasks, with their folder, as in"
    " '/opt/airflow/logs/{{ ti.dag_id }}/{{ ti.task_id }}/{{ try_number }}.log'; else from the"
    " database, the environment or airflow.cfg.",
)
@click.option("-o", "output", type=click.Path(path_type=Path), help="Write a recording to FILE.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def trace(**options: Any) -> None:
    """
    Watch processes from the kernel, and explain every Airflow task instance among them.

    Start CMD and follow all it forks, or attach to what runs. Ctrl-C ends the
    session. With CMD the exit status is CMD's (128+N if signal N ended it).

    \b
    Examples:
      pidtrail trace -- airflow scheduler
      pidtrail trace --airflow --duration 600 -o monday.db
      pidtrail trace --pid 4242 --format jsonl | jq .type
    """  # noqa: D301 (click wants the character \b itself)
    sys.exit(Trace(**options).run())
