"""
A million real processes under one tracer: `python -m tests.endurance [COUNT [SOURCE...]]`.

Prints one JSON object per source: its memory at ten points of the way, in KiB.
Takes about three minutes per source and needs root.
"""

from __future__ import annotations

import json
import sys
import time

from tests.endurance.resident import growth_kib, storm

COUNT = 1_000_000
PER_SECOND = 500
"""Slower than this is not a storm any more but a machine that stands still."""


def main() -> None:
    """Trace what the arguments ask for."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    for source in sys.argv[2:] or ["core"]:
        began = time.monotonic()
        seen, said = storm(source, count, patience_s=count / PER_SECOND)
        ended = [json.loads(line) for line in said.splitlines() if '"ended"' in line]
        points = [seen[len(seen) * number // 10] for number in range(10)] + [seen[-1]]
        told = {key: ended[-1][key] for key in ("events", "lost")} if ended else {}
        seconds = round(time.monotonic() - began)
        result = {"source": source, "processes": count, **told, "seconds": seconds}
        print(json.dumps({**result, "resident_kib": points, "growth_kib": growth_kib(seen)}))


if __name__ == "__main__":
    main()
