"""
One story told in other surroundings: `python -m tests.contract.inside PROGRAM [ARGUMENT...]`.

Run under unshare, setpriv and the like, where the agent itself is in a PID
namespace of its own or has few capabilities. Prints the story as one JSON object,
or {"refused": why} where the source does not open.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pidtrail.errors import SourceUnavailable
from pidtrail.sources.core import CoreSource
from tests.contract.story import Told, tell

ROOT = Path(__file__).resolve().parents[2]


class Refused(msgspec.Struct):
    refused: str


def tell_inside(prefix: Sequence[str], name: str, *arguments: str) -> Told | str:
    """Return what was told under a prefix command, or why the source refused."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.contract.inside", name, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    if done.stdout.startswith(b'{"refused"'):
        return msgspec.json.decode(done.stdout, type=Refused).refused
    return msgspec.json.decode(done.stdout, type=Told)


def main() -> None:
    """Tell the story that the arguments name."""
    answer: Told | Refused
    try:
        answer = tell(CoreSource(), sys.argv[1], *sys.argv[2:])
    except SourceUnavailable as error:
        answer = Refused(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
