"""
A million real processes under one tracer: `python -m tests.endurance [COUNT [SOURCE...]]`.

Prints one JSON object per source (default: core): how many records it told and how many were due,
and its memory at eleven points of the way, in KiB. Takes about three minutes per source and needs
root. What a source cannot see all of has nothing due.
"""

from __future__ import annotations

import json
import sys
import time

from tests.endurance.resident import DUE, growth_kib, storm_under

COUNT = 1_000_000
PER_SECOND = 500
"""Slower than this is not a storm any more but a machine that stands still."""


def main() -> None:
    """Trace what the arguments ask for."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    for source in sys.argv[2:] or ["core"]:
        began = time.monotonic()
        storm = storm_under(source, count, patience_s=count / PER_SECOND)
        seen = storm.resident_kib
        result = {
            "source": source,
            "processes": count,
            "events": storm.events,
            "due": DUE[source](count) if source in DUE else None,
            "lost": storm.lost,
            "seconds": round(time.monotonic() - began),
            "resident_kib": [seen[len(seen) * tenth // 10] for tenth in range(10)] + [seen[-1]],
            "growth_kib": growth_kib(seen),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
