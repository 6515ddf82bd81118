"""`explain --message` with what people paste: marks of pages, pipes, secrets, broken text."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from pidtrail import cli
from pidtrail.airflow.messages import readings

ALARM = "Recorded pid 22693 does not match the current pid 22706"
LOST = "The recorded hostname {} does not match this instance's hostname b"


def say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> tuple[int, str, str]:
    """Return status, stdout and stderr of `explain` where no service runs."""
    monkeypatch.setenv("PIDTRAIL_SOCKET", "/nonexistent")
    status = cli.run(["explain", *args])
    done = capsys.readouterr()
    return status, done.out, done.err


@pytest.mark.parametrize(
    "line",
    [
        "Recorded pid **22693** does not match the current pid **22706**",
        "*Recorded pid 22693 does not match the current pid 22706*",
        "<p>Recorded pid <b>22693</b> does not match<br>the current <a href='x'>pid 22706</a>",
        "&lt;code&gt;Recorded pid 22693 does not match the current pid 22706&lt;/code&gt;",
        "> Recorded pid 22693 does not match the current pid 22706",
        "RECORDED PID: 22693 DOESN\u2019T MATCH THE CURRENT PID: 22706",
    ],
)
def test_what_marks_words_in_pages_and_chats_is_left_out(line: str) -> None:
    (found,) = readings(line)

    assert [mention.value for mention in found.pids] == ["22693", "22706"]


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ("Recorded pid 22693 does not mat", ["22693"]),
        ("recorded pid does not match the current pid", []),
        ("Recorded pid <pid1> does not match the current pid <pid2>", []),
    ],
)
def test_a_message_without_its_numbers_is_known_all_the_same(part: str, numbers: list[str]) -> None:
    (found,) = readings(part)

    assert found.message.kind == "recorded-pid"
    assert [mention.value for mention in found.pids] == numbers


@pytest.mark.parametrize(
    "line",
    [
        "Recorded pid 22,693 does not match the current pid 22,706",
        "Recorded pid 22.693 does not match the current pid 22.706",
        "Task running elsewhere current_pid: 22,693",
    ],
)
def test_a_piece_of_a_number_is_no_number(line: str) -> None:
    """A page that shows numbers in groups of three must not make 22 of 22,693."""
    (found,) = readings(line)

    assert found.pids == []


def test_a_log_may_come_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With - it is read from stdin, however long, of which the end counts as the beginning does."""
    log = b"x" * 3_000_000 + f"\n{ALARM}\n".encode() + b"\xff"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log)))

    status, out, _ = say(monkeypatch, capsys, "--message", "-")

    assert status == 0
    assert out.startswith("recorded-pid")


@pytest.mark.parametrize(
    ("secret", "line"),
    [
        ("s3cret", LOST.format("postgresql://airflow:s3cret@db/airflow")),
        ("hunter2", f"AIRFLOW__CORE__FERNET_KEY=hunter2 {LOST.format('a')}"),
        ("ghp_" + "a1" * 18, f"externally set to ghp_{'a1' * 18}. Terminating instance"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_secret_in_a_message_is_not_said_again(
    secret: str,
    line: str,
    form: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is said of a line goes into incidents."""
    status, out, err = say(monkeypatch, capsys, "--message", line, *form)

    assert status == 0
    assert secret not in out + err


def test_bytes_that_are_no_text_can_be_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON has the replacement character for them, as arguments of a process may hold any byte."""
    status, out, err = say(
        monkeypatch, capsys, "--json", "--message", LOST.format(os.fsdecode(b"h\xff"))
    )

    assert (status, err) == (0, "")
    assert json.loads(out)["messages"][0]["words"][0]["value"] == "h\ufffd"


def test_a_message_about_no_task_says_so_and_has_no_verdicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A web worker's PID is taken for a task's by many; it is told whose it is."""
    line = "[7] [ERROR] Worker (pid:38) was sent SIGKILL! Perhaps out of memory?"

    status, out, _ = say(monkeypatch, capsys, "--message", line)

    assert status == 0
    assert "They run no task" in out
    assert "verdicts" not in out
