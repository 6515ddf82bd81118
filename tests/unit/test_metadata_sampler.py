"""The thread that polls: it never stalls its owner and picks a database up again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from pidtrail.airflow.sampler import Sampler
from pidtrail.errors import DatabaseError
from pidtrail.events import AirflowFact, Event

PATIENCE_S = 30


class Stub:
    """A database whose next answers are given; an exception is raised, None hangs."""

    problem: str | None = None

    def __init__(self) -> None:
        self.failing: Exception | None = None
        self.hang = threading.Event()
        self.hang.set()
        self.polls: list[int] = []
        self.closed = False

    def poll(self, ts_boot_ns: int) -> list[Event]:
        """Answer, hang, or fail."""
        self.polls.append(ts_boot_ns)
        self.hang.wait(20)
        if self.failing is not None:
            raise self.failing
        return [AirflowFact(seq=0, ts_boot_ns=ts_boot_ns, origin="stub")]

    def close(self) -> None:
        """Take note."""
        self.closed = True


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.hang.set()


def until(true: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_records_bear_the_boot_time_of_their_poll(stub: Stub) -> None:
    sampler = Sampler(stub, interval_s=0.01)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    sampler.start()
    until(lambda: len(stub.polls) > 3)
    sampler.stop()

    times = [event.ts_boot_ns for event in sampler.drain()]
    assert times == stub.polls
    assert before <= times[0] <= times[-1] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert sampler.drain() == []
    assert stub.closed


def test_a_poke_polls_at_once(stub: Stub) -> None:
    sampler = Sampler(stub, interval_s=60)
    sampler.start()
    until(lambda: len(stub.polls) == 1)

    sampler.poke()

    until(lambda: len(stub.polls) == 2)
    sampler.stop(final_poll=False)
    assert len(stub.polls) == 2


def test_stopping_polls_once_more(stub: Stub) -> None:
    sampler = Sampler(stub, interval_s=60)
    sampler.start()
    until(lambda: len(stub.polls) == 1)

    sampler.stop()
    sampler.stop()

    assert len(stub.polls) == len(sampler.drain()) == 2


def test_a_database_that_comes_late_is_picked_up_and_was_no_lasting_problem(stub: Stub) -> None:
    stub.failing = DatabaseError("x.db does not exist")
    sampler = Sampler(stub, interval_s=0.01)
    assert sampler.problems() == ["Airflow's database has not answered yet"]
    sampler.start()
    until(lambda: bool(stub.polls))
    until(lambda: sampler.problems() == ["x.db does not exist"])

    stub.failing = None
    until(lambda: bool(sampler.drain()))

    assert sampler.problems() == []
    sampler.stop()


def test_a_database_that_went_away_remains_a_problem(stub: Stub) -> None:
    """What was overwritten meanwhile nobody has seen."""
    sampler = Sampler(stub, interval_s=0.01)
    sampler.start()
    until(lambda: bool(sampler.drain()))
    stub.failing = DatabaseError("gone")
    until(lambda: sampler.problems() == ["gone"])
    stub.failing = None
    sampler.drain()
    until(lambda: bool(sampler.drain()))
    sampler.stop()

    assert sampler.problems() == ["gone"]


def test_errors_are_followed_by_longer_and_longer_rests(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidtrail.airflow.sampler._FIRST_BACKOFF_S", 0.2)
    stub.failing = DatabaseError("gone")
    sampler = Sampler(stub, interval_s=0.01)
    sampler.start()
    until(lambda: len(stub.polls) >= 4)
    sampler.stop(final_poll=False)

    rests_s = [(after - before) / 1e9 for before, after in pairwise(stub.polls[:4])]
    assert all(rest >= least for rest, least in zip(rests_s, (0.19, 0.39, 0.79), strict=True))


def test_a_hanging_database_stalls_nobody_and_is_left_behind(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidtrail.airflow.sampler._STOP_LIMIT_S", 0.3)
    stub.hang.clear()
    sampler = Sampler(stub)
    sampler.start()
    until(lambda: bool(stub.polls))

    began = time.monotonic()
    assert sampler.drain() == []
    sampler.poke()
    sampler.stop()

    # It would answer after twenty seconds.
    assert 0.3 <= time.monotonic() - began < 10
    assert "Airflow's database did not answer the last question in time" in sampler.problems()


def test_an_unforeseen_error_is_a_problem_without_its_text(stub: Stub) -> None:
    stub.failing = ValueError("hunter2")
    sampler = Sampler(stub)
    sampler.start()
    until(lambda: sampler.problems() == ["reading Airflow's database failed: ValueError"])
    stub.failing = None
    until(lambda: bool(sampler.drain()))
    sampler.stop()


def test_what_the_schema_lacks_is_said_once(stub: Stub) -> None:
    stub.problem = "lacks x"
    sampler = Sampler(stub, interval_s=0.01)
    sampler.start()
    until(lambda: len(stub.polls) > 3)
    sampler.stop()

    assert sampler.problems() == ["lacks x"]


def test_stopping_what_never_started_is_nothing(stub: Stub) -> None:
    Sampler(stub).stop()

    assert stub.polls == []
