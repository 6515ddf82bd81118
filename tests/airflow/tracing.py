"""`pidtrail trace` around a driver that plays on a real Airflow, and what `explain` says then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from demo import ROOT
from demo.processes import StageError, clear_leftovers
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


def explain(recording: Path) -> list[Verdict]:
    """Return the verdicts of a recording; they are left in `verdicts.json` beside it too."""
    explained = subprocess.run(
        [str(PIDTRAIL), "explain", str(recording), "--json"],
        capture_output=True,
        check=True,
        timeout=EXPLAIN_TIMEOUT_S,
    )
    recording.with_name("verdicts.json").write_bytes(explained.stdout)
    return msgspec.json.decode(explained.stdout, type=Report).verdicts
