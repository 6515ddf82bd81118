"""
Which task instance each live process belongs to, as the stream goes by.

This fills `task` in records while they are captured. It knows no future: a
record made before a process was identified stays without. `correlate` judges
later with everything at hand.

What a process says of itself (open log, plugin, title, argv) is its own; a child
inherits from a process that works for a task instance until it says otherwise.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec import structs

from pidtrail.airflow.commands import argv_facts
from pidtrail.airflow.facts import Role, TitleFacts, uuid_in
from pidtrail.airflow.identify import env_task, merge, shown_facts, title_facts
from pidtrail.airflow.lognames import LogNames
from pidtrail.events import (
    AirflowFact,
    Event,
    Exec,
    Exit,
    Fork,
    Observed,
    ProcessKey,
    Reap,
    TaskRef,
    TaskReported,
    Title,
)

MAX_ENDED: Final = 20_000
MAX_KNOWN: Final = 20_000
CHILD_ROLE: Final = {
    Role.SUPERVISOR: Role.RUNNER,
    Role.RUNNER: Role.OPERATOR_CHILD,
    Role.SUDO: Role.OPERATOR_CHILD,
    Role.OPERATOR_CHILD: Role.OPERATOR_CHILD,
}
"""What a child is before it says so itself: a supervisor forks the runner, a runner the rest."""


class Label(NamedTuple):
    """What a process works for, and as what."""

    task: TaskRef
    role: Role


class Attribution:
    """Labels of the live processes; bounded."""

    def __init__(self) -> None:
        self.labels: dict[ProcessKey, Label] = {}
        self.ended: dict[ProcessKey, None] = {}
        self.lingering: set[ProcessKey] = set()
        self.known: dict[str, TaskRef] = {}
        self.log_names = LogNames()

    def label(self, event: Event) -> Event:
        """Take in one record and return it with its `task`, if that is known."""
        if isinstance(event, AirflowFact):
            self.log_names.learn(event)
            return event
        key = event.key
        if isinstance(event, TaskReported):
            self.take(event)
            return event
        if key is None or event.task is not None:
            return event
        if isinstance(event, Fork):
            self.inherit(event, key)
        elif isinstance(event, Title | Exec | Observed):
            self.identify(event, key)
        label = self.labels.get(key)
        if isinstance(event, Exit):
            self.on_exit(key)
            if label is not None and label.role is Role.RUNNER:
                self.release(event, label)
        if label is None:
            return event
        if isinstance(event, Reap):
            self.drop(key)
        return structs.replace(event, task=self.full(label.task))

    def inherit(self, event: Fork, key: ProcessKey) -> None:
        """Give a new process the task instance of who forked it."""
        if event.parent_key is None:
            return
        parent = self.labels.get(event.parent_key)
        role = CHILD_ROLE.get(parent.role) if parent else None
        if parent is not None and role is not None:
            self.labels[key] = Label(parent.task, role)

    def identify(self, event: Title | Exec | Observed, key: ProcessKey) -> None:
        """Take what a process shows of itself."""
        if isinstance(event, Observed) and event.log_path is not None:
            task = self.log_names.task(event.log_path)
            label = self.labels.get(key)
            if task is not None:
                self.set(key, task, label.role if label else Role.OTHER)
        if isinstance(event, Observed) and event.env is not None and key not in self.labels:
            task = env_task(event.env)
            if task is not None:
                self.set(key, task, Role.OPERATOR_CHILD)
        facts = facts_of(event)
        if facts is None:
            return
        if facts.lingers:
            self.lingering.add(key)
        else:
            self.lingering.discard(key)
        if facts.lingers and isinstance(event, Observed):
            self.doubt(key, facts.task)
        elif facts.task is not None:
            self.set(key, facts.task, facts.role)
        elif facts.idle or facts.role is Role.EXECUTOR_WORKER:
            self.drop(key)

    def doubt(self, key: ProcessKey, task: TaskRef | None) -> None:
        """
        Take a title that lingers and was found, not seen to be set, perhaps long after its work.

        It proves only that no earlier task instance is served; an open log tells of this one.
        """
        before = self.labels.get(key)
        if before is not None and task is not None and merge(before.task, task) is None:
            self.drop(key)

    def take(self, event: TaskReported) -> None:
        """Take what Airflow recorded, or what a process told of itself through the plugin."""
        key, task = event.key, event.task
        if key is None or task is None:
            if (named := uuid_in(event)) is not None:
                self.learn(named)
            return
        before = self.labels.get(key)
        # What runs below a runner, or is known otherwise, has no say in it.
        if before is None or (
            before.role is not Role.OPERATOR_CHILD and merge(before.task, task) is not None
        ):
            self.set(key, task, Role.RUNNER)

    def set(self, key: ProcessKey, task: TaskRef, role: Role) -> None:
        """Note what a process works for; what was known of it before is kept where it agrees."""
        before = self.labels.get(key)
        both = merge(before.task, task) if before is not None else None
        full = self.full(both if both is not None else task)
        self.labels[key] = Label(full, role)
        self.learn(full)

    def learn(self, task: TaskRef) -> None:
        """Remember what a 3.x UUID stands for."""
        if task.ti_id is None or task.dag_id is None:
            return
        before = self.known.pop(task.ti_id, None)
        both = merge(before, task) if before is not None else task
        self.known[task.ti_id] = both if both is not None else task
        if len(self.known) > MAX_KNOWN:
            del self.known[next(iter(self.known))]

    def full(self, task: TaskRef) -> TaskRef:
        """Return a reference with what its UUID is known to stand for."""
        if task.ti_id is None or task.dag_id is not None:
            return task
        known = self.known.get(task.ti_id)
        both = merge(task, known) if known is not None else None
        return both if both is not None else task

    def on_exit(self, key: ProcessKey) -> None:
        """Keep the label for the `reap` record, unless too many of those never came."""
        self.lingering.discard(key)
        if key in self.labels:
            self.ended[key] = None
        if len(self.ended) > MAX_ENDED:
            self.drop(next(iter(self.ended)))

    def release(self, event: Exit, label: Label) -> None:
        """With its runner's end a supervisor whose title lingers works for nothing any more."""
        for parent in [one for one in self.lingering if one.pid == event.ppid]:
            served = self.labels.get(parent)
            if served is not None and merge(served.task, label.task) is not None:
                self.drop(parent)

    def drop(self, key: ProcessKey) -> None:
        """Forget a process, or that it works for anything."""
        self.labels.pop(key, None)
        self.ended.pop(key, None)


def facts_of(event: Title | Exec | Observed) -> TitleFacts | None:
    """Return what a title or command line says, or None if it is none of Airflow's."""
    if isinstance(event, Title):
        return title_facts(event.title) if event.title is not None else None
    if event.argv is None:
        return None
    if isinstance(event, Observed):
        return shown_facts(event.argv)
    return argv_facts(event.argv, truncated=bool(event.argv_truncated))
