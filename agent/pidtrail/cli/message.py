"""`explain --message`: what a line of Airflow's says, and which recorded runs it is about."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

import msgspec

from pidtrail.airflow.commands import uuid_text
from pidtrail.airflow.messages import Mention, Names, Reading, names_in, readings
from pidtrail.airflow.pasted import LONGEST, middle_out
from pidtrail.errors import PidtrailError, UsageError
from pidtrail.redact import redact_text
from pidtrail.reports.escape import visible
from pidtrail.reports.process import task_label
from pidtrail.verdict.case import WAITING_STATES
from pidtrail.verdict.model import ProcessReport, Report, Verdict

WIDTH = 100


class NumberTold(msgspec.Struct, frozen=True):
    """
    A number or word of a message, and what Airflow means by it.

    `seen` says which processes of the recording had that number, or for which runs the
    id stood; None without a recording, and for other words.
    """

    value: str
    what: str
    seen: list[str] | None = None


class MessageTold(msgspec.Struct, frozen=True):
    """What one message says; `codes` are the verdicts that can stand behind it."""

    kind: str
    versions: str
    where: str
    meaning: str
    alarm: str
    advice: str
    codes: Sequence[str]
    pids: list[NumberTold]
    words: list[NumberTold]
    comparison: str | None


class Told(msgspec.Struct, frozen=True):
    """What `explain --message --json` prints; `report` is None without a recording."""

    messages: list[MessageTold]
    report: Report | None = None
    schema: str = "pidtrail.message/1"


def pasted(text: str) -> str:
    """
    Return what is to be read, without secrets; `-` is stdin.

    A log may hold passwords, and what is said of it goes into incidents. Raises UsageError
    if there is nothing to read.
    """
    if text == "-":
        text = both_ends()
    # What is no UTF-8 reaches a program's arguments as surrogates, which nobody can write.
    text = text.encode(errors="surrogateescape").decode(errors="replace")
    if not text.strip():
        raise UsageError("--message is empty: give a line of Airflow's log, or - and it on stdin")
    return redact_text(middle_out(text))


def both_ends() -> str:
    """Return as much of stdin as is looked at: its beginning and its end."""
    head = sys.stdin.buffer.read(LONGEST)
    tail = b""
    while more := sys.stdin.buffer.read(1 << 20):
        tail = (tail + more)[-LONGEST:]
    return (head + tail).decode(errors="replace")


def read(text: str) -> list[Reading]:
    """Return the messages in a text. Raises PidtrailError if none is known."""
    found = readings(text)
    if found:
        return found
    number = re.fullmatch(r"\W*(?:pid\W*)?([0-9]{1,10})\W*", text, re.IGNORECASE)
    raise PidtrailError(
        "that is no message about processes that pidtrail knows",
        f"of a number alone ask: pidtrail explain --pid {number[1]}"
        if number is not None
        else "give it the words of the message as they stand in the log; docs/messages.md has all "
        "that it knows",
    )


def about(text: str, found: list[Reading], verdicts: list[Verdict]) -> list[Verdict]:
    """
    Return the verdicts that a text is about, by the task instances and pids that it names.

    Both if there are such, else the task instances alone, else the pids alone;
    all if it names nothing.
    """
    names = names_in(text)
    pids = {int(mention.value) for one in found for mention in one.pids}
    if not names and not pids:
        return verdicts
    named = by_message(verdicts, names.uuids)
    named = named or [v for v in verdicts if names and is_named(v, names)]
    numbered = [v for v in verdicts if pids & numbers_of(v)]
    both = [v for v in named if v in numbered]
    return both or named or numbered


def by_message(verdicts: list[Verdict], uuids: frozenset[str]) -> list[Verdict]:
    """
    Return the attempts that a message of an executor with one of these ids started.

    A row that waits may still show the id of the attempt before, as it shows its pid.
    """
    found = [(v, row) for v in verdicts for row in v.recorded if row.external_executor_id in uuids]
    begun = [v for v, row in found if row.state not in WAITING_STATES]
    chosen = begun or [v for v, _ in found]
    return [v for v in verdicts if v in chosen]


def is_named(verdict: Verdict, names: Names) -> bool:
    """Return whether all that a text names of task instances fits this one."""
    task = verdict.task
    if names.uuids and task.ti_id in names.uuids:
        return True
    fits = [
        str(value) == names.fields[name]
        for name in ("dag_id", "task_id", "run_id", "map_index")
        if name in names.fields and (value := getattr(task, name)) is not None
    ]
    if names.dotted:
        fits.append(any(is_dotted(verdict, *dotted) for dotted in names.dotted))
    return bool(fits) and all(fits)


def is_dotted(verdict: Verdict, both: str, run_id: str, map_index: str | None) -> bool:
    """Return whether the repr of a task instance is of this one; without map index, of any."""
    task = verdict.task
    return (f"{task.dag_id}.{task.task_id}", task.run_id) == (both, run_id) and (
        map_index is None or str(task.map_index) == map_index
    )


def numbers_of(verdict: Verdict) -> set[int | None]:
    """Return all numbers of a verdict: recorded, of its processes, and of those above them."""
    found = {record.pid for record in verdict.recorded}
    for process in verdict.processes:
        found |= {process.pid, *(process.ns_pids or ()), *(link.pid for link in process.chain)}
    return found


def told(found: list[Reading], report: Report | None) -> Told:
    """Return what is said of messages, with the verdicts they are about if there are any."""
    verdicts = None if report is None else report.verdicts
    messages = [
        MessageTold(
            one.message.kind,
            one.message.versions,
            one.message.where,
            one.message.meaning,
            one.message.alarm,
            one.message.advice,
            one.message.codes,
            [number_told(mention, verdicts) for mention in one.pids],
            [word_told(mention, verdicts) for mention in one.words],
            compared(one, verdicts or []) or one.comparison,
        )
        for one in found
    ]
    return Told(messages, report)


def number_told(mention: Mention, verdicts: list[Verdict] | None) -> NumberTold:
    """Return what a number is, and who had it in a recording."""
    if verdicts is None:
        return NumberTold(mention.value, mention.what)
    seen = [line for verdict in verdicts for line in who_had(int(mention.value), verdict)]
    return NumberTold(mention.value, mention.what, list(dict.fromkeys(seen)))


def word_told(mention: Mention, verdicts: list[Verdict] | None) -> NumberTold:
    """Return what a word is; of an executor's id, which PIDs were on record with it."""
    if verdicts is None or uuid_text(mention.value) is None:
        return NumberTold(mention.value, mention.what)
    seen = []
    for verdict in by_message(verdicts, frozenset([uuid_text(mention.value) or ""])):
        rows = [r for r in verdict.recorded if r.external_executor_id == uuid_text(mention.value)]
        pids = dict.fromkeys(r.pid for r in rows if r.pid and r.state not in WAITING_STATES)
        numbers = f"recorded PID {', '.join(map(str, pids))}" if pids else "no PID was recorded"
        seen.append(f"the id of {task_label(verdict.task)}, {numbers}")
    seen += [
        f"the task instance id of {task_label(verdict.task)}"
        for verdict in verdicts
        if verdict.task.ti_id == uuid_text(mention.value)
    ]
    return NumberTold(mention.value, mention.what, seen)


