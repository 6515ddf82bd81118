"""Fuzz one target in a process of its own: `python -m tests.fuzz.one TARGET SECONDS`."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

FOUND = Path(__file__).resolve().parents[2] / "build" / "fuzz"


def with_atheris(name: str, seconds: int) -> None:
    """Let atheris guide itself by what the parser's code does; it ends this process."""
    import atheris  # noqa: PLC0415 (not on every interpreter)

    with atheris.instrument_imports(include=["pidtrail"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (instrumented while imported)
    target = TARGETS[name]
    corpus = FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={FOUND}/{name}-", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.run)
    atheris.Fuzz()


def without_atheris(target: Target, seconds: float) -> int:
    """Change seeds by chance; nothing guides that. Return how many were tried."""
    chance = random.Random(0)
    until = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < until:
        data = bytearray(chance.choice(target.seeds) + chance.randbytes(chance.randrange(1, 20)))
        for _ in range(chance.randrange(8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        target.run(bytes(data[: chance.randrange(len(data)) + 1]))
        tried += 1
    return tried


def main() -> None:
    """Fuzz what the arguments name."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    try:
        with_atheris(name, seconds)
    except ImportError:
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (after atheris was looked for)

        print(f"no atheris here, {without_atheris(TARGETS[name], seconds)} inputs by chance")


if __name__ == "__main__":
    main()
