"""Asks the running service, and reads its answer as a history is read from its folder."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import msgspec

from pidtrail import __version__, codec
from pidtrail.errors import PidtrailError, RecordingError
from pidtrail.events import Event, Header
from pidtrail.history import Part, once
from pidtrail.service.protocol import (
    GROUP,
    Begin,
    End,
    Error,
    NoService,
    Problem,
    Request,
    line,
)

WAIT_SECONDS: Final = 30.0
"""For the service to accept, and for the next line of a history."""


class Boot(msgspec.Struct, frozen=True, tag_field="type", tag="header"):
    """That a line is the header of a boot; what is in it is the codec's to say."""


Line = Header | Begin | Problem | End | list[Event]
NOTES: Final[msgspec.json.Decoder[Boot | Begin | Problem | End | Error]] = msgspec.json.Decoder(
    Boot | Begin | Problem | End | Error
)


class Answer:
    """
    What the service answers: for each boot of the host a header and records.

    `problems` is filled while it is read: what the service could not read, and that the
    answer was cut if it was. Raises NoService if none runs, and PidtrailError if it does
    not answer, or has recorded nothing.
    """

    def __init__(self, path: str, request: Request) -> None:
        self.path = path
        self.problems: list[str] = []
        self.is_own = False
        self.socket = connected(path)
        self.file = self.socket.makefile("rb")
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # Who refuses us may not have read what we ask for.
                self.socket.sendall(line(request))
            self.coming: Line = self.read()
        except OSError as error:
            self.close()
            raise PidtrailError(f"the service at {path} does not answer: {error}") from None
        except BaseException:
            self.close()
            raise
        if isinstance(self.coming, Problem):
            self.close()
            raise PidtrailError(self.coming.message)
        if not isinstance(self.coming, Header):
            self.close()
            raise PidtrailError(f"the service at {path} has recorded nothing yet")
        self.socket.settimeout(None if request.want == "live" else WAIT_SECONDS)

    def boots(self) -> Iterator[tuple[Header, Iterator[Event]]]:
        """Yield each boot; the records of one are to be read before the next is asked for."""
        try:
            while isinstance(header := self.coming, Header):
                yield header, once(self.parts(), self.problems)
        finally:
            self.close()

    def parts(self) -> Iterator[Part]:
        """Yield the parts of a boot, each to be read to its end; `coming` is then what follows."""
        self.coming = self.next()
        while not isinstance(self.coming, Header | End):
            if isinstance(self.coming, Begin):
                begin = self.coming
                self.is_own = begin.version == __version__
                yield Part(begin.name, begin.after, begin.began_ns, self.records())
                continue
            if isinstance(self.coming, Problem):
                self.problems.append(self.coming.message)
            self.coming = self.next()

    def records(self) -> Iterator[Event]:
        """Yield the records of a part. Raises RecordingError at a problem."""
        while isinstance(found := self.next(), list):
            yield from found
        self.coming = found
        if isinstance(found, Problem):
            self.coming = self.next()
            raise RecordingError(found.message)

    def next(self) -> Line:
        """Return what the next line holds; the end, and a problem, where the answer was cut."""
        try:
            return self.read()
        except (OSError, PidtrailError) as error:
            self.problems.append(f"the answer of the service at {self.path} was cut: {error}")
            return End()

    def read(self) -> Line:
        """
        Return what the next line holds; a problem if that cannot be told.

        Raises RecordingError if there is none, PidtrailError if the service says why
        there is none, OSError.
        """
        data = self.file.readline()
        if not data.endswith(b"\n"):
            raise RecordingError("it ends in the middle")
        try:
            return self.taken(data)
        except RecordingError as error:
            return Problem(f"the service at {self.path} sent what cannot be read: {error}")

    def taken(self, data: bytes) -> Line:
        """Return what a line holds. Raises RecordingError, or PidtrailError if that says so."""
        if data.startswith(b"["):
            return codec.decode_batch(data, plain=self.is_own)
        try:
            note = NOTES.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [codec.decode(data)]
        if isinstance(note, Error):
            raise PidtrailError(note.message, note.hint)
        return codec.decode_header(data) if isinstance(note, Boot) else note

    def close(self) -> None:
        """Hang up. May be called twice."""
        self.file.close()
        self.socket.close()


def connected(path: str) -> socket.socket:
    """Return a connection to the service. Raises NoService, and PidtrailError if it is denied."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(WAIT_SECONDS)
    try:
        made.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        made.close()
        raise NoService(
            f"no service runs here to ask at {path}",
            "name a recording, a JSONL file, or `-` for stdin",
        ) from None
    except PermissionError:
        made.close()
        raise PidtrailError(
            f"you may not ask the service at {path}",
            f"its group may: usermod -aG {GROUP} USER, then log in again",
        ) from None
    except OSError as error:
        made.close()
        raise PidtrailError(f"the service at {path} does not answer: {error}") from None
    return made
