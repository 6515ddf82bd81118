"""What begins and ends a process, and what does not."""

from __future__ import annotations

import pytest

from pidtrail.events import Exec, Exit, Fork, Reap, Signal
from tests.contract.conftest import Tell
from tests.contract.story import observed


def test_gate_and_program_are_one_process(told_by: Tell) -> None:
    """Exec changes the image, never the process: same number, same start, one end."""
    told = told_by("setsid", needs="has_identity has_wstatus")
    gate = told.said("gate")

    before = observed(told)
    assert (before.pid, before.start_ticks) == (gate["pid"], gate["start"])
    assert (before.ppid, before.comm) == (told.agent, "gate")
    become = told.only(Exec, told.root)
    assert become.start_ticks == gate["start"]
    assert before.exec_id is not None
    assert become.exec_id == before.exec_id + 1
    assert become.comm == "setsid"
    assert told.only(Exit, told.root).wstatus == told.wstatus == 0
    assert told.life(told.root) == ["exec", "exit", "reap"]


@pytest.mark.parametrize("how", ["group", "last"])
def test_leader_exit_does_not_end_the_process(told_by: Tell, how: str) -> None:
    """The process ends with its last thread, with the status that the parent is told."""
    told = told_by("leader_exits_first", how, needs="has_wstatus")
    gone = told.said("leader-gone")

    end = told.only(Exit, gone["pid"])
    assert end.wstatus == told.collected(gone["pid"])["wstatus"]
    assert end.ts_boot_ns >= gone["ns"]
    assert end.start_ticks == told.said("leader")["start"]
    assert told.life(gone["pid"]) == ["fork", "exit", "reap"]
    if how == "group":
        assert (end.exit_code, end.termsig) == (3, None)


def test_exec_from_a_thread_keeps_the_process(told_by: Tell) -> None:
    """A thread that calls execve takes over the leader's number and start; nothing ends."""
    told = told_by("exec_from_thread", needs="has_argv")
    before, thread, after = told.said("before"), told.said("thread"), told.said("after")
    assert thread["tid"] != thread["pid"]
    assert (after["pid"], after["tid"], after["start"]) == (
        before["pid"],
        before["pid"],
        before["start"],
    )

    become = told.only(Exec, before["pid"])
    assert become.old_tid == thread["tid"]
    assert become.start_ticks == before["start"]
    assert become.argv is not None
    assert become.argv[1] == "after"
    assert told.life(before["pid"]) == ["fork", "exec", "exit", "reap"]
    assert told.only(Exit, before["pid"]).exit_code == 4


def test_exec_from_the_leader_has_no_old_tid(told_by: Tell) -> None:
    """`old_tid` is unknown, not the pid, where the leader itself called execve."""
    told = told_by("vfork_exec", needs="has_argv")

    assert told.only(Exec, told.said("child")["pid"]).old_tid is None


def test_stopped_and_continued_is_the_same_process(told_by: Tell) -> None:
    """SIGSTOP and SIGCONT are signals with a sender; the process stays what it was."""
    told = told_by("stopped", needs="has_signals")
    parent, child = told.said("parent"), told.said("child")

    assert told.life(child["pid"]) == ["fork", "exit", "reap"]
    signals = told.of(Signal, child["pid"])
    assert [event.sig for event in signals] == [19, 18, 15]
    assert {(event.sender_pid, event.sender_start_ticks) for event in signals} == {
        (parent["pid"], parent["start"])
    }
    assert told.only(Exit, child["pid"]).termsig == 15


def test_zombie_time_is_how_long_the_parent_waited(told_by: Tell) -> None:
    """`zombie_ns` covers the time held, and an RCU grace period more, not less."""
    # About one reaping in a thousand is not told by the kernel, and then known without its time.
    for _ in range(3):
        told = told_by("zombie", "200")
        held = told.said("held")
        reap = told.only(Reap, held["pid"])
        if reap.zombie_ns is not None:
            break
    assert reap.zombie_ns is not None
    assert reap.zombie_ns >= held["collected_ns"] - held["dead_ns"]
    assert reap.zombie_ns == reap.ts_boot_ns - told.only(Exit, held["pid"]).ts_boot_ns
    assert reap.ts_boot_ns >= held["collected_ns"]
    assert told.only(Exit, held["pid"]).ts_boot_ns <= held["dead_ns"]
    # put_task_struct_rcu_user: freed after a grace period, which a busy machine can stretch.
    assert reap.ts_boot_ns - held["collected_ns"] < 2_000_000_000


def test_fork_knows_cgroup_and_comm_of_the_parent(told_by: Tell) -> None:
    """At birth a process has its parent's name and cgroup."""
    told = told_by("setsid", needs="has_identity")

    birth = told.only(Fork, told.said("before")["pid"])
    assert birth.comm == "setsid"
    assert birth.cgroup_id == observed(told).cgroup_id
    assert birth.pid_ns == observed(told).pid_ns
