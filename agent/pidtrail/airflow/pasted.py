"""
What a person pasted from a log or a page, as the one plain line that Airflow wrote.

Colours, the escapes of JSON and of HTML, the frames of tracebacks and line breaks are
left out. Pure; never raises.
"""

from __future__ import annotations

import html
import re
from typing import Final

LONGEST: Final = 20_000
"""Characters of a text that are looked at; of a longer one half of them from each end."""
NARROWEST: Final = 60
"""Columns of a terminal; who breaks lines below that does so between words."""
QUOTES: Final = str.maketrans("\u2018\u2019\u201b\u2032\u201c\u201d\u201e\u2033", "''''\"\"\"\"")
# ECMA-48 control sequences: as bytes, as JSON and Python write ESC, as cat -v shows it, and what
# is left of a colour where ESC was dropped.
COLOURS: Final = re.compile(
    r"(?:\x1b|\x9b|\\u001b|\\x1b|\\033|\^\[|\u241b)\[?[0-9;:]{0,20}[A-Za-z]|\[[0-9;]{1,8}m",
    re.IGNORECASE,
)
FRAMES: Final = re.compile("[\u2500-\u257f\u200b]+")
# What marks words in pages and chats; a repr such as <TaskInstance: …> is no tag.
BREAKS: Final = re.compile(r"</?(?:br|div|li|p|pre|td|tr)(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)
MARKS: Final = re.compile(
    r"</?(?:a|b|code|em|font|i|mark|span|strong|u)(?:\s[^<>]{0,300})?>"
    r"|(?<!\w)\*{1,3}(?=\w)|(?<=\w)\*{1,3}(?!\w)",
    re.IGNORECASE,
)
ESCAPED: Final = (
    (re.compile(r"\\+u201[89]", re.IGNORECASE), "'"),
    (re.compile(r"\\+[nrt](?![a-z]{3})"), " "),
    (re.compile(r"\\+([\"'/])"), r"\1"),
)
# A line of its own: a date, alone or in brackets, as all formats of Airflow's begin.
BEGINS: Final = re.compile(r"\s*[\[{]|\s*\d{4}-\d\d-\d\d")


def plain(text: str) -> str:
    """Return a text on one line with straight quotes, without what only shows it."""
    text = COLOURS.sub("", html.unescape(middle_out(text)).translate(QUOTES))
    text = FRAMES.sub(" ", MARKS.sub("", BREAKS.sub(" ", text)))
    for pattern, replacement in ESCAPED:
        text = pattern.sub(replacement, text)
    return re.sub(r"\s+", " ", text)


def middle_out(text: str) -> str:
    """Return a text of bearable length: of a traceback the last line matters, and the first."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]} {text[-LONGEST // 2 :]}"


def unbroken(text: str) -> str | None:
    """
    Return a text without its line breaks if a terminal's edge made them, else None.

    An edge breaks within words and numbers, and all lines but the last have its width.
    """
    lines = middle_out(text).strip().splitlines()
    width = len(lines[0]) if lines else 0
    if (
        len(lines) < 2
        or width < NARROWEST
        or any(len(line) != width for line in lines[:-1])
        or len(lines[-1]) > width
        or any(BEGINS.match(line) for line in lines[1:])
    ):
        return None
    return "".join(lines)
