"""
A session that gets the rights for a better source while it runs: `… climbing PID`.

Begins without those that eBPF needs and opens on PID what `trace --source auto` would. A line on
stdin gives them back; at the end of stdin it ends. Prints one JSON object per line:
`{"source": name}` for each source that it has, at the end `{"told": records}`.
"""

from __future__ import annotations

import ctypes
import json
import select
import struct
import sys
from pathlib import Path

from pidtrail import codec
from pidtrail.runtime import TURN_SECONDS, Session
from pidtrail.sources.ladder import AUTO, Climb, open_below, open_best
from tests.kept import Kept

CAPSET_VERSION = 0x20080522
FOR_BPF = 1 << 39 | 1 << 38 | 1 << 21
"""CAP_BPF, CAP_PERFMON, and CAP_SYS_ADMIN, which includes them (capabilities(7))."""
SOON_NS = 200_000_000


def hold(effective: int) -> None:
    """Have these effective capabilities, of those that are permitted and stay so (capset(2))."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    permitted = int(text.partition("CapPrm:")[2].split()[0], 16)
    words = [
        half >> shift & 0xFFFFFFFF
        for shift in (0, 32)
        for half in (effective & permitted, permitted, 0)
    ]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(struct.pack("=Ii", CAPSET_VERSION, 0), struct.pack("=6I", *words)):
        raise OSError(ctypes.get_errno(), "capset")


def main() -> None:
    """Trace until stdin ends."""
    hold(~FOR_BPF)
    source, _ = open_best(AUTO, [int(sys.argv[1])])
    kept, told = Kept(), ""
    session = Session(source, [kept], step_down=open_below)
    session.climb = Climb(first_ns=SOON_NS)
    session.start()
    while True:
        if session.source.name != told:
            told = session.source.name
            print(json.dumps({"source": told}), flush=True)
        session.turn()
        ready, _, _ = select.select([sys.stdin], [], [], TURN_SECONDS)
        if ready:
            if not sys.stdin.readline():
                break
            hold(~0)
    session.finish()
    print(json.dumps({"told": [codec.to_object(event) for event in kept.events]}))


if __name__ == "__main__":
    main()
