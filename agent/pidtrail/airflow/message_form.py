"""The form of what is known of one of Airflow's messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple


class Message(NamedTuple):
    """
    One message: where it stands, and what to make of it.

    `pids` and `words` say of the named groups of `pattern` which process each
    number is, or what each word is; `pid_keys` and `word_keys` the same of fields that
    a structured log line has beside the message. `codes` are the verdicts that can
    stand behind it; none if the message is of processes that run no task.
    """

    kind: str
    pattern: re.Pattern[str]
    versions: str
    where: str
    meaning: str
    alarm: str
    advice: str
    codes: tuple[str, ...]
    pids: Mapping[str, str] = {}
    words: Mapping[str, str] = {}
    pid_keys: Mapping[str, str] = {}
    word_keys: Mapping[str, str] = {}


UUID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def words(pattern: str) -> re.Pattern[str]:
    """Return a pattern; N(name) is a number, U(name) a UUID, W(name) a word, .. a gap."""
    number = r"(?P<\1>[0-9]{1,10})(?![0-9]|[.,][0-9]{3}(?![0-9]))"  # of 22,706 no 22 is left
    text = re.sub(r"N\((\w+)\)", rf"""['"`]{{0,3}}{number}['"`]{{0,3}}""", pattern)
    text = re.sub(r"U\((\w+)\)", rf"""['"`]{{0,3}}(?P<\1>{UUID})""", text)
    text = re.sub(r"W\((\w+)\)", r"""['"`<]{0,3}(?P<\1>[^\\s'"`<>,]{1,250})['"`>]{0,3}""", text)
    return re.compile(text.replace("..", ".{0,400}?").replace(" ", r"\s"), re.IGNORECASE)
