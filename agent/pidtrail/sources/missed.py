"""Whom a poll misses, for source `procfs`: who lives and dies between two looks."""

from __future__ import annotations

from typing import Final

SHOWN_LIVES_S: Final = (0.01, 0.05, 0.2, 1.0)


def miss_rate(life_s: float, interval_s: float) -> float:
    """
    Return the share of the processes of that life that no poll sees, from 0 to 1.

    Polls know nothing of births, so a life covers a random part of an interval:
    seen is min(1, life / interval). Measured within 5 points where a scan is
    short beside the life.
    """
    return 1.0 - min(1.0, max(0.0, life_s) / interval_s)


def expected_miss(interval_s: float) -> str:
    """Return in words what a poll at this interval misses."""
    shares = [
        f"{100 * miss_rate(life_s, interval_s):.0f} % of those that live {1000 * life_s:g} ms"
        for life_s in SHOWN_LIVES_S
        if life_s < interval_s
    ]
    missed = ", ".join(shares) or "next to none of those that live 10 ms or longer"
    return (
        f"/proc is read every {interval_s:g} s and misses {missed}; arguments and titles that "
        "last less than that; every exit status"
    )
