"""
Log lines on stderr, for people or as JSON objects.

structlog is loaded with the first line that is said, not before: it brings half
of rich and asyncio along (100 ms, 12 MB), which `--help` and `export` do without.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
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
            import structlog

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
    return painted(line, COLOURS.get(level)) if may_colour(sys.stderr) else line


def as_word(value: object) -> str:
    """Return a value as it stands in a line; text with spaces is quoted."""
    text = str(value)
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text


log: Final = Log()
