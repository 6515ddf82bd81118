"""Strategies for records: every class of event, with every field that it has."""

from __future__ import annotations

import typing
from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from pidtrail import events
from pidtrail.codec import CLASSES
from pidtrail.events import Event, Header, Record, TaskRef

SMALL = st.integers(0, 2**31 - 1)
BIG = st.integers(0, 2**63 - 1)
# What JSON can carry: no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXT)
TASKS = st.builds(
    TaskRef,
    dag_id=st.none() | TEXT,
    task_id=st.none() | TEXT,
    run_id=st.none() | TEXT,
    map_index=st.none() | st.integers(-1, 100),
    try_number=st.none() | st.integers(0, 100),
    ti_id=st.none() | TEXT,
)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    UnsetType: st.just(UNSET),
    int: BIG,
    str: TEXT,
    bool: st.booleans(),
    TaskRef: TASKS,
    list[int]: st.lists(SMALL, max_size=4),
    list[str]: st.lists(TEXT, max_size=4),
    dict[str, str]: st.dictionaries(TEXT, TEXT, max_size=3),
    dict[str, Any]: st.dictionaries(TEXT, PLAIN, max_size=3),
}
# Names that no version knows.
NEWER = st.dictionaries(st.sampled_from(["x_new", "x_newer", "x_newest"]), PLAIN, min_size=1)


def of_class(cls: type[Record], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return records of a class: each field as annotated, None where that is allowed."""
    hints = typing.get_type_hints(cls, vars(events))
    fields = {}
    for name in cls.__struct_fields__:
        if name == "extra":
            fields[name] = st.just(UNSET) | NEWER
            continue
        options = [
            st.none() if kind is type(None) else BY_TYPE[kind]
            for kind in typing.get_args(hints[name]) or (hints[name],)
        ]
        fields[name] = st.one_of(*options)
    return st.builds(cls, **(fields | given))


EVENTS: st.SearchStrategy[Event] = st.one_of(*[of_class(cls) for cls in CLASSES.values()])


def header(**changes: Any) -> Header:
    """Return a header as the source `core` would write it."""
    values: dict[str, Any] = {
        "schema": events.EVENT_SCHEMA,
        "host": "worker-1",
        "boot_id": "846f58f0-ff71-43c5-8a81-ced5b95e0000",
        "clk_tck": 100,
        "wall_offset_ns": 1_769_846_400_000_000_000,
        "source": "core",
        "fidelity": events.Fidelity(
            has_argv=True,
            has_titles=True,
            has_wstatus=True,
            has_start_ns=True,
            has_counters=True,
            has_signals=True,
            sees_short_lived=True,
            counts_loss=True,
        ),
        "roots": [events.Root(100, 1000)],
        "version": "0.1.0",
    }
    return Header(**(values | changes))
