"""Every fuzz target stands what it begins with, cut anywhere and with any byte turned over."""

from __future__ import annotations

import pytest

from tests.fuzz.one import without_atheris
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_cut_and_spoiled_break_nothing(name: str) -> None:
    """Each seed whole, each beginning of it, and with each of its first bytes turned over."""
    target = TARGETS[name]
    for seed in target.seeds:
        step = 1 + len(seed) // 60
        for place in range(0, len(seed), step):
            target.run(seed[:place])
            target.run(seed[:place] + bytes([seed[place] ^ 0xFF]) + seed[place + 1 :])
        target.run(seed)


def test_inputs_by_chance_break_nothing() -> None:
    """What is done where atheris is not to be had, for a moment per target."""
    for target in TARGETS.values():
        assert without_atheris(target, 0.05) > 0
