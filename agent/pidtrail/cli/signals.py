"""The signals that say to end: noted while records are captured, an interruption after that."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def note(into: list[int]) -> None:
    """Note them in a list instead of dying of them: what was captured must be kept."""

    def handler(number: int, _frame: FrameType | None) -> None:
        into.append(number)

    for number in ENDING:
        if is_heard(number):
            signal.signal(number, handler)


def interrupt() -> None:
    """Let each of them raise KeyboardInterrupt from now on."""
    for number in ENDING:
        if is_heard(number):
            signal.signal(number, signal.default_int_handler)


def is_heard(number: int) -> bool:
    """Return whether one is to be heard: SIGHUP is left as it is under nohup(1), ignored."""
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
