"""
`pidtrail trace` as a user meets it: statuses, signals, broken pipes, full disks.

Each test runs the real command with the real kernel source.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pidtrail.store import Recording
from pidtrail.tree import grow
from tests.programs.nobody import as_nobody

pytestmark = [pytest.mark.needs_bpf, pytest.mark.needs_root]
PIDTRAIL = [sys.executable, "-m", "pidtrail"]
SHELL_WORDS = shlex.join(PIDTRAIL)
DEADLINE_S = 30


def trace(
    *arguments: str, before: Sequence[str] = (), env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `pidtrail trace`, with words `before` the command, to its end; return what it said."""
    return subprocess.run(
        [*before, *PIDTRAIL, "trace", *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=DEADLINE_S,
        check=False,
        env=env,
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start `pidtrail trace` and return when it has attached."""
    process = subprocess.Popen(
        [*PIDTRAIL, "--log-format", "json", "trace", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"attached"' in line:
            return process
    raise AssertionError(f"never attached, status {process.wait()}")


def events(path: Path) -> list[str]:
    """Return the types of the events of a recording, in order."""
    recording = Recording(path)
    return [type(event).__name__ for event in recording.events()]


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)],
)
def test_the_status_is_that_of_the_command(command: str, status: int) -> None:
    """With -- CMD the exit status is CMD's, 128+N by signal."""
    assert trace("--format", "none", "--", "sh", "-c", command).returncode == status


def test_a_command_that_does_not_exist_is_127(tmp_path: Path) -> None:
    """As a shell says it, with one line."""
    done = trace("--format", "none", "--", str(tmp_path / "nothing"))

    assert done.returncode == 127
    assert [line for line in done.stderr.splitlines() if "nothing" in line] == [
        f"pidtrail: {tmp_path / 'nothing'}: No such file or directory"
    ]


def test_a_command_that_cannot_be_executed_is_126(tmp_path: Path) -> None:
    """A file without the right to execute it."""
    plain = tmp_path / "plain"
    plain.write_text("not a program")

    assert trace("--format", "none", "--", str(plain)).returncode == 126


def test_an_empty_command_is_no_command() -> None:
    """As a shell says it of an empty word."""
    done = trace("--format", "none", "--", "")

    assert done.returncode == 127
    assert done.stderr.splitlines()[-1] == "pidtrail: '': No such file or directory"


def test_a_thread_is_not_followed_in_place_of_its_process() -> None:
    """/proc/TID is there, but forks and ends are told of processes."""
    until = threading.Event()
    thread = threading.Thread(target=until.wait)
    thread.start()
    try:
        done = trace("--pid", str(thread.native_id))
    finally:
        until.set()
        thread.join()

    assert done.returncode == 1
    assert done.stderr.startswith(
        f"pidtrail: {thread.native_id} is a thread of process {os.getpid()}"
    )


def test_it_does_not_trace_itself() -> None:
    """A source leaves out the agent, so nothing would be told."""
    command = f"exec {SHELL_WORDS} trace --duration 1 --pid $$"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "does not trace itself" in done.stderr


def test_a_duration_that_is_no_number_is_wrong_usage() -> None:
    """`nan` is later than no instant, and would never come."""
    done = trace("--duration", "nan", "--", "true")

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_home_that_may_not_be_entered_stops_nothing() -> None:
    """As under setpriv, which leaves HOME as it was: root's."""
    done = trace(
        "--source", "procfs", "--format", "none", "--", "true", before=as_nobody(),
        env=os.environ | {"HOME": "/proc/1/root/nowhere"},
    )  # fmt: skip

    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_nohup_keeps_the_session() -> None:
    """A signal that is ignored when we start stays ignored."""
    shell = f"trap '' HUP; exec {SHELL_WORDS} --log-format json trace -- sleep 2"
    process = subprocess.Popen(["sh", "-c", shell], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert '"attached"' in process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 0


def test_a_closed_stderr_ends_no_session() -> None:
    """What is said there is said to nobody; the events go on."""
    command = f"exec {SHELL_WORDS} trace --format jsonl -- sh -c 'exit 3' 2>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode == 3
    assert [
        json.loads(line)["exit_code"] for line in done.stdout.splitlines() if '"exit"' in line
    ] == [3]


def test_no_room_for_the_stream_ends_the_command(tmp_path: Path) -> None:
    """As behind a closed pipe; nobody would look after it any more."""
    marker = tmp_path / "pid"
    room = tmp_path / "room"
    room.mkdir()
    loop = f"echo $$ > {marker}; while :; do /bin/true; done"
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {room} && exec {SHELL_WORDS} trace "
        f'--format jsonl -- sh -c "{loop}" > {room}/events'
    ).replace("$$", "\\$\\$")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "pidtrail: No space left on device"
    assert not Path(f"/proc/{marker.read_text().strip()}").exists()


def test_a_process_that_does_not_exist_is_one_line() -> None:
    """A wrong --pid is an operational failure."""
    done = trace("--pid", "4194399")

    assert (done.returncode, done.stderr) == (1, "pidtrail: no process 4194399\n")


def test_nothing_to_follow_is_wrong_usage() -> None:
    """Neither a pid, nor Airflow, nor a command."""
    done = trace()

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_who_may_not_is_told_what_is_missing() -> None:
    """Without capabilities one line names them and points to doctor."""
    done = trace("--source", "core", "--format", "none", "--", "true", before=as_nobody())

    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "CAP_BPF" in line
    assert "doctor" in line


def test_stdout_of_jsonl_holds_nothing_but_events() -> None:
    """The command's own output goes to stderr; the first line is the header."""
    done = trace("--format", "jsonl", "--", "sh", "-c", "echo mine; true")

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "header"
    assert {"exec", "exit", "reap"} <= {line["type"] for line in lines}
    assert "mine" in done.stderr


def test_sequence_numbers_have_no_holes() -> None:
    """Whatever record it is, the stream counts on by one."""
    done = trace("--format", "jsonl", "--", "sh", "-c", "for i in 1 2 3 4 5; do /bin/true; done")

    numbers = [json.loads(line)["seq"] for line in done.stdout.splitlines()[1:]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_argv_with_invalid_utf8_and_escapes_is_one_valid_line() -> None:
    """What a process calls itself cannot break the stream."""
    done = trace("--format", "jsonl", "--", "sh", "-c", "/bin/echo '\x1b[31m' $(printf '\\377')")

    execs = [json.loads(line) for line in done.stdout.splitlines() if '"exec"' in line]
    assert ["/bin/echo", "\x1b[31m", "\ufffd"] in [line["argv"] for line in execs]


def test_what_a_process_calls_itself_reaches_the_terminal_escaped() -> None:
    """The tree shows control characters, it does not send them."""
    done = trace("--", "sh", "-c", "/bin/echo '\x1b[31m' >/dev/null")

    assert "\x1b" not in done.stdout
    assert "\\x1b[31m" in done.stdout


def test_the_recording_holds_what_the_stream_showed(tmp_path: Path) -> None:
    """The same events come out of the file that went to stdout."""
    path = tmp_path / "session.db"
    done = trace("--format", "jsonl", "-o", str(path), "--", "sh", "-c", "true; /bin/true")
    exported = subprocess.run(
        [*PIDTRAIL, "export", str(path), "--to", "jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert exported.stdout == done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["session.db"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_session_and_loses_nothing(tmp_path: Path, number: int) -> None:
    """Everything up to the signal is in the recording, and the command is not left behind."""
    path = tmp_path / "session.db"
    process = start(
        "--format", "none", "-o", str(path), "--", "sh", "-c", "/bin/true; exec sleep 60"
    )
    wait_for_events(path, 3)

    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 128 + number
    tree = grow(Recording(path).events())
    assert all(node.exit is not None for node in tree.nodes.values())


def test_a_killed_session_keeps_all_but_the_last_second(tmp_path: Path) -> None:
    """SIGKILL of trace itself: what was captured up to the last batch is there."""
    path = tmp_path / "session.db"
    loop = "while :; do /bin/true; sleep 0.05; done"
    process = start("--format", "none", "-o", str(path), "--", "sh", "-c", loop)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    wait_for_events(path, 40)

    killed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    process.kill()
    for pid in children:
        os.kill(int(pid), signal.SIGKILL)
    process.communicate(timeout=DEADLINE_S)

    recorded = list(Recording(path).events())
    assert killed_ns - max(event.ts_boot_ns for event in recorded) < 1_000_000_000


def test_nobody_reading_ends_the_session_and_the_command(tmp_path: Path) -> None:
    """`| head -1`: trace ends like any program that writes to a closed pipe."""
    marker = tmp_path / "pid"
    script = f"echo $$ > {marker}; while :; do /bin/true; done"
    process = start("--format", "jsonl", "--", "sh", "-c", script)
    assert process.stdout is not None
    # Ended at its first event, the command might not have said yet who it is.
    for line in process.stdout:
        if '"/bin/true"' in line:
            break
    process.stdout.close()
    process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 128 + signal.SIGPIPE
    assert not Path(f"/proc/{marker.read_text().strip()}").exists()


def test_a_full_disk_is_said_and_the_session_goes_on(tmp_path: Path) -> None:
    """On a file system with no room left the events are still shown, and the status is CMD's."""
    script = (
        f"mount -t tmpfs -o size=256k tmpfs {tmp_path} && exec {SHELL_WORDS} trace "
        f"--format jsonl -o {tmp_path}/session.db -- sh -c "
        "'i=0; while [ $i -lt 800 ]; do /bin/true; i=$((i+1)); done; exit 5'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
        check=False,
    )

    assert done.returncode == 5
    assert sum('"type":"exec"' in line for line in done.stdout.splitlines()) == 801
    assert "full" in done.stderr


def test_duration_ends_an_attached_session(tmp_path: Path) -> None:
    """A session on a running process ends by itself and leaves the process alone."""
    # Of whom it traces it looks for an Airflow's logs, and this machine may have one.
    elsewhere = os.environ | {"AIRFLOW_HOME": str(tmp_path / "none")}
    sleeper = subprocess.Popen(["sleep", "60"], env=elsewhere)
    try:
        path = tmp_path / "session.db"
        done = trace(
            "--pid", str(sleeper.pid), "--duration", "0.5", "--format", "none", "-o", str(path)
        )

        assert done.returncode == 0
        assert sleeper.poll() is None
        assert events(path) == ["Observed"]
    finally:
        sleeper.kill()
        sleeper.wait()


def test_an_attached_session_ends_with_its_processes() -> None:
    """When all that was followed has ended there is nothing left to watch."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as waiting:
        process = start("--pid", str(waiting.pid), "--format", "none")
    process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 0


def test_an_existing_file_that_is_no_recording_is_not_overwritten(tmp_path: Path) -> None:
    """-o never destroys something else."""
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")

    done = trace("--format", "none", "-o", str(precious), "--", "true")

    assert done.returncode == 1
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nonexistent/airflow.db",
        "postgresql://u:s3cret@127.0.0.1:1/x",
        "nonsense",
        "a://b",
    ],
)
def test_a_database_that_cannot_be_read_does_not_stop_the_session(url: str) -> None:
    """Tracing goes on; the reason is said once, without a password."""
    done = trace("--airflow-db", url, "--", "sh", "-c", "exit 4")

    assert done.returncode == 4
    assert "s3cret" not in done.stdout + done.stderr
    assert "database" in done.stderr


def test_every_migration_is_a_record_when_asked_for() -> None:
    """The events and the kernel's own counter agree."""
    script = (
        "import os\n"
        "for turn in range(200):\n"
        "    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(os.getppid()))[turn % 2]})\n"
    )
    done = trace("--migrations", "--format", "jsonl", "--", sys.executable, "-c", script)

    lines = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    moves = [line for line in lines if line["type"] == "migrate"]
    ends = [line for line in lines if line["type"] == "exit"]
    assert len({line["pid"] for line in moves}) == 1
    assert len(moves) == ends[-1]["migrations"]
    assert len(moves) > 100


def wait_for_events(path: Path, count: int) -> None:
    """Wait until a recording that is being written holds so many events."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if path.exists() and len(events(path)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never had {count} events")


def test_a_process_that_outlives_the_command_is_named() -> None:
    """A command may end without what it started; who reads the end learns of it."""
    done = trace("--format", "none", "--", "sh", "-c", "sleep 5 >&- 2>&- & echo $!")

    assert f"still running count=1 pids=[{done.stdout.strip()}]" in done.stderr


def test_nothing_is_said_to_run_that_has_ended() -> None:
    done = trace("--format", "none", "--", "sh", "-c", "sleep 0.2 & wait")

    assert "still running" not in done.stderr
