"""Who ended a task's process, and why: `killed_by` against what was really done to it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.endings import FOREIGN_PID
from tests.airflow.tracing import PIDTRAIL

if TYPE_CHECKING:
    from pidtrail.verdict.model import KilledBy, ProcessReport, Verdict
    from tests.airflow.conftest import Session

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]

CLEARED_BY = {True: "somebody had cleared the task instance", False: "user stage had cleared"}
SET_BY = {True: "the row said failed", False: "user stage had set its state to failed"}


def ran(session: Session, case: str) -> tuple[Verdict, ProcessReport, KilledBy]:
    """Return the first try of a case, its process, and how that ended."""
    verdict = session.of(case)[0]
    (runner,) = [one for one in verdict.processes if one.role == "runner"]
    assert runner.killed_by is not None
    return verdict, runner, runner.killed_by


def supervisor_of(verdict: Verdict) -> ProcessReport:
    """Return the supervisor of an attempt."""
    (supervisor,) = [one for one in verdict.processes if one.role == "supervisor"]
    return supervisor


@pytest.mark.parametrize("case", ["shell_kill", "group_kill"])
def test_shell_is_named_by_its_process(session: Session, case: str) -> None:
    """`kill` in a shell: the sender is that shell, which is not one of Airflow's own."""
    if case == "group_kill" and not session.is_2:
        return  # see test_runner_of_3_goes_on_after_sigterm
    verdict, _, by = ran(session, case)
    killer: Any = session.kills[case]["killer"][0]

    assert by.sender is not None
    assert (by.sender.pid, by.sender.comm, by.sender.role) == (killer, "sh", "other")
    assert by.why is None
    assert f"sh {killer}, which is not one of Airflow's own" in verdict.summary


def test_runner_of_2_exits_after_sigterm(session: Session) -> None:
    """A runner of 2.x handles SIGTERM to its group and exits: the signal is told with the exit."""
    if not session.is_2:
        return
    _, runner, by = ran(session, "group_kill")

    assert (by.kind, by.sig, runner.termsig) == ("exit", signal.SIGTERM, None)


def test_runner_of_3_goes_on_after_sigterm(session: Session) -> None:
    """A runner of 3.x calls on_kill at SIGTERM and goes on: who ends much later was not ended."""
    if session.is_2:
        return
    verdict, runner, by = ran(session, "group_kill")

    assert (by.kind, by.sig, runner.exit_code) == ("exit", None, 0)
    assert verdict.recorded[-1].state == "success"


def test_out_of_memory_is_told_from_sigkill(session: Session) -> None:
    """The kernel's victim in a memory cgroup is `oom`; nobody sent it SIGKILL."""
    verdict, runner, by = ran(session, "oom")

    assert (by.kind, by.sig, by.sender) == ("oom", signal.SIGKILL, None)
    assert runner.termsig == signal.SIGKILL
    assert f"ended {runner.pid} for want of memory" in verdict.summary


@pytest.mark.parametrize(
    ("case", "sig"),
    [
        ("segfault", signal.SIGSEGV),
        ("abort", signal.SIGABRT),
        ("core", signal.SIGABRT),
        ("self_kill", signal.SIGKILL),
    ],
)
def test_own_signal_is_its_own_doing(session: Session, case: str, sig: int) -> None:
    """A fault, abort() and os.kill(os.getpid(), 9) are nobody else's doing."""
    verdict, runner, by = ran(session, case)

    assert (by.kind, by.sig, by.sender) == ("self", sig, None)
    assert runner.termsig == sig
    assert "itself" in verdict.summary


@pytest.mark.parametrize(("case", "dumped"), [("core", True), ("abort", False)])
def test_core_dump_is_told(session: Session, case: str, dumped: bool) -> None:
    """abort() with RLIMIT_CORE raised, and with a limit that forbids it."""
    verdict, runner, _ = ran(session, case)
    (end,) = [one for one in session.stream() if one["type"] == "exit" and one["pid"] == runner.pid]

    assert runner.core_dumped is dumped
    assert end["core_dumped"] is dumped
    assert ("was ended by SIGABRT and dumped core" in verdict.summary) is dumped


def test_core_file_is_there(session: Session) -> None:
    """Where the kernel writes files, and no program takes the dump, a file of its own is there."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern:
        return  # to a program, or into a folder of the host's
    found = list(session.recording.with_name("home").joinpath("cores").iterdir())

    assert found
    assert all(one.read_bytes()[:4] == b"\x7fELF" for one in found)


@pytest.mark.parametrize(
    ("case", "code_of_2", "code_of_3"),
    [
        ("os_exit", 3, 3),
        # 3.x reports the failure and exits with 0; 2.x makes 1 of an exception, and of this.
        ("sys_exit", 1, 0),
        ("exception", 1, 0),
        ("execution_timeout", 2, 0),
    ],
)
def test_exit_is_nobodys_doing(session: Session, case: str, code_of_2: int, code_of_3: int) -> None:
    """Who exits was killed by nobody, and the code is the kernel's word."""
    _, runner, by = ran(session, case)

    assert (by.kind, by.sig, by.sender) == ("exit", None, None)
    assert runner.exit_code == (code_of_2 if session.is_2 else code_of_3)


