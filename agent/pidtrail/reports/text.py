"""
The process tree as text for people.

One line per process, parents above their children, ordered by birth. Everything
that a process or Airflow chose to call something goes through `visible`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TextIO

from pidtrail.clock import NS_PER_SECOND, rfc3339
from pidtrail.events import Header, Lost, ProcessKey, TaskRef
from pidtrail.node import Node
from pidtrail.reports.escape import visible
from pidtrail.reports.process import NOTHING, Label, labels_of, signal_name, task_label
from pidtrail.reports.terminal import may_colour, painted, width_of
from pidtrail.reports.verdicts import render_verdicts
from pidtrail.tree import ProcessTree
from pidtrail.verdict.model import Report

MANY: Final = 8
"""So many same-looking siblings become one line."""
SHORT_NS: Final = 10 * NS_PER_SECOND
"""Who lives longer keeps a line of its own."""
DEEPEST: Final = 40
"""Levels that are indented; a chain of forks may be thousands deep, a terminal is not that wide."""
LONGEST: Final = 240
SHORTEST: Final = 24
"""Columns for a name, where the width is not known, and at least."""

Parts = list[tuple[str, str | None]]
"""Pieces of a line, each with its style."""


class Crowd(NamedTuple):
    """Siblings that look the same, lived shortly and had no children; oldest first."""

    nodes: list[Node]


class Entry(NamedTuple):
    """A line to come: what it shows, what its children are indented with, and its depth."""

    what: Node | Crowd
    indent: str
    last: bool
    depth: int


def print_tree(
    tree: ProcessTree,
    header: Header,
    *,
    file: TextIO,
    shown: dict[ProcessKey, None] | None = None,
    labels: dict[ProcessKey, Label] | None = None,
) -> None:
    """Write a tree to a file, or those of it to be `shown`; width and colour are the file's."""
    labels = labels_of(tree) if labels is None else labels
    writer = TreeWriter(tree, header, labels, width=width_of(file), colour=may_colour(file))
    file.writelines(f"{line}\n" for line in writer.all_lines(shown))


def print_report(report: Report, *, file: TextIO) -> None:
    """Write verdicts to a file; width and colour are the file's."""
    file.write(render_verdicts(report, width=width_of(file), colour=may_colour(file)))


