"""
What a line that a user has in hand says: which message of Airflow's, whose numbers, which task.

Rule 1: pure. Text in, readings out; nothing here ever raises.
Rule 2: what the table does not know is not guessed at.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pidtrail.airflow import (
    messages_2,
    messages_3,
    messages_api,
    messages_celery,
    messages_ending,
    messages_host,
    messages_scheduling,
    messages_sudo,
)
from pidtrail.airflow.commands import uuid_text
from pidtrail.airflow.message_form import UUID, Message
from pidtrail.airflow.pasted import plain, unbroken

TABLE: Final = (
    *messages_sudo.TABLE,
    *messages_2.TABLE,
    *messages_celery.TABLE,
    *messages_api.TABLE,
    *messages_3.TABLE,
    *messages_ending.TABLE,
    *messages_scheduling.TABLE,
    *messages_host.TABLE,
)
UUIDS: Final = re.compile(rf"\b{UUID}\b", re.IGNORECASE)
NUMBERS: Final = re.compile(r"[0-9]{1,10}")
# models/taskinstance.py __repr__: both ids may have dots, so they are not taken apart here.
DOTTED: Final = re.compile(
    r"<?TaskInstance: (?P<both>[\w.-]{1,600}) (?P<run>\S{1,250})(?: map_index=(?P<map>[0-9]{1,9}))?"
)
FIELDS: Final = {
    name: re.compile(
        rf"(?<![\w])(?:{name}|{words})['\"]?\s?[=:]\s?['\"]?(?P<value>[^\s'\",/;<>\]\)}}]{{1,250}})",
        re.IGNORECASE,
    )
    for name, words in (
        ("dag_id", "dag id"),
        ("task_id", "task id"),
        ("run_id", "(?:dag )?run id"),
        ("map_index", "map index"),
    )
}


class Mention(NamedTuple):
    """A number or word of a message, and what it is."""

    value: str
    what: str


class Reading(NamedTuple):
    """One message that was found in a text; `comparison` is what its numbers alone suggest."""

    message: Message
    pids: list[Mention]
    words: list[Mention]
    comparison: str | None


class Names(NamedTuple):
    """
    What a text names of task instances.

    `dotted` are those of reprs: DAG and task with a dot between them, run, map index.
    A UUID may be a task instance's of 3.x, or that of a Celery message.
    """

    fields: dict[str, str]
    dotted: tuple[tuple[str, str, str | None], ...]
    uuids: frozenset[str]

    def __bool__(self) -> bool:
        """Whether anything that leads to a task instance is named."""
        return bool(self.fields or self.dotted or self.uuids)


def readings(text: str) -> list[Reading]:
    """Return the known messages in a text, in the order in which they stand there."""
    return readings_of(line_of(text))


def line_of(text: str) -> str:
    """Return a text as one line, put together at a terminal's edge where that is understood."""
    line, joined = plain(text), unbroken(text)
    if joined is None:
        return line
    whole = plain(joined)
    return whole if len(readings_of(whole)) >= len(readings_of(line)) else line


def readings_of(line: str) -> list[Reading]:
    """Return the known messages in one plain line."""
    found: list[tuple[int, int, Reading]] = []
    for message in TABLE:
        match = message.pattern.search(line)
        if match is None or any(match.start() < end and start < match.end()
                                for start, end, _ in found):  # fmt: skip
            continue
        found.append((match.start(), match.end(), reading(message, match, line)))
    return [one for _, _, one in sorted(found, key=lambda one: one[0])]


def reading(message: Message, match: re.Match[str], line: str) -> Reading:
    """Return what a message says with these numbers."""
    groups = match.groupdict()
    pids = [
        Mention(number, what)
        for name, what in message.pids.items()
        for number in NUMBERS.findall(groups.get(name) or "")
    ]
    words = [
        Mention(value.rstrip("."), what)
        for name, what in message.words.items()
        if (value := groups.get(name))
    ]
    pids += [Mention(value, what) for key, what in message.pid_keys.items()
             if (value := field(line, key)) and NUMBERS.fullmatch(value)
             and all(value != mention.value for mention in pids)]  # fmt: skip
    words += [
        Mention(value, what)
        for key, what in message.word_keys.items()
        if (value := field(line, key))
    ]
    return Reading(message, pids, words, comparison(message.kind, pids))


def field(line: str, key: str) -> str | None:
    """Return the value of a field of a structured log line: key=value, or JSON."""
    marks = r"['\"\\]{0,3}"
    # Not of a number in groups of three, as some pages show it: 22 of 22,706 is another number.
    end = r"(?![\w.:-]|,[0-9]{3}(?![0-9]))"
    found = re.search(rf"(?<!\w){key}{marks}\s?[=:]\s?{marks}([\w.:-]{{1,250}}){end}", line)
    return found[1] if found is not None else None


def comparison(kind: str, pids: list[Mention]) -> str | None:
    """Return what the two numbers of `Recorded pid` suggest; numbers wrap, so no more than that."""
    if kind != "recorded-pid" or len(pids) != 2:
        return None
    recorded, current = (int(mention.value) for mention in pids)
    if recorded == current:
        return (
            "The two numbers are equal: up to 2.1.2 the message printed the wrong one, and this is "
            "the false alarm of run_as_user."
        )
    if recorded < current:
        return (
            f"{recorded} is below {current}, so it was likely started before: probably the "
            f"supervisor or the worker above {current}, and a false alarm."
        )
    return (
        f"{recorded} is above {current}, so it was likely started after: probably a second process "
        f"of the same task instance, and no false alarm."
    )


def names_in(text: str) -> Names:
    """Return what a text names of task instances."""
    line = line_of(text)
    fields = {}
    for name, pattern in FIELDS.items():
        found = pattern.search(line)
        if found is not None:
            fields[name] = found["value"]
    dotted = tuple(
        (found["both"], found["run"], found["map"])
        for found in DOTTED.finditer(line)
        if "." in found["both"]
    )
    uuids = (uuid_text(found) for found in UUIDS.findall(line))
    return Names(fields, dotted, frozenset(one for one in uuids if one is not None))
