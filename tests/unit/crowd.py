"""A long history: many short ones on one host at once, each under names and numbers of its own."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import structs

from pidtrail import codec
from pidtrail.clock import TICK_NS
from pidtrail.correlate import correlate, gather
from pidtrail.events import Event, Header
from pidtrail.verdict.engine import Judge
from pidtrail.verdict.model import Verdict
from pidtrail.verdict.question import Question
from tests.unit.example_stories import EXAMPLES
from tests.unit.story import LOG, SECOND, Airflow3, ref, uuid

NUMBERS = {"pid", "ppid", "sender_pid", "recorded_pid", "creator_pid"}
TICKS = {"start_ticks", "parent_start_ticks", "sender_start_ticks"}
TIMES = {"ts_boot_ns", "start_ns", "from_ns", "to_ns"}
RAW = ("/usr/bin/airflow", "tasks", "run", "sales", "load", "manual__1", "--job-id", "5", "--raw")
OWN = 1000
"""Numbers below are those of the host's first processes."""


def stormy() -> list[Event]:
    """Return a run whose task starts processes that start processes, one of which is left over."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1)))
    for number in range(6):
        child, below = f"child{number}", f"below{number}"
        story.fork("runner", child).exec(child, "/bin/sh", "-c", "date")
        story.fork(child, below, ns_pids=[story.pids[child] + 1, 40 + number])
        story.exec(below, "/bin/date").signal(15, below, child).exit(below, 15).reap(below, 1)
        if number:
            story.exit(child).reap(child, 1)
    story.signal(15, "runner", "child0").exit("runner", 256)
    return story.report(ref(1, uuid(1)), "failed", "runner").idle("worker").events


def talkative() -> list[Event]:
    """Return a run below which others call themselves what they like, and run tasks of theirs."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1)))
    story.fork("runner", "shell").exec("shell", "/bin/sh", "-c", "airflow tasks run …")
    story.fork("shell", "quiet").fork("quiet", "tool").fork("tool", "early")
    words = ("airflow", "tasks", "run", "sales", "other", "manual__1", "--local")
    story.exec("tool", "/usr/bin/python3", f"/usr/bin/{words[0]}", *words[1:])
    story.fork("tool", "silent").fork("silent", "below").exit("below").signal(9, "silent", "shell")
    story.exit("silent", 9).fork("tool", "named")
    story.title("named", "airflow task runner: sales other manual__1 77").fork("named", "leaf")
    story.fork("runner", "copy").log("copy", LOG.format(1)).tell("copy", ref(2, uuid(2)))
    story.fork("copy", "copied").title("copied", f"airflow worker -- {uuid(3)}")
    story.report(structs.replace(ref(1, uuid(3)), task_id="third"), "running", "copied")
    story.report(structs.replace(ref(1), task_id="other"), "running", "named")
    story.signal(15, "worker", "leaf").exit("leaf").exit("named").exit("runner", 15)
    return story.report(ref(1, uuid(1)), "failed", "early").events


def fickle() -> list[Event]:
    """Return a process that runs a task, then supervises one, then becomes sudo for another."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1))).fork("runner", "first")
    story.title("runner", f"airflow worker -- LocalExecutor: {uuid(2)}").fork("runner", "second")
    story.fork("first", "grandchild").exit("first").title(
        "runner", f"airflow supervisor: {uuid(3)}"
    )
    story.fork("runner", "third").fork("third", "deep").exit("third", 9)
    story.exec("runner", "/usr/bin/sudo", "-u", "etl", *RAW).fork("runner", "python")
    story.exec("python", "/usr/bin/python3", *RAW).fork("python", "end").exit("python")
    story.report(ref(2, uuid(2)), "running", "second").report(ref(1, uuid(3)), "running", "third")
    return story.exit("second").exit("runner").reap("runner", 1).events


STORIES: dict[str, Callable[[], list[Event]]] = {
    **{code: lambda code=code: EXAMPLES[code]()[0].events for code in EXAMPLES},  # type: ignore[misc]
    "stormy": stormy,
    "talkative": talkative,
    "fickle": fickle,
}

OF_CHILDREN = ["stormy", "talkative", "fickle"]


def elsewhere(events: list[Event], number: int, chance: Random) -> list[Event]:
    """Return a story with other names, in part, under other numbers and at another time."""
    later_ns = chance.randrange(40) * SECOND + number * TICK_NS // 100
    # Some have the numbers of another one, as the kernel gives them out again.
    apart = chance.choice([0, 100, 1000]) * number
    dag = chance.choice(["sales", f"sales{number}"])

    def moved(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: moved(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [moved(one, name) for one in value]
        if isinstance(value, str):
            value = value.replace("c083-7000-8000", f"c083-7000-{8000 + number}")
            return value.replace("manual__1", f"manual__{number}").replace("sales", dag)
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if name in NUMBERS or name == "ns_pids":
            return value + apart if value >= OWN else value
        if name in TICKS:
            return value + later_ns // TICK_NS if value > 1 else value
        return value + later_ns if name in TIMES else value

    return [codec.from_object(moved(codec.to_object(event))) for event in events]


def crowd(chance: Random, count: int = 6) -> list[Event]:
    """Return so many stories at once, by time and numbered anew."""
    names = [*sorted(STORIES), *3 * OF_CHILDREN]
    found: list[Event] = []
    for number in range(count):
        found += elsewhere(STORIES[chance.choice(names)](), number, chance)
    found.sort(key=lambda event: event.ts_boot_ns)
    return [structs.replace(event, seq=seq) for seq, event in enumerate(found, 1)]


def picked(header: Header, events: list[Event], question: Question) -> list[Verdict]:
    """Return what is left of the judgement of everything, picked by what the verdicts say."""
    tree, reports, facts, first_ns, last_ns = gather(events)
    judge = Judge(header, correlate(tree, reports, facts), first_ns, last_ns, [])
    judge.question = Question(pid=question.pid)
    runs = [run for run in judge.correlation.runs if judge.took_place(run)]
    return [v for v in map(judge.verdict, runs) if fits(v, question)]


def fits(verdict: Verdict, question: Question) -> bool:
    """Return whether a verdict is about what is asked."""
    for name, wanted in question._asdict().items():
        if name != "pid" and wanted is not None and getattr(verdict.task, name) != wanted:
            return False
    numbers = {record.pid for record in verdict.recorded}
    for process in verdict.processes:
        numbers |= {process.pid, *(process.ns_pids or ())}
    return question.pid is None or question.pid in numbers


def questions(events: list[Event]) -> list[Question]:
    """Return a question about each task instance, DAG and number of a history."""
    found: dict[Question, None] = {}
    for event in events:
        if event.task is not None and event.task.dag_id is not None:
            task = event.task
            found[Question(task.dag_id)] = None
            found[Question(task.dag_id, task.task_id, task.run_id)] = None
            found[Question(run_id=task.run_id, try_number=task.try_number)] = None
        for number in (event.pid, *(getattr(event, "ns_pids", None) or ())):
            if number is not None:
                found[Question(pid=number)] = None
    return list(found)
