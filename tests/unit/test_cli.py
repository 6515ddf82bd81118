from __future__ import annotations

import inspect
import io
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from pidtrail import cli
from pidtrail.cli.logs import log
from pidtrail.clock import rfc3339
from pidtrail.errors import PidtrailError
from pidtrail.events import (
    Event,
    Exec,
    Exit,
    Fork,
    Observed,
    Reap,
    Signal,
    TaskRef,
    TaskReported,
    Title,
)
from pidtrail.sinks.jsonl import JsonLines
from pidtrail.store import Recorder
from tests.unit.records import header

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000_000
RUN = "manual__2026-01-31T08:00:00+00:00"
TASK = TaskRef("sales", "load", RUN, -1, 1)
TI_LOG = f"/logs/dag_id=sales/run_id={RUN}/task_id=load/attempt=1.log"
NASTY = "\x1b[31mevil\n\u202e"


def story() -> list[Event]:
    """Return a 2.x scheduler that runs one task instance, whose pid is recorded rightly."""

    def at(cls: Any, second: float, pid: int | None, **fields: Any) -> Event:
        ticks = None if pid is None else pid
        made: Event = cls(0, int(second * SECOND), "core", pid=pid, start_ticks=ticks, **fields)
        return made

    command = ["airflow", "tasks", "run", "sales", "load", RUN, "--local"]
    counted = {"migrations": 3, "voluntary_switches": 20, "involuntary_switches": 4}
    told = [
        at(Observed, 10, 100, ppid=1, argv=["airflow", "scheduler"], comm="airflow"),
        at(Fork, 11, 200, ppid=100, parent_start_ticks=100, comm="airflow"),
        at(Title, 12, 200, title=f"airflow task supervisor: {command}"),
        at(Fork, 13, 300, ppid=200, parent_start_ticks=200, comm="airflow"),
        at(Title, 14, 300, title=f"airflow task runner: sales load {RUN} 7"),
        at(Observed, 14.5, 300, ppid=200, parent_start_ticks=200, log_path=TI_LOG),
        at(TaskReported, 15, None, task=TASK, recorded_pid=300, state="running", via="db"),
        at(Fork, 16, 400, ppid=300, parent_start_ticks=300, comm="airflow"),
        at(Exec, 16.5, 400, argv=["sh", "-c", NASTY], filename="/bin/sh", comm="sh"),
        at(Signal, 17, 400, sig=9, sender_pid=300, sender_comm="airflow"),
        at(Exit, 17, 400, wstatus=9, termsig=9, core_dumped=False, ppid=300),
        at(Exit, 18, 300, wstatus=0, exit_code=0, core_dumped=False, ppid=200, **counted),
        at(Reap, 18.5, 300, zombie_ns=500_000_000),
        at(TaskReported, 19, None, task=TASK, recorded_pid=300, state="success", via="db"),
    ]
    return [msgspec.structs.replace(event, seq=n) for n, event in enumerate(told, start=1)]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a finished recording of the story."""
    path = tmp_path / "session.db"
    recorder = Recorder(path, header())
    recorder.write(story())
    recorder.close()
    return path


class Outcome:
    """What one run of the command line gave."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def pidtrail(capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Return a function that runs the command line in this process."""

    def run(*args: str | Path) -> Outcome:
        log.configure("text")
        status = cli.run([str(arg) for arg in args])
        out, err = capsysbinary.readouterr()
        return Outcome(status, out.decode(), err.decode())

    return run


def test_help_lists_the_commands_and_each_has_examples(pidtrail: Any) -> None:
    """The list of commands is made without them; it says the same as they do."""
    shown = pidtrail("--help")

    assert shown.status == 0
    for name, (_, summary) in cli.COMMANDS.items():
        command = cli.cli.get_command(click.Context(cli.cli), name)
        assert command is not None
        said = inspect.cleandoc(command.help or "").split("\n\n")[0]
        assert said.replace("\n", " ") == summary
        one = pidtrail(name, "--help")
        assert (one.status, one.err) == (0, "")
        assert "Examples:" in one.out
        assert f"  {name} " in shown.out


def test_no_command_shows_the_help_and_is_wrong_usage(pidtrail: Any) -> None:
    shown = pidtrail()

    assert (shown.status, shown.out) == (2, "")
    assert "Commands:" in shown.err


