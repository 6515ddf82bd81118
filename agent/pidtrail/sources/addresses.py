"""The network addresses by which Airflow may record this host."""

from __future__ import annotations

import contextlib
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

NET: Final = Path("/proc/net")


def own_addresses(net: Path = NET) -> list[str] | None:
    """
    Return the addresses of this network namespace, but for loopback, in their shortest form.

    None where neither file can be read: /proc/net/fib_trie (net/ipv4/fib_trie.c) and
    /proc/net/if_inet6 (net/ipv6/addrconf.c).
    """
    found: set[str] = set()
    known = False
    with contextlib.suppress(OSError):
        before = ""
        for line in (net / "fib_trie").read_text().splitlines():
            words = line.split()
            if words[:2] == ["/32", "host"]:
                found.add(before)
            before = words[-1] if words else ""
        known = True
    with contextlib.suppress(OSError):
        for line in (net / "if_inet6").read_text().splitlines():
            found.add(str(IPv6Address(int(line.split()[0], 16))))
        known = True
    own = sorted(one for one in found if not ip_address(one).is_loopback)
    return own if known else None
