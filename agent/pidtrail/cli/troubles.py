"""Which problems have lasted long enough to be worth a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PATIENCE_SECONDS: Final = 10.0
"""A command that is traced may make its database first; what lasts so long is told."""


class Troubles:
    """What lasts of problems that may go away by themselves; each is told once."""

    def __init__(self) -> None:
        self.since_s: dict[str, float] = {}
        self.told: set[str] = set()

    def lasting(self, problems: Sequence[str], now_s: float) -> list[str]:
        """Return those that stand for PATIENCE_SECONDS; `now_s` is of any monotonic clock."""
        self.since_s = {problem: self.since_s.get(problem, now_s) for problem in problems}
        lasting = [
            problem
            for problem, since_s in self.since_s.items()
            if now_s - since_s >= PATIENCE_SECONDS and problem not in self.told
        ]
        self.told.update(lasting)
        return lasting