def test_the_version_is_told(pidtrail: Any) -> None:
    assert pidtrail("--version").out.startswith("pidtrail, version 0.")


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["bogus"], 2, "No such command 'bogus'"),
        (["export"], 2, "Missing argument 'FILE'"),
        (["export", "x", "--to", "csv"], 2, "csv"),
        (["export", "/no/such", "--to", "jsonl"], 1, "no such file"),
        (["export", "/", "--to", "jsonl"], 1, "directory"),
        (["export", "/dev/null", "--to", "jsonl"], 1, "nothing in it"),
        (["export", "/etc/passwd", "--to", "jsonl"], 1, "not JSON"),
        (["tree", "--socket", "/nowhere/x"], 1, "no service runs here"),
        (["tree", "x", "--task", "load"], 2, "DAG.TASK"),
        (["explain", "--socket", "/nowhere/x"], 1, "no service runs here"),
        (["explain", "x", "--since", "yesterday"], 2, "--since"),
        (["tree", "x", "--since", "yesterday"], 2, "--since"),
        (["explain", "x", "--try", "one"], 2, "one"),
        (["explain", "--code", "no-such"], 1, "retry"),
        (["explain", "x", "--code", "retry"], 2, "--code"),
        (["explain", "a\nb\x1b[31m"], 1, "a\\nb\\x1b[31m: no such file"),
    ],
)
def test_an_error_is_one_line(pidtrail: Any, args: list[str], status: int, said: str) -> None:
    """On stderr, with the exit status of its kind, and nothing on stdout."""
    done = pidtrail(*args)

    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("pidtrail: ")
    assert done.err.count("\n") == 1
    assert said in done.err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (PidtrailError("it failed", "do this"), 1, "pidtrail: it failed (do this)\n"),
        (PidtrailError("two\nlines"), 1, "pidtrail: two\\nlines\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (OSError(28, "No space left on device", "x"), 1, "pidtrail: x: No space left on device\n"),
        (SystemExit(7), 7, ""),
    ],
)
def test_every_failure_has_its_status(
    pidtrail: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    """Commands raise; only the entry point knows exit codes."""

    @click.command()
    def fails() -> None:
        """Fail."""
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: fails)
    monkeypatch.setattr(cli, "hang_up", lambda: cli.NOBODY_READS)
    done = pidtrail("tree")

    assert (done.status, done.err) == (status, said)


def test_the_tree_shows_who_forked_whom(pidtrail: Any, recording: Path) -> None:
    """One line per process, with role, task, end and counters; nothing reaches the terminal raw."""
    done = pidtrail("tree", recording)
    _, scheduler, supervisor, runner, child = done.out.splitlines()

    assert done.err == ""
    assert scheduler.startswith("100  scheduler  airflow scheduler")
    assert supervisor.startswith("└─ 200  supervisor  airflow task supervisor:")
    assert runner.startswith(f"   └─ 300  runner  airflow task runner: sales load {RUN} 7")
    assert "exit 0  moved 3, switched 20/4  sales.load try 1" in runner
    assert child.startswith("      └─ 400  operator_child  sh -c \\x1b[31mevil\\n\\u202e")
    assert "SIGKILL from 300 airflow" in child


def test_the_tree_as_json_refers_both_ways(pidtrail: Any, recording: Path) -> None:
    """Exact where the text is escaped; parents come before their children."""
    found = json.loads(pidtrail("tree", recording, "--json").out)
    by_pid = {process["pid"]: process for process in found["processes"]}

    assert found["schema"] == "pidtrail.tree/1"
    assert list(by_pid) == [100, 200, 300, 400]
    assert by_pid[300]["role"] == "runner"
    assert by_pid[300]["task"]["task_id"] == "load"
    assert by_pid[300]["birth_parent"] == {"pid": 200, "start_ticks": 200}
    assert by_pid[300]["children"] == [{"pid": 400, "start_ticks": 400}]
    assert by_pid[300]["ended"] == rfc3339(18 * SECOND + header().wall_offset_ns)
    assert by_pid[400]["argv"] == ["sh", "-c", NASTY]
    assert by_pid[400]["sender"] == {"pid": 300, "start_ticks": None}


