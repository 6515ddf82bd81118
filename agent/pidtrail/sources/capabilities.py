"""Which capabilities this process holds (capabilities(7))."""

from __future__ import annotations

from pathlib import Path

NUMBERS = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
STANDS_FOR = {"CAP_BPF", "CAP_PERFMON"}
"""CAP_SYS_ADMIN includes these two (kernel/capability.c bpf_capable, perfmon_capable)."""


def effective() -> set[str]:
    """Return the names, of those we know, that are in the effective set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            held = {name for name, number in NUMBERS.items() if bits >> number & 1}
            return held | STANDS_FOR if "CAP_SYS_ADMIN" in held else held
    return set()


def missing(*names: str) -> list[str]:
    """Return those of `names` that this process does not hold."""
    held = effective()
    return [name for name in names if name not in held]