def render_tree(
    tree: ProcessTree,
    header: Header,
    *,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Return a tree as text."""
    writer = TreeWriter(tree, header, labels_of(tree), width=width, colour=colour)
    return "".join(f"{line}\n" for line in writer.all_lines(None))


def chosen(
    tree: ProcessTree,
    labels: dict[ProcessKey, Label],
    task: str | None,
    since_ns: int | None = None,
) -> dict[ProcessKey, None] | None:
    """
    Return the processes to show, with their ancestors; None for all.

    Of `DAG.TASK` those that worked for it and what they started; of `since_ns`, by
    CLOCK_BOOTTIME, those that lived then or later.
    """
    if task is None and since_ns is None:
        return None
    found: dict[ProcessKey, None] = {}
    for node in tree.nodes.values() if task is None else nodes_of_task(tree, labels, task):
        if since_ns is None or node.ended_ns is None or node.ended_ns >= since_ns:
            found.update((one.key, None) for one in tree.lineage(node.key))
    return found


def nodes_of_task(tree: ProcessTree, labels: dict[ProcessKey, Label], task: str) -> Iterator[Node]:
    """Yield the processes that worked for `DAG.TASK`, and what they started."""
    for key, label in labels.items():
        if not any(f"{t.dag_id}.{t.task_id}" == task for t in label.tasks):
            continue
        yield from tree.lineage(key)[:1]
        # A worker serves many: of its children only those that are this task's.
        if all(f"{t.dag_id}.{t.task_id}" == task for t in label.tasks):
            yield from tree.descendants(key)


def in_order(
    tree: ProcessTree, shown: dict[ProcessKey, None] | None = None
) -> Iterator[ProcessKey]:
    """Yield processes so that parents come before children, oldest first; those in `shown`."""
    waiting = [node.key for node in reversed(tree.roots())]
    seen: set[ProcessKey] = set()
    while waiting:
        key = waiting.pop()
        if key in seen or (shown is not None and key not in shown):
            continue
        seen.add(key)
        yield key
        waiting.extend(child.key for child in reversed(tree.children(key)))


class TreeWriter:
    """Makes the lines of one tree."""

    def __init__(
        self,
        tree: ProcessTree,
        header: Header,
        labels: dict[ProcessKey, Label],
        *,
        width: int | None,
        colour: bool,
    ) -> None:
        self.tree = tree
        self.header = header
        self.labels = labels
        self.width = width
        self.colour = colour
        self.day = self.last_day()

    def all_lines(self, shown: dict[ProcessKey, None] | None) -> Iterator[str]:
        """Yield the head and the processes, or those to be `shown`."""
        yield from self.head()
        yield from self.lines(shown)

    def last_day(self) -> str:
        """Return the day of the last record of a process; times of other days carry theirs."""
        times = [node.ended_ns or node.started_ns or 0 for node in self.tree.nodes.values()]
        return self.wall(max(times, default=0))[:10]

    def wall(self, ts_boot_ns: int) -> str:
        """Return an instant as RFC 3339 in UTC."""
        return rfc3339(ts_boot_ns + self.header.wall_offset_ns)

    def clock(self, ts_boot_ns: int | None) -> str:
        """Return a time of the day to the millisecond, with the date if it is another day."""
        if ts_boot_ns is None:
            return "?"
        text = self.wall(ts_boot_ns)
        return text[11:23] if text.startswith(self.day) else f"{text[:10]} {text[11:19]}"

    def head(self) -> Iterator[str]:
        """Yield what holds for the whole tree."""
        header = self.header
        count = len(self.tree.nodes)
        yield self.line(
            [
                (
                    f"{count} process{'es' if count != 1 else ''} on {visible(header.host, 80)}",
                    "bold",
                ),
                (f"source {visible(header.source, 40)}, {self.day}, times in UTC", "dim"),
                ("switched: voluntary/involuntary", "dim"),
            ]
        )
        for lost in self.tree.losses:
            yield self.line([(lost_text(lost, self.clock), "yellow")])

    def line(self, parts: Parts, lead: str = "") -> str:
        """Return pieces as one line."""
        if not self.colour:
            return lead + "  ".join(text for text, _ in parts if text)
        return lead + "  ".join(painted(text, style) for text, style in parts if text)

    def lines(self, shown: dict[ProcessKey, None] | None) -> Iterator[str]:
        """Yield a line per process or crowd, depth first without recursion."""
        seen: set[ProcessKey] = set()
        waiting = self.entries(self.tree.roots(), shown, "", 0)
        while waiting:
            entry = waiting.pop()
            lead = self.lead(entry)
            if isinstance(entry.what, Crowd):
                yield self.line(self.crowd_parts(entry.what, len(lead)), lead)
                continue
            key = entry.what.key
            if key in seen:
                continue
            seen.add(key)
            yield self.line(self.parts(entry.what, len(lead)), lead)
            below = entry.indent
            if 0 < entry.depth < DEEPEST:
                below += "   " if entry.last else "│  "
            waiting += self.entries(self.tree.children(key), shown, below, entry.depth + 1)

    def lead(self, entry: Entry) -> str:
        """Return what stands before the pid: the branches of the tree."""
        if entry.depth == 0:
            return ""
        beyond = f"({entry.depth - DEEPEST} deeper) " if entry.depth > DEEPEST else ""
        return f"{entry.indent}{'└─ ' if entry.last else '├─ '}{beyond}"

    def entries(
        self, nodes: list[Node], shown: dict[ProcessKey, None] | None, indent: str, depth: int
    ) -> list[Entry]:
        """Return siblings as lines to come, last first; a crowd stands where its oldest was."""
        if shown is not None:
            nodes = [node for node in nodes if node.key in shown]
        crowds: dict[tuple[object, ...], list[Node]] = {}
        for node in nodes:
            looks = self.looks(node)
            if looks is not None:
                crowds.setdefault(looks, []).append(node)
        first = {c[0].key: Crowd(c) for c in crowds.values() if len(c) >= MANY}
        inside = {node.key for crowd in first.values() for node in crowd.nodes}
        found: list[Node | Crowd] = [
            first.get(node.key, node)
            for node in nodes
            if node.key not in inside or node.key in first
        ]
        end = len(found) - 1
        return [Entry(found[i], indent, i == end, depth) for i in range(end, -1, -1)]

    def looks(self, node: Node) -> tuple[object, ...] | None:
        """Return what makes short-lived siblings look the same, or None for one that stands out."""
        started, ended = node.started_ns, node.ended_ns
        if ended is None or started is None or ended - started > SHORT_NS:
            return None
        if node.oom is not None or self.tree.children(node.key):
            return None
        label = self.labels.get(node.key, NOTHING)
        wstatus = None if node.exit is None else node.exit.wstatus
        return program_of(node), wstatus, label

    def parts(self, node: Node, used: int) -> Parts:
        """Return the pieces of a process's line."""
        label = self.labels.get(node.key, NOTHING)
        tail: Parts = [
            (self.span(node), "dim"),
            self.ending(node),
            (counters(node), "dim"),
            (self.adopted(node), "yellow"),
            (task_text(label.tasks), "green"),
        ]
        head: Parts = [
            (str(node.key.pid), "bold"),
            ("" if label.role is None else str(label.role), "cyan"),
        ]
        return [*head, (visible(name_of(node), self.room([*head, *tail], used)), None), *tail]

    def crowd_parts(self, crowd: Crowd, used: int) -> Parts:
        """Return the pieces of a crowd's line."""
        first, last = crowd.nodes[0], crowd.nodes[-1]
        label = self.labels.get(first.key, NOTHING)
        names = {name_of(node) for node in crowd.nodes}
        name = name_of(first) if len(names) == 1 else f"{program_of(first)} …"
        end = max(node.ended_ns or 0 for node in crowd.nodes)
        tail: Parts = [
            (f"pids {first.key.pid} … {last.key.pid}", "dim"),
            (f"{self.clock(first.started_ns)}–{self.clock(end)}", "dim"),
            self.ending(first),
            (task_text(label.tasks), "green"),
        ]
        head: Parts = [
            (f"{len(crowd.nodes)} ×", "bold"),
            ("" if label.role is None else str(label.role), "cyan"),
        ]
        return [*head, (visible(name, self.room([*head, *tail], used)), None), *tail]

    def room(self, others: Parts, used: int) -> int:
        """Return the columns that are left for a name."""
        if self.width is None:
            return LONGEST
        taken = used + sum(len(text) + 2 for text, _ in others if text)
        return max(self.width - taken, SHORTEST)

    def span(self, node: Node) -> str:
        """Return from when to when it lived; `≤` where it was found dead, and had ended before."""
        started = self.clock(node.started_ns)
        if node.ended_ns is None:
            return f"{started}–"
        return f"{started}–{'' if node.exit is not None else '≤'}{self.clock(node.ended_ns)}"

    def ending(self, node: Node) -> tuple[str, str | None]:
        """Return how it ended, with a style."""
        if node.ended_ns is None:
            return "alive", "green"
        if node.exit is None:
            return "ended", "dim"
        if node.exit.termsig is None:
            code = node.exit.exit_code
            return f"exit {'?' if code is None else code}", "red" if code else "dim"
        words = signal_name(node.exit.termsig)
        if node.oom is not None:
            words += ", out of memory"
        elif sent := [r for r in node.signals if r.sig == node.exit.termsig and r.sender_pid]:
            comm = "" if sent[-1].sender_comm is None else f" {visible(sent[-1].sender_comm, 15)}"
            words += f" from {sent[-1].sender_pid}{comm}"
        return words + (", core dumped" if node.exit.core_dumped else ""), "red"

    def adopted(self, node: Node) -> str:
        """Return who adopted it, if its parent by birth is not its parent any more."""
        birth, parent = node.first_parent, self.tree.parent(node)
        if birth is None:
            return ""
        if parent is None:
            return "(reparented)"
        return "" if parent.pid == birth.pid else f"(reparented to {parent.pid})"


def name_of(node: Node) -> str:
    """Return what a process calls itself: title, command line, or its comm in brackets."""
    if node.title is not None:
        return node.title
    if node.argv:
        return " ".join(node.argv)
    return "?" if node.comm is None else f"[{node.comm}]"


def program_of(node: Node) -> str:
    """Return the first word of a process's name."""
    return name_of(node).split(" ", 1)[0]


def counters(node: Node) -> str:
    """Return how often the kernel moved and switched it, or nothing where that is not known."""
    end = node.exit
    if end is None or (end.migrations is None and end.voluntary_switches is None):
        return ""
    shown = [
        "?" if n is None else str(n)
        for n in (end.migrations, end.voluntary_switches, end.involuntary_switches)
    ]
    return f"moved {shown[0]}, switched {shown[1]}/{shown[2]}"


def task_text(tasks: tuple[TaskRef, ...]) -> str:
    """Return the task instance that a process worked for, and how many there were before."""
    if not tasks:
        return ""
    more = f" (and {len(tasks) - 1} before)" if len(tasks) > 1 else ""
    return f"{visible(task_label(tasks[-1]), 100)}{more}"


def lost_text(lost: Lost, clock: Callable[[int | None], str]) -> str:
    """Return a loss in words; `clock` turns CLOCK_BOOTTIME into text."""
    count = "an unknown number of" if lost.count is None else str(lost.count)
    return (
        f"lost {count} events {clock(lost.from_ns)}–{clock(lost.to_ns)}: "
        f"{visible(lost.reason or 'no reason given', 200)}"
    )
