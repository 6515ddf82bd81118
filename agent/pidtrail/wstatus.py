"""The word that wait(2) gives a parent of how its child ended."""

from __future__ import annotations


def decode_wstatus(wstatus: int) -> tuple[int | None, int | None, bool]:
    """
    Split a raw wait status into (exit_code, termsig, core_dumped).

    Low 7 bits: the signal; bit 7: core dumped; next byte: the exit code
    (wait(2), include/uapi asm-generic waitflags). exit_code is None for a
    process ended by a signal, termsig is None otherwise.
    """
    termsig = wstatus & 0x7F
    if termsig:
        return None, termsig, bool(wstatus & 0x80)
    return (wstatus >> 8) & 0xFF, None, False
