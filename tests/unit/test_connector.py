"""
The connector's book of processes, when messages are lost and /proc shows something else.

Messages come through a socket of our own, and /proc is a directory.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.clock import TICK_NS
from pidtrail.events import Event, Exec, Exit, Fork, Lost, Observed
from pidtrail.sources import proc
from pidtrail.sources.connector import ConnectorSource
from tests.unit.messages import Kernel

ROOT, CHILD, STRANGER = 10, 20, 5
NOW = 1000
"""In ticks: the time of most of what happens."""


class World:
    """A /proc, a kernel that sends messages, and a source between them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.kernel = Kernel()
        self.source = ConnectorSource()
        self.here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.here.setblocking(False)
        self.source.socket = self.here
        self.there.send(self.kernel.exec(STRANGER, 0))
        self.add(ROOT, 1, 500)
        self.source.adopt([ROOT])
        self.source.read()

    def add(self, pid: int, ppid: int, start: int, state: str = "S", threads: int = 1) -> None:
        """Let a process be there, or be there in another state."""
        folder = self.place / str(pid)
        folder.mkdir(exist_ok=True)
        numbers = [ppid, 1, 1, *[0] * 13, threads, 0, start, *[0] * 30]
        (folder / "stat").write_text(f"{pid} (x) {state} {' '.join(map(str, numbers))}\n")
        (folder / "cmdline").write_bytes(b"x\0")

    def remove(self, pid: int) -> None:
        """Let a process be gone."""
        shutil.rmtree(self.place / str(pid))

    def hear(self, *messages: bytes) -> list[Event]:
        """Let messages arrive and return what the source makes of them."""
        for message in messages:
            self.there.send(message)
        return [event for _ in range(2) for event in self.source.read()]

    def fork(self, parent: int = ROOT, pid: int = CHILD, start: int = NOW) -> bytes:
        """Let a process be born, and be there."""
        self.add(pid, parent, start)
        return self.kernel.fork(parent, pid, start * TICK_NS)

    def exit(self, pid: int = CHILD, code: int = 0, tid: int | None = None) -> bytes:
        """Let a thread end now."""
        return self.kernel.exit(pid, (NOW + 5) * TICK_NS, code, tid)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(proc, "PROC", tmp_path)
    made = World(tmp_path)
    yield made
    made.source.close()
    made.there.close()


def of(kind: type[Event], events: list[Event], pid: int = CHILD) -> list[Event]:
    """Return the records of one kind about one process."""
    return [event for event in events if isinstance(event, kind) and event.pid == pid]


def test_a_life_is_told(world: World) -> None:
    """Birth, image and end of a process that was heard of from its first moment on."""
    told = world.hear(world.fork(), world.kernel.exec(CHILD, NOW * TICK_NS), world.exit(code=256))

    assert [type(event) for event in told] == [Fork, Exec, Exit]
    assert {event.start_ticks for event in told} == {NOW}
    assert [e.exit_code for e in told if isinstance(e, Exit)] == [1]


def test_the_end_of_one_thread_is_no_end(world: World) -> None:
    """Threads are counted; the last one ends the process."""
    birth, thread = world.fork(), world.kernel.fork(CHILD, 21, NOW * TICK_NS, tgid=CHILD)
    assert of(Exit, world.hear(birth, thread, world.exit())) == []
    assert len(of(Exit, world.hear(world.exit(code=512, tid=21)))) == 1


def test_a_number_that_went_to_a_stranger_is_not_followed(world: World) -> None:
    """The end of ours was lost; who is born with its number to others is none of ours."""
    world.hear(world.fork())
    world.kernel.forget()
    born = world.fork(STRANGER, CHILD, NOW + 20)
    told = world.hear(born, world.kernel.exec(CHILD, (NOW + 20) * TICK_NS), world.exit())

    assert [type(event) for event in told] == [Lost]


def test_a_stranger_whose_birth_was_lost_too_is_not_followed(world: World) -> None:
    """Also not when it forks, or becomes another program: /proc shows another start."""
    world.hear(world.fork())
    world.kernel.forget(2)
    world.add(CHILD, STRANGER, NOW + 20)
    late = (NOW + 30) * TICK_NS
    world.add(30, CHILD, NOW + 30)
    told = world.hear(world.kernel.exec(CHILD, late), world.kernel.fork(CHILD, 30, late))

    assert [type(event) for event in told] == [Lost]


