"""
Log lines on stderr, for people or as JSON objects.

structlog is loaded with the first line that is said, not before: it brings half
of rich and asyncio along (100 ms, 12 MB), which `--help` and `export` do without.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

from pidtrail.reports.escape import visible

COLOURS: Final = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
RESET: Final = "\x1b[0m"


def may_colour(file: TextIO) -> bool:
    """Return whether to use colour there: a terminal, with NO_COLOR unset or empty."""
    return not os.environ.get("NO_COLOR") and file.isatty()


class Log:
    """The logger of the command line; `form` is `text` or `json`."""

    def __init__(self) -> None:
        self.form = "text"
        self.logger: Any = None

    def configure(self, form: str) -> None:
        """Choose the form; holds from the next line on."""
        self.form = form
        self.logger = None

    def info(self, event: str, **fields: Any) -> None:
        """Say what happened."""
        self.bound().info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Say what went wrong without ending anything."""
        self.bound().warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Say what failed."""
        self.bound().error(event, **fields)

    def bound(self) -> Any:
        """Return structlog's logger, made on first use."""
        if self.logger is None:
            import structlog  # noqa: PLC0415 (see the head of this file)

            stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
            renderers = (
                [stamp, structlog.processors.JSONRenderer(ensure_ascii=True)]
                if self.form == "json"
                else [as_text]
            )
            self.logger = structlog.wrap_logger(
                structlog.PrintLogger(sys.stderr),
                processors=[structlog.processors.add_log_level, *renderers],
                wrapper_class=structlog.BoundLogger,
            )
        return self.logger


def as_text(_logger: object, level: str, fields: MutableMapping[str, Any]) -> str:
    """Return one line: `pidtrail: warning: what happened name=value`."""
    fields.pop("level", None)
    words = [str(fields.pop("event", "")), *(f"{k}={as_word(v)}" for k, v in fields.items())]
    severity = "" if level == "info" else f"{level}: "
    line = visible(f"pidtrail: {severity}{' '.join(words)}")
    colour = COLOURS.get(level)
    return f"{colour}{line}{RESET}" if colour and may_colour(sys.stderr) else line


def as_word(value: object) -> str:
    """Return a value as it stands in a line; text with spaces is quoted."""
    text = str(value)
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text


log: Final = Log()
