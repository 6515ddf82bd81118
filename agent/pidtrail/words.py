"""
Under which names the records of a stream are indexed, so that a question reads few of them.

A word is a record that is found by itself: what Airflow says, and what is told of a
process from its first word about a task or a part in running tasks on. All others are
found by place: which batch tells something of a number. They are nearly all of a recording,
and neighbours in number are neighbours in time; so numbers are taken by blocks.

Rule 1: a record is a word under all its numbers, or its batch is a place of them. So it
        may be forgotten at any time who has spoken: then more is found by place.
Rule 2: nothing is concluded. A name is what one record says, by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from pidtrail.airflow.facts import INSTALLATION, Role, short
from pidtrail.airflow.identify import log_path_task
from pidtrail.airflow.lognames import LogNames
from pidtrail.attribution import facts_of
from pidtrail.events import (
    AirflowFact,
    Event,
    Exec,
    Exit,
    Fork,
    Header,
    Lost,
    Observed,
    Reap,
    TaskRef,
    TaskReported,
    Title,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK: Final = 4
"""Numbers are taken by sixteen."""
SEPARATOR: Final = "\x1f"
ABOVE_ALL: Final = "above all"
"""The name of what bears on every question: losses, templates of log names, installations."""
SPEAKING: Final = frozenset({Title, Exec, Observed})
USER_CODE: Final = frozenset({Role.RUNNER, Role.SUDO, Role.OPERATOR_CHILD})
"""May start any number of processes."""


class Word(NamedTuple):
    """A record that is found by itself, and its names."""

    event: Event
    names: Sequence[str]


class Entry(NamedTuple):
    """What a batch adds to the index: its words, and the blocks of numbers it is a place of."""

    words: list[Word]
    blocks: set[int]


class Words:
    """
    Tells the entries of a stream, batch by batch, in the order in which they are written.

    `sound` is False once an entry may be wrong: names of logs were read by templates that
    changed since. Bounded by how many processes live.
    """

    def __init__(self, header: Header) -> None:
        self.last: type = Reap if header.fidelity.has_reaps else Exit
        self.host = short(header.host)
        self.log_names = LogNames()
        self.templates: set[str] = set()
        self.own_paths = False
        self.airflows: set[str] = set()
        self.born: dict[int, int | None] = {}
        self.spoke: dict[int, int | None] = {}
        self.serves: dict[int, int | None] = {}
        self.sound = True

    def forget(self) -> None:
        """Forget who spoke: what was taken last was not written."""
        for known in (self.airflows, self.born, self.spoke, self.serves):
            known.clear()

    def learn(self, events: Iterable[Event]) -> None:
        """Take in how logs are named, before the records that came with it."""
        for event in events:
            if type(event) is AirflowFact and event.table == "log_template":
                self.log_names.learn(event)
                text = str(event.detail)
                # By another template an earlier path may be another task's.
                self.sound &= text in self.templates or not self.own_paths
                self.templates.add(text)

    def entry(self, events: Iterable[Event]) -> Entry:  # noqa: C901, PLR0912 (for each record)
        """Return what a batch adds."""
        words: list[Word] = []
        blocks: set[int] = set()
        born, spoke, serves, last = self.born, self.spoke, self.serves, self.last
        for event in events:
            kind, pid, ticks = type(event), event.pid, event.start_ticks
            if pid is None or kind is TaskReported or kind is AirflowFact:
                words += self.of_airflow(event)
                continue
            if kind is Fork:
                born[pid] = ticks
                spoke.pop(pid, None)
                above = event.ppid  # type: ignore[union-attr]
                if ticks is not None and serves.get(above, 0) != event.parent_start_ticks:  # type: ignore[arg-type, union-attr]
                    blocks.add(pid >> BLOCK)
                    if above is not None:
                        blocks.add(birth_block(above))
                    inner = event.ns_pids  # type: ignore[union-attr]
                    if inner is not None and len(inner) > 1:
                        blocks.update(number >> BLOCK for number in inner)
                else:
                    words.append(Word(event, numbers_of(event, pid)))
                continue
            names = self.listen(event, pid) if kind in SPEAKING else []  # type: ignore[arg-type]
            if ticks is None or born.get(pid) != ticks:
                # Of who was never born here another number may be told, by its start alone.
                words.append(Word(event, [*names, *numbers_of(event, pid), f"s:{event.start_ns}"]))
            elif spoke.get(pid, 0) == ticks:
                words.append(Word(event, [*names, *numbers_of(event, pid)]))
            else:
                blocks.add(pid >> BLOCK)
                if kind is Observed:
                    blocks.update(blocks_of(event))  # type: ignore[arg-type]
            if kind is last:
                for told in (born, spoke, serves):
                    told.pop(pid, None)
        return Entry(words, blocks)

    def listen(self, event: Title | Exec | Observed, pid: int) -> list[str]:
        """Return the names in what a process shows of itself, and note that it spoke."""
        names: list[str] = []
        facts = facts_of(event)
        if facts is not None:
            names += names_of(facts.task, "c")
            if facts.job_id is not None:
                names.append(f"j:{facts.job_id}")
            self.serves.pop(pid, None)
            if facts.role not in USER_CODE:
                self.serves[pid] = event.start_ticks
        path = event.log_path if isinstance(event, Observed) else None
        if path is not None:
            self.own_paths |= log_path_task(path) is None
            names += names_of(self.log_names.task(path), "c")
        if facts is not None or path is not None:
            self.spoke[pid] = event.start_ticks
        return names

    def of_airflow(self, event: Event) -> list[Word]:
        """Return a record that Airflow or nobody says as a word; none if nothing asks for it."""
        names: list[str] = []
        if isinstance(event, Lost):
            names.append(ABOVE_ALL)
        elif isinstance(event, AirflowFact):
            names += names_of(event.task, "f")
            if event.table == "job":
                names.append(f"q:{event.row_id}")
            if event.table in {INSTALLATION, "log_template"}:
                names.append(ABOVE_ALL)
        elif isinstance(event, TaskReported):
            names += self.of_row(event)
        airflow = getattr(event, "airflow", None)
        if airflow is not None and airflow not in self.airflows:
            self.airflows.add(airflow)
            names.append(f"a:{airflow}")
        return [Word(event, list(dict.fromkeys(names)))] if names else []

    def of_row(self, event: TaskReported) -> list[str]:
        """Return the names in what Airflow says of a task instance, or a process of itself."""
        names = names_of(event.task, "r" if event.key is None else "c")
        if event.pid is not None:
            names.append(f"n:{event.pid}")
        if event.job_id is not None:
            names.append(f"j:{event.job_id}")
        if event.recorded_pid is not None:
            names.append(f"p:{event.recorded_pid}")
        if event.hostname and short(event.hostname) != self.host:
            names.append(f"h:{short(event.hostname)}")
        return names


def names_of(task: TaskRef | None, kind: str) -> list[str]:
    """Return the names of a reference; `kind` is who makes it: c process, r row, f other row."""
    if task is None:
        return []
    names = [] if task.ti_id is None else [f"t:{task.ti_id}"]
    if task.dag_id is not None:
        names.append(name_of(kind, task.dag_id, task.run_id, task.task_id))
    return names


def name_of(kind: str, dag_id: str, run_id: str | None, task_id: str | None) -> str:
    """Return the name of a reference; what it leaves open is empty."""
    return f"{kind}:{dag_id}{SEPARATOR}{run_id or ''}{SEPARATOR}{task_id or ''}"


def numbers_of(event: Event, pid: int) -> list[str]:
    """Return the names under which a process is found: its numbers, and who it was born of."""
    names = [f"n:{pid}"]
    if isinstance(event, Fork | Observed):
        names += [f"n:{number}" for number in event.ns_pids or () if number != pid]
        if event.ppid is not None:
            names.append(f"b:{event.ppid}")
    return list(dict.fromkeys(names))


def blocks_of(event: Observed) -> list[int]:
    """Return the blocks of a process's other numbers, and of who it was born of."""
    found = [number >> BLOCK for number in event.ns_pids or ()]
    if event.ppid is not None:
        found.append(birth_block(event.ppid))
    return found


def birth_block(number: int) -> int:
    """Return the block under which births are found of those who had a number."""
    return ~(number >> BLOCK)
