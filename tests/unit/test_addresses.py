"""The addresses of this host, from what the kernel prints of its network namespace."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from pidtrail.sources.addresses import own_addresses

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
     |-- 192.0.2.2
        /32 host LOCAL
"""
IF_INET6 = """\
fd000000000000000000000000000002 04 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


def test_own_addresses_are_those_of_the_host_but_for_loopback(tmp_path: Path) -> None:
    """Both families, each once, in their shortest form; no broadcast addresses."""
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)

    assert own_addresses(tmp_path) == ["192.0.2.2", "fd00::2"]


def test_a_host_without_ipv6_has_the_others(tmp_path: Path) -> None:
    """The file is not there then."""
    (tmp_path / "fib_trie").write_text(FIB_TRIE)

    assert own_addresses(tmp_path) == ["192.0.2.2"]


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """Not the same as a host without addresses."""
    assert own_addresses(tmp_path) is None


@pytest.mark.skipif(not Path("/bin/hostname").exists(), reason="no hostname(1) to compare with")
def test_this_host_says_so_too() -> None:
    """hostname -I lists them, without link-local ones."""
    told = subprocess.run(["/bin/hostname", "-I"], capture_output=True, text=True, check=True)
    found = own_addresses()

    assert found is not None
    assert {str(ip_address(one)) for one in told.stdout.split()} <= set(found)