def test_a_look_after_a_loss_does_not_take_in_a_stranger(world: World) -> None:
    """A snapshot shows who is there of ours, not who has a number of ours."""
    world.hear(world.fork())
    world.kernel.forget(2)
    world.add(CHILD, STRANGER, NOW + 20)
    world.hear(world.kernel.exec(STRANGER, NOW * TICK_NS))

    assert [event.pid for event in world.source.snapshot()] == [ROOT]
    world.hear()
    assert set(world.source.members) == {ROOT}


def test_an_end_that_is_only_late_is_heard(world: World) -> None:
    """Gone from /proc while its exit is still in the buffer: it ended with that exit."""
    world.hear(world.fork())
    world.kernel.forget()
    world.remove(CHILD)
    assert [event.pid for event in world.source.snapshot()] == [ROOT]

    assert len(of(Exit, world.hear(world.exit()))) == 1


def test_members_whose_end_was_lost_are_forgotten(world: World) -> None:
    """A hundred lost ends leave nothing behind once somebody has looked."""
    for pid in range(100, 200):
        world.hear(world.fork(pid=pid))
    for pid in range(100, 200):
        world.remove(pid)
    world.kernel.forget(100)
    world.hear(world.kernel.exec(STRANGER, NOW * TICK_NS))
    world.source.snapshot()
    world.hear()

    assert set(world.source.members) == {ROOT}


def test_a_thread_whose_birth_was_lost_does_not_end_the_process(world: World) -> None:
    """One exit more than births that were heard: /proc says that it lives, and with how many."""
    world.hear(world.fork())
    world.kernel.forget()
    world.add(CHILD, ROOT, NOW, threads=2)
    assert of(Exit, world.hear(world.exit(tid=21))) == []

    world.add(CHILD, ROOT, NOW, state="Z")
    assert [e.exit_code for e in world.hear(world.exit(code=768)) if isinstance(e, Exit)] == [3]


def test_a_thread_whose_end_was_lost_does_not_keep_the_process_alive(world: World) -> None:
    """The last exit that is heard is the end, whatever was counted before."""
    world.hear(world.fork(), world.kernel.fork(CHILD, 21, NOW * TICK_NS, tgid=CHILD))
    world.kernel.forget()
    world.add(CHILD, ROOT, NOW, state="Z")

    assert len(of(Exit, world.hear(world.exit()))) == 1
    assert set(world.source.members) == {ROOT}


def test_threads_born_while_we_attach_are_not_counted_twice(world: World) -> None:
    """Their births are in the buffer and in /proc already; the end comes all the same."""
    world.add(ROOT, 1, 500, threads=2)
    world.hear(world.kernel.fork(ROOT, 11, NOW * TICK_NS, tgid=ROOT))
    world.hear(world.exit(ROOT, tid=11))
    world.remove(ROOT)

    assert len(of(Exit, world.hear(world.exit(ROOT)), ROOT)) == 1


def test_who_is_found_and_heard_of_is_one_process(world: World) -> None:
    """Adopted from /proc while its birth is still in the buffer, and gone when that is read."""
    birth = world.fork()
    (found,) = of(Observed, world.source.snapshot())
    world.remove(CHILD)

    told = world.hear(birth, world.exit())
    assert [event.key for event in told] == [found.key, found.key]


def test_a_birth_that_was_told_late_is_no_other_process(world: World) -> None:
    """The kernel was interrupted between taking the start and telling of it, as on a busy host."""
    world.add(CHILD, ROOT, NOW)
    (found,) = of(Observed, world.source.snapshot())

    (birth,) = world.hear(world.kernel.fork(ROOT, CHILD, (NOW + 7) * TICK_NS))
    assert birth.key == found.key


def test_a_message_of_no_known_form_is_a_loss_and_no_end(world: World) -> None:
    """Of any length: it is told, and the next one is understood."""
    told = world.hear(b"", b"x" * 17, world.fork()[:40], world.fork())

    assert [type(event) for event in told[:3]] == [Lost] * 3
    assert len(of(Fork, told)) == 1
