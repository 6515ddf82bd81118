"""`--since T`: an instant, or a span before FILE ends, or before now where the service is asked."""

from __future__ import annotations

import re
import time
from typing import Final, NamedTuple, Self

from pidtrail.clock import NS_PER_SECOND, epoch_ns_of_text
from pidtrail.errors import UsageError

SPAN: Final = re.compile(r"([0-9]{1,9})([smhd])\Z")
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Since(NamedTuple):
    """Nanoseconds before the end, or epoch nanoseconds, or neither: all of it."""

    span_ns: int | None = None
    epoch_ns: int | None = None

    @classmethod
    def read(cls, text: str | None) -> Self:
        """Return what a user means. Raises UsageError."""
        if text is None:
            return cls()
        span = SPAN.match(text)
        if span is not None:
            return cls(span_ns=int(span[1]) * SECONDS[span[2]] * NS_PER_SECOND)
        moment = epoch_ns_of_text(text)
        if moment is None:
            raise UsageError(
                f"--since wants an instant such as 2026-01-31T08:00:00Z, or 10m, not {text}"
            )
        return cls(epoch_ns=moment)

    @property
    def asked_ns(self) -> int | None:
        """The epoch instant since when a service is to tell, None for all."""
        return self.epoch_ns if self.span_ns is None else time.time_ns() - self.span_ns

    def before(self, ended_ns: int) -> int | None:
        """Return the epoch instant that it is in what was read up to `ended_ns`; None for all."""
        return self.epoch_ns if self.span_ns is None else ended_ns - self.span_ns
