"""
Log lines on stderr, for people or as JSON objects.

structlog writes the objects and is loaded for them only: it brings half of rich
and asyncio along (100 ms, 9 MB), a quarter of what the agent may take.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pidtrail.reports.escape import visible
from pidtrail.reports.terminal import IN_PLAIN, may_colour, painted
from pidtrail.sinks.outlet import Outlet

MOST_BYTES: Final = 256 * 1024
PATIENCE_SECONDS: Final = 5.0
COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}


class Log:
    """The logger of the command line; `form` is `text` or `json`."""

    def __init__(self) -> None:
        self.form = "text"
        self.logger: Any = None
        self.outlet: Outlet | None = None
        self.unsaid = 0

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

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """
        Let a thread write the lines meanwhile: who reads stderr slowly holds up no capture.

        What finds no room is counted, and told when there is some.
        """
        try:
            outlet = Outlet(sys.stderr.fileno(), self.tell_unsaid)
        except (OSError, ValueError):
            # No file, as in a test that catches what is said.
            yield
            return
        self.outlet = outlet
        try:
            yield
        finally:
            self.outlet = None
            outlet.end()
            outlet.finished(PATIENCE_SECONDS)

    def tell_unsaid(self) -> bytes:
        """Return the line for what found no room, if anything did."""
        count, self.unsaid = self.unsaid, 0
        return encoded(self.line("warning", "log lines lost", {"count": count})) if count else b""

    def say(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Write one line, if anybody takes it: a session must not end for its log."""
        line = self.line(level, event, fields)
        if self.outlet is None:
            with contextlib.suppress(OSError):
                sys.stderr.write(line)
                sys.stderr.flush()
        elif self.outlet.held > MOST_BYTES:
            self.unsaid += 1
        else:
            self.outlet.put(encoded(line))

    def line(self, level: str, event: str, fields: dict[str, Any]) -> str:
        """Return one line."""
        if self.form == "json":
            return f"{getattr(self.bound(), level)(event, **fields)}\n"
        return f"{as_text(level, event, fields)}\n"

    def bound(self) -> Any:
        """Return structlog's logger, made on first use."""
        if self.logger is None:
            import structlog

            self.logger = structlog.wrap_logger(
                structlog.ReturnLogger(),
                processors=[
                    structlog.processors.add_log_level,
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.processors.JSONRenderer(ensure_ascii=True),
                ],
                wrapper_class=structlog.BoundLogger,
            )
        return self.logger


def encoded(line: str) -> bytes:
    """Return a line as stderr takes it."""
    return line.encode(sys.stderr.encoding or "utf-8", IN_PLAIN)


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
