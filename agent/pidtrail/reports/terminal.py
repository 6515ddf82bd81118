"""What may be written where: colour, width, and how text is coloured."""

from __future__ import annotations

import codecs
import os
import shutil
from typing import Final, TextIO

RESET: Final = "\x1b[0m"
STYLES: Final = {
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "cyan": "\x1b[36m",
}


PLAIN: Final = str.maketrans("│├└─–—…“”≤×", '||`---.""<x')
"""Our own signs in ASCII, one for one so that columns stay, for a terminal that has no others."""


def in_plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """
    Return what stands for characters that a terminal's encoding lacks: an error handler of codecs.

    Our own signs in ASCII, all others as escapes. Raises the error if it is no encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = error.object[error.start : error.end].translate(PLAIN)
    return shown.encode("ascii", "backslashreplace").decode(), error.end


IN_PLAIN: Final = "pidtrail-plain"
codecs.register_error(IN_PLAIN, in_plain)


def may_colour(file: TextIO) -> bool:
    """Return whether to use colour there: a terminal, with NO_COLOR unset or empty."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and file.isatty()


def width_of(file: TextIO) -> int | None:
    """Return the columns of the terminal, or None where lines may be of any length."""
    return shutil.get_terminal_size().columns if file.isatty() else None


def painted(text: str, style: str | None) -> str:
    """Return the text in one of STYLES; it must be `visible` already."""
    return f"{STYLES[style]}{text}{RESET}" if style is not None and text else text
