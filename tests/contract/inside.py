"""
One story told elsewhere: `python -m tests.contract.inside SOURCE PROGRAM [ARGUMENT...]`.

Run under unshare, setpriv and the like, where the agent itself is in a PID
namespace of its own or has few capabilities. Prints the story as one JSON object,
or {"refused": why} where the source does not open.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from pidtrail.errors import SourceUnavailable
from pidtrail.sources.bcc import BccSource
from pidtrail.sources.core import CoreSource
from pidtrail.sources.source import Source
from tests.contract.story import Told, tell

ROOT = Path(__file__).resolve().parents[2]


class Refused(msgspec.Struct):
    refused: str


SOURCES: dict[str, Callable[[], Source]] = {
    "core": CoreSource,
    "bcc": partial(BccSource, structures=True),
    "bcc-arguments": partial(BccSource, structures=False),
}


def tell_inside(
    prefix: Sequence[str], name: str, *arguments: str, source: str = "core"
) -> Told | str:
    """Return what was told under a prefix command, or why the source refused."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.contract.inside", source, name, *arguments],
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
        answer = tell(SOURCES[sys.argv[1]](), sys.argv[2], *sys.argv[3:])
    except SourceUnavailable as error:
        answer = Refused(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
