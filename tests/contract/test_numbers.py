"""Numbers of processes: reused, nested, and never a key on their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pidtrail.events import Exec, Exit, Fork, Observed
from tests.contract.conftest import Tell
from tests.contract.story import own_pid_max


@pytest.mark.skipif(not own_pid_max(), reason="kernel.pid_max is the whole host's before 6.14")
def test_a_reused_number_is_another_process(told_by: Tell) -> None:
    """
    When numbers wrap, the second holder of one differs by its start.

    Seen from outside the small namespace: the numbers there come round, ours do not.
    """
    told = told_by("pid_reuse", "450", needs="has_identity")
    reused = told.said("reused")

    holders = [
        event
        for event in told.events
        if isinstance(event, Fork) and event.ns_pids and event.ns_pids[-1] == reused["pid"]
    ]
    assert [event.start_ticks for event in holders] == [reused["first"], reused["second"]]
    assert reused["first"] < reused["second"]
    assert holders[1].pid == reused["outer"]
    assert len({event.pid_ns for event in holders}) == 1
    assert holders[0].key != holders[1].key
    # The namespace's init, and each child that the program counted.
    assert len(told.born()) == reused["forks"] + 1


def test_thirty_holders_of_one_number_are_thirty_processes(told_by: Tell) -> None:
    """Each has its own start, birth, end and status, in the order in which they had the number."""
    told = told_by("same_number", "30", needs="has_identity")
    held = told.all_said("holder")
    (number,) = {line["pid"] for line in held}

    # The first of that number found out that it was free.
    births, ends = told.of(Fork, number)[1:], told.of(Exit, number)[1:]
    assert [event.start_ticks for event in births] == [line["start"] for line in held]
    assert [event.key for event in ends] == [event.key for event in births]
    assert [event.exit_code for event in ends] == list(range(30))
    assert len({event.key for event in births}) == 30


def test_nested_namespaces_number_a_process_at_every_level(told_by: Tell) -> None:
    """`ns_pids` is what NSpid of /proc shows, outermost first; `pid_ns` the innermost inode."""
    told = told_by("nested_namespaces", "3", needs="has_identity")

    levels = told.all_said("level")
    assert [level["level"] for level in levels] == [0, 1, 2, 3]
    for level in levels:
        numbers = [int(number) for number in level["numbers"].split()]
        event: Fork | Observed
        if level["level"] == 0:
            (event,) = [seen for seen in told.snapshot if isinstance(seen, Observed)]
        else:
            event = told.only(Fork, numbers[0])
        assert event.ns_pids == numbers
        assert event.pid_ns == level["inode"]
        assert (event.pid, event.start_ticks) == (numbers[0], level["start"])


def test_numbers_are_those_of_the_agents_namespace(told_by: Tell) -> None:
    """The agent sees its own numbers, and knows which namespace it speaks for."""
    told = told_by("nested_namespaces", "1")

    (root,) = [seen for seen in told.snapshot if isinstance(seen, Observed)]
    assert root.pid_ns == Path("/proc/self/ns/pid").stat().st_ino
    assert (root.pid, root.ppid) == (told.root, os.getpid())


def test_exec_counts_images_from_the_parents_count(told_by: Tell) -> None:
    """`exec_id` starts at the parent's value and grows by one with each exec."""
    told = told_by("vfork_exec", needs="has_argv has_identity")

    parent, child = told.only(Exec, told.root), told.only(Exec, told.said("child")["pid"])
    assert parent.exec_id is not None
    assert child.exec_id == parent.exec_id + 1
    assert told.only(Exit, told.root).start_ticks == parent.start_ticks
