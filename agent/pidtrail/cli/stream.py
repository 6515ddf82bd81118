"""Reading what a command was given, damage and all: FILE, or what the running service has seen."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from pidtrail import codec
from pidtrail.cli.logs import log
from pidtrail.correlate import Gathered, gather
from pidtrail.errors import RecordingError
from pidtrail.events import Event, Header
from pidtrail.index import TooMuch
from pidtrail.service.protocol import SOCKET, SOCKET_VARIABLE, Request
from pidtrail.sources.replay import Replay
from pidtrail.store import Recording
from pidtrail.verdict.lookup import Lookup, Uncertain
from pidtrail.verdict.question import Question
from pidtrail.verdict.selection import Selection

if TYPE_CHECKING:
    from pidtrail.service.client import Answer

PART_EVENTS: Final = 500

socket_option: Final = click.option(
    "--socket",
    "socket_path",
    metavar="PATH",
    envvar=SOCKET_VARIABLE,
    default=SOCKET,
    show_default=True,
    help=f"Where the running service is asked if there is no FILE, or {SOCKET_VARIABLE}.",
)


class Stream:
    """
    The records of FILE, or what the running service answers, and what went wrong with them.

    `problems` is filled while they are read: damage is said once on stderr, and what
    stands before it is good. Raises PidtrailError if nothing can be read at all.
    """

    def __init__(
        self, file: str | None, socket_path: str, request: Request, *, by_index: bool = True
    ) -> None:
        self.answer: Answer | None = None
        self.problems: list[str] = []
        self.ended_ns = 0
        """The epoch instant up to which it tells, once it was read."""
        self.by_index = by_index
        """Whether no more is read than a question is about: how many others there are, is lost."""
        if file is None:
            # A file is read without all that it takes to ask a service.
            from pidtrail.service.client import Answer

            self.answer = Answer(socket_path, request)
        else:
            self.replay = Replay(file)

    def boots(self) -> Iterator[tuple[Header, Iterator[Event]]]:
        """
        Yield the header and the records of each boot of the host, to be read in this order.

        There is one in a FILE. Keys and instants of two boots are not to be compared.
        """
        if self.answer is None:
            yield self.replay.header, self.of_file()
            return
        self.ended_ns = time.time_ns()
        for header, events in self.answer.boots():
            yield header, self.of_service(events, self.answer)
        self.take_problems(self.answer)

    def gathered(self, question: Question) -> Iterator[tuple[Header, Gathered]]:
        """Yield the header of each boot of the host, and what a question needs of its records."""
        if self.answer is None and self.replay.recording is not None and not question.is_open:
            found = self.looked_up(question, self.replay.recording) if self.by_index else None
            self.by_index = found is not None
            yield self.replay.header, found or self.of_recording(question)
            return
        for header, events in self.boots():
            yield header, gather(events) if question.is_open else kept(question, events)

    def looked_up(self, question: Question, recording: Recording) -> Gathered | None:
        """Return what a question needs by the index of a recording, None if that cannot tell."""
        index = recording.index()
        if index is None:
            return None
        try:
            found = Lookup(question, index, recording.header).gathered()
        except (Uncertain, TooMuch, RecordingError, sqlite3.Error):
            return None
        finally:
            index.close()
        self.ended_ns = found.last_ns + recording.header.wall_offset_ns
        self.replay.close()
        return found

    def of_recording(self, question: Question) -> Gathered:
        """Return what a question needs of a recording, of which parts are read twice."""
        selection = Selection(question, self.replay.part)
        for name, events in self.replay.parts():
            selection.take(name, events)
        found = selection.gathered()
        self.ended_ns = found.last_ns + self.replay.header.wall_offset_ns
        self.replay.close()
        if self.replay.problem is not None:
            self.say(self.replay.problem)
        return found

    def of_service(self, events: Iterator[Event], answer: Answer) -> Iterator[Event]:
        """Yield the events of a boot."""
        yield from events
        self.take_problems(answer)

    def of_file(self) -> Iterator[Event]:
        """Yield the events of FILE."""
        last_ns = 0
        for event in self.replay.events():
            last_ns = max(last_ns, event.ts_boot_ns)
            yield event
        self.ended_ns = last_ns + self.replay.header.wall_offset_ns
        if self.replay.problem is not None:
            self.say(self.replay.problem)

    def take_problems(self, answer: Answer) -> None:
        """Take in what went wrong with the service's answer since the last time."""
        for problem in answer.problems[len(self.problems) :]:
            self.say(problem)

    def say(self, problem: str) -> None:
        """Take in a problem, and say it."""
        self.problems.append(problem)
        log.warning(problem)


def kept(question: Question, events: Iterator[Event]) -> Gathered:
    """Return what a question needs of records that come once: as JSON they take a fifth."""
    parts: list[tuple[bytes, bool]] = []

    def again(number: int) -> list[Event]:
        body, plain = parts[number]
        return codec.decode_batch(body, plain=plain)

    selection = Selection(question, again)
    while part := list(islice(events, PART_EVENTS)):
        selection.take(len(parts), part)
        plain = codec.is_plain(part)
        parts.append((codec.encode_batch(part, plain=plain), plain))
    return selection.gathered()
