"""Further roots while a source is open: it starts anew for nobody, and misses nothing of theirs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pidtrail.events import Event, Exec, Exit, Fork, Lost
from pidtrail.sources import proc
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.source import Source
from tests.contract.conftest import SOURCES, made
from tests.contract.story import Story
from tests.programs.build import program

ALL = SOURCES | {"connector": (ConnectorSource, [pytest.mark.needs_root])}
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
PATIENCE_S = 60
GROUPS, SIZE = 2, 3


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in ALL.items()])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Return a source that is not open yet, and close it in the end."""
    yield from made(request, ALL[request.param][0])


def read_until(source: Source, events: list[Event], condition: Callable[[], bool]) -> None:
    """Read until something holds."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        events += source.read()
        time.sleep(0.005)


def pids(events: list[Event], kind: type | None = None) -> set[int | None]:
    """Return whom records speak of, or those of one kind."""
    return {event.pid for event in events if kind is None or isinstance(event, kind)}


@pytest.mark.parametrize("first", [True, False], ids=["beside another", "after nothing"])
def test_a_further_root_is_followed_with_all_below_it(
    source: Source, tmp_path: Path, first: bool
) -> None:
    """
    Its tree is in the next snapshot, and each end in it is told.

    So are those of the root that was there from the start, and no record was lost for it.
    """
    stop = tmp_path / "stop"
    events: list[Event] = []
    with Story(source, "lives", "3") as story:
        story.source.open([story.process.pid] if first else [])
        source.snapshot()
        command = [str(program("crowd")), str(stop), str(GROUPS), str(SIZE), "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crowd:
            assert crowd.stdout is not None
            for _ in range(1 + GROUPS * (1 + SIZE)):
                crowd.stdout.readline()
            tree = {crowd.pid, *descendants(crowd.pid)}
            assert len(tree) == 1 + GROUPS * (1 + SIZE)
            events += source.read()
            seen_before = pids(events)
            source.follow([crowd.pid])
            shown = pids(source.snapshot())
            stop.touch()
            read_until(source, events, lambda: tree <= pids(events, Exit))
        story.release()
        read_until(source, events, story.root_gone)
        if first:
            read_until(source, events, lambda: story.process.pid in pids(events, Exit))

    assert seen_before & tree == set()
    assert tree <= shown
    assert (story.process.pid in shown) == first
    assert [event for event in events if isinstance(event, Lost)] == []
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers))


def test_what_a_followed_process_starts_is_told(source: Source) -> None:
    """Births and programs after it are records, as if it had been a root from the start."""
    events: list[Event] = []
    source.open([])
    with subprocess.Popen(
        [sys.executable, "-c", "input(); import os; os.execv('/bin/cat', ['cat'])"],
        stdin=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        source.follow([process.pid])
        shown = pids(source.snapshot())
        process.stdin.write(b"\n")
        read_until(source, events, lambda: process.pid in pids(events, Exec))
        process.stdin.close()
        read_until(source, events, lambda: process.pid in pids(events, Exit))

    assert shown == {process.pid}
    assert pids(events, Fork) == set()


def test_who_is_gone_is_passed_over(source: Source) -> None:
    """A root that ended before it could be followed is no error, and the source goes on."""
    source.open([])
    with subprocess.Popen(["true"]) as process:
        process.wait()
    source.follow([process.pid])

    assert source.snapshot() == []
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        source.follow([sleeper.pid])
        assert pids(source.snapshot()) == {sleeper.pid}
        sleeper.kill()


def test_a_root_does_not_hand_its_number_on(source: Source) -> None:
    """Whoever gets the number of a root that ended is none."""
    with subprocess.Popen(["sleep", "60"]) as root:
        source.open([])
        source.follow([root.pid])
        source.snapshot()
        root.kill()
    events: list[Event] = []
    read_until(source, events, lambda: root.pid in pids(events, Exit))
    source.read()
    with with_number(root.pid) as stranger:
        time.sleep(0.01)
        shown = {(event.pid, event.start_ticks) for event in source.snapshot()}
        stranger.kill()

    assert (stranger.pid, root.pid) == (root.pid, root.pid)
    assert shown == set()


def with_number(pid: int) -> subprocess.Popen[bytes]:
    """Return a process with that number: others fork too, so it takes a few attempts."""
    for _ in range(200):
        LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["sleep", "60"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise AssertionError(f"somebody else has {pid}: {proc.comm(pid)}")


def descendants(pid: int) -> Iterator[int]:
    """Yield the pids below a process."""
    for child in proc.children_of_all().get(pid, ()):
        yield child
        yield from descendants(child)
