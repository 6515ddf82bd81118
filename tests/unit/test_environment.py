"""A process's environment where the kernel shows it, and where the process has moved it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.airflow.environment import environ_of
from tests.unit import moved

AGENT = Path(__file__).resolve().parents[2] / "agent"
VARIABLES = {"AIRFLOW_HOME": "/x", "TEXT": "ü = b\n", "EMPTY": "", "LONG": "y" * 9000}
HOLDER = """
import ctypes, os, sys
if sys.argv[1] == "moved":
    # As setproctitle does: the C library's array and its strings move, a title takes their place.
    variable = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")
    strings = [os.fsencode(f"{name}={value}") for name, value in os.environ.items()]
    array = (ctypes.c_char_p * (len(strings) + 1))(*strings, None)
    variable.value = ctypes.addressof(array)
    begin, end = map(int, open("/proc/self/stat").read().rpartition(")")[2].split()[47:49])
    title = b"b', 'run_id=x'"
    ctypes.memmove(begin, title + bytes(end - begin - len(title)), end - begin)
    os.environ["LATER"] = "z"
print("there", flush=True)
sys.stdin.read()
"""
SHOW = """
import sys
from pidtrail.airflow.environment import environ_of
print(environ_of(int(sys.argv[1])).get("AIRFLOW_HOME"))
"""


@pytest.fixture(params=["left", "moved"])
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that has `VARIABLES`, where the kernel laid them out or elsewhere."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, request.param],
        env=VARIABLES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"there\n"
        yield started
        started.communicate()


def is_moved(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether /proc shows no variable any more."""
    return b"\0\0\0" in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_all_variables_are_found(process: subprocess.Popen[bytes]) -> None:
    """Those that were set since too, if they have moved: it is the process's own array."""
    found = environ_of(process.pid)

    assert found.items() >= VARIABLES.items()
    assert found.get("LATER") == ("z" if is_moved(process) else None)
    assert "run_id" not in found


@pytest.mark.needs_root
def test_the_capabilities_of_the_service_suffice(process: subprocess.Popen[bytes]) -> None:
    """CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, no root."""
    told = [
        subprocess.run(
            [
                *("setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"),
                *("--inh-caps", f"-all,{caps}", "--ambient-caps", f"-all,{caps}"),
                *(sys.executable, "-c", SHOW, str(process.pid)),
            ],
            env=os.environ | {"PYTHONPATH": str(AGENT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for caps in ("+sys_ptrace,+dac_read_search", "+dac_read_search")
    ]

    assert told == ["/x\n", "None\n"]


def test_who_is_not_there_has_none(tmp_path: Path) -> None:
    assert environ_of(None) == environ_of(7, tmp_path) == {}


@pytest.mark.parametrize("relocated", [True, False], ids=["glibc", "musl"])
def test_a_program_that_defines_it_is_asked(tmp_path: Path, relocated: bool) -> None:
    """Either way of the dynamic linker to leave its tables."""
    proc = moved.process(tmp_path, moved.program(relocated=relocated))

    assert environ_of(7, proc) == {"AIRFLOW_HOME": "/x"}


@pytest.mark.parametrize(
    "memory",
    [
        b"",
        b"\x7fELF\x02",
        b"\x7fELF\x02" + b"\xff" * 4000,
        moved.program(relocated=True)[: moved.VARIABLE],
        moved.program(relocated=True).replace(b"environ", b"environs"),
        moved.program(relocated=True, value=b"no variable\0"),
    ],
    ids=["nothing", "short", "garbage", "cut", "another-name", "no-variable"],
)
def test_what_is_no_program_has_none(tmp_path: Path, memory: bytes) -> None:
    """Nothing but zeros, and a memory that does not hold what it should."""
    assert environ_of(7, moved.process(tmp_path, memory)) == {}
