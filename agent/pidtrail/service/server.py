"""
Answers local users out of the history, beside the capture and never in its way.

Each asker has a thread, which reads the history with SQLite connections of its own and hands
stored batches on as they are: it holds one at a time, and waits in the kernel for who reads
slowly. Askers are few, no user has all their places, and who stands still or asks nothing is let
go.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from pidtrail import codec
from pidtrail.errors import PidtrailError, RecordingError
from pidtrail.history import Boot, History, Segment
from pidtrail.service.endpoint import Endpoint
from pidtrail.service.peer import credentials, group_id, peer_of
from pidtrail.service.protocol import (
    GROUP,
    MAX_REQUEST_BYTES,
    Begin,
    End,
    Problem,
    Refused,
    Request,
    line,
    understood,
)
from pidtrail.store import Batch, Recording

if TYPE_CHECKING:
    from pidtrail.service.live import Live

MOST_CLIENTS: Final = 8
MOST_OF_USER: Final = 4
ROOT: Final = 0
"""Who has to see what is wrong finds a place also where all others are taken."""
REQUEST_SECONDS: Final = 5.0
"""From connecting to the end of the request."""
SEND_SECONDS: Final = 10.0
"""For a batch of at most some 500 records: who stands still that long is let go."""
ANSWER_SECONDS: Final = 600.0
"""For the whole of a history."""
STOP_SECONDS: Final = 5.0

PROBLEMS: Final = {
    "refused": "{} requests over the service's socket came from users who may not ask",
    "slow": "{} askers at the service's socket did not take their answer in time",
    "too many": f"{{}} requests came while {MOST_CLIENTS} others were answered",
    "too many of one": f"{{}} requests came of users of whom {MOST_OF_USER} were answered",
}


class Server:
    """
    The service at a path: listens from its making, answers from `start` to `stop`.

    `folder` is the history's (history.py), which the agent may not have begun yet. Raises
    PidtrailError where it cannot listen.
    """

    def __init__(
        self, path: str, folder: Path, live: Live | None = None, group: str = GROUP
    ) -> None:
        self.folder, self.live = folder, live
        self.group = group
        self.gid = group_id(group)
        self.endpoint = Endpoint(path, self.gid)
        self.counts: Counter[str] = Counter()
        self.guard = threading.Lock()
        self.clients: dict[socket.socket, tuple[threading.Thread, int]] = {}
        """Who is answered: by which thread, and which user he is."""
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.accept, name="pidtrail-socket", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self.thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End; who is being answered is cut off, and waited for so long. May be called twice."""
        self.ended.set()
        self.endpoint.close()
        with self.guard:
            clients = dict(self.clients)
        for connection in clients:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + seconds
        for thread in (self.thread, *(thread for thread, _ in clients.values())):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def problems(self) -> list[str]:
        """Return what went wrong so far, one line each."""
        said = [words.format(self.counts[why]) for why, words in PROBLEMS.items()
                if self.counts[why]]  # fmt: skip
        return said if self.endpoint.problem is None else [self.endpoint.problem, *said]

    def accept(self) -> None:
        """Give each asker a thread, until the end."""
        while not self.ended.is_set():
            try:
                connection, _ = self.endpoint.socket.accept()
            except OSError:
                # Out of descriptors, or the end.
                self.ended.wait(0.1)
                continue
            try:
                self.admit(connection)
            except Refused as refused:
                refuse(connection, refused)
                connection.close()
            except OSError:
                # Gone already.
                connection.close()

    def admit(self, connection: socket.socket) -> None:
        """Give an asker a thread. Raises Refused if there is none left for him, OSError."""
        _, uid, _ = credentials(connection)
        connection.settimeout(SEND_SECONDS)
        thread = threading.Thread(
            target=self.serve, args=(connection,), name="pidtrail-asker", daemon=True
        )
        with self.guard:
            if sum(of == uid for _, of in self.clients.values()) >= MOST_OF_USER:
                self.counts["too many of one"] += 1
                raise Refused(f"{MOST_OF_USER} others of user {uid} are asking", "ask again later")
            full = len(self.clients) >= MOST_CLIENTS and uid != ROOT
            # No more threads for us, by a limit such as systemd's TasksMax, is the same to him.
            with contextlib.suppress(RuntimeError):
                if not full:
                    thread.start()
            if thread.ident is None:
                self.counts["too many"] += 1
                raise Refused(f"{MOST_CLIENTS} others are asking", "ask again later")
            self.clients[connection] = thread, uid

    def serve(self, connection: socket.socket) -> None:
        """Hear one request and answer it."""
        try:
            self.check(connection)
            request = heard(connection)
            if request is not None:
                self.answer(connection, request)
        except Refused as refused:
            refuse(connection, refused)
        except TimeoutError:
            self.counts["slow"] += 1
        except OSError:
            # Gone, which is an asker's right.
            pass
        except (PidtrailError, sqlite3.Error) as error:
            refuse(connection, Refused(f"the history cannot be read: {error}"))
        finally:
            with self.guard:
                self.clients.pop(connection, None)
            connection.close()

    def check(self, connection: socket.socket) -> None:
        """Raise Refused unless the asker is root, our own user, or in the group."""
        peer = peer_of(connection)
        if peer.uid in {0, os.geteuid()} or self.gid in peer.groups:
            return
        self.counts["refused"] += 1
        raise Refused(f"user {peer.uid} may not ask the service", f"join the group {self.group}")

    def answer(self, connection: socket.socket, request: Request) -> None:
        """Send what was asked for. Raises Refused, TimeoutError, OSError, PidtrailError."""
        if request.want == "live":
            self.tell_live(connection)
        else:
            self.tell_history(connection, request)

    def tell_history(self, connection: socket.socket, request: Request) -> None:
        """Send what is asked for of the history, and the end."""
        deadline = time.monotonic() + ANSWER_SECONDS
        history = History(self.folder)
        for boot in needed(history.boots(), request):
            connection.sendall(codec.encode_header(boot.header))
            for segment in boot.segments:
                connection.sendall(line(begin_of(segment)))
                try:
                    for batch in stored(segment):
                        connection.sendall(batch_lines(batch))
                        if time.monotonic() > deadline:
                            raise TimeoutError
                except RecordingError as error:
                    connection.sendall(line(Problem(str(error))))
        for problem in history.problems:
            connection.sendall(line(Problem(problem)))
        connection.sendall(line(End()))

    def tell_live(self, connection: socket.socket) -> None:
        """Send who lives, and each record as it comes, until the asker or the capture ends."""
        if self.live is None:
            raise Refused("this service does not show what happens now")
        hangup = select.poll()
        hangup.register(connection, 0)
        with self.live.subscription() as subscription:
            header = self.live.header
            connection.sendall(codec.encode_header(header))
            connection.sendall(line(Begin("live", header.version)))
            while (events := subscription.take()) is not None:
                if events:
                    plain = codec.is_plain(events)
                    body = codec.encode_batch(events, plain=plain)
                    connection.sendall(
                        batch_lines(Batch(events[0].seq, events[-1].seq, plain, body))
                    )
                elif hangup.poll(0):
                    return
        connection.sendall(line(End()))


