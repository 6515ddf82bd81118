"""What happens now, over the service's socket: told as it comes, and never waited for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidtrail.errors import PidtrailError
from pidtrail.events import Event, Fork, Lost
from pidtrail.service.client import Answer
from pidtrail.service.live import Live, Subscription
from pidtrail.service.protocol import Request
from tests.unit.asking import connection, head, serving
from tests.unit.test_service import births, until


def test_a_reader_gets_what_comes_from_then_on(tmp_path: Path) -> None:
    """The capture is asked once to tell who lives; the header is that of now."""
    live = Live(head())
    live.write(births(1, 3))
    assert not live.wants_snapshot()
    with serving(tmp_path / "history", live) as (_, path):
        answer = Answer(path, Request("live"))
        until(lambda: bool(live.readers))
        asked = live.wants_snapshot(), live.wants_snapshot()
        live.write(births(4, 600))
        live.write(births(604, 1))
        live.close()
        ((told, events),) = [(one, list(events)) for one, events in answer.boots()]

    assert asked == (True, False)
    assert told == head()
    assert events == births(4, 601)
    assert answer.problems == []


def test_a_reader_who_goes_is_forgotten(tmp_path: Path) -> None:
    """Also while nothing happens."""
    live = Live(head())
    with serving(tmp_path / "history", live) as (running, path):
        Answer(path, Request("live")).close()
        until(lambda: not live.readers and not running.clients)
        assert running.problems() == []


def test_the_end_of_the_service_is_told_from_the_end_of_the_capture(tmp_path: Path) -> None:
    live = Live(head())
    with serving(tmp_path / "history", live) as (running, path):
        answer = Answer(path, Request("live"))
        until(lambda: bool(live.readers))
        live.write(births(1, 1))
        boots = answer.boots()
        _, events = next(boots)
        first = next(events)
        running.stop()
        rest = list(events)
        answer.close()

    assert (first, rest) == (births(1, 1)[0], [])
    assert "was cut" in answer.problems[0]


def test_a_service_that_shows_nothing_live_says_so(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "history") as (_, path),
        pytest.raises(PidtrailError, match="does not show what happens now"),
    ):
        Answer(path, Request("live"))


def test_a_subscription_that_begins_after_the_end_ends(tmp_path: Path) -> None:
    live = Live(head())
    live.close()
    with serving(tmp_path / "history", live) as (_, path):
        told = [list(events) for _, events in Answer(path, Request("live")).boots()]

    assert told == [[]]


def taken(reader: Subscription) -> list[Event]:
    """Return all that a reader gets up to the end."""
    found: list[Event] = []
    while (events := reader.take()) is not None:
        found += events
    return found


def test_what_a_slow_reader_missed_is_counted() -> None:
    """Where it is missing: the number of the first, when the first and the last were."""
    reader = Subscription(most=10)
    for first in (1, 6, 11, 16):
        reader.put(births(first, 5))
    assert reader.held == 10
    early = [event for _ in range(2) for event in reader.take() or ()]
    reader.put(births(21, 5))
    reader.put(births(26, 50))
    reader.end()
    lost, *rest = taken(reader)
    (last,) = [one for one in rest if isinstance(one, Lost)]

    assert early == births(1, 10)
    assert isinstance(lost, Lost)
    assert (lost.seq, lost.count, lost.from_ns, lost.to_ns) == (11, 10, 11 * 10**9, 20 * 10**9)
    assert [one for one in rest if isinstance(one, Fork)] == births(21, 5)
    assert (last.seq, last.count) == (26, 50)


def test_a_slow_reader_holds_so_much_and_no_more(tmp_path: Path) -> None:
    """The capture goes on at its pace, whoever does not read."""
    live = Live(head())
    with serving(tmp_path / "history", live) as (_, path), connection(path) as raw:
        raw.sendall(b'{"schema":"pidtrail.request/1","want":"live"}\n')
        until(lambda: bool(live.readers))
        (reader,) = live.readers
        most = 0
        for first in range(1, 100_001, 500):
            live.write(births(first, 500))
            most = max(most, reader.held)

        assert reader.most - 1000 < most <= reader.most + 1
        assert reader.missed is not None
