"""
Record to JSON object and back, schema `pidtrail.event/1`.

One object per line. Fields that this version does not know are kept in
`extra` and written out again; records of an unknown type become `Unknown` and
keep all they had. So a stream can pass through an older pidtrail unharmed.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final, Union, cast

import msgspec
from msgspec import UNSET, structs

from pidtrail import events
from pidtrail.clock import rfc3339
from pidtrail.errors import RecordingError
from pidtrail.events import EVENT_SCHEMA, Event, Header, Record, Unknown

ENCODER: Final = msgspec.json.Encoder()
DECODER: Final = msgspec.json.Decoder()

CLASSES: Final[dict[str, type[Record]]] = {
    str(cls.__struct_config__.tag): cls
    for cls in vars(events).values()
    if isinstance(cls, type) and issubclass(cls, Record) and cls not in {Record, Unknown}
}
NAMES: Final = {cls: tag for tag, cls in CLASSES.items()}
KNOWN_DECODER: Final[msgspec.json.Decoder[list[Event]]] = msgspec.json.Decoder(
    list[Union[tuple(CLASSES.values())]]  # type: ignore[misc]  # noqa: UP007
)
FIELDS: Final[dict[str, frozenset[str]]] = {
    tag: frozenset(cls.__struct_fields__) - {"extra"} | {"type", "time"}
    for tag, cls in CLASSES.items()
}

# The last one: msgspec follows brackets within brackets as deep as Python's stack.
_NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(event: Event) -> bytes:
    """Return one JSON object without `time`, which follows from the header."""
    if event.extra is UNSET and type(event) is not Unknown:
        return ENCODER.encode(event)
    return ENCODER.encode(to_object(event))


def is_plain(events: list[Event]) -> bool:
    """Return whether all types and fields in a batch are known to this version."""
    return all(event.extra is UNSET and type(event) is not Unknown for event in events)


def encode_batch(events: list[Event], *, plain: bool) -> bytes:
    """Return a JSON array of events, without `time`; faster if it is known to be plain."""
    return ENCODER.encode(events) if plain else b"[" + b",".join(map(encode, events)) + b"]"


def decode_batch(data: bytes | str, *, plain: bool) -> list[Event]:
    """
    Return the events in a JSON array. Raises RecordingError.

    A batch in which all is known to this version is decoded five times as fast.
    """
    if plain:
        with contextlib.suppress(*_NOT_JSON):
            return KNOWN_DECODER.decode(data)
    try:
        found = DECODER.decode(data)
    except _NOT_JSON as error:
        raise RecordingError(f"not JSON: {error}") from error
    if not isinstance(found, list):
        raise RecordingError("not a batch of events")
    return [from_object(item) for item in found]


def encode_line(event: Event, wall_offset_ns: int) -> bytes:
    """Return one JSON object with `time` and a newline: what streams and exports carry."""
    moment = rfc3339(event.ts_boot_ns + wall_offset_ns)
    return encode(event)[:-1] + b',"time":"' + moment.encode() + b'"}\n'


def encode_header(header: Header) -> bytes:
    """Return the first line of a stream."""
    return ENCODER.encode(header) + b"\n"


def to_object(event: Event) -> dict[str, Any]:
    """Return the JSON object as a dict, unknown fields included."""
    if isinstance(event, Unknown):
        return dict(event.body or {})
    known: dict[str, Any] = msgspec.to_builtins(event)
    extra = known.pop("extra", None)
    return known | extra if isinstance(extra, dict) else known


def type_name(event: Event) -> str:
    """Return the `type` of a record; an unknown one keeps its own."""
    name = NAMES.get(type(event))
    return name if name is not None else str((event.body or {}).get("type"))  # type: ignore[union-attr]


def decode(data: bytes | str) -> Event:
    """Return the event in one JSON object. Raises RecordingError."""
    try:
        found = DECODER.decode(data)
    except _NOT_JSON as error:
        raise RecordingError(f"not JSON: {error}") from error
    return from_object(found)


def from_object(found: object) -> Event:
    """Return the event that a JSON object stands for. Raises RecordingError."""
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise RecordingError("not an event: no type")
    kind = found["type"]
    cls = CLASSES.get(kind)
    try:
        if cls is None:
            return unknown(found)
        event = cast("Event", msgspec.convert(found, cls))
    except msgspec.ValidationError as error:
        raise RecordingError(f"not a {kind} event: {error}") from error
    extra = {name: value for name, value in found.items() if name not in FIELDS[kind]}
    return structs.replace(event, extra=extra) if extra else event


def unknown(found: dict[str, Any]) -> Unknown:
    """
    Return an event of a type that this version does not know, with its common fields.

    Its `time` is left out, as of all records: writing the line again adds it.
    """
    common = {
        name: found.get(name) for name in ("seq", "ts_boot_ns", "origin", "pid", "start_ticks")
    }
    body = {name: value for name, value in found.items() if name != "time"}
    return structs.replace(msgspec.convert(common | {"type": "unknown"}, Unknown), body=body)


def decode_header(data: bytes | str) -> Header:
    """Return the header in one JSON object. Raises RecordingError, also for a newer schema."""
    try:
        found = DECODER.decode(data)
    except _NOT_JSON as error:
        raise RecordingError(f"not JSON: {error}") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, str) or not schema.startswith("pidtrail.event/"):
        raise RecordingError("not a pidtrail stream: it does not begin with a header")
    if schema != EVENT_SCHEMA:
        raise RecordingError(
            f"written by another pidtrail: schema {schema}, this one reads {EVENT_SCHEMA}"
        )
    try:
        return msgspec.convert(found, Header)
    except msgspec.ValidationError as error:
        raise RecordingError(f"not a header: {error}") from error