def heard(connection: socket.socket) -> Request | None:
    """Return the request, None if the asker goes without one. Raises Refused, OSError."""
    deadline = time.monotonic() + REQUEST_SECONDS
    said = b""
    while b"\n" not in said:
        if len(said) > MAX_REQUEST_BYTES:
            raise Refused(f"a request has at most {MAX_REQUEST_BYTES} bytes")
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            more = connection.recv(MAX_REQUEST_BYTES)
        except TimeoutError:
            raise Refused(f"nothing was asked within {REQUEST_SECONDS:.0f} s") from None
        if not more:
            if said:
                raise Refused("the request ends in the middle")
            return None
        said += more
    connection.settimeout(SEND_SECONDS)
    return understood(said.partition(b"\n")[0])


def refuse(connection: socket.socket, refused: Refused) -> None:
    """Say why there is no answer, if that can be said at once."""
    with contextlib.suppress(OSError):
        connection.settimeout(0)
        connection.sendall(line(refused.error))


def needed(boots: list[Boot], request: Request) -> list[Boot]:
    """Return what a request asks for."""
    if request.last_boot:
        boots = boots[-1:]
    since_ns = request.since_ns
    if since_ns is None:
        return boots
    # What lived in an earlier boot had ended when the host booted again.
    booted = [boot.header.boot_id for boot in boots if boot.header.wall_offset_ns <= since_ns]
    ids = [boot.header.boot_id for boot in boots]
    first = ids.index(booted[-1]) if booted else 0
    return [boot.since(since_ns - boot.header.wall_offset_ns) for boot in boots[first:]]


def begin_of(segment: Segment) -> Begin:
    """Return the line with which a segment begins."""
    header = segment.header
    return Begin(segment.path.name, header.version, segment.after, header.began_ns)


def stored(segment: Segment) -> Iterator[Batch]:
    """Yield what a segment holds, as it is. Raises RecordingError."""
    recording = Recording(segment.path)
    try:
        yield from recording.batches()
    finally:
        recording.close()


def batch_lines(batch: Batch) -> bytes:
    """
    Return a stored batch as it is sent: one line if it is plain, else one for each record.

    Raises RecordingError if that is no array.
    """
    if batch.plain:
        return batch.body + b"\n"
    try:
        records = msgspec.json.decode(batch.body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordingError(f"not a batch of events: {error}") from error
    return b"".join(bytes(record) + b"\n" for record in records)
