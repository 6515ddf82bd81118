"""
Log lines on stderr, for people or as JSON objects.

structlog writes the objects and is loaded for them only: it brings half of rich
and asyncio along (100 ms, 9 MB), a quarter of what the agent may take.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any, Final

from pidtrail.reports.escape import visible
from pidtrail.reports.terminal import may_colour, painted

COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}


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
        self.say("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Say what went wrong without ending anything."""
        self.say("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Say what failed."""
        self.say("error", event, fields)

    def say(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Write one line, if anybody takes it: a session must not end for its log."""
        with contextlib.suppress(OSError):
            if self.form == "json":
                getattr(self.bound(), level)(event, **fields)
            else:
                sys.stderr.write(as_text(level, event, fields) + "\n")
                sys.stderr.flush()

    def bound(self) -> Any:
        """Return structlog's logger, made on first use."""
        if self.logger is None:
            import structlog

            self.logger = structlog.wrap_logger(
                structlog.PrintLogger(sys.stderr),
                processors=[
                    structlog.processors.add_log_level,
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.processors.JSONRenderer(ensure_ascii=True),
                ],
                wrapper_class=structlog.BoundLogger,
            )
        return self.logger


def as_text(level: str, event: str, fields: Mapping[str, Any]) -> str:
    """Return one line: `pidtrail: warning: what happened name=value`."""
    words = [event, *(f"{k}={as_word(v)}" for k, v in fields.items())]
    severity = "" if level == "info" else f"{level}: "
    line = visible(f"pidtrail: {severity}{' '.join(words)}")
    return painted(line, COLOURS.get(level)) if may_colour(sys.stderr) else line


def as_word(value: object) -> str:
    """Return a value as it stands in a line; text with spaces is quoted."""
    text = str(value)
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text


log: Final = Log()
