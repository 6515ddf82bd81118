"""
Polling the metadata database, or the REST API, beside the main loop.

The only threads of pidtrail, one for each. A call can hang for seconds (a lock, a name
server, a host that went away), and no driver in use here can be waited for with
the other descriptors of the loop; capture must never wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from pidtrail.errors import ApiError, DatabaseError
from pidtrail.events import Event

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 15.0
# At most a tenth of the time is spent reading, however slow the database is.
_IDLE_RATIO = 9.0
_STOP_LIMIT_S = 3.0


class Poller(Protocol):
    """What the thread polls: `Metadata`, `Rest`, or a stand-in."""

    @property
    def problem(self) -> str | None:
        """One line on what it lacks, or None."""

    def poll(self, ts_boot_ns: int) -> list[Event]:
        """Return what is new; raises DatabaseError or ApiError."""

    def close(self) -> None:
        """Let go of everything."""


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Sampler:
    """
    Polls every `interval_s` seconds in a daemon thread, from `start` to `stop`.

    After an error it waits 0.5 s, then twice as long each time, up to 15 s. A
    database that was not there at first, or went away, is picked up when it
    answers. All other methods return at once and may be called from the loop.
    `what` names it in problems.
    """

    def __init__(
        self,
        metadata: Poller,
        *,
        what: str = "Airflow's database",
        interval_s: float = 0.5,
        boottime_ns: Callable[[], int] = _boottime_ns,
    ) -> None:
        self._metadata = metadata
        self._what = what
        self._interval_s = interval_s
        self._boottime_ns = boottime_ns
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._final_poll = False
        self._events: list[Event] = []
        self._problems: dict[str, None] = {}
        self._pending_error: str | None = None
        self._answered = False
        self._thread = threading.Thread(target=self._run, name="pidtrail-airflow-db", daemon=True)

    def start(self) -> None:
        """Begin polling, at once. To be called once."""
        self._thread.start()

    def drain(self) -> list[Event]:
        """Return the records since the last call, oldest first. Never blocks for long."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def problems(self) -> list[str]:
        """
        Return what limits what is known, one distinct line each, oldest first.

        A database that did not answer yet is a problem until it answers; one that
        went away meanwhile remains one, as pids may have been overwritten unseen.
        """
        with self._lock:
            lines = dict(self._problems)
            if self._pending_error is not None:
                lines[self._pending_error] = None
            elif not self._answered:
                lines[f"{self._what} has not answered yet"] = None
        return list(lines)

    def poke(self) -> None:
        """Poll now: a runner was born, and its pid is about to be recorded."""
        self._wake.set()

    def stop(self, *, final_poll: bool = True) -> None:
        """
        End the thread, by default after one last poll; at most 3 s.

        What the last poll brought is there for `drain`. May be called twice.
        """
        self.let_end(final_poll=final_poll)
        if self._thread.ident is None:
            return
        self._thread.join(_STOP_LIMIT_S)
        if self._thread.is_alive():
            with self._lock:
                self._problems[f"{self._what} did not answer the last question in time"] = None

    def let_end(self, *, final_poll: bool = True) -> None:
        """Ask the thread to end, by default after one last poll, without waiting for it."""
        self._final_poll, self._stopping = final_poll, True
        self._wake.set()

    def is_alive(self) -> bool:
        """Return whether it still reads."""
        return self._thread.is_alive()

    def _run(self) -> None:
        backoff_s = 0.0
        while not self._stopping:
            began = time.monotonic()
            good = self._poll()
            took_s = time.monotonic() - began
            if good:
                backoff_s = 0.0
                self._sleep(max(self._interval_s, took_s * _IDLE_RATIO), not_before_s=took_s)
            else:
                backoff_s = min(max(_FIRST_BACKOFF_S, backoff_s * 2), _LONGEST_BACKOFF_S)
                self._sleep(backoff_s, not_before_s=_FIRST_BACKOFF_S)
        if self._final_poll:
            self._poll()
        self._metadata.close()

    def _sleep(self, seconds: float, *, not_before_s: float) -> None:
        """Wait, less long if poked; a storm of pokes still leaves the database some rest."""
        began = time.monotonic()
        if self._wake.wait(seconds) and not self._stopping:
            rest_s = min(seconds, not_before_s) - (time.monotonic() - began)
            if rest_s > 0:
                time.sleep(min(rest_s, 1.0))
        if not self._stopping:
            self._wake.clear()

    def _poll(self) -> bool:
        """Poll once; tell whether the database answered."""
        try:
            events = self._metadata.poll(self._boottime_ns())
        except (DatabaseError, ApiError) as error:
            self._failed(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - a row nobody foresaw must not end the polling
            # The name alone: the text could hold what is in the row.
            self._failed(f"reading {self._what} failed: {type(error).__name__}")
            return False
        with self._lock:
            self._events.extend(events)
            self._pending_error, self._answered = None, True
            if self._metadata.problem is not None:
                self._problems[self._metadata.problem] = None
        return True

    def _failed(self, line: str) -> None:
        with self._lock:
            self._pending_error = line
            if self._answered:
                self._problems[line] = None