def test_the_tree_of_a_task_leaves_out_the_others(pidtrail: Any, recording: Path) -> None:
    assert len(pidtrail("tree", recording, "--task", "sales.load").out.splitlines()) == 5
    other = pidtrail("tree", recording, "--task", "sales.other").out.splitlines()
    assert other[1:] == ["no process of task sales.other was seen"]


@pytest.mark.parametrize(
    ("options", "pids"),
    [
        (["--since", "2s"], [100, 200, 300, 400]),
        (["--since", "1s"], [100, 200, 300]),
        (["--since", "0s"], [100, 200]),
        (["--since", rfc3339(18 * SECOND + header().wall_offset_ns)], [100, 200, 300]),
        (["--since", "1s", "--task", "sales.load"], [100, 200, 300]),
        (["--since", "0s", "--task", "sales.other"], []),
    ],
)
def test_a_tree_may_begin_late(
    pidtrail: Any, recording: Path, options: list[str], pids: list[int]
) -> None:
    """Who lived then or later, and his ancestors; of a task those alone that are its own."""
    as_json = pidtrail("tree", recording, "--json", *options)
    _, *lines = pidtrail("tree", recording, *options).out.splitlines()

    assert (as_json.status, as_json.err) == (0, "")
    assert [process["pid"] for process in json.loads(as_json.out)["processes"]] == pids
    if pids:
        assert [int(line.lstrip(" └─").split()[0]) for line in lines] == pids
    else:
        assert lines == ["no process of task sales.other lived then"]


def test_explain_gives_a_line_and_a_sentence(pidtrail: Any, recording: Path) -> None:
    """The recorded pid, the real one, its chain of parents, and the verdict."""
    done = pidtrail("explain", recording)
    line = next(line for line in done.out.splitlines() if "300 runner" in line)

    assert done.err == ""
    assert "sales.load" in line
    assert "300 runner < 200 supervisor < 100 scheduler" in line
    assert "match" in line
    assert "exit 0" in line
    assert any(text.startswith("match: ") for text in done.out.splitlines())


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 1),
        (["--dag", "sales", "--task", "load", "--run", RUN, "--try", "1"], 1),
        (["--map-index", "-1"], 1),
        (["--dag", "other"], 0),
        (["--try", "2"], 0),
        (["--pid", "300"], 1),
        (["--pid", "301"], 0),
        (["--since", "10m"], 1),
        (["--since", "2s"], 1),
        (["--since", "0s"], 1),
        (["--since", rfc3339(header().wall_offset_ns)], 1),
        (["--since", "2199-01-01"], 0),
    ],
)
def test_filters_choose_among_the_verdicts(
    pidtrail: Any, recording: Path, options: list[str], count: int
) -> None:
    """What does not match is left out, which is no failure."""
    done = pidtrail("explain", recording, "--json", *options)
    found = json.loads(done.out)

    assert (done.status, done.err) == (0, "")
    assert found["schema"] == "pidtrail.verdict/1"
    assert len(found["verdicts"]) == count

    as_text = pidtrail("explain", recording, *options)

    assert ("no task instance attempt matches" in as_text.out) == (count == 0)


def test_a_code_is_explained_with_its_limits(pidtrail: Any) -> None:
    shown = pidtrail("explain", "--code", "retry").out

    assert all(word in shown for word in ("Concludes", "Needs", "Cannot tell"))


def test_a_code_is_explained_to_a_program(pidtrail: Any) -> None:
    """As everything that a person can ask."""
    told = json.loads(pidtrail("explain", "--code", "retry", "--json").out)

    assert (told["schema"], told["code"]) == ("pidtrail.code/1", "retry")
    assert told["needs"].startswith("a later attempt that started")
    assert all(told[name] for name in ("says", "concludes", "cannot_tell", "text"))


def test_a_damaged_recording_is_explained_as_far_as_it_goes(
    pidtrail: Any, recording: Path, tmp_path: Path
) -> None:
    """The damage is among the unknowns, and said once on stderr."""
    lines = pidtrail("export", recording, "--to", "jsonl").out.splitlines(keepends=True)
    path = tmp_path / "cut.jsonl"
    path.write_text("".join(lines)[:-30])
    done = pidtrail("explain", path, "--json")
    found = json.loads(done.out)

    assert done.status == 0
    assert len(found["verdicts"]) == 1
    assert any(f"line {len(lines)}" in text for text in found["unknowns"])
    assert done.err.count("\n") == 1
    assert "cut.jsonl, line" in done.err

    tree = pidtrail("tree", path, "--json")

    assert len(json.loads(tree.out)["processes"]) == 4
    assert any(f"line {len(lines)}" in text for text in json.loads(tree.out)["unknowns"])


