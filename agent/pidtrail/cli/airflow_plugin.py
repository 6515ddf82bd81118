"""`pidtrail airflow-plugin`: the plugin as a single file, for Airflow's own environment."""

from __future__ import annotations

from pathlib import Path

import click

import pidtrail.airflow


@click.command("airflow-plugin")
def airflow_plugin() -> None:
    """
    Print Airflow's plugin, a single file for the folder of Airflow's plugins.

    With it each task tells the agent which process runs it (`pidtrail trace
    --airflow-plugin`). It needs nothing but Airflow 2.7 or newer, on Python 3.8 or newer.

    \b
    Examples:
      pidtrail airflow-plugin > "$AIRFLOW_HOME/plugins/pidtrail_plugin.py"
      pidtrail airflow-plugin | ssh worker 'cat > airflow/plugins/pidtrail_plugin.py'
    """  # noqa: D301 (click wants the character \b itself)
    # Read, never imported: there is no Airflow in this environment.
    source = Path(pidtrail.airflow.__file__).with_name("plugin.py")
    click.echo(source.read_text(encoding="utf-8"), nl=False)
