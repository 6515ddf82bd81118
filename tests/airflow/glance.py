"""A look at a part of an Airflow that runs already: a second `pidtrail trace`, for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.processes import StageError, wait_until

PIDTRAIL = Path(sys.executable).with_name("pidtrail")


@contextmanager
def glance(
    recording: Path, pid: int, *options: str, environ: dict[str, str] | None = None
) -> Iterator[None]:
    """
    Trace what runs below a process from the beginning of the block to its end.

    `options` are further ones of `pidtrail trace`, `environ` is what its environment
    has beside ours; its words go to a file beside the recording. Raises `StageError`
    if it does not attach or does not end well.
    """
    log = recording.with_suffix(".log")
    with log.open("wb") as output:
        tracer = subprocess.Popen(
            [
                *(str(PIDTRAIL), "trace", "--pid", str(pid), "--format", "none"),
                *(*options, "-o", str(recording)),
            ],
            env=os.environ | (environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: "attached" in log.read_text(), within_s=30, what="a second pidtrail")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        status = tracer.wait(30)
    if status:
        raise StageError(f"the second pidtrail: status {status}\n{log.read_text()}")
