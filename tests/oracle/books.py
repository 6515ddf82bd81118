"""
The books that random workloads keep of themselves, compared with the tree of a source.

tests/programs/oracle.c writes down each process: who it is, whose child, which
images, how its reaper saw it end. Nothing of that comes from pidtrail. A tree is
right if it has these processes and no others, and says the same of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pidtrail.events import INITIAL_PID_NS, Event, Lost, ProcessKey
from pidtrail.node import Node
from pidtrail.sources.core import pid_namespace
from pidtrail.sources.source import Source
from pidtrail.tree import ProcessTree
from tests.oracle.held import Held, wait_for

FIRST = pid_namespace() == INITIAL_PID_NS
"""Whether we are in the first PID namespace, where a kernel's tid says which thread it is."""
SIZE = 40
"""Processes in one workload."""


class Entry(msgspec.Struct):
    """What the books hold of one process; see struct slot in oracle.c."""

    at: str
    seed: int
    pid: int
    start: int
    ppid: int
    parent_start: int
    creator: int
    wstatus: int
    images: int
    thread_images: int
    parent_at_end: int
    left: bool
    ns_pids: list[int]


class Run(msgspec.Struct):
    """Some workloads that were watched: their books and the tree."""

    driver: ProcessKey
    entries: list[Entry]
    tree: ProcessTree
    lost: int


def watch(source: Source, first: int, count: int, size: int = SIZE) -> Run:
    """Run `count` workloads from seed `first` on under a source, to the end of all of them."""
    with Held("oracle", str(first), str(count), str(size)) as held:
        events: list[Event] = []
        tree = ProcessTree()
        try:
            source.open([held.pid])
            events += source.snapshot()
            (driver,) = {event.key for event in events if event.key is not None}
            held.release()

            def over() -> bool:
                ended = held.ended()
                batch = source.read()
                events.extend(batch)
                for event in batch:
                    tree.apply(event)
                return ended and not batch and all(n.ended_ns for n in tree.nodes.values())

            for event in events:
                tree.apply(event)
            wait_for(over, "the end of all processes")
        finally:
            source.close()
        assert held.process.returncode == 0
        said: Any = held.said("process")
        lost = sum(event.count or 1 for event in events if isinstance(event, Lost))
        return Run(driver, msgspec.convert(said, list[Entry]), tree, lost)


def pairs(run: Run) -> Iterator[tuple[Entry | None, Node | None]]:
    """
    Yield each process of the books with its node, None where one is missing.

    By number and start; a node without a start is the one of its number that was
    born at that place in the order of births.
    """
    booked: dict[int, list[Entry]] = {}
    for entry in sorted(run.entries, key=lambda entry: entry.start):
        booked.setdefault(entry.pid, []).append(entry)
    numbers = booked.keys() | run.tree.by_pid.keys() - {run.driver.pid}
    for pid in sorted(numbers):
        entries, nodes = booked.get(pid, []), run.tree.with_pid(pid)
        for place in range(max(len(entries), len(nodes))):
            yield (
                entries[place] if place < len(entries) else None,
                nodes[place] if place < len(nodes) else None,
            )


def differences(run: Run, source: Source) -> list[str]:
    """Return what a tree says otherwise than the books, one line each."""
    found = [] if run.lost == 0 else [f"{run.lost} records were lost"]
    starts = {node.key.start_ticks for node in run.tree.nodes.values()}
    if source.fidelity.has_start_ns and None in starts:
        found.append("a process without a start")
    for entry, node in pairs(run):
        if entry is None or node is None:
            what = f"{node.key} is not in the books" if node else f"{entry} is not in the tree"
            found.append(what)
            continue
        found += [
            f"seed {entry.seed}, process {entry.pid}: {what} should be {booked!r}, is {told!r}"
            for what, booked, told in claims(entry, node, run.tree, source)
            if booked != told
        ]
    return found


def claims(
    entry: Entry, node: Node, tree: ProcessTree, source: Source
) -> Iterator[tuple[str, object, object]]:
    """Yield (what, value in the books, value in the tree), as far as a source can know it."""
    if node.fork is None or node.exit is None:
        yield "birth and end", (True, True), (node.fork is not None, node.exit is not None)
        return
    if node.key.start_ticks is not None:
        yield "start", entry.start, node.key.start_ticks
    parent = node.birth_parent
    if parent is not None or source.fidelity.has_lineage:
        yield "birth parent", entry.ppid, parent.pid if parent else None
        yield "a birth parent in the tree", True, parent in tree.nodes
    if parent is not None and parent.start_ticks is not None:
        yield "start of the birth parent", entry.parent_start, parent.start_ticks
    if source.fidelity.has_wstatus:
        yield "wait status", entry.wstatus, node.exit.wstatus
    yield "program images", entry.images, len(node.execs)
    if source.fidelity.has_counters:
        creator = entry.creator if entry.creator != entry.ppid else None
        yield "creator", creator, node.fork.creator_pid
        # In another namespace than the first the books know nothing of the numbers further out.
        told = node.ns_pids[-len(entry.ns_pids) :] if node.ns_pids and not FIRST else node.ns_pids
        yield "numbers", entry.ns_pids, told
        if FIRST:
            threads = [record for record in node.execs if record.old_tid is not None]
            yield "images from a thread", entry.thread_images, len(threads)
        # Whose parent may leave at any moment, also one who adopted it, is adopted at a moment
        # that only the kernel knows.
        if not entry.left:
            yield "parent at the end", entry.parent_at_end, node.exit.ppid
            last = tree.parent(node)
            yield "last parent", entry.parent_at_end, last.pid if last else None
            yield "last parent in the tree", True, last in tree.nodes
