"""
The errors a user can meet. Only `cli` turns them into exit codes and lines.

A process that vanished is not an error: readers of /proc return None for it.
"""

from __future__ import annotations


class PidtrailError(Exception):
    """
    Something failed that the user can understand from one line.

    `hint` says what to do next, or is None where there is nothing to add.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


class UsageError(PidtrailError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class SourceUnavailable(PidtrailError):
    """A source cannot open here; the ladder tries the next one and `doctor` shows why."""


class RecordingError(PidtrailError):
    """A recording cannot be read, or not to its end."""


class DatabaseError(PidtrailError):
    """Airflow's metadata database cannot be used; tracing goes on without it."""


class ApiError(PidtrailError):
    """Airflow's REST API cannot be used; tracing goes on without it."""


class CommandError(PidtrailError):
    """The command to trace cannot be executed; `exit_code` is 127 or 126 as in a shell."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
