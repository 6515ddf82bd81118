"""Who is whose child, whatever processes and threads do about it."""

from __future__ import annotations

from pidtrail.events import Exec, Exit, Fork
from tests.contract.conftest import Tell


def test_double_forked_daemon_keeps_its_birth_parent(told_by: Tell) -> None:
    """A daemon's fork names the middle process; only its exit names who adopted it."""
    told = told_by("double_fork", needs="has_lineage has_wstatus")
    middle, daemon = told.said("middle"), told.said("daemon")

    birth = told.only(Fork, daemon["pid"])
    assert (birth.ppid, birth.parent_start_ticks) == (middle["pid"], middle["start"])
    assert birth.creator_pid is None
    assert birth.start_ticks == daemon["start"]
    assert told.said("orphan")["ppid"] == told.agent
    end = told.only(Exit, daemon["pid"])
    assert (end.ppid, end.exit_code) == (told.agent, 6)
    assert told.life(daemon["pid"]) == ["fork", "exit", "reap"]


def test_clone_parent_has_a_parent_and_another_creator(told_by: Tell) -> None:
    """CLONE_PARENT makes a sibling: its parent is the caller's parent, its creator the caller."""
    told = told_by("clone_parent", needs="has_lineage")
    creator, sibling = told.said("creator"), told.said("sibling")

    birth = told.only(Fork, sibling["pid"])
    assert birth.ppid == told.root == sibling["ppid"]
    assert birth.parent_start_ticks == told.said("parent")["start"]
    assert birth.creator_pid == creator["pid"]
    assert told.only(Fork, creator["pid"]).creator_pid is None
    assert told.only(Exit, sibling["pid"]).wstatus == told.collected(sibling["pid"])["wstatus"]


def test_subreaper_adopts_the_orphan(told_by: Tell) -> None:
    """The parent at the end is the nearest subreaper; the parent at birth stays the middle one."""
    told = told_by("subreaper", needs="has_lineage has_wstatus")
    orphan, reaper = told.said("orphan"), told.said("reaper")

    assert told.only(Fork, orphan["pid"]).ppid == told.said("middle")["pid"]
    assert told.said("adopted")["ppid"] == reaper["pid"]
    end = told.only(Exit, orphan["pid"])
    assert (end.ppid, end.exit_code) == (reaper["pid"], 5)


def test_fork_from_a_thread_belongs_to_its_process(told_by: Tell) -> None:
    """`real_parent` is the forking thread then; the record names the process, not the thread."""
    told = told_by("fork_from_thread")
    thread, child = told.said("thread"), told.said("child")
    assert thread["tid"] != thread["pid"]

    birth = told.only(Fork, child["pid"])
    assert birth.ppid == thread["pid"] == child["ppid"]
    assert birth.parent_start_ticks == thread["start"]
    assert birth.creator_pid is None
    assert told.born() == {child["pid"]}


def test_vfork_and_exec_is_one_process(told_by: Tell) -> None:
    """A vfork child is a process like any other, and exec keeps its number and start."""
    told = told_by("vfork_exec", needs="has_argv")
    child = told.said("child")

    assert told.life(child["pid"]) == ["fork", "exec", "exit", "reap"]
    assert told.only(Fork, child["pid"]).ppid == told.root
    assert told.only(Exec, child["pid"]).start_ticks == child["start"]
    assert told.only(Exit, child["pid"]).exit_code == 8


def test_new_session_is_no_new_process(told_by: Tell) -> None:
    """Setsid changes session and group and nothing else."""
    told = told_by("setsid")
    before, after = told.said("before"), told.said("after")

    assert (before["pid"], before["start"]) == (after["pid"], after["start"])
    assert told.born() == {before["pid"]}
    assert told.life(before["pid"]) == ["fork", "exit", "reap"]
