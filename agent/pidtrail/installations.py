"""
Whose a process or a row is, where a host has several installations of Airflow.

Two installations that run the same DAGs use the same names for all their task instances, so
names alone join nothing. A row says of which database it is. A process is of the installation
of its root, by birth; but a UUID of 3.x that stands in the rows of one installation alone says
more, for a Celery worker of 3.x has no database in its settings. Of such a root, all that ran
below it tells. Who has no known root (its parents ended before we looked) is of the one whose
row of that name carries its number.

Addresses tell less than databases: a pooler or another name of a server makes two of one. Two
are one if both recorded the same process with the same start, and it was born while we watched: a
copy of a database that was made before cannot know it.

With one installation, or none that is known, nothing is asked here and all is joined by names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

from pidtrail.airflow.facts import INSTALLATION
from pidtrail.events import AirflowFact, ProcessKey, TaskRef, TaskReported
from pidtrail.members import PLUGIN, RUNS_USER_CODE, Claim
from pidtrail.node import Node
from pidtrail.taskrun import speaks_of
from pidtrail.tree import ProcessTree


class Installations:
    """
    The installations of a stream; `several` says whether there may be more than one.

    `unlocated` says that some root's own settings did not tell of which one it is, beside
    others whose did.
    """

    def __init__(
        self,
        tree: ProcessTree,
        claims: dict[ProcessKey, list[Claim]],
        reports: Sequence[TaskReported],
        facts: Iterable[AirflowFact],
    ) -> None:
        self.tree, self.claims = tree, claims
        self.roots: dict[ProcessKey, str | None] = {}
        named = {report.airflow for report in reports}
        for fact in facts:
            named.add(fact.airflow)
            if fact.table == INSTALLATION and fact.key is not None:
                self.roots[fact.key] = fact.airflow or self.roots.get(fact.key)
        known = named - {None}
        self.unlocated = any(self.roots.values()) and None in self.roots.values()
        self.several = len(known) > 1 or self.unlocated
        self.same: dict[str, str] = {}
        self.by_uuid: dict[str, set[str]] = defaultdict(set)
        self.by_pid: dict[int, list[TaskReported]] = defaultdict(list)
        if not self.several:
            return
        for report in reports:
            if report.recorded_pid is not None:
                self.by_pid[report.recorded_pid].append(report)
        self.unite()
        for report in reports:
            airflow = self.one(report.airflow)
            if airflow is not None and report.task is not None and report.task.ti_id is not None:
                self.by_uuid[report.task.ti_id].add(airflow)
        if None in self.roots.values():
            self.find_roots()
        self.several = len({self.one(name) for name in known}) > 1 or self.unlocated

    def one(self, airflow: str | None) -> str | None:
        """Return an installation by the first of its names."""
        while airflow in self.same:
            airflow = self.same[airflow]
        return airflow

    def unite(self) -> None:
        """Find out which addresses are those of one installation; see the head of this file."""
        for key, tasks in self.told():
            node = self.tree.nodes[key]
            if node.fork is None:
                continue
            by_start: dict[str, set[str]] = defaultdict(set)
            for row in self.rows_of(node, tasks):
                if row.start_date is not None and row.airflow is not None:
                    by_start[row.start_date].add(row.airflow)
            for names in by_start.values():
                first, *others = sorted({str(self.one(name)) for name in names})
                self.same.update(dict.fromkeys(others, first))

    def find_roots(self) -> None:
        """Learn of roots whose settings tell nothing from the rows of what ran below them."""
        found: dict[ProcessKey, set[str]] = defaultdict(set)
        for key, tasks in self.told():
            node = self.tree.nodes[key]
            root = self.root_of(node)
            if root is not None and self.roots[root] is None:
                rows = self.rows_of(node, tasks)
                found[root].update(name for row in rows if (name := self.one(row.airflow)))
                found[root].update(*(self.by_uuid.get(task.ti_id or "", ()) for task in tasks))
        self.roots.update({root: min(names) for root, names in found.items() if len(names) == 1})
        self.unlocated &= None in self.roots.values()

    def told(self) -> Iterable[tuple[ProcessKey, list[TaskRef]]]:
        """Yield who says that it runs user code, with of which task instances."""
        for key, claims in self.claims.items():
            if tasks := [c.task for c in claims if c.task and c.role in RUNS_USER_CODE]:
                yield key, tasks

    @cached_property
    def told_by_number(self) -> dict[int, list[tuple[Node, list[TaskRef]]]]:
        """Who says that it runs user code, by its numbers."""
        found: dict[int, list[tuple[Node, list[TaskRef]]]] = defaultdict(list)
        for key, tasks in self.told():
            for number in self.tree.nodes[key].numbers:
                found[number].append((self.tree.nodes[key], tasks))
        return found

    def rows_of(self, node: Node, tasks: Iterable[TaskRef]) -> list[TaskReported]:
        """Return the rows of task instances that carry a process's number."""
        return [
            row
            for number in node.numbers
            for row in self.by_pid.get(number, ())
            if row.task is not None and any(means(task, row.task) for task in tasks)
        ]

    def root_of(self, node: Node) -> ProcessKey | None:
        """Return the root of which a process was born, None if none is known."""
        lineage = self.tree.lineage(node.key)
        return next((above.key for above in lineage if above.key in self.roots), None)

    def by_root(self, node: Node) -> str | None:
        """Return the installation of a process's root, None if that is not known."""
        root = self.root_of(node)
        return None if root is None else self.one(self.roots[root])

    def of(self, node: Node, task: TaskRef) -> str | None:
        """Return for which installation a process ran a task instance; None if not known."""
        if not self.several:
            return None
        by_uuid = self.by_uuid.get(task.ti_id or "", ())
        if len(by_uuid) == 1:
            return next(iter(by_uuid))
        by_root = self.by_root(node)
        if by_root is not None:
            return by_root
        names = {self.one(row.airflow) for row in self.rows_of(node, [task])} - {None}
        return names.pop() if len(names) == 1 else None

    def of_report(self, report: TaskReported) -> str | None:
        """Return which installation recorded this; None if not known, or if there is one."""
        if not self.several or report.task is None:
            return None
        if report.airflow is not None:
            return self.one(report.airflow)
        if report.via == PLUGIN:
            node = self.tree.node(report.key)
            return None if node is None else self.of(node, report.task)
        names = set(self.by_uuid.get(report.task.ti_id or "", ()))
        if not names:
            names = {
                root
                for node, tasks in self.told_by_number.get(report.recorded_pid or 0, ())
                if any(means(task, report.task) for task in tasks)
                and (root := self.by_root(node)) is not None
            }
        return names.pop() if len(names) == 1 else None


def means(task: TaskRef, row: TaskRef) -> bool:
    """Return whether what a process says of itself fits a row."""
    if task.ti_id is not None and row.ti_id is not None:
        return task.ti_id == row.ti_id
    return speaks_of(task, row)


def once(facts: Iterable[AirflowFact]) -> list[AirflowFact]:
    """Return rows without those that were read by another address of the same database too."""
    found: dict[tuple[object, ...], AirflowFact] = {}
    for fact in facts:
        found.setdefault((fact.table, fact.row_id, fact.event, fact.at, fact.key), fact)
    return list(found.values())
