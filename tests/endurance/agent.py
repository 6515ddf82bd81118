"""
A session that can be made to lose: `python -m tests.endurance.agent SOURCE PID FILE [BYTES]`.

What `pidtrail trace --pid PID -o FILE` does: SOURCE is `bcc-perf`, which there is only for a
kernel without ring buffers, or `connector` with a receive buffer of BYTES. Says `attached` on
stdout; SIGTERM ends it. At the end the connector says, as JSON, how many messages of the whole
host it took, and which were the first and the last of each CPU.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from pidtrail.events import Event
from pidtrail.runtime import TURN_SECONDS, Session, make_header
from pidtrail.sources import cnproc
from pidtrail.sources.bcc import BccSource
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.source import Source
from pidtrail.store import Recorder


class Counting(ConnectorSource):
    """The connector, noting what comes out of its socket."""

    def __init__(self, receive_bytes: int) -> None:
        super().__init__(receive_bytes)
        self.taken = 0
        self.spans: dict[int, tuple[int, int]] = {}

    def take(self, data: bytes, events: list[Event]) -> None:
        """Note a message and take it in."""
        message = cnproc.parse(data)
        assert message is not None
        self.taken += 1
        first, _ = self.spans.get(message.cpu, (message.counter, 0))
        self.spans[message.cpu] = first, message.counter
        super().take(data, events)


def main() -> None:
    """Trace until told to end."""
    name, pid, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    source: Source = (
        Counting(int(sys.argv[4])) if name == "connector" else BccSource(transport="perf")
    )
    source.open([pid])
    session = Session(source, [Recorder(path, make_header(source, [pid], {}))])
    session.start()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    print("attached", flush=True)
    while not ended:
        session.turn()
        time.sleep(TURN_SECONDS)
    session.finish()
    if isinstance(source, Counting):
        print(json.dumps({"taken": source.taken, "spans": source.spans}), flush=True)


if __name__ == "__main__":
    main()