def compared(one: Reading, verdicts: list[Verdict]) -> str | None:
    """
    Return what a recording says of the two numbers of `Recorded pid`, None if it does not know.

    Which number is greater tells nothing once the kernel has begun anew at the lowest.
    """
    if one.comparison is None:
        return None
    recorded, current = (int(mention.value) for mention in one.pids)
    if recorded == current:
        return None
    ran = [(v, p) for v in verdicts for p in v.processes if p.role == "runner"]
    for verdict, process in ran:
        if process.pid != current:
            continue
        if any(link.pid == recorded for link in process.chain[1:]):
            return (
                f"In the recording {recorded} is above {current}, in one chain of processes: a "
                "false alarm."
            )
        for other, another in ran:
            if another.pid == recorded and at_once(process, another) and is_same(verdict, other):
                tries = f"(try {other.task.try_number}, {life(another)})"
                return (
                    f"In the recording both ran this task instance: {recorded} {tries} and "
                    f"{current} (try {verdict.task.try_number}, {life(process)}). The alarm is "
                    "real: they are two processes."
                )
    return None


def at_once(one: ProcessReport, other: ProcessReport) -> bool:
    """Return whether two processes lived at the same time."""
    return all(
        first.started is not None and (second.ended is None or first.started < second.ended)
        for first, second in ((one, other), (other, one))
    )


def is_same(one: Verdict, other: Verdict) -> bool:
    """Return whether two verdicts are about one task instance, whatever the tries."""
    names = ("dag_id", "task_id", "run_id", "map_index")
    return all(getattr(one.task, name) == getattr(other.task, name) for name in names)


def who_had(pid: int, verdict: Verdict) -> Iterator[str]:
    """Yield the processes of a verdict that had a number, in words."""
    label = task_label(verdict.task)
    for process in verdict.processes:
        if pid == process.pid or pid in (process.ns_pids or ()):
            yield f"the {process.role} of {label}, {life(process)}"
        for link in process.chain[1:]:
            if link.pid == pid and all(pid != other.pid for other in verdict.processes):
                yield f"the {link.role or 'process'} above the {process.role} of {label}"


def life(process: ProcessReport) -> str:
    """Return when a process lived."""
    started = (process.started or "an unknown instant")[:19]
    return f"from {started} on" if process.ended is None else f"{started} to {process.ended[:19]}"


def render(what: Told, paint: Callable[[str], str]) -> str:
    """Return what is said of messages as text; `paint` marks a heading."""
    lines: list[str] = []
    for one in what.messages:
        lines.append(paint(f"{one.kind}: Airflow {one.versions}; {one.where}"))
        lines += wrapped("means", one.meaning)
        for number in one.pids:
            lines += wrapped(number.value, number.what)
            for text in number.seen or ():
                lines += wrapped("", f"in the recording: {text}")
            if number.seen == []:
                lines += wrapped("", "in the recording: no process of these task instances")
        for word in one.words:
            lines += wrapped(word.value, word.what)
            for text in word.seen or ():
                lines += wrapped("", f"in the recording: {text}")
        if one.comparison is not None:
            lines += wrapped("numbers", one.comparison)
        lines += wrapped("alarm", one.alarm)
        lines += wrapped("do", one.advice)
        if one.codes:
            lines += wrapped("verdicts", ", ".join(one.codes))
        lines.append("")
    return "".join(f"{line}\n" for line in lines)


def wrapped(head: str, text: str) -> list[str]:
    """Return a paragraph below a head of ten columns, escaped."""
    head = visible(head, 60)
    first = f"  {head:<10} " if len(head) <= 10 else f"  {head}: "
    return textwrap.wrap(
        visible(text, 2000),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * 13,
        break_on_hyphens=False,
    )
