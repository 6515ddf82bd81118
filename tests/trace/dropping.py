"""
A session that loses its rights while it runs: `python -m tests.trace.dropping SOURCE PID`.

Opens SOURCE on PID as `trace --source auto` would go on from it, and prints one JSON object per
line: `{"exec": origin}` for each program that was started, `{"lost": reason}`. A line on stdin
makes it give up every capability and become nobody; at the end of stdin it ends.
"""

from __future__ import annotations

import json
import os
import select
import sys

from pidtrail.events import Event, Exec, Lost
from pidtrail.runtime import TURN_SECONDS, Session
from pidtrail.sources.capabilities import effective
from pidtrail.sources.ladder import make, open_below

NOBODY = 65534


class Saying:
    """A sink that says what matters here."""

    def write(self, events: list[Event]) -> None:
        """Say which programs were started, and what was lost."""
        for event in events:
            if isinstance(event, Exec):
                print(json.dumps({"exec": event.origin}), flush=True)
            elif isinstance(event, Lost):
                print(json.dumps({"lost": event.reason}), flush=True)

    def close(self) -> None:
        """Nothing to do."""


def main() -> None:
    """Trace until stdin ends."""
    source = make(sys.argv[1])
    source.open([int(sys.argv[2])])
    session = Session(source, [Saying()], step_down=open_below)
    session.start()
    print(json.dumps({"attached": source.name}), flush=True)
    while True:
        session.turn()
        ready, _, _ = select.select([sys.stdin], [], [], TURN_SECONDS)
        if not ready:
            continue
        if not sys.stdin.readline():
            break
        # From root to another user all capabilities go (capabilities(7)).
        os.setresuid(NOBODY, NOBODY, NOBODY)
        print(json.dumps({"holds": sorted(effective())}), flush=True)
    session.finish()
    print(json.dumps({"ended": session.source.name}), flush=True)


if __name__ == "__main__":
    main()
