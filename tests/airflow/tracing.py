"""`pidtrail trace` around a driver that plays on a real Airflow, and what `explain` says then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from demo import ROOT
from demo.airflow3 import database_url as sqlite_url
from demo.airflow3 import migrated_template
from demo.airflow_host import free_ports
from demo.environment import Release
from demo.postgres import database_url as postgres_url
from demo.processes import StageError, clear_leftovers
from pidtrail.events import TaskReported
from pidtrail.sources.replay import Replay
from pidtrail.verdict.engine import judge_stream
from pidtrail.verdict.model import Report, Verdict

PIDTRAIL = Path(sys.executable).with_name("pidtrail")
EXPLAIN_TIMEOUT_S = 60


def trace(
    folder: Path,
    driver: Sequence[str],
    *options: str,
    timeout_s: float,
    environ: dict[str, str] | None = None,
) -> Path:
    """
    Trace a command to its end; return the recording, `session.db` in `folder`.

    `options` are further ones of `pidtrail trace`, `environ` is its environment
    and the command's (None: ours); its words and the command's go to
    `trace.log`. Raises `StageError` with all of them if it fails or does not end
    in time.
    """
    recording, log = folder / "session.db", folder / "trace.log"
    with log.open("wb") as output:
        traced = subprocess.Popen(
            [
                *(str(PIDTRAIL), "trace", "--format", "none", *options),
                *("-o", str(recording), "--", *driver),
            ],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            status = traced.wait(timeout_s)
        except subprocess.TimeoutExpired:
            traced.terminate()
            traced.wait(40)
            clear_leftovers()
            status = -1
    if status:
        raise StageError(f"trace: status {status}\n{log.read_text(errors='replace')}")
    return recording


def trace_driver(
    module: str,
    release: Release,
    folder: Path,
    *options: str,
    timeout_s: float,
    on_postgres: bool = False,
) -> Path:
    """
    Trace a driver of `tests.airflow` (see `performance`) with its database; return the recording.

    The stage's home is `home` in `folder`, what the driver tells is in `result.json`.
    3.x plays on SQLite unless `on_postgres`, 2.x on PostgreSQL always.
    Raises `StageError`.
    """
    home = folder / "home"
    driver = [sys.executable, "-m", f"tests.airflow.{module}", release.version, str(home)]
    driver.append(str(folder / "result.json"))
    if on_postgres or release.version.startswith("2."):
        (port,) = free_ports(1)
        database = postgres_url(port)
        driver.append(str(port))
    else:
        migrated_template(release)
        database = sqlite_url(home)
    return trace(folder, driver, "--airflow-db", database, *options, timeout_s=timeout_s)


def explain(recording: Path, *options: str, left: Path | None = None) -> list[Verdict]:
    """Return the verdicts of a recording, which are `left` in `verdicts.json` beside it too."""
    explained = subprocess.run(
        [str(PIDTRAIL), "explain", str(recording), "--json", *options],
        capture_output=True,
        check=True,
        timeout=EXPLAIN_TIMEOUT_S,
    )
    (left or recording.with_name("verdicts.json")).write_bytes(explained.stdout)
    return msgspec.json.decode(explained.stdout, type=Report).verdicts


def give_plugin(home: Path) -> None:
    """Put pidtrail's plugin, as one file, where the Airflow of this home looks for plugins."""
    folder = home / "plugins"
    folder.mkdir(parents=True, exist_ok=True)
    printed = subprocess.run([PIDTRAIL, "airflow-plugin"], check=True, capture_output=True)
    (folder / "pidtrail_plugin.py").write_bytes(printed.stdout)


def heard(recording: Path) -> list[TaskReported]:
    """Return what processes said of themselves through the plugin, in order."""
    events = Replay(str(recording)).events()
    return [one for one in events if isinstance(one, TaskReported) and one.via == "plugin"]


def judged_without_plugin(recording: Path) -> list[Verdict]:
    """Return the verdicts as they would be if nobody had said anything through the plugin."""
    replay = Replay(str(recording))
    events = [
        one
        for one in replay.events()
        if not (isinstance(one, TaskReported) and one.via == "plugin")
    ]
    return judge_stream(replay.header, events, problems=[]).verdicts
