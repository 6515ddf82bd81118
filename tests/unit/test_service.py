"""The service's socket: what it answers, and whom it does not let wait, fill or fool it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pidtrail import __version__, codec
from pidtrail.errors import PidtrailError
from pidtrail.events import EVENT_SCHEMA, Event, Fork
from pidtrail.history import History, numbered
from pidtrail.keeper import Keeper
from pidtrail.service import client, server
from pidtrail.service.client import Answer
from pidtrail.service.endpoint import Endpoint
from pidtrail.service.protocol import MAX_REQUEST_BYTES, REQUEST_SCHEMA, NoService, Request, line
from tests.unit.asking import (
    PATIENCE_S,
    WIDE,
    ask,
    connection,
    head,
    in_order,
    keep,
    lines,
    serving,
    two_tries,
)
from tests.unit.story import OFFSET_NS, SECOND

HISTORY = line(Request("history"))


def births(first: int, count: int) -> list[Event]:
    """Return so many births, with consecutive numbers."""
    return [
        Fork(n, n * SECOND, "core", pid=n, start_ticks=n * 100) for n in range(first, first + count)
    ]


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fails if it does not come to be."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a history is kept; the socket is beside it."""
    return tmp_path / "history"


# --- the answer


def test_the_answer_is_what_a_reader_of_the_folder_gets(folder: Path) -> None:
    """Of each boot, each record once, although every segment tells again what holds."""
    story, before = two_tries()
    keep(folder, story.events[:before], story.events[before:])
    other: dict[str, Any] = {"boot_id": "11111111-0000-4000-8000-000000000000"}
    keep(folder, births(1, 1200), births(1201, 3), wall_offset_ns=OFFSET_NS + 900 * SECOND, **other)
    with serving(folder) as (_, path):
        told, answer = ask(path)

    assert told == [(boot.header, list(boot.events())) for boot in History(folder).boots()]
    assert [len(events) for _, events in told] == [len(story.events), 1203]
    assert answer.problems == []


def test_the_answer_grows_with_the_segment_that_is_written(folder: Path) -> None:
    """Committed is told, at once, and the writer is in nobody's way."""
    ours = head()
    keeper = Keeper(folder, WIDE, (ours.boot_id, ours.pid_ns))
    keeper.begin(ours)
    with serving(folder) as (_, path):
        counts = []
        for first in (1, 11, 21):
            keeper.write(births(first, 10))
            ((_, events),), _ = ask(path)
            counts.append(len(events))
    keeper.close()

    assert counts == [10, 20, 30]


def test_a_segment_ends_and_goes_while_it_is_sent(folder: Path) -> None:
    """An asker who reads slowly holds neither the writer up nor the bounds of the history."""
    keep(folder, births(1, 50_000))
    ours = head()
    with serving(folder) as (_, path):
        answer = Answer(path, Request("history"))
        boots = answer.boots()
        _, events = next(boots)
        first = [next(events) for _ in range(500)]
        keeper = Keeper(folder, WIDE, (ours.boot_id, ours.pid_ns))
        began = time.monotonic()
        keeper.begin(ours)
        keeper.write(births(50_001, 10))
        keeper.begin(ours)
        keeper.close()
        took = time.monotonic() - began
        numbered(folder)[0][1].unlink()
        rest = list(events)
        answer.close()

    assert keeper.problem is None
    assert took < server.SEND_SECONDS / 2
    assert first + rest == births(1, 50_000)


def test_since_an_instant_only_the_segments_from_then_on_travel(folder: Path) -> None:
    """Who lived then is in them, born long before: a segment tells again what holds."""
    keep(folder, births(1, 10), births(11, 10), births(21, 10))
    with serving(folder) as (_, path):
        ((_, events),), answer = ask(path, OFFSET_NS + 15 * SECOND)
        with connection(path) as raw:
            raw.sendall(line(Request("history", OFFSET_NS + 15 * SECOND)))
            parts = [one["name"] for one in lines(raw) if isinstance(one, dict) and "name" in one]

    assert parts == [path.name for _, path in numbered(folder)[1:]]
    assert events == births(1, 30)
    assert answer.problems == []


