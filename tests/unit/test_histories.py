"""What holds of the verdicts of any history, however its records arrive and whatever is missing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pidtrail.events import Event, Lost
from pidtrail.verdict.engine import judge_stream
from pidtrail.verdict.model import Report
from tests.unit.example_stories import EXAMPLES
from tests.unit.spoiled import SPOILED, holed
from tests.unit.story import FULL, header

CODES = st.sampled_from(sorted(EXAMPLES))
CHANCE = st.randoms(use_true_random=False)


def story(code: str) -> list[Event]:
    """Return the records of a history that one code is about."""
    return EXAMPLES[code]()[0].events


def judged(events: list[Event]) -> Report:
    """Return what is made of some records."""
    return judge_stream(header(FULL), iter(events), problems=[])


def told(events: list[Event]) -> bytes:
    """Return all that is made of some records, as `explain --json` tells it."""
    return msgspec.json.encode(judged(events))


@settings(max_examples=150, deadline=None)
@given(CODES, CHANCE)
def test_the_order_in_which_records_arrive_decides_nothing(code: str, chance: Random) -> None:
    """Several CPUs, a database and /proc tell of one history, each in its own time."""
    events = story(code)
    shuffled = chance.sample(events, len(events))

    assert told(shuffled) == told(events)


@settings(max_examples=150, deadline=None)
@given(CODES, CHANCE)
def test_hearing_a_record_twice_changes_no_verdict(code: str, chance: Random) -> None:
    """Delivery is at least once."""
    events = story(code)
    again = chance.choices(events, k=5)

    assert told(events + again) == told(events)


@settings(max_examples=400, deadline=None)
@given(CODES, st.lists(st.sampled_from(SPOILED), min_size=1, max_size=2), CHANCE)
def test_whatever_is_missing_no_number_is_said_to_have_changed(
    code: str, ways: list[Callable[[list[Event], Random], list[Event]]], chance: Random
) -> None:
    """And every verdict is a sentence: nothing fails, and no unknown reads `None`."""
    events = story(code)
    for way in ways:
        events = way(events, chance) or events
    verdicts = judged(events).verdicts

    assert not any(verdict.pid_changed_in_kernel for verdict in verdicts)
    assert not any("None" in verdict.summary for verdict in verdicts)
    assert all(v.unknowns for v in verdicts if v.code == "undetermined")


@settings(max_examples=200, deadline=None)
@given(CODES, st.sampled_from([None, 5]), CHANCE)
def test_nothing_is_proved_where_records_were_lost(
    code: str, count: int | None, chance: Random
) -> None:
    """A loss from the beginning to the end may have held anything."""
    events = holed(story(code), chance) or story(code)
    last_ns = max(event.ts_boot_ns for event in events)
    lost = Lost(9999, last_ns, "core", count=count, to_ns=last_ns, reason="ring full")
    verdicts = judged([*events, lost]).verdicts

    assert [v.code for v in verdicts if v.confidence == "proved"] == []
    assert [v.code for v in verdicts if v.code == "never-seen"] == []
