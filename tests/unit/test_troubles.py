"""A problem with Airflow's records is told while they are watched, if it does not go away."""

from __future__ import annotations

from pidtrail.cli.troubles import PATIENCE_SECONDS, Troubles


def test_what_lasts_is_told_once() -> None:
    """Not at once, for a command may make its database first; and not again."""
    troubles = Troubles()

    told = [troubles.lasting(["refused"], now_s) for now_s in (0.0, PATIENCE_SECONDS, 1e6)]

    assert told == [[], ["refused"], []]


def test_what_goes_away_is_not_told() -> None:
    """Its patience begins anew when it comes back."""
    troubles = Troubles()
    troubles.lasting(["empty"], 0.0)
    troubles.lasting([], 1.0)

    assert troubles.lasting(["empty"], PATIENCE_SECONDS) == []
    assert troubles.lasting(["empty"], 2 * PATIENCE_SECONDS) == ["empty"]
