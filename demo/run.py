"""
`make demo`: trace a real Airflow, explain every PID, hold common claims against it.

    python -m demo.run

Leaves `build/demo/session.db` (the recording) and `build/demo/verdicts.json`.
Status 0: all was played and pidtrail names the very processes that the tasks
wrote down of themselves; 1: something failed, with one clear line.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo import BUILD
from demo.airflow3 import database_url, migrated_template
from demo.claims import CLAIMS, Evidence, disagreements, how_it_ended, runners
from demo.environment import InstallError, install, say
from demo.processes import StageError, clear_leftovers
from demo.stage import LONG, RESTART, RETRY, VERSION
from demo.witness import read_notes
from pidtrail.verdict.model import ProcessReport, Report, Verdict

FOLDER = BUILD / "demo"
HOME = FOLDER / "airflow"
PLAYED = FOLDER / "stage.json"
RECORDING = FOLDER / "session.db"
VERDICTS = FOLDER / "verdicts.json"

_PIDTRAIL = Path(sys.executable).with_name("pidtrail")
_TRACE_TIMEOUT_S = 280
_STOP_TIMEOUT_S = 25
_WIDTH = 150  # of the tables, where there is no terminal to ask


class DemoError(Exception):
    """The demo cannot go on; the text is one line that says why."""


class Interrupted(BaseException):
    """A signal asks the demo to end; `by_terminal` if the terminal told all its processes."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.by_terminal = signum == signal.SIGINT


def main() -> int:
    """Install, trace, explain, print; status as the module says."""
    if os.geteuid():
        say("the demo needs root: it loads kernel probes")
        return 1
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, _interrupt)
    try:
        lock = _only_demo()
        # Before the trace, so that only the play itself is watched.
        migrated_template(install(VERSION))
        _trace()
        report = _explain()
        evidence = _gather(report)
    except (DemoError, InstallError, StageError, Interrupted) as error:
        say(f"demo: {error}")
        return 1
    lock.close()
    _show(evidence)
    differences = disagreements(evidence)
    for line in differences:
        say(f"demo: {line}")
    return 1 if differences else 0


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)
    raise Interrupted(signum)


def _only_demo() -> IO[str]:
    """Return a lock held until it is closed: two demos would share one folder."""
    BUILD.mkdir(exist_ok=True)
    lock = (BUILD / "demo.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DemoError("another demo is running in this checkout") from error
    return lock


def _trace() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    argv = [
        *(str(_PIDTRAIL), "trace", "--format", "none", "-o", str(RECORDING)),
        *("--airflow-db", database_url(HOME), "--"),
        *(sys.executable, "-m", "demo.stage", str(HOME), str(PLAYED)),
    ]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as trace:
        try:
            status = trace.wait(_TRACE_TIMEOUT_S)
        except (Interrupted, subprocess.TimeoutExpired) as error:
            _end(trace, told=isinstance(error, Interrupted) and error.by_terminal)
            # Whoever had to be killed could not clear up after itself.
            clear_leftovers()
            why = error if isinstance(error, Interrupted) else f"no end in {_TRACE_TIMEOUT_S} s"
            raise DemoError(f"stopped: {why}; logs are in {HOME}") from error
    if status:
        raise DemoError(f"pidtrail trace ended with status {status}; logs are in {HOME}")
    if not PLAYED.is_file() or not RECORDING.is_file():
        raise DemoError(f"pidtrail trace left no {RECORDING}")


def _end(trace: subprocess.Popen[bytes], *, told: bool) -> None:
    """End the trace and all it runs; `told` if it has had a signal: a second one means at once."""
    steps = [trace.terminate, trace.kill]
    if told:
        steps.insert(0, lambda: None)
    for step in steps:
        step()
        try:
            trace.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _explain() -> Report:
    with VERDICTS.open("wb") as output:
        done = subprocess.run(
            [str(_PIDTRAIL), "explain", str(RECORDING), "--json"], stdout=output, check=False
        )
    if done.returncode:
        raise DemoError(f"pidtrail explain ended with status {done.returncode}")
    try:
        return msgspec.json.decode(VERDICTS.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise DemoError(f"{VERDICTS} is not a list of verdicts: {error}") from error


def _gather(report: Report) -> Evidence:
    def of(dag_id: str) -> list[Verdict]:
        mine = [verdict for verdict in report.verdicts if verdict.task.dag_id == dag_id]
        return sorted(mine, key=lambda verdict: verdict.task.try_number or 0)

    return Evidence(
        retry=of(RETRY),
        long=of(LONG),
        restart=of(RESTART),
        notes=read_notes(HOME / "notes"),
        played=json.loads(PLAYED.read_bytes()),
        swap_kib=_swap_kib(),
    )


def _swap_kib() -> int:
    # Header, then: file name, type, size in KiB, used, priority (proc(5)).
    lines = Path("/proc/swaps").read_text(encoding="ascii", errors="replace").splitlines()[1:]
    return sum(int(line.split()[2]) for line in lines)


def _show(evidence: Evidence) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(_attempts(evidence.verdicts))
    console.print(_claims(evidence))
    same = {(process.pid, process.start_ticks) for process in runners(evidence.verdicts)}
    noted = {note.identity for note in evidence.notes}
    console.print(
        f"{len(same & noted)} of {len(noted)} processes that wrote down their own pid and start "
        f"time are the ones that pidtrail names.",
        f"Recording: {RECORDING}",
        f"Verdicts:  {VERDICTS}",
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )


def _attempts(verdicts: list[Verdict]) -> Table:
    table = Table(title="What ran", title_justify="left", show_lines=True)
    for name in ("task", "try", "recorded", "real pid", "chain of parents", "ended"):
        table.add_column(name, overflow="fold")
    for name in ("moved", "switches\nvol/inv", "major\nfaults"):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    for verdict in verdicts:
        recorded = dict.fromkeys(str(seen.pid) for seen in verdict.recorded if seen.pid is not None)
        processes: list[ProcessReport | None] = [*runners([verdict])]
        for process in processes or [None]:
            cells = [
                f"{verdict.task.dag_id}.{verdict.task.task_id}",
                _known(verdict.task.try_number),
                "\nthen ".join(recorded) or "none",
                *_process_cells(process),
                verdict.code,
            ]
            table.add_row(*map(Text, cells))
    return table


def _process_cells(process: ProcessReport | None) -> list[str]:
    if process is None:
        return ["not seen", "", "", "", "", ""]
    switches = (process.voluntary_switches, process.involuntary_switches)
    return [
        _known(process.pid),
        _chain(process),
        how_it_ended(process),
        _known(process.migrations),
        "/".join(map(_known, switches)),
        _known(process.major_faults),
    ]


def _chain(process: ProcessReport) -> str:
    """Parents from the nearest up to the scheduler: what is above it is the demo itself."""
    names = []
    for who in process.chain[1:]:
        names.append(f"{who.role or who.comm or '?'} {_known(who.pid)}")
        if who.role == "scheduler":
            break
    return "\n".join(names) or "not known"


def _claims(evidence: Evidence) -> Table:
    table = Table(title="What people say of it", title_justify="left", show_lines=True)
    for name in ("claim", "answer", "what the kernel showed"):
        table.add_column(name)
    for claim, judge in CLAIMS.items():
        finding = judge(evidence)
        table.add_row(Text(claim), Text(finding.answer), Text(finding.evidence))
    return table


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