def test_child_may_end_its_runner(session: Session) -> None:
    """A shell below the task that kills it has the role operator_child."""
    verdict, _, by = ran(session, "child_kill")

    assert by.sender is not None
    assert (by.sender.role, by.sender.comm) == ("operator_child", "sh")
    assert by.sender.pid in {one.pid for one in verdict.processes if one.role == "operator_child"}


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("cleared", CLEARED_BY),
        ("set_state", SET_BY),
        (
            "dagrun_timeout",
            dict.fromkeys((True, False), "the row said skipped by then, as the DAG run had failed"),
        ),
    ],
)
def test_supervisor_has_a_reason(session: Session, case: str, why: dict[bool, str]) -> None:
    """A supervisor that ends its runner does so for what the row says, and the verdict tells."""
    verdict, _, by = ran(session, case)

    assert by.sender is not None
    assert (by.sender.role, by.sender.pid) == ("supervisor", supervisor_of(verdict).pid)
    assert by.why is not None
    assert why[session.is_2] in by.why
    assert by.why in verdict.summary


def test_supervisor_of_3_ends_what_the_row_gives_to_another(session: Session) -> None:
    """409 running_elsewhere: the row named another PID, so the heartbeat was refused."""
    verdict, runner, by = ran(session, "row_pid")
    if session.is_2:
        # 2.10.1 and newer only warn.
        assert (by.kind, by.sig, runner.exit_code) == ("exit", None, 0)
        return

    assert by.sender is not None
    assert by.sender.role == "supervisor"
    assert by.why == f"its heartbeat was refused, for the row said PID {FOREIGN_PID}"
    assert re.search(r"SIGTERM and, [0-9.]+ s later, SIGKILL by its supervisor", verdict.summary)


def test_overwritten_pid_is_told_from_a_changed_one(session: Session) -> None:
    """Another PID in the row of a running task: somebody wrote it, no process changed its own."""
    verdict, runner, _ = ran(session, "row_pid")

    assert (verdict.code, verdict.pid_changed_in_kernel) == ("undetermined", False)
    assert verdict.recorded[-1].pid == FOREIGN_PID
    # Whether the PID before it was read too is a matter of when the database was asked.
    seen = runner.pid in {one.pid for one in verdict.recorded}
    over = f"who wrote PID {FOREIGN_PID} over {runner.pid}"
    assert (over if seen else f"who was process {FOREIGN_PID}") in verdict.summary


def test_the_supervisor_in_the_row_is_told_as_the_one_above(session: Session) -> None:
    """Its PID was written over the runner's: two processes of one chain."""
    if not session.is_2:
        return  # 3.x would end the task for it, as of any other PID: see row_pid
    verdict, runner, _ = ran(session, "row_parent")
    supervisor = supervisor_of(verdict)

    assert (verdict.code, verdict.pid_changed_in_kernel) == ("ancestor-recorded", False)
    assert verdict.recorded[-1].pid == supervisor.pid
    assert f"{supervisor.pid} is the supervisor above process {runner.pid}" in verdict.summary


def test_cleared_task_runs_again(session: Session) -> None:
    """Cleared while it ran: the code is `clear`, and the next try another process."""
    assert session.codes("cleared") == ["clear", "match"]


def test_refused_start_is_told(session: Session) -> None:
    """3.x forks first and asks then: the process that was refused never ran user code."""
    if session.is_2:
        return
    verdict, runner, by = ran(session, "refused")

    assert verdict.code == "aborted-start"
    why = "Airflow refused its start, or its API could not be reached"
    assert (runner.termsig, by.why) == (signal.SIGKILL, why)
    assert not session.noted("refused")
    assert {one.pid for one in verdict.recorded} == {None}


def test_death_before_the_record_is_told(session: Session) -> None:
    """2.x: a runner that is killed before it has written its PID is never recorded."""
    if not session.is_2:
        return
    verdict, runner, by = ran(session, "unrecorded")

    assert verdict.code == "died-unrecorded"
    assert runner.pid == session.kills["unrecorded"]["victim"][0]
    assert by.sender is not None
    assert by.sender.pid == session.kills["unrecorded"]["killer"][0]


def test_record_that_is_not_written_yet_is_told(session: Session) -> None:
    """2.x: judged in the moment before that runner was killed, its record was still to come."""
    if not session.is_2:
        return
    victim, _ = session.kills["unrecorded"]["victim"]
    header, *records = session.stream()
    killed = next(
        index
        for index, one in enumerate(records)
        if (one["type"], one["pid"]) == ("signal", victim) and one["sig"] == signal.SIGKILL
    )
    lines = "".join(f"{json.dumps(one)}\n" for one in (header, *records[:killed]))

    done = subprocess.run(
        [PIDTRAIL, "explain", "-", "--dag", "case_unrecorded", "--json"],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
    )

    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["code"] == "not-recorded-yet"
    assert f"Process {victim} runs case_unrecorded.t" in verdict["summary"]


@pytest.mark.parametrize(
    "case", ["shell_kill", "cleared", "set_state", "dagrun_timeout", "row_pid"]
)
def test_signal_is_in_the_evidence(session: Session, case: str) -> None:
    """The record of the signal can be looked up: it is about that process, and says that number."""
    verdict, runner, by = ran(session, case)
    if by.sig is None:
        return
    proof = [
        one
        for one in session.stream()[1:]
        if one["seq"] in verdict.evidence and (one["type"], one["pid"]) == ("signal", runner.pid)
    ]

    assert by.sig in {one["sig"] for one in proof}
