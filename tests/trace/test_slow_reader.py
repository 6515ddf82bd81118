"""
Who reads the output of `trace` slowly, or not at all, holds up neither capture nor recording.

With real pipes and a real terminal, readers that are really stopped, and a real storm.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from pidtrail import codec
from pidtrail.errors import RecordingError
from pidtrail.events import Event, Lost
from pidtrail.sinks.feed import MOST_BYTES
from pidtrail.store import Recording
from tests.programs.build import program
from tests.unit.test_service import until

pytestmark = [pytest.mark.needs_bpf, pytest.mark.needs_root]
FORKS = 25_000
"""Three records each, of 300 bytes as a line: more than is held."""
SOME_FORKS = 1_000
"""More than a pipe holds."""
WAITING = "waiting for the reader of stdout"


class Session:
    """`pidtrail trace` in a process of its own, with this as its stdout."""

    def __init__(self, stdout: int, *arguments: str | Path) -> None:
        # Below nohup(1) SIGHUP would be ignored, as pidtrail leaves it.
        heard = ["env", "--default-signal=HUP"]
        command = [*heard, sys.executable, "-m", "pidtrail", "--log-format", "json", "trace"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)], stdout=stdout, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.stderr = self.process.stderr
        os.close(stdout)

    def __enter__(self) -> Self:
        """Be there as long as the test needs it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Be gone, however the test ended."""
        self.process.kill()
        self.process.wait()
        self.stderr.close()

    def says(self, word: str) -> None:
        """Wait until it says this on stderr."""
        for line in self.stderr:
            if word in line:
                return
        raise AssertionError(f"it never said {word}, status {self.process.wait()}")

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Send it a signal if one is named, and return its status and what else it said."""
        if number is not None:
            self.process.send_signal(number)
        _, said = self.process.communicate()
        return self.process.returncode, said


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe of which nobody reads; the session closes the end for writing."""
    read, write = os.pipe()
    yield read, write
    os.close(read)


def storm(count: int) -> list[str]:
    """Return the command for a storm."""
    return [str(program("storm")), str(count), "1"]


def recorded(path: Path) -> list[Event]:
    """Return what is in a recording."""
    recording = Recording(path)
    try:
        return list(recording.events())
    finally:
        recording.close()


def is_whole(events: list[Event], forks: int) -> bool:
    """Return whether nothing is missing: each number, and each birth and end of a storm."""
    numbers = [event.seq for event in events]
    kinds = [codec.type_name(event) for event in events]
    return (
        numbers == list(range(1, len(numbers) + 1))
        and (kinds.count("fork"), kinds.count("lost")) == (forks, 0)
        # The storm's own too.
        and kinds.count("exit") == forks + 1
    )


def test_a_stopped_reader_misses_what_the_recording_has(tmp_path: Path) -> None:
    """
    The storm runs to its end and is recorded while the reader stands still.

    Then he gets the beginning and the end, in order and with one `lost` record between them
    that says exactly what he missed, which the recording has.
    """
    path, lines = tmp_path / "session.db", tmp_path / "lines"
    options = ["--format", "jsonl", "-o", str(path), "--", *storm(FORKS)]
    with (
        lines.open("wb") as target,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=target) as reader,
    ):
        assert reader.stdin is not None
        reader.send_signal(signal.SIGSTOP)
        with Session(os.dup(reader.stdin.fileno()), *options) as session:
            reader.stdin.close()
            session.says(WAITING)
            assert lines.stat().st_size == 0
            before = recorded(path)
            reader.send_signal(signal.SIGCONT)
            status, said = session.end()
    header, *told = lines.read_text().splitlines()
    read = list(map(codec.decode, told))
    (lost,) = [event for event in read if isinstance(event, Lost)]
    assert lost.count is not None
    first, after = lost.seq, lost.seq + lost.count
    missed = before[first - 1 : after - 1]

    assert status == 0
    assert is_whole(before, FORKS)
    assert f'"missed": {lost.count}' in said
    assert codec.decode_header(header) == Recording(path).header
    assert read == [*before[: first - 1], lost, *before[after - 1 :]]
    assert (lost.from_ns, lost.to_ns) == (missed[0].ts_boot_ns, missed[-1].ts_boot_ns)
    assert lost.reason == "the reader of stdout was too slow"
    assert lines.stat().st_size < 1.2 * MOST_BYTES


def test_a_second_interrupt_leaves_who_does_not_read(pipe: tuple[int, int], tmp_path: Path) -> None:
    """The first ends the session, which waits; the recording is whole by then."""
    path = tmp_path / "session.db"
    shell = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    options = ("--format", "jsonl", "-o", path, "--pid", str(shell.pid))
    with shell, Session(pipe[1], *options) as session:
        assert shell.stdin is not None
        assert shell.stdout is not None
        session.says("attached")
        shell.stdin.write(shlex.join(storm(SOME_FORKS)) + "\n")
        shell.stdin.flush()
        shell.stdout.readline()
        session.process.send_signal(signal.SIGINT)
        session.says(WAITING)
        before = recorded(path)
        left = session.end(signal.SIGINT)
        shell.kill()

    assert left == (130, "")
    assert sum(codec.type_name(event) == "fork" for event in before) == SOME_FORKS + 1
    assert not any(isinstance(event, Lost) for event in before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_status_is_the_commands_whoever_did_not_read(
    pipe: tuple[int, int], number: int
) -> None:
    command = f"{shlex.join(storm(SOME_FORKS))}; exit 7"
    with Session(pipe[1], "--format", "jsonl", "--", "sh", "-c", command) as session:
        session.says(WAITING)

        assert session.end(number) == (7, "")


def test_a_reader_who_goes_while_he_is_waited_for_ends_it_quietly() -> None:
    """As `head` does."""
    read, write = os.pipe()
    with Session(write, "--format", "jsonl", "--", *storm(SOME_FORKS)) as session:
        session.says(WAITING)
        os.close(read)

        assert session.end() == (128 + signal.SIGPIPE, "")


def test_a_stopped_terminal_stops_nothing(tmp_path: Path) -> None:
    """Ctrl-S there: the storm runs to its end and is recorded, and Ctrl-C is heard."""
    path = tmp_path / "session.db"
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    with Session(theirs, "--format", "jsonl", "-o", path, "--", *storm(SOME_FORKS)) as session:
        session.says(WAITING)
        before = recorded(path)
        left = session.end(signal.SIGINT)
    os.close(ours)

    assert is_whole(before, SOME_FORKS)
    assert left == (0, "")


def test_a_tree_that_nobody_reads_can_be_interrupted(pipe: tuple[int, int]) -> None:
    """What is printed at the end fills the pipe; all is captured by then."""
    fcntl.fcntl(pipe[0], fcntl.F_SETPIPE_SZ, 4096)
    every = f"for i in $(seq 100); do sh -c '/bin/true; :' $i {'x' * 200}; done"
    way_in = os.dup(pipe[1])
    with Session(pipe[1], "--", "sh", "-c", every) as session:
        until(lambda: not select.select([], [way_in], [], 0)[1])
        status, said = session.end(signal.SIGINT)
    os.close(way_in)

    assert (status, [json.loads(line)["event"] for line in said.splitlines()]) == (
        0, ["attached", "ended"],
    )  # fmt: skip


def test_a_reader_who_is_only_slow_gets_all(pipe: tuple[int, int]) -> None:
    """More than a pipe holds, less than is held for him: he is waited for."""
    with Session(pipe[1], "--format", "jsonl", "--", *storm(SOME_FORKS)) as session:
        session.says(WAITING)
        with os.fdopen(os.dup(pipe[0]), "rb") as file:
            header, *lines = map(json.loads, file)
        status, _ = session.end()

    assert (status, header["type"]) == (0, "header")
    assert is_whole(list(map(codec.from_object, lines)), SOME_FORKS)


def has_all(path: Path) -> bool:
    """Return whether a recording that is being written has a storm by now."""
    try:
        return is_whole(recorded(path), SOME_FORKS)
    except RecordingError:
        # Not there, or just being made.
        return False


def test_a_log_that_nobody_reads_holds_up_nothing(pipe: tuple[int, int], tmp_path: Path) -> None:
    """A full pipe as stderr: the command begins, is recorded to its end, and then is told of."""
    path = tmp_path / "session.db"
    os.set_blocking(pipe[1], False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(pipe[1], b"x")
    os.set_blocking(pipe[1], True)
    command = [
        sys.executable,
        "-m",
        "pidtrail",
        "--log-format",
        "json",
        "trace",
        "--format",
        "none",
    ]
    with subprocess.Popen(
        [*command, "-o", path, "--", *storm(SOME_FORKS)],
        stdout=subprocess.DEVNULL, stderr=pipe[1],
    ) as session:  # fmt: skip
        os.close(pipe[1])
        until(lambda: has_all(path))
        with os.fdopen(os.dup(pipe[0]), "rb") as file:
            said = file.read()

    assert session.returncode == 0
    assert said[:filled] == b"x" * filled
    lines = [json.loads(line) for line in said[filled:].splitlines()]
    assert [line["event"] for line in lines] == ["attached", "ended"]