def test_an_earlier_boot_is_not_needed_since_the_last_one(folder: Path) -> None:
    """What lived before it had ended when the host booted again."""
    keep(folder, births(1, 10))
    later = OFFSET_NS + 1000 * SECOND
    keep(folder, births(1, 5), boot_id="other", wall_offset_ns=later)
    with serving(folder) as (_, path):
        since = [[one.boot_id for one, _ in ask(path, at)[0]] for at in (later, later - 1)]

    assert since == [["other"], [head().boot_id, "other"]]


def test_fields_of_a_newer_pidtrail_are_passed_on(folder: Path) -> None:
    """A batch that is not plain goes record by record, and nothing of it is dropped."""
    newer = [codec.decode(b'{"type":"fork","seq":1,"ts_boot_ns":1,"origin":"core","x_new":7}')]
    newer += [codec.decode(b'{"type":"x_newer","seq":2,"ts_boot_ns":2,"origin":"core","y":[1]}')]
    keep(folder, newer)
    with serving(folder) as (_, path):
        ((_, events),), _ = ask(path)

    assert [codec.to_object(one) for one in events] == [codec.to_object(one) for one in newer]


def test_what_is_damaged_is_said_and_the_rest_is_told(folder: Path) -> None:
    """As by a reader of the folder: the same records, the hole as a loss, the same problem."""
    keep(folder, births(1, 3000), births(3001, 3000), births(6001, 10))
    damaged = numbered(folder)[1][1]
    os.truncate(damaged, damaged.stat().st_size // 2)
    (boot,) = History(folder).boots()
    expected = list(boot.events())
    with serving(folder) as (_, path):
        ((_, events),), answer = ask(path)

    assert events == expected
    assert len(boot.problems) == 1
    assert answer.problems == boot.problems


def test_a_history_without_records_is_told_as_such(folder: Path) -> None:
    folder.mkdir()
    with (
        serving(folder) as (_, path),
        pytest.raises(PidtrailError, match="has recorded nothing yet"),
    ):
        Answer(path, Request("history"))


def test_an_answer_that_is_cut_is_told_from_a_whole_one(folder: Path) -> None:
    """What came before is good."""
    keep(folder, births(1, 50_000))
    with serving(folder) as (running, path):
        answer = Answer(path, Request("history"))
        boots = answer.boots()
        _, events = next(boots)
        first = next(events)
        running.stop()
        rest = list(events)
        answer.close()

    assert first == births(1, 1)[0]
    assert rest == births(2, len(rest))
    assert len(rest) < 49_999
    (problem,) = answer.problems
    assert "was cut" in problem


# --- who asks badly


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no request of pidtrail's"),
        (b"\xff\xfe\x00\n", "no request of pidtrail's"),
        (b"[" * 3000 + b"\n", "no request of pidtrail's"),
        (b'{"schema":"pidtrail.request/1","want":"\xff"}\n', "does not understand"),
        (b'{"want":"history"}\n', "no request of pidtrail's"),
        (b'{"schema":"pidtrail.request/1","want":"the moon"}\n', "does not understand"),
        (b'{"schema":"pidtrail.request/1","want":"history","since_ns":"x"}\n', "since_ns"),
        (
            b'{"schema":"pidtrail.request/2","version":"9.9","ask":{}}\n',
            f"is pidtrail {__version__} and understands {REQUEST_SCHEMA}; pidtrail 9.9 asked with",
        ),
        (b"x" * (MAX_REQUEST_BYTES + 1), "at most 4096 bytes"),
        (b"x" * 10_000_000, "at most 4096 bytes"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_what_is_no_request_gets_one_error_and_is_closed(
    folder: Path, asked: bytes, said: str
) -> None:
    with serving(folder) as (running, path):
        with connection(path) as raw:
            try:
                raw.sendall(asked)
            except (BrokenPipeError, ConnectionResetError):
                assert len(asked) > MAX_REQUEST_BYTES
            (error,) = lines(raw)
        until(lambda: not running.clients)

    assert error["type"] == "error"
    assert said in error["message"]


def test_half_a_request_is_an_error(folder: Path) -> None:
    with serving(folder) as (_, path), connection(path) as raw:
        raw.sendall(HISTORY[:-5])
        raw.shutdown(socket.SHUT_WR)
        (error,) = lines(raw)

    assert error["message"] == "the request ends in the middle"


def test_who_asks_nothing_is_let_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also who sends a byte now and then: the whole request has its time."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    both, heard = threading.Event(), server.heard
    monkeypatch.setattr(server, "heard", lambda asker: both.wait(PATIENCE_S) and heard(asker))
    with serving(folder) as (running, path):
        with connection(path) as silent, connection(path) as dripping:
            until(lambda: len(running.clients) == 2)
            both.set()
            try:
                while running.clients:
                    dripping.send(b" ")
                    time.sleep(0.02)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answers = [lines(silent), lines(dripping)]
        until(lambda: not running.clients)

    assert [error["message"] for (error,) in answers] == ["nothing was asked within 0 s"] * 2


def test_who_goes_without_asking_is_nobody(folder: Path) -> None:
    with serving(folder) as (running, path):
        with connection(path):
            pass
        until(lambda: not running.clients)
        assert running.problems() == []


def test_who_does_not_read_is_let_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch waits for him, no more, and then nobody does."""
    monkeypatch.setattr(server, "SEND_SECONDS", 0.2)
    keep(folder, births(1, 20_000))
    with serving(folder) as (running, path), connection(path) as raw:
        raw.sendall(HISTORY)
        until(lambda: len(running.clients) == 1)
        until(lambda: not running.clients)

        assert running.problems() == [
            "1 askers at the service's socket did not take their answer in time"
        ]
        assert {"type": "end"} not in lines_until_cut(raw)


def lines_until_cut(raw: socket.socket) -> list[Any]:
    """Return the whole lines of an answer that was cut."""
    said = b""
    while more := raw.recv(1 << 16):
        said += more
    return [msgspec.json.decode(one) for one in said.split(b"\n")[:-1]]


def test_an_answer_as_a_whole_has_its_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps a place for ever by reading a little now and then."""
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.0)
    keep(folder, births(1, 20_000))
    with serving(folder) as (running, path):
        ((_, events),), answer = ask(path)

        assert len(running.problems()) == 1
    assert 0 < len(events) < 20_000
    assert "was cut" in answer.problems[0]


def test_askers_of_one_user_are_few(folder: Path) -> None:
    """One too many is told so, and has a place when another is done."""
    keep(folder, births(1, 1))
    with serving(folder) as (running, path):
        held = [socket.socket(socket.AF_UNIX) for _ in range(server.MOST_OF_USER)]
        for one in held:
            one.connect(path)
        until(lambda: len(running.clients) == server.MOST_OF_USER)
        refusal = rf"4 others of user {os.geteuid()} are asking \(ask again later\)"
        with pytest.raises(PidtrailError, match=refusal):
            Answer(path, Request("history"))
        held.pop().close()
        until(lambda: len(running.clients) < server.MOST_OF_USER)
        told, _ = ask(path)
        for one in held:
            one.close()

        assert running.problems() == ["1 requests came of users of whom 4 were answered"]
    assert len(told) == 1


def test_four_at_once_get_the_same(folder: Path) -> None:
    keep(folder, births(1, 3_000))
    told: list[list[Event]] = []
    with serving(folder) as (_, path):

        def one() -> None:
            ((_, events),), _ = ask(path)
            told.append(events)

        askers = [threading.Thread(target=one) for _ in range(server.MOST_OF_USER)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

    assert told == [births(1, 3_000)] * server.MOST_OF_USER


# --- its place


def test_the_socket_is_the_owners_and_the_groups(folder: Path) -> None:
    with serving(folder) as (_, path):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o660
    assert not Path(path).exists()


def test_the_socket_of_a_killed_agent_is_replaced(folder: Path) -> None:
    keep(folder, births(1, 1))
    path = str(folder.with_name("pidtrail.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    with serving(folder) as (_, path):
        assert len(ask(path)[0]) == 1


def test_the_socket_of_a_living_agent_is_left_alone(folder: Path) -> None:
    keep(folder, births(1, 1))
    with serving(folder) as (_, path):
        with pytest.raises(PidtrailError, match="another process does"):
            server.Server(path, folder)
        assert len(ask(path)[0]) == 1


def test_the_socket_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Also of one that is too busy to accept, and what is no socket."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen(0)
        with pytest.raises(PidtrailError, match="another process does"):
            Endpoint(str(tmp_path / "other"), None)
        # Nobody accepted the first question, and there is no room for a second one.
        with pytest.raises(PidtrailError, match="another process does"):
            Endpoint(str(tmp_path / "other"), None)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(PidtrailError, match="it is there and no socket"):
        Endpoint(str(tmp_path / "file"), None)

    assert (tmp_path / "file").read_text() == "precious"


def test_a_place_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PidtrailError, match=r"cannot listen at .*: No such file or directory"):
        Endpoint(str(tmp_path / "nowhere/pidtrail.sock"), None)


def test_a_successor_keeps_its_socket_when_the_one_before_it_ends(tmp_path: Path) -> None:
    """Somebody removed the socket and its lock; both listen, and only the newer has the path."""
    path = tmp_path / "pidtrail.sock"
    first = Endpoint(str(path), None)
    path.unlink()
    path.with_name("pidtrail.sock.lock").unlink()
    second = Endpoint(str(path), None)
    first.close()

    assert path.is_socket()
    second.close()
    assert not path.exists()


# --- the other side


def test_without_a_service_that_is_said(tmp_path: Path) -> None:
    """Nothing there, and the socket of one that was killed."""
    with pytest.raises(NoService, match="no service runs here to ask at"):
        Answer(str(tmp_path / "pidtrail.sock"), Request("history"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with pytest.raises(NoService, match="no service runs here to ask at"):
        Answer(str(tmp_path / "dead"), Request("history"))


@contextlib.contextmanager
def answering(path: Path, said: bytes) -> Iterator[str]:
    """Be another service, which says this to the first who asks."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        def answer() -> None:
            made, _ = other.accept()
            with made:
                made.recv(1 << 16)
                made.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        yield str(path)
        thread.join()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "does not answer|ends in the middle"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be read"),
        (b'{"type":"error","message":"no","hint":"later","code":7}\n', r"^no \(later\)$"),
        (b'{"type":"header","schema":"pidtrail.event/2"}\n', "pidtrail.event/2"),
    ],
)
def test_another_service_is_one_clear_line(
    tmp_path: Path, said: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is newer, older, or none of ours."""
    monkeypatch.setattr(client, "WAIT_SECONDS", PATIENCE_S)
    with answering(tmp_path / "other", said) as path, pytest.raises(PidtrailError, match=why):
        Answer(path, Request("history"))


def test_a_service_that_stands_still_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WAIT_SECONDS", 0.2)
    path = str(folder.with_name("pidtrail.sock"))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(PidtrailError, match="does not answer: timed out"):
            Answer(path, Request("history"))


def test_newer_lines_of_an_answer_are_passed_over(tmp_path: Path) -> None:
    """A field that is not known, and a record of a type that is not known."""
    start = msgspec.json.decode(codec.encode_header(head())) | {"x_new": 1}
    said = [
        start,
        {"type": "part", "name": "1", "version": "9", "after": 0, "x_new": 2},
        {"type": "x_newer", "seq": 1, "ts_boot_ns": 1, "origin": "core"},
        [{"type": "fork", "seq": 2, "ts_boot_ns": 2, "origin": "core", "x_new": 3}],
        {"type": "end", "x_new": 4},
    ]
    assert start["schema"] == EVENT_SCHEMA
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in said)
    with answering(tmp_path / "newer", lines) as path:
        ((_, events),), got = ask(path)

    first, second = map(codec.to_object, events)
    assert first == said[2]
    assert (second["seq"], second["x_new"]) == (2, 3)
    assert got.problems == []


def test_events_of_stories_have_one_number_each() -> None:
    """What the tests above rest on."""
    story, before = two_tries()

    assert in_order(story.events) == story.events
    assert 0 < before < len(story.events)
