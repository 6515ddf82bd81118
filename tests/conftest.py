"""
What this machine can run: one probe per capability, said in the header.

A test marked `needs_X` is skipped, with the reason, where X is missing. `REQUIRE=root,bpf`
in the environment turns such a skip into a failure: where everything ought to be
there, nothing may be left out in silence.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from pidtrail.errors import SourceUnavailable
from pidtrail.sources.bcc_arguments import TRACEFS, is_tracefs
from pidtrail.sources.bcc_program import headers, load_module

# A busy machine is slow at times; that is not what a property is about. Half of the unit tests' CPU
# time went into examples: every run draws others, and ./do fuzz looks for longer.
hypothesis.settings.register_profile("pidtrail", deadline=None, max_examples=50)
hypothesis.settings.load_profile("pidtrail")

# A shell starts what it puts in the background with SIGINT ignored, and that is inherited over
# execve (POSIX 2.11): programs under test would not hear the Ctrl-C that a test sends them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A UNIX socket's path has 108 bytes (unix(7)), of which pytest's folders and names take some 85.
if len(tempfile.gettempdir()) > 20 and os.access("/tmp", os.W_OK | os.X_OK):
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

# No test asks a service that happens to run on this host.
os.environ["PIDTRAIL_SOCKET"] = "/nonexistent/pidtrail.sock"

ROOT = Path(__file__).resolve().parent.parent
CAP_PERFMON, CAP_BPF, CAP_SYS_ADMIN = 38, 39, 21


def missing_root() -> str | None:
    """Return why root is missing, or None."""
    return None if os.geteuid() == 0 else f"not root (uid {os.geteuid()})"


def missing_bpf() -> str | None:
    """Return why BPF programs cannot be loaded and attached, or None."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF (/sys/kernel/btf/vmlinux)"
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        return "libbpf.so.1 is not installed"
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if not effective >> CAP_SYS_ADMIN & 1 and not all(
        effective >> capability & 1 for capability in (CAP_BPF, CAP_PERFMON)
    ):
        return "neither CAP_BPF with CAP_PERFMON nor CAP_SYS_ADMIN"
    if not list((ROOT / "agent/pidtrail/bpf").glob("*.bpf.o")):
        return "the BPF objects are not compiled (./do bpf)"
    return None


def missing_bcc() -> str | None:
    """Return why bcc cannot compile its programs, or None."""
    try:
        load_module()
        with headers():
            return None
    except SourceUnavailable as error:
        return str(error)


def missing_tracefs() -> str | None:
    """Return why the tracepoints' formats can neither be read nor be mounted, or None."""
    if any(is_tracefs(place) for place in TRACEFS):
        return None
    if os.geteuid() == 0 and TRACEFS[0].is_dir():
        return None  # tests/contract/conftest.py mounts it
    return "tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing)"


def missing_postgres() -> str | None:
    """Return why no PostgreSQL server can be started, or None."""
    if shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return None
    return "no PostgreSQL server is installed (initdb)"


def missing_mariadb() -> str | None:
    """Return why no MariaDB server can be started, or None."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    if not all(shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db")):
        return "no MariaDB server is installed (mariadbd)"
    if not Path("/usr/lib/python3/dist-packages/MySQLdb").exists():
        return "no mysqlclient is installed for Airflow (python3-mysqldb)"
    return None


def missing_airflow() -> str | None:
    """Return why no real Airflow can be started, or None."""
    if list((ROOT / "build").glob("airflow*/bin/airflow")):
        return None
    return "no Airflow is installed (python -m demo.environment 3.3.2 2.11.2)"


def missing_systemd() -> str | None:
    """Return why a unit file cannot be judged, or None; no running systemd is needed."""
    return None if shutil.which("systemd-analyze") else "systemd-analyze is not installed"


def missing_podman() -> str | None:
    """Return why no container can be run, or None."""
    names = ("podman", "crun", "runc", "dumb-init")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = [name for name in names if not shutil.which(name, path=path)]
    return f"not installed: {', '.join(missing)}" if missing else None


PROBES: dict[str, Callable[[], str | None]] = {
    "root": missing_root,
    "bpf": missing_bpf,
    "bcc": missing_bcc,
    "tracefs": missing_tracefs,
    "postgres": missing_postgres,
    "mariadb": missing_mariadb,
    "airflow": missing_airflow,
    "systemd": missing_systemd,
    "podman": missing_podman,
}


@functools.cache
def why_missing(capability: str) -> str | None:
    """Return why a capability is missing here, or None; probed once."""
    return PROBES[capability]()


def required() -> set[str]:
    """Return the capabilities that REQUIRE says must be here."""
    names = {name.strip() for name in os.environ.get("REQUIRE", "").split(",")} - {""}
    if unknown := names - PROBES.keys():
        raise pytest.UsageError(f"REQUIRE: unknown {sorted(unknown)}, known {sorted(PROBES)}")
    return names


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `./do test-matrix` ask for more releases of Airflow than the two newest."""
    parser.addoption(
        "--every-airflow",
        action="store_true",
        help="also try the older releases of Airflow in tests/airflow/test_versions.py",
    )


def pytest_configure() -> None:
    """Complain about a misspelt REQUIRE before anything runs."""
    required()


def pytest_report_header() -> str:
    """Say in one line what is there."""
    words = [
        f"{name}: {'yes' if (why := why_missing(name)) is None else f'no, {why}'}"
        for name in PROBES
    ]
    return f"here: {'; '.join(words)}; required: {', '.join(sorted(required())) or 'nothing'}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met, or fail it where they are required."""
    for name in PROBES:
        if item.get_closest_marker(f"needs_{name}") is None:
            continue
        if (why := why_missing(name)) is None:
            continue
        if name in required():
            pytest.fail(f"required, but missing: {name}: {why}", pytrace=False)
        pytest.skip(f"needs {name}: {why}")
