"""The connector's messages: right values in, right fields out, None for everything else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.sources import cnproc
from pidtrail.sources.cnproc import Message
from tests.unit.messages import message

U32 = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("what", "payload", "told"),
    [
        (cnproc.FORK, struct.pack("=4I", 5, 4, 9, 9), {"pid": 9, "tgid": 9, "parent_tgid": 4}),
        (cnproc.FORK, struct.pack("=4I", 4, 4, 6, 4), {"pid": 6, "tgid": 4, "parent_tgid": 4}),
        (cnproc.EXEC, struct.pack("=2I", 9, 9), {"pid": 9, "tgid": 9}),
        (
            cnproc.EXIT,
            struct.pack("=6I", 9, 9, 0x0300, 17, 5, 4),
            {"pid": 9, "tgid": 9, "exit_code": 0x0300, "parent_tgid": 4},
        ),
        (cnproc.COMM, struct.pack("=2I", 9, 9) + b"naeme\0rest", {"pid": 9, "tgid": 9}),
        (0x00000004, struct.pack("=4I", 9, 8, 1, 2), {"pid": 9, "tgid": 8}),
    ],
)
def test_fields_are_where_the_kernel_puts_them(
    what: int, payload: bytes, told: dict[str, int]
) -> None:
    """Include/uapi/linux/cn_proc.h, one event of each kind, and one we have no use for."""
    comm = "naeme" if what == cnproc.COMM else None

    assert cnproc.parse(message(what, payload)) == Message(what, 1, 7, 99, **told, comm=comm)


@given(st.binary(max_size=cnproc.MESSAGE_BYTES))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    """Nothing is raised, whatever comes out of the socket."""
    found = cnproc.parse(data)
    assert found is None or isinstance(found, Message)


@given(st.sampled_from([cnproc.FORK, cnproc.EXEC, cnproc.COMM, cnproc.EXIT, 4]), st.data())
def test_a_message_cut_short_is_none(what: int, data: st.DataObject) -> None:
    """Whatever is missing of what the event needs, the parser does not read on."""
    needed = {cnproc.FORK: 16, cnproc.EXIT: 24, cnproc.COMM: 24}.get(what, 8)
    whole = message(what, bytes(24))
    length = data.draw(st.integers(0, cnproc.HEAD.size + needed - 1))

    assert cnproc.parse(whole[:length]) is None


@given(st.sampled_from([cnproc.FORK, cnproc.EXEC, cnproc.COMM, cnproc.EXIT]), U32, U32, st.data())
def test_any_values_come_back(what: int, cpu: int, counter: int, data: st.DataObject) -> None:
    """Counter, CPU and time are what a loss is counted by; names are text, of any bytes."""
    stamp = data.draw(st.integers(0, 2**64 - 1))
    payload = data.draw(st.binary(min_size=24, max_size=24))
    found = cnproc.parse(message(what, payload, cpu=cpu, counter=counter, stamp=stamp))

    assert found is not None
    assert (found.what, found.cpu, found.counter, found.monotonic_ns) == (what, cpu, counter, stamp)
    assert (found.comm is not None) == (what == cnproc.COMM)


def test_another_connector_is_none() -> None:
    """Messages of other users of the connector have another index."""
    data = bytearray(message(cnproc.FORK, bytes(16)))
    data[16] = 3

    assert cnproc.parse(bytes(data)) is None
