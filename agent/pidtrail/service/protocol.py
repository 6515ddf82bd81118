"""
What is said over the service's socket: one request, one answer, lines of JSON.

The request is one object, schema `pidtrail.request/1`. Of the answer each line is one of

- a header (schema `pidtrail.event/1`): what holds of a boot of the host (history.py);
- a `part`: a segment of the history of that boot begins;
- a record without `time`, or an array of such: a batch as it is stored, of which the
  part's version knew all fields;
- a `problem`: the rest of this part could not be read, the next ones follow;
- `end`: that was all. An answer without it was cut;
- `error`: nothing is answered, or nothing more.

Rule 1: a field that is not known is passed over, a `want` that is not known is an error.
Rule 2: the form of `error` stays the same in all versions: the other side may be older.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from pidtrail import __version__
from pidtrail.errors import PidtrailError

REQUEST_SCHEMA: Final = "pidtrail.request/1"
SOCKET: Final = "/run/pidtrail/pidtrail.sock"
SOCKET_VARIABLE: Final = "PIDTRAIL_SOCKET"
GROUP: Final = "pidtrail"
"""Whose members may ask."""
MAX_REQUEST_BYTES: Final = 4096

Want = Literal["history", "live"]


class NoService(PidtrailError):
    """Nobody listens at the service's socket."""


class Request(msgspec.Struct, frozen=True):
    """
    What somebody asks for.

    `history`: what was recorded; with `since_ns` (nanoseconds since the epoch, UTC) all
    that is needed to judge what lived then or later; with `last_boot` that of the last boot
    alone. `live`: who lives now, and then each record as it comes.
    """

    want: Want
    since_ns: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    last_boot: bool = False
    schema: str = REQUEST_SCHEMA
    version: str = __version__


class Greeting(msgspec.Struct, frozen=True):
    """What every request of every version has."""

    schema: str
    version: str | None = None


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """Why there is no answer, or no more of it; for a person, as PidtrailError has it."""

    message: str
    hint: str | None = None


class Begin(msgspec.Struct, frozen=True, tag_field="type", tag="part"):
    """
    That a segment begins: its name, and who wrote it.

    `after` and `began_ns` as in history.py: what the records before it are told apart by.
    """

    name: str
    version: str
    after: int = 0
    began_ns: int | None = None


class Problem(msgspec.Struct, frozen=True, tag_field="type", tag="problem"):
    """Why the rest of a part is missing."""

    message: str


class End(msgspec.Struct, frozen=True, tag_field="type", tag="end"):
    """The end of a whole answer."""


class Refused(Exception):
    """A request gets no answer; says why, in the words of the `error` it is told with."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.error = Error(message, hint)


def line(record: msgspec.Struct) -> bytes:
    """Return a record as a line."""
    return msgspec.json.encode(record) + b"\n"


def understood(data: bytes) -> Request:
    """Return the request in a line. Raises Refused."""
    try:
        greeting = msgspec.json.decode(data, type=Greeting)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("that is no request of pidtrail's") from None
    if greeting.schema != REQUEST_SCHEMA:
        who = f"pidtrail {greeting.version}" if greeting.version else "another pidtrail"
        raise Refused(
            f"the service is pidtrail {__version__} and understands {REQUEST_SCHEMA}; "
            f"{who} asked with {greeting.schema[:100]}",
            "use the same version for both",
        )
    try:
        return msgspec.json.decode(data, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(
            f"the service is pidtrail {__version__} and does not understand what pidtrail "
            f"{greeting.version or 'of another version'} asked for: {error}"
        ) from None
