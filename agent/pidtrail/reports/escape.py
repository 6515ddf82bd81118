"""
What a process chose to call itself, made safe to show in a terminal.

argv, titles, comm and Airflow's ids are bytes that someone else chose. Shown as
they are, they could move the cursor, recolour the screen, break a line in two or
(bidirectional overrides) show a text in another order than it has.
"""

from __future__ import annotations

import re
from typing import Final

# C0, DEL and C1 (ECMA-48), the marks and overrides of UAX #9, the line and paragraph
# separators, the byte order mark, and surrogates, which no terminal encoding can carry.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str, limit: int | None = None) -> str:
    r"""
    Return the text on one line, with what a terminal would obey shown as an escape.

    ESC becomes `\x1b`, a newline `\n`, a right-to-left override `\u202e`. A
    backslash stays as it is: this is for reading; JSON output is exact. With
    `limit` the result has at most so many characters, the last of them `…` if
    something was cut. Total: any str gives a result.
    """
    cut = limit is not None and len(text) > limit
    shown = text[:limit] if cut else text
    # isprintable() is false for every character of _UNSAFE, and takes no time.
    if not shown.isprintable():
        shown = _UNSAFE.sub(_escape, shown)
    if limit is not None and (cut or len(shown) > limit):
        shown = f"{shown[: max(limit - 1, 0)]}…" if limit > 0 else ""
    return shown


def _escape(found: re.Match[str]) -> str:
    """Return the escape of one character."""
    character = found[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
