"""A service to ask in tests: a real socket, a real history, and a client that says anything."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from pidtrail.events import Event, Header
from pidtrail.keeper import Bounds, Keeper
from pidtrail.service.client import Answer
from pidtrail.service.live import Live
from pidtrail.service.protocol import Request
from pidtrail.service.server import Server
from tests.unit.records import header
from tests.unit.story import OFFSET_NS, SECOND, Airflow3, at, ref, uuid

WIDE = Bounds(max_age_s=7 * 86_400, max_bytes=1 << 30)
FIRST_PID, SECOND_PID = "first", "second"
PATIENCE_S = 30


def head(**changes: Any) -> Header:
    """Return the header of a story's boot."""
    return header(**({"wall_offset_ns": OFFSET_NS} | changes))


def keep(folder: Path, *segments: list[Event], now_ns: int = 100 * SECOND, **changes: Any) -> None:
    """Write a history: a segment for each list, which begins where the one before it ended."""
    ours = head(**changes)
    last_ns = now_ns
    keeper = Keeper(folder, WIDE, (ours.boot_id, ours.pid_ns), now_ns=lambda: last_ns)
    for events in segments:
        keeper.begin(ours)
        keeper.write(events)
        last_ns = events[-1].ts_boot_ns
    keeper.close()


def two_tries() -> tuple[Airflow3, int]:
    """Return a failure and its retry, and how many records came before the second runner."""
    story = Airflow3()
    story.run("worker", FIRST_PID, ref(1, uuid(1))).exit(FIRST_PID, 256).reap(FIRST_PID, 1)
    story.report(ref(1, uuid(1)), "up_for_retry", FIRST_PID, end_date=at(story.now_ns))
    story.idle("worker").wait(5)
    before = len(story.events)
    story.run("worker", SECOND_PID, ref(2, uuid(2)))
    story.exit(SECOND_PID).reap(SECOND_PID, 1)
    story.report(ref(2, uuid(2)), "success", SECOND_PID, end_date=at(story.now_ns))
    return story, before


def in_order(events: list[Event], first: int = 1) -> list[Event]:
    """Return records numbered anew."""
    return [structs.replace(event, seq=n) for n, event in enumerate(events, start=first)]


@contextlib.contextmanager
def serving(folder: Path, live: Live | None = None) -> Iterator[tuple[Server, str]]:
    """Run a service over the history in a folder; give it and its path, beside the folder."""
    path = str(folder.with_name("pidtrail.sock"))
    server = Server(path, folder, live)
    server.start()
    try:
        yield server, path
    finally:
        server.stop()


@contextlib.contextmanager
def connection(path: str) -> Iterator[socket.socket]:
    """Connect to a service without any of our client's manners."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(PATIENCE_S)
        made.connect(path)
        yield made


def lines(made: socket.socket) -> list[Any]:
    """Return what comes until the other side hangs up, each line decoded."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while more := made.recv(1 << 16):
            said += more
    return [json.loads(one) for one in said.splitlines()]


def ask(path: str, since_ns: int | None = None) -> tuple[list[tuple[Header, list[Event]]], Answer]:
    """Return all boots of a history that a service tells, and the answer."""
    answer = Answer(path, Request("history", since_ns))
    return [(one, list(events)) for one, events in answer.boots()], answer
