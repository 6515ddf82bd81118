"""
Compare one workload, or many, with what a source says: `python -m tests.oracle --seed N`.

Prints each difference; the status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from pidtrail.sources.bcc import BccSource
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.core import CoreSource
from pidtrail.sources.source import Source
from tests.oracle.books import SIZE, differences, watch

SOURCES: dict[str, Callable[[], Source]] = {
    "core": CoreSource,
    "bcc": BccSource,
    "bcc-perf": partial(BccSource, transport="perf"),
    "bcc-arguments": partial(BccSource, structures=False),
    "connector": ConnectorSource,
}


def main() -> int:
    """Run what the arguments ask for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--size", type=int, default=SIZE, help="processes in each workload")
    parser.add_argument("--source", choices=SOURCES, default="core")
    options = parser.parse_args()
    source = SOURCES[options.source]()
    run = watch(source, options.seed, options.count, options.size)
    found = differences(run, source)
    for line in found:
        print(line)
    lives = max(map(len, run.tree.by_pid.values()))
    print(f"{len(run.entries)} processes, {len(found)} differences, {lives} lives of one number")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
