"""
What a question needs of a long stream: everything but the bulk of other attempts.

Rule 1: the answer is that of the whole stream, to the letter. Where that cannot be had
        otherwise, everything is taken.
Rule 2: pure. Batches of records come in, the numbers of those that are needed again go out.

What Airflow says, what any process shows of itself, and who is above that, is always
taken. Of the bulk (bulk.py) are taken: what descends from the attempts asked
about and from other attempts of the same task instances; who has, or had, a number that was
recorded for them or is asked about; who sent signals to them; and who turned out to be none,
with all between him and what is known.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from pidtrail.airflow.facts import Role
from pidtrail.bulk import Bulk
from pidtrail.correlate import Correlation, Gathered, correlate
from pidtrail.events import AirflowFact, Fork, Observed, ProcessKey, TaskReported
from pidtrail.members import PLUGIN
from pidtrail.tree import ProcessTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pidtrail.events import Event
    from pidtrail.node import Node
    from pidtrail.taskrun import TaskRun
    from pidtrail.verdict.question import Question

    Again = Callable[[int], Iterable[Event]]

Pair = tuple[int, int | None]
"""Number and start time of a process, as in its key."""
ABOVE: Final = frozenset({Role.SUPERVISOR, Role.SUDO})
"""Whose children may be runners without a word of their own."""


class Selection:
    """
    A stream as it is read for a question, batch by batch; then `gathered` is what it needs.

    `again` returns the records of a batch that was taken in, by its number.
    """

    def __init__(self, question: Question, again: Again) -> None:
        self.question, self.again = question, again
        self.tree = ProcessTree()
        self.reports: list[TaskReported] = []
        self.facts: list[AirflowFact] = []
        self.first_ns = self.last_ns = 0
        self.bulk = Bulk()
        self.places: dict[int, list[int]] = defaultdict(list)
        self.births: dict[int, list[int]] = defaultdict(list)
        self.known: set[Pair] = set()
        self.known_numbers: set[int] = set()
        self.known_parents: set[Pair] = set()

    def take(self, number: int, events: Iterable[Event]) -> None:
        """Take in a batch of records; `number` is its name for `again`."""
        is_bulk, last_ns = self.bulk.has, self.last_ns
        subjects: set[int | None] = set()
        parents: set[int | None] = set()
        for event in events:
            self.first_ns = self.first_ns or event.ts_boot_ns
            last_ns = max(last_ns, event.ts_boot_ns)
            if is_bulk(event):
                subjects.add(event.pid)
                if isinstance(event, (Fork, Observed)):
                    if event.ns_pids is not None:
                        subjects.update(event.ns_pids)
                    parents.add(event.ppid)
            elif isinstance(event, TaskReported):
                self.reports.append(event)
            elif isinstance(event, AirflowFact):
                self.facts.append(event)
            else:
                self.tree.apply(event)
        self.last_ns = last_ns
        for pid in subjects:
            self.places[pid or 0].append(number)
        for pid in parents:
            self.births[pid or 0].append(number)

    def gathered(self) -> Gathered:
        """Return what is needed, once all was taken in."""
        found = self.correlated()
        if self.question.pid is not None:
            self.load_numbers({self.question.pid})
            found = self.correlated()
        asked_for = [run for run in found.runs if self.question.means(run)]
        if self.places and any(m.node.fork is None for run in asked_for for m in run.runners):
            # Another number of the same process would be told by its start alone.
            self.load_everything()
        instances = {run.instance for run in asked_for}
        self.load_family([run for run in found.runs if run.instance in instances])
        return Gathered(self.tree, self.reports, self.facts, self.first_ns, self.last_ns)

    def correlated(self) -> Correlation:
        """Return the attempts, once who turned out to be no bulk is known wholly."""
        while True:
            found = correlate(self.tree, self.reports, self.facts)
            before = len(self.known), len(self.known_parents)
            spoke = {key for key, claims in found.claims.items() if claims}
            spoke |= {r.key for r in self.reports if r.via == PLUGIN and r.key is not None}
            self.load({key[:2] for key in spoke if key.pid in self.places})
            for key in spoke:
                self.load_above(self.tree.node(key))
            above = {
                key[:2]
                for key, claims in found.claims.items()
                if key.pid in self.births and any(claim.role in ABOVE for claim in claims)
            }
            self.load_below({ProcessKey(*pair) for pair in self.load(parents=above)})
            if before == (len(self.known), len(self.known_parents)):
                return found

    def load_above(self, node: Node | None) -> None:
        """Load the ancestors of a process that are bulk."""
        seen: set[ProcessKey] = set()
        while node is not None and (parent := node.first_parent) is not None:
            if parent in seen:
                return
            seen.add(parent)
            self.load({parent[:2]})
            node = self.tree.node(parent)

    def load_below(self, keys: set[ProcessKey]) -> None:
        """Load what descends from some processes."""
        waiting, seen = keys, set(keys)
        while waiting:
            self.load(parents={key[:2] for key in waiting})
            waiting = {child for key in waiting for child in self.tree.born_of.get(key, ())} - seen
            seen |= waiting

    def load_numbers(self, numbers: set[int]) -> None:
        """Load who had some numbers, in any PID namespace, and who is above them."""
        self.load(numbers=numbers)
        for node in list(self.tree.nodes.values()):
            if not numbers.isdisjoint(node.numbers):
                self.load_above(node)

    def load_family(self, runs: list[TaskRun]) -> None:
        """Load what verdicts on some attempts speak of besides their own processes."""
        members = [member for run in runs for member in run.members]
        # Other children of a supervisor are other attempts', or no bulk.
        own = {member.node.key for member in members if member.role is not Role.SUPERVISOR}
        self.load_below(own)
        nodes = {node.key: node for one in members for node in self.tree.lineage(one.node.key)}
        nodes |= {node.key: node for key in own for node in self.tree.descendants(key)}
        numbers = {report.recorded_pid for run in runs for report in run.reports}
        numbers |= {sent.sender_pid for node in nodes.values() for sent in node.signals}
        starts = {member.node.start_ns for run in runs for member in run.runners} - {None}
        numbers |= {
            node.key.pid
            for node in self.tree.nodes.values()
            if node.fork is None and node.start_ns in starts
        }
        self.load_numbers({number for number in numbers if number is not None})

    def load_everything(self) -> None:
        """Take in all bulk."""
        for place in sorted({place for places in self.places.values() for place in places}):
            for event in self.again(place):
                if not isinstance(event, TaskReported | AirflowFact):
                    self.tree.apply(event)
        self.places.clear()
        self.births.clear()

    def load(
        self,
        pairs: Iterable[Pair] = (),
        *,
        numbers: Iterable[int] = (),
        parents: Iterable[Pair] = (),
    ) -> set[Pair]:
        """
        Take in all bulk of some processes, of who had some numbers, of who was born of some.

        Returns the processes of which something was taken in now.
        """
        pairs, numbers = set(pairs) - self.known, set(numbers) - self.known_numbers
        parents = set(parents) - self.known_parents
        found: set[Pair] = set()
        while pairs or numbers or parents:
            self.known |= pairs
            self.known_numbers |= numbers
            self.known_parents |= parents
            subjects = numbers | {pid for pid, _ in pairs}
            where = {place for pid in subjects for place in self.places.get(pid, ())}
            where |= {place for pid, _ in parents for place in self.births.get(pid, ())}
            for place in sorted(where):
                for event in self.again(place):
                    if is_meant(event, pairs, numbers, parents):
                        self.tree.apply(event)
                        found.add((event.pid or 0, event.start_ticks))
            pairs, numbers, parents = found - self.known, set(), set()
        return found


def is_meant(event: Event, pairs: set[Pair], numbers: set[int], parents: set[Pair]) -> bool:
    """Return whether a record is of a process that is one of some, or had or was born of such."""
    if isinstance(event, TaskReported | AirflowFact) or event.pid is None:
        return False
    if event.pid in numbers or (event.pid, event.start_ticks) in pairs:
        return True
    if not isinstance(event, Fork | Observed):
        return False
    if event.ns_pids is not None and not numbers.isdisjoint(event.ns_pids):
        return True
    return isinstance(event, Fork) and (event.ppid, event.parent_start_ticks) in parents
