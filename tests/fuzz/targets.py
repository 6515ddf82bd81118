"""
What is fuzzed: each parser of pidtrail with what comes from outside.

A target takes any bytes and raises only if the parser breaks its promise: it is
total, or raises the one error that it names. test_seeds.py calls each with the
seeds that stand beside it; `python -m tests.fuzz` lets atheris look for more.
"""

from __future__ import annotations

import atexit
import mmap
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pidtrail import codec
from pidtrail.airflow import claims
from pidtrail.airflow.commands import argv_facts
from pidtrail.airflow.environment import environ_of
from pidtrail.airflow.identify import env_task, log_path_task, title_facts
from pidtrail.errors import RecordingError
from pidtrail.redact import redact_argv, redact_text, redact_url
from pidtrail.service import protocol
from pidtrail.sources import cnproc, proc, wire
from pidtrail.sources.procdir import ProcDirectory
from pidtrail.sources.ring import Ring
from pidtrail.store import Recording
from tests.unit import moved

PID = 42
PARSER = wire.Parser(4)
FILES = ("stat", "status", "comm", "cmdline", "cgroup", "environ")


class Target(NamedTuple):
    """A function of bytes, and bytes to begin with."""

    run: Callable[[bytes], None]
    seeds: list[bytes]


def place() -> Path:
    """Return a directory that goes with this process."""
    made = tempfile.mkdtemp(prefix="pidtrail-fuzz-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def fuzz_wire(data: bytes) -> None:
    """A record of the ring is an event or a WireError."""
    try:
        PARSER.parse(data, 0, len(data), 1)
    except wire.WireError:
        return


class Memory(Ring):
    """A ring whose window is plain bytes: what a corrupt header leads to."""

    def __init__(self, window: bytes) -> None:
        self.window = mmap.mmap(-1, len(window) + 8)
        self.window[: len(window)] = window


def fuzz_ring(data: bytes) -> None:
    """Whatever stands in the headers, no record lies outside of what was committed."""
    ring = Memory(data)
    done, records = ring.committed(0, len(data))
    assert all(0 <= at and at + length <= done for at, length in records)
    ring.window.close()


def fuzz_cnproc(data: bytes) -> None:
    """A datagram is a message or None."""
    cnproc.parse(data)


def fuzz_codec(data: bytes) -> None:
    """A line is an event or a header or a RecordingError, and what was read can be written."""
    for decode in (codec.decode_header, codec.decode):
        try:
            found = decode(data)
        except RecordingError:
            continue
        if decode is codec.decode:
            assert codec.decode(codec.encode(found)) == found  # type: ignore[arg-type]


PROC = place()
(PROC / str(PID)).mkdir()


def fuzz_proc(data: bytes) -> None:
    """Each reader of /proc/PID gives an answer, whatever stands in the file."""
    for name in FILES:
        (PROC / str(PID) / name).write_bytes(data)
    before, proc.PROC = proc.PROC, PROC
    try:
        proc.stat_fields(PID), proc.start_ticks(PID), proc.ppid(PID), proc.comm(PID)
        proc.ns_pids(PID), proc.argv(PID), proc.cgroup(PID)
        proc.context_env(PID), proc.children_of_all()
    finally:
        proc.PROC = before


def fuzz_procdir(data: bytes) -> None:
    """So does the reader of source procfs."""
    for name in FILES:
        (PROC / str(PID) / name).write_bytes(data)
    directory = ProcDirectory(PROC)
    directory.stat(PID), directory.cmdline(PID), directory.ns_pids(PID), directory.cgroup(PID)
    directory.numbers(), directory.exe(PID), directory.namespace(PID)


def fuzz_claims(data: bytes) -> None:
    """A datagram is a message that says all that is needed, or None."""
    message = claims.parse(data)
    if message is not None:
        assert all((message.dag_id, message.task_id, message.run_id))
        assert message.map_index >= -1


def fuzz_airflow(data: bytes) -> None:
    """Titles, command lines, paths and environments say something or nothing."""
    text = data.decode("utf-8", "replace")
    title_facts(text), log_path_task(text)
    argv_facts(text.split("\0"), truncated=True)
    env_task({"AIRFLOW_CTX_DAG_ID": text, "AIRFLOW_CTX_TRY_NUMBER": text})


def fuzz_redact(data: bytes) -> None:
    """Text is redacted once and for all."""
    text = data.decode("utf-8", "replace")
    assert redact_text(redact_text(text)) == redact_text(text)
    argv = redact_argv(text.split("\0"))
    assert redact_argv(argv) == argv
    redact_url(text)


RECORDING = place() / "session.db"


def fuzz_recording(data: bytes) -> None:
    """A file is read as far as it is sound, or refused with a RecordingError."""
    RECORDING.write_bytes(data)
    try:
        recording = Recording(RECORDING)
    except RecordingError:
        return
    try:
        list(recording.events())
    except RecordingError:
        return
    finally:
        recording.close()


def fork_message() -> bytes:
    """Return a fork as the connector sends it."""
    head = cnproc.HEAD.pack(76, 3, 0, 1, 0, 1, 1, 9, 0, 40, 0, cnproc.FORK, 1, 5)
    return head + struct.pack("=6I", 4, 4, 9, 9, 0, 0)


def exec_record() -> bytes:
    """Return an exec as the BPF program writes it."""
    head = (wire.KIND_EXEC, 7, 5, 3, 9, 0, 4, 4, 9, b"true", b"/bin/true")
    return wire.EXEC.pack(*head) + b"a\0b\0"


HEADER = (
    b'{"type":"header","schema":"pidtrail.event/1","host":"h","boot_id":"b","clk_tck":100,'
    b'"wall_offset_ns":1,"source":"core","fidelity":{"has_argv":true,"has_titles":true,'
    b'"has_wstatus":true,"has_start_ns":true,"has_counters":true,"has_signals":true,'
    b'"sees_short_lived":true,"counts_loss":true},"roots":[],"version":"0"}'
)
EVENT = b'{"type":"fork","seq":1,"ts_boot_ns":5,"origin":"core","pid":7,"start_ticks":3,"x":[1]}'
CLAIM = (
    b'{"schema":"pidtrail.claim/1","event":"running","dag_id":"d","task_id":"t","run_id":"r",'
    b'"map_index":-1,"try_number":1,"pid":7,"boot_ns":5,"start_ticks":3,"pid_ns":4026531836,'
    b'"ti_id":"01a201d9-c083-7000-8000-000000000001","hostname":"h","state":"running","new":[[]]}'
)
STAT = b"42 (a) b) S 1 42 42 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 3 0 777 1000 10"
TITLE = b"airflow task runner: dag.task run__1 [map 3] 01a201d9-c083-7000-8000-000000000001"


def fuzz_request(data: bytes) -> None:
    """What somebody sends to the service is a request, or is refused in words that fit a line."""
    try:
        protocol.understood(data)
    except protocol.Refused as refused:
        said = protocol.line(refused.error)
        assert said.count(b"\n") == 1
        assert len(said) < len(data) * 6 + 1000


MOVED = place()


def fuzz_environment(data: bytes) -> None:
    """Whatever stands in the memory of who calls himself Airflow, he has settings or none."""
    shutil.rmtree(MOVED / "7", ignore_errors=True)
    found = environ_of(7, moved.process(MOVED, data))
    assert sum(map(len, found.values())) < 3 << 20


TARGETS: dict[str, Target] = {
    "wire": Target(fuzz_wire, [b"", exec_record(), exec_record()[:-3], bytes(300)]),
    "ring": Target(fuzz_ring, [b"", struct.pack("=IIQ", 8, 0, 1) * 3, b"\xff" * 40, bytes(64)]),
    "cnproc": Target(fuzz_cnproc, [b"", fork_message(), fork_message()[:60]]),
    "codec": Target(fuzz_codec, [b"{}", HEADER, EVENT, b'{"type":"newer","seq":1}', b"\xff"]),
    "proc": Target(fuzz_proc, [b"", STAT, b"NSpid:\t7\t1\nThreads:\t3\n", b"0::/a\n1:x:/\n"]),
    "procdir": Target(fuzz_procdir, [b"", STAT, b"NSpid:\t7\tx\n", b"42 (\n)"]),
    "claims": Target(fuzz_claims, [b"", CLAIM, b"[" * 8000, b'{"schema":' * 800]),
    "request": Target(
        fuzz_request, [b"", protocol.line(protocol.Request("history", 1)), b'{"schema":"x"}']
    ),
    "airflow": Target(fuzz_airflow, [b"", TITLE, b"airflow\0tasks\0run\0d\0t\0r", b"dag_id=a/"]),
    "redact": Target(fuzz_redact, [b"", b"postgresql://u:p@h/d", b"--password=x\0-p\0y"]),
    "environment": Target(
        fuzz_environment, [b"", moved.program(relocated=True), moved.program(relocated=False)[:900]]
    ),
    "recording": Target(fuzz_recording, [b"", b"SQLite format 3\0", b"SQLite format 3\0" * 64]),
}
