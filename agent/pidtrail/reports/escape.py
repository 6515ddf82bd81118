"""
What a process chose to call itself, made safe to show in a terminal.

argv, titles, comm and Airflow's ids are bytes that someone else chose. Shown as
they are, they could move the cursor, recolour the screen, break a line in two or
(bidirectional overrides) show a text in another order than it has.
"""

from __future__ import annotations

from typing import Final

# Printable by str.isprintable(), and seen by nobody: the fillers of Hangul, the grapheme joiner,
# vowels of Khmer without a form, an empty pattern of Braille, variation selectors.
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_SELECTORS: Final = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str, limit: int | None = None) -> str:
    r"""
    Return the text on one line, with what a terminal would obey shown as an escape.

    ESC becomes `\x1b`, a newline `\n`, a right-to-left override `\u202e`, and so does what
    takes no room or looks like a blank: two names that differ must look different. A
    backslash stays as it is: this is for reading; JSON output is exact. With
    `limit` the result has at most so many characters, the last of them `…` if
    something was cut. Total: any str gives a result.
    """
    cut = limit is not None and len(text) > limit
    shown = text[:limit] if cut else text
    # Nearly all there is to show is ASCII, and these two take no time.
    if not (shown.isascii() and shown.isprintable()):
        shown = "".join(c if _is_seen(c) else _escape(c) for c in shown)
    if limit is not None and (cut or len(shown) > limit):
        shown = f"{shown[: max(limit - 1, 0)]}…" if limit > 0 else ""
    return shown


def _is_seen(character: str) -> bool:
    """Return whether a character shows as itself: str.isprintable(), but for what is blank."""
    if not character.isprintable() or character in _BLANK:
        return False
    return character.isascii() or not any(ord(character) in span for span in _SELECTORS)


def _escape(character: str) -> str:
    """Return the escape of one character."""
    code = ord(character)
    form = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return _SHORT.get(character) or (form if code < 0x10000 else f"\\U{code:08x}")
