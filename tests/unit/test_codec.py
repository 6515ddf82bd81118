from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from pidtrail import codec
from pidtrail.clock import epoch_ns_of_text, rfc3339
from pidtrail.errors import RecordingError
from pidtrail.events import Exit, Fork, Unknown
from pidtrail.wstatus import decode_wstatus
from tests.unit.records import EVENTS, NEWER, SMALL, header

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(EVENTS)
def test_every_event_comes_back_as_it_was(event: Any) -> None:
    """All classes, all fields, and those that a newer pidtrail added."""
    assert codec.decode(codec.encode(event)) == event
    assert codec.from_object(codec.to_object(event)) == event


@given(EVENTS, st.integers(0, 2**61))
def test_a_line_is_one_line_and_decodes_to_the_event(event: Any, offset: int) -> None:
    """`time` follows from the header, and is not kept as a field that nobody knows."""
    line = codec.encode_line(event, offset)

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert codec.decode(line) == event


@given(SMALL, NEWER)
def test_a_record_of_an_unknown_type_passes_unharmed(seq: int, fields: dict[str, Any]) -> None:
    """Also through an export, which adds the time: once."""
    body = {"type": "x_new", "seq": seq, "ts_boot_ns": 5, "origin": "core", "pid": 7} | fields
    event = codec.decode(json.dumps(body))
    line = codec.encode_line(event, 0)

    assert isinstance(event, Unknown)
    assert (event.seq, event.pid) == (seq, 7)
    assert codec.type_name(event) == "x_new"
    assert json.loads(codec.encode(event)) == body
    assert codec.encode_line(codec.decode(line), 0) == line
    assert line.count(b'"time"') == 1


def test_unknown_is_null_and_never_left_out() -> None:
    """Readers outside rely on every field being there, but those that few records have."""
    found = json.loads(codec.encode(Fork(1, 2, "core", pid=3)))
    rare = {field.name for field in msgspec.structs.fields(Fork) if field.default is UNSET}

    assert found["ppid"] is None
    assert set(found) == set(codec.FIELDS["fork"]) - {"time"} - rare


@given(st.binary(max_size=60) | ANY_JSON.map(lambda found: json.dumps(found).encode()))
def test_nonsense_is_a_recording_error(data: bytes) -> None:
    """No other exception comes out of a line that someone else wrote."""
    with contextlib.suppress(RecordingError):
        codec.decode(data)


@given(ANY_JSON, st.sampled_from(sorted(codec.CLASSES)))
def test_a_wrong_field_is_a_recording_error(value: Any, kind: str) -> None:
    """Known types are checked, not believed."""
    body = {"type": kind, "seq": value, "ts_boot_ns": value, "origin": value, "pid": value}
    with contextlib.suppress(RecordingError):
        codec.decode(json.dumps(body))


def test_a_header_comes_back() -> None:
    """With roots and fidelity, and with fields that this version does not know."""
    line = codec.encode_header(header(refused={"bcc": "no headers"}))
    newer = line.replace(b'{"type"', b'{"x_new":1,"type"')

    assert codec.decode_header(line) == header(refused={"bcc": "no headers"})
    assert codec.decode_header(newer) == codec.decode_header(line)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "does not begin with a header"),
        (b'{"type":"fork"}', "does not begin with a header"),
        (b'{"schema":"pidtrail.verdict/1"}', "does not begin with a header"),
        (b'{"type":"header","schema":"pidtrail.event/2"}', "this one reads pidtrail.event/1"),
        (b'{"type":"header","schema":"pidtrail.event/1"}', "not a header"),
    ],
)
def test_a_wrong_header_is_told_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(RecordingError, match=said) as caught:
        codec.decode_header(data)

    assert "\n" not in str(caught.value)


@given(st.integers(0, 0xFFFF))
def test_a_wait_status_is_an_exit_code_or_a_signal(wstatus: int) -> None:
    """Exactly one of the two is None (wait(2))."""
    exit_code, termsig, core_dumped = decode_wstatus(wstatus)

    assert (exit_code is None) != (termsig is None)
    assert termsig is None or 1 <= termsig <= 127
    assert not (core_dumped and termsig is None)


@given(st.integers())
def test_every_instant_has_a_time(epoch_ns: int) -> None:
    """A damaged recording may hold any number; writing it out must not end for that."""
    text = rfc3339(epoch_ns)

    assert len(text) == len("2026-01-31T08:00:00.000000001Z")
    assert abs(epoch_ns) > 2**62 or (epoch_ns_of_text(text) or 0) // 1000 == epoch_ns // 1000


def test_a_record_is_never_changed() -> None:
    """Frozen: labels are put on copies."""
    with pytest.raises(AttributeError):
        Exit(1, 2, "core").seq = 5  # type: ignore[misc]
    assert msgspec.structs.replace(Exit(1, 2, "core"), seq=5).seq == 5
