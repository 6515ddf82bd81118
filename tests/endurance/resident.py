"""How much memory a tracer holds while processes come and go under it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from tests.programs.build import program

STEP_S = 0.1
DUE: Final[dict[str, Callable[[int], int]]] = {
    # The command: found, its exec, end and reaping; each of the others born, ended, reaped.
    "core": lambda count: 4 + 3 * count,
    "bcc": lambda count: 4 + 3 * count,
    # It is not told of reapings.
    "connector": lambda count: 3 + 2 * count,
}
"""How many records a storm of so many processes makes, by the sources that see all of it."""


class Storm(msgspec.Struct):
    """
    A storm under a tracer.

    `resident_kib` is the tracer's memory every tenth of a second; `events` and `lost` what
    it said at its end.
    """

    resident_kib: list[int]
    events: int
    lost: int


def resident_kib(pid: int | str = "self") -> int:
    """Return what a process has in memory, 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(status.partition("VmRSS:")[2].split()[0]) if "VmRSS:" in status else 0


def storm_under(source: str, count: int, *, patience_s: float) -> Storm:
    """Trace so many processes that end at once, two at a time, with a source."""
    options = ["--log-format", "json", "trace", "--source", source, "--format", "none"]
    tracer = subprocess.Popen(
        [sys.executable, "-m", "pidtrail", *options, "--", str(program("storm")), str(count), "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    deadline = time.monotonic() + patience_s
    try:
        while tracer.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} processes took longer than {patience_s} s")
            if resident := resident_kib(tracer.pid):
                seen.append(resident)
            time.sleep(STEP_S)
    finally:
        # It ends the storm with itself.
        tracer.terminate()
        _, said = tracer.communicate(timeout=60)
    assert tracer.returncode == 0, said
    (ended,) = [json.loads(line) for line in said.splitlines() if '"ended"' in line]
    return Storm(seen, ended["events"], ended["lost"])


def growth_kib(seen: list[int]) -> int:
    """Return by how much the end is above the beginning, which is the first quarter's top."""
    quarter = len(seen) // 4
    return max(seen[-quarter:]) - max(seen[:quarter])
