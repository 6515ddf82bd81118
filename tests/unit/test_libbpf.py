"""Calls into libbpf without a kernel: what becomes of Ctrl-C meanwhile."""

from __future__ import annotations

import signal
from ctypes import CFUNCTYPE, c_int
from types import FrameType

import pytest

from pidtrail.sources.libbpf import interrupts_held


@CFUNCTYPE(c_int)
def called_back() -> int:
    """Be interrupted where ctypes drops what is raised."""
    signal.raise_signal(signal.SIGINT)
    return 0


def test_an_interrupt_in_a_callback_is_raised_after_the_call() -> None:
    """The call is finished, and then the command ends as with any Ctrl-C."""
    finished = []

    def call() -> None:
        with interrupts_held():
            called_back()
            finished.append(True)

    with pytest.raises(KeyboardInterrupt):
        call()

    assert finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    """`trace` notes its signals by itself."""
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        with interrupts_held():
            called_back()
        assert signal.getsignal(signal.SIGINT) is note
    finally:
        signal.signal(signal.SIGINT, before)

    assert noted == [signal.SIGINT]
