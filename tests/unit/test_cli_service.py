"""`explain` and `tree` without FILE: the running service's history, judged like a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pidtrail import cli
from pidtrail.cli.logs import log
from pidtrail.cli.since import Since
from pidtrail.events import Event
from pidtrail.store import Recorder
from tests.unit.asking import FIRST_PID, SECOND_PID, head, keep, serving, two_tries
from tests.unit.story import OFFSET_NS, SECOND, at
from tests.unit.test_cli import Outcome

COMMANDS: list[list[str]] = [
    ["explain"],
    ["explain", "--json"],
    ["explain", "--try", "2", "--json"],
    ["tree"],
    ["tree", "--json"],
    ["tree", "--task", "sales.load"],
]


@pytest.fixture
def pidtrail(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command line in this process."""

    def run(*args: str | Path) -> Outcome:
        log.configure("text")
        status = cli.run([str(arg) for arg in args])
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err)

    return run


@pytest.fixture
def asked(pidtrail: Any, tmp_path: Path) -> Any:
    """Return a function that runs a command against a service over the story of two tries."""
    story, before = two_tries()
    keep(tmp_path / "history", story.events[:before], story.events[before:])

    def run(*args: str) -> Any:
        with serving(tmp_path / "history") as (_, path):
            return pidtrail(*args, "--socket", path)

    run.story = story  # type: ignore[attr-defined]
    return run


def recorded(path: Path, events: list[Event]) -> Path:
    """Write the same as one recording."""
    recorder = Recorder(path, head())
    recorder.write(events)
    recorder.close()
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_service_is_judged_as_a_recording_of_the_same(
    pidtrail: Any,
    asked: Any,
    tmp_path: Path,
    command: list[str],
) -> None:
    """To the letter, whatever segments its history has."""
    file = recorded(tmp_path / "session.db", asked.story.events)
    of_file, of_service = pidtrail(*command, file), asked(*command)

    assert (of_service.status, of_service.err) == (0, "")
    assert of_service.out == of_file.out
    assert str(asked.story.pids[SECOND_PID]) in of_service.out


def test_a_message_is_explained_by_what_the_service_saw(asked: Any) -> None:
    """The run that it is about, found by its pids."""
    first, second = asked.story.pids[FIRST_PID], asked.story.pids[SECOND_PID]
    told = asked(
        "explain",
        "--message",
        f"Recorded pid {first} does not match the current pid {second}",
        "--json",
    )
    said = json.loads(told.out)
    verdicts = said["report"]["verdicts"]

    assert [verdict["task"]["try_number"] for verdict in verdicts] == [1, 2]
    assert all(number["seen"] for number in said["messages"][0]["pids"])


def test_a_message_is_explained_without_a_service_too(pidtrail: Any, tmp_path: Path) -> None:
    """What it means, without who it was, and nothing is wrong with that."""
    nowhere = str(tmp_path / "pidtrail.sock")
    told = pidtrail(
        "explain", "--message", "Recorded pid 1 does not match the current pid 2", "--socket",
        nowhere, "--json",
    )  # fmt: skip

    assert (told.status, told.err) == (0, "")
    assert json.loads(told.out)["report"] is None


def test_a_service_that_gives_no_answer_to_a_message_is_said(pidtrail: Any, tmp_path: Path) -> None:
    """The line's meaning is known all the same."""
    (tmp_path / "history").mkdir()
    with serving(tmp_path / "history") as (_, path):
        told = pidtrail("explain", "--message", "Recorded pid 1 does not match the current pid 2",
                        "--socket", path)  # fmt: skip

    assert told.status == 0
    assert "recorded nothing yet" in told.err
    assert "recorded-pid" in told.out


def test_the_place_of_the_socket_may_stand_in_the_environment(
    pidtrail: Any,
    asked: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del asked
    with serving(tmp_path / "history") as (_, path):
        monkeypatch.setenv("PIDTRAIL_SOCKET", path)
        told = pidtrail("explain", "--json")

    assert len(json.loads(told.out)["verdicts"]) == 2


def test_since_holds_for_a_service_from_now_and_from_an_instant(
    asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lived then, in full: its ancestors were born long before."""
    story = asked.story
    second_ns = story.starts[SECOND_PID]
    instant = asked("explain", "--since", at(second_ns - SECOND), "--json")
    monkeypatch.setattr("time.time_ns", lambda: second_ns + 3 * SECOND + OFFSET_NS)
    span = asked("explain", "--since", "3s", "--json")
    told = [json.loads(one.out)["verdicts"] for one in (instant, span)]

    assert told[0] == told[1]
    (verdict,) = told[0]
    assert verdict["task"]["try_number"] == 2
    (runner,) = [one for one in verdict["processes"] if one["role"] == "runner"]
    assert [link["role"] for link in runner["chain"]] == ["runner", "supervisor", "scheduler"]


def test_a_tree_since_an_instant_is_that_of_a_recording(
    pidtrail: Any, asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the service the segment with the second try alone is needed; the first one's is over."""
    story = asked.story
    file = recorded(tmp_path / "session.db", story.events)
    moment = story.starts[SECOND_PID] - SECOND
    monkeypatch.setattr("time.time_ns", lambda: moment + 3 * SECOND + OFFSET_NS)
    told = [
        [process["pid"] for process in json.loads(one.out)["processes"]]
        for one in (
            pidtrail("tree", file, "--since", at(moment), "--json"),
            asked("tree", "--since", at(moment), "--json"),
            asked("tree", "--since", "3s", "--json"),
        )
    ]

    assert told[0] == told[1] == told[2]
    assert story.pids[SECOND_PID] in told[0]
    assert story.pids[FIRST_PID] not in told[0]


def test_two_boots_are_judged_apart_and_told_together(pidtrail: Any, tmp_path: Path) -> None:
    """The same numbers of another boot are other processes; each verdict's boot is known."""
    story, before = two_tries()
    later = OFFSET_NS + 900 * SECOND
    keep(tmp_path / "history", story.events[:before])
    keep(tmp_path / "history", story.events, boot_id="other", wall_offset_ns=later)
    with serving(tmp_path / "history") as (_, path):
        told = json.loads(pidtrail("explain", "--json", "--socket", path).out)
        tree = json.loads(pidtrail("tree", "--json", "--socket", path).out)
        people = pidtrail("explain", "--socket", path)

    assert told["boot_id"] == tree["boot_id"] == "other"
    assert [verdict.get("boot_id") for verdict in told["verdicts"]] == [head().boot_id, None, None]
    assert [verdict["code"] for verdict in told["verdicts"]] == ["match", "retry", "match"]
    assert people.status == 0


def test_damage_in_the_history_is_said_once(pidtrail: Any, tmp_path: Path) -> None:
    """On stderr and in the report; the rest is judged."""
    story, before = two_tries()
    keep(tmp_path / "history", story.events[:before], story.events[before:])
    newest = max((tmp_path / "history").glob("*.db"))
    newest.write_bytes(newest.read_bytes()[:6000])
    with serving(tmp_path / "history") as (_, path):
        told = pidtrail("explain", "--json", "--socket", path)

    assert told.status == 0
    assert told.err.count(newest.name) == 1
    assert newest.name in " ".join(json.loads(told.out)["unknowns"])
    assert json.loads(told.out)["verdicts"][0]["task"]["try_number"] == 1


def test_spans_are_those_of_the_option() -> None:
    """What the tests above rest on."""
    assert Since.read("3s") == Since(span_ns=3 * SECOND)
