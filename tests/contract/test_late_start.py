"""Attaching to a tree that is alive and forking: nothing missed, nothing double."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pidtrail.events import Event, Exit, Fork, Observed, Reap
from pidtrail.sources.source import Source
from tests.contract.conftest import require
from tests.contract.story import Story

GIVEN_LAST = Path("/proc/sys/kernel/ns_last_pid")
DOWNWARDS = Path(__file__).resolve().parents[1] / "programs" / "downwards.sh"
GENERATIONS = 4


def key_of(event: Event) -> tuple[int | None, int | None]:
    """Return what the program itself knows of a process: number and start in ticks."""
    return event.pid, event.start_ticks


@pytest.mark.parametrize("attempt", range(5))
def test_late_start_misses_nothing_and_doubles_nothing(
    source: Source, tmp_path: Path, attempt: int
) -> None:
    """
    Who was alive when the source was open is in the snapshot or was seen being born.

    The program's processes say who they are, and an instant at which each was dead and not yet
    collected: who certainly was there is known.
    """
    require(source, "sees_short_lived has_identity")
    stop = tmp_path / f"stop-{attempt}"
    with Story(source, "forking_tree", str(stop), "3") as story:
        story.release()
        story.wait_for(lambda: len(story.said()) > 60, "a tree in full growth")
        story.attach()
        opened_ns = story.opened_ns
        so_far = len(story.said())
        story.wait_for(lambda: bool(story.read_on()) or len(story.said()) > so_far + 300, "more")
        stop.touch()
        told = story.finish()

    parts = ("root", "worker", "child", "leaf")
    people = [line for line in told.lines if line["at"] in parts]
    when = {line["pid"]: line["there_ns"] for line in told.all_said("waited")}
    # The gate's number is the root's; numbers do not wrap within the second this takes.
    true = {(line["pid"], line["start"]): line for line in people}
    present = {key for key in true if when.get(key[0], opened_ns + 1) > opened_ns}

    born = Counter(key_of(event) for event in told.events if isinstance(event, Fork))
    there = Counter(key_of(event) for event in told.snapshot)
    ends = Counter(key_of(event) for event in told.events if isinstance(event, Exit))
    reaps = Counter(key_of(event) for event in told.events if isinstance(event, Reap))
    for counted in (born, there, ends, reaps):
        assert set(counted.values()) <= {1}

    known = set(born) | set(there)
    assert present - known == set(), "alive when we were open, and never mentioned"
    assert set(ends) - known == set(), "an end without a beginning"
    dead = {key_of(event) for event in told.snapshot if isinstance(event, Observed) and event.dead}
    assert present - set(ends) - dead == set(), "alive, and no end"
    assert known - set(true) == set(), "nobody of this tree"

    for birth in told.events:
        if isinstance(birth, Fork):
            assert birth.ppid == true[key_of(birth)]["ppid"]
            assert (birth.ppid, birth.parent_start_ticks) in known, "a parent that nobody knows"


@pytest.mark.needs_root
def test_children_are_found_whose_numbers_are_lower_than_their_parents(source: Source) -> None:
    """
    The kernel's task list goes by number, and numbers wrap.

    Each generation of this tree stands in the list before the one that it descends from.
    """
    GIVEN_LAST.write_text("20000")
    command = ["sh", str(DOWNWARDS), str(GENERATIONS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as root:
        assert root.stdout is not None
        tree = [int(root.stdout.readline()) for _ in range(GENERATIONS)]
        assert tree == sorted(tree, reverse=True)
        source.open([root.pid])
        shown = {event.pid for event in source.snapshot()}

        assert shown == set(tree)