def test_an_export_has_the_header_first_and_wall_time(pidtrail: Any, recording: Path) -> None:
    """Every event with `time`, in the order of the recording."""
    first, *others = map(
        json.loads, pidtrail("export", recording, "--to", "jsonl").out.splitlines()
    )

    assert (first["type"], first["schema"]) == ("header", "pidtrail.event/1")
    assert [event["seq"] for event in others] == list(range(1, len(story()) + 1))
    assert others[0]["time"] == rfc3339(10 * SECOND + header().wall_offset_ns)


def test_an_export_of_an_export_is_the_same(
    pidtrail: Any, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, from a file and from stdin, to stdout and to a file."""
    path = tmp_path / "session.jsonl"
    assert pidtrail("export", recording, "--to", "jsonl", "-o", path).status == 0
    first = path.read_text()

    assert pidtrail("export", path, "--to", "jsonl").out == first

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(first.encode())))

    assert pidtrail("export", "-", "--to", "jsonl").out == first


def test_an_export_does_not_overwrite_what_it_reads(pidtrail: Any, recording: Path) -> None:
    before = recording.read_bytes()
    done = pidtrail("export", recording, "--to", "jsonl", "-o", recording)

    assert done.status == 1
    assert recording.read_bytes() == before


def test_an_export_of_a_damaged_file_ends_with_failure(pidtrail: Any, tmp_path: Path) -> None:
    """All that is sound comes out, and a script can tell that it is not all."""
    path = tmp_path / "cut.jsonl"
    path.write_text("")
    with path.open("wb") as file:
        sink = JsonLines(file, header())
        sink.write(story())
        sink.close()
    whole = path.read_text()
    path.write_text(whole + '{"type":"fork"')
    done = pidtrail("export", path, "--to", "jsonl")

    assert (done.status, done.out) == (1, whole)
    assert done.err.count("\n") == 1


def test_log_lines_are_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each on stderr; JSON carries the fields as they are."""
    log.configure("text")
    log.warning("bad\nthing", path="a b", count=3)
    log.configure("json")
    log.info("attached", roots=[1, 2])
    log.configure("text")
    text, as_json = capsys.readouterr().err.splitlines()

    assert text == 'pidtrail: warning: bad\\nthing path="a b" count=3'
    assert {"event": "attached", "roots": [1, 2], "level": "info"}.items() <= json.loads(
        as_json
    ).items()


def process(*args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pidtrail", *map(str, args)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "agent")},
        stderr=subprocess.PIPE,
        **options,
    )


def test_a_closed_pipe_and_a_full_disk_end_quietly_and_clearly(tmp_path: Path) -> None:
    """`export | head` says nothing; `export > /dev/full` says one line."""
    path = tmp_path / "session.db"
    recorder = Recorder(path, header())
    recorder.write([Fork(n, n, "core", pid=n, start_ticks=n) for n in range(1, 3_000)])
    recorder.close()
    head = process("export", path, "--to", "jsonl", stdout=subprocess.PIPE)
    assert head.stdout is not None
    head.stdout.read(1)
    head.stdout.close()
    with Path("/dev/full").open("wb") as full:
        disk = process("export", path, "--to", "jsonl", stdout=full)
    _, said = disk.communicate()

    assert (head.communicate()[1], head.returncode) == (b"", 141)
    assert (disk.returncode, said) == (1, b"pidtrail: No space left on device\n")


@pytest.mark.parametrize(
    ("closed", "args"),
    [(">&-", "tree {path}"), (">&-", "explain {path} --json"), ("<&-", "tree -")],
)
def test_a_stream_that_was_closed_is_one_line(recording: Path, closed: str, args: str) -> None:
    """As a service manager or a shell may start us; no file of ours gets the number instead."""
    words = args.format(path=shlex.quote(str(recording)))
    command = f"{shlex.quote(sys.executable)} -m pidtrail {words} {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT / "agent", capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (1, b"pidtrail: Bad file descriptor\n")


def test_nobody_hears_what_is_said_on_a_closed_stderr(recording: Path) -> None:
    """Damage is said there, and the answer on stdout is the same."""
    lines = recording.with_name("damaged.jsonl")
    subprocess.run(
        [sys.executable, "-m", "pidtrail", "export", recording, "--to", "jsonl", "-o", lines],
        cwd=ROOT / "agent", check=True,
    )  # fmt: skip
    lines.write_bytes(lines.read_bytes() + b"not json\n")
    command = shlex.join([sys.executable, "-m", "pidtrail", "tree", str(lines)]) + " 2>&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT / "agent", capture_output=True, check=False
    )

    assert done.returncode == 0
    assert b"airflow scheduler" in done.stdout


