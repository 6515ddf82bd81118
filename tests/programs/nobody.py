"""How a test runs a command as a user without rights, who reaches the checkout wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NOBODY: Final = 65_534
HERE: Final = Path(__file__).resolve().parent


def as_nobody(*options: str) -> list[str]:
    """
    Return what stands before a command of root's that is to run as uid 65534, in the checkout.

    `options` are further ones of setpriv(1). Without any it has no capability.
    """
    opened = [str(HERE / "open_checkout.sh"), str(HERE.parents[1])]
    user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    return [*opened, "setpriv", *user, *(options or ["--inh-caps=-all"])]