def test_a_terminal_without_unicode_gets_a_tree_in_ascii(recording: Path) -> None:
    """The branches keep their columns, and what a process calls itself is escaped."""
    done = subprocess.run(
        [sys.executable, "-m", "pidtrail", "tree", recording],
        cwd=ROOT / "agent", env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True, check=True,
    )  # fmt: skip
    shown = done.stdout.decode("ascii")

    assert "\n`- " in shown
    assert "\\u25" not in shown


def test_brackets_without_end_are_damage_and_no_crash(
    pidtrail: Any, recording: Path, tmp_path: Path
) -> None:
    """A record nested deeper than the interpreter's stack."""
    path = tmp_path / "deep.jsonl"
    pidtrail("export", recording, "--to", "jsonl", "-o", path)
    deep = '{"type":"x","seq":99,"ts_boot_ns":1,"a":' + "[" * 100_000 + "]" * 100_000 + "}\n"
    path.write_text(path.read_text() + deep)

    for command in ("tree", "explain"):
        done = pidtrail(command, path)
        assert done.status == 0
        assert "not JSON" in done.err


def test_a_pipe_is_read_from_its_first_byte(tmp_path: Path) -> None:
    """As in `pidtrail tree <(pidtrail export …)`."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = process("tree", fifo, "--json", stdout=subprocess.PIPE)
    with fifo.open("wb") as file:
        JsonLines(file, header()).write(story())
    out, err = reading.communicate()

    assert (reading.returncode, err) == (0, b"")
    assert len(json.loads(out)["processes"]) == 4


def test_an_interrupt_is_heard_where_nobody_reads(tmp_path: Path) -> None:
    """The pipe is full, and what the stream still holds would not get into it either."""
    path = tmp_path / "session.db"
    recorder = Recorder(path, header())
    recorder.write([Fork(n, n, "core", pid=n, start_ticks=n) for n in range(1, 3_000)])
    recorder.close()
    read, write = os.pipe()
    export = process("export", path, "--to", "jsonl", stdout=write)
    while select.select([], [write], [], 0)[1]:
        time.sleep(0.01)
    export.send_signal(signal.SIGINT)
    _, said = export.communicate()
    os.close(read)
    os.close(write)

    assert (export.returncode, said) == (130, b"")


def test_an_interrupt_ends_with_its_status(tmp_path: Path) -> None:
    """Ctrl-C while waiting for stdin: nothing is printed, and a shell sees SIGINT's status."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    waiting = process("tree", fifo, stdout=subprocess.PIPE)
    # Opening for writing waits for the reader: from then on it is past its start.
    with fifo.open("wb"):
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate()

    assert (waiting.returncode, out, err) == (130, b"", b"")


def test_an_interrupt_while_it_is_loaded_ends_it_without_a_word() -> None:
    """Whoever presses Ctrl-C at once meets no traceback."""
    code = (
        "import os, signal, sys, pidtrail.__main__ as begin\n"
        "class Late:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pidtrail.cli':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Late())\n"
        "begin.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "agent", capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_help_loads_no_command() -> None:
    """`--help` answers at once: neither records nor tables nor databases are loaded for it."""
    code = (
        "import sys; from pidtrail import cli\n"
        "cli.run(['--help'])\n"
        "print(sorted({'rich', 'structlog', 'sqlite3', 'msgspec', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "agent")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_plugin_is_printed_as_it_is(pidtrail: Any) -> None:
    """What goes into Airflow's folder of plugins is the file of the package, byte for byte."""
    done = pidtrail("airflow-plugin")

    assert (done.status, done.err) == (0, "")
    assert done.out == (ROOT / "agent/pidtrail/airflow/plugin.py").read_text(encoding="utf-8")
