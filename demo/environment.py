"""
Airflow's own virtual environments, never pidtrail's.

    python -m demo.environment 3.3.2 2.11.2

installs each version under `build/airflow-env-VERSION` from the pinned constraints
beside this file. A second call changes nothing unless the pins, the packages
or the interpreter did.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from demo import BUILD

STAMP = ".pidtrail-stamp"
_HERE = Path(__file__).resolve().parent
_INSTALL_TIMEOUT_S = 900
# For CeleryExecutor with Redis: 2 s and some 25 MB more in an environment that is there anyway. For
# 2.x the provider is 3.15.2: 3.16 and 3.17 send commands under a name that workers do not know.
_CELERY = ("apache-airflow-providers-celery", "celery[redis]")


class InstallError(Exception):
    """Airflow cannot be installed here; the text is one line that says why."""


@dataclass(frozen=True)
class Release:
    """One Airflow release that can be put on stage, and the pins it is installed with."""

    version: str
    packages: tuple[str, ...]
    constraints: Path

    @property
    def folder(self) -> Path:
        """The virtual environment of this release."""
        return BUILD / f"airflow-env-{self.version}"

    @property
    def python(self) -> Path:
        """The interpreter of that environment."""
        return self.folder / "bin" / "python"

    @property
    def command(self) -> Path:
        """The `airflow` command of that environment."""
        return self.folder / "bin" / "airflow"

    def stamp(self) -> str:
        """Return what the environment was made from; another value means: make it again."""
        made_from = "\0".join(
            (self.constraints.read_text(), *self.packages, base_interpreter(), sys.version)
        )
        return hashlib.sha256(made_from.encode()).hexdigest()


RELEASES = {
    "3.3.2": Release(
        "3.3.2",
        ("apache-airflow==3.3.2", "apache-airflow-providers-standard", *_CELERY),
        _HERE / "constraints-3.txt",
    ),
    "2.11.2": Release(
        "2.11.2",
        ("apache-airflow==2.11.2", "psycopg2-binary", *_CELERY),
        _HERE / "constraints-2.txt",
    ),
}


def base_interpreter() -> str:
    """
    Path of the interpreter that the running environment was made from.

    A venv made from another venv's python would see that one's packages gone;
    `sys._base_executable` is what the venv module itself uses.
    """
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def airflow_environ() -> dict[str, str]:
    """
    Environment for Airflow and its installer, from ours.

    PYTHONDONTWRITEBYTECODE would cost each Airflow command three to five
    seconds of compiling; PYTHONPATH, VIRTUAL_ENV and any AIRFLOW setting of the
    user's shell belong to another installation.
    """
    dropped = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith(("AIRFLOW_", "_AIRFLOW_"))
    }


def install(version: str) -> Release:
    """Install one of `RELEASES` if it is not there yet; return it. Raises `InstallError`."""
    release = RELEASES.get(version)
    if release is None:
        raise InstallError(
            f"no pins for Airflow {version}; there are pins for {', '.join(RELEASES)}"
        )
    provide(release)
    return release


def provide(release: Release) -> None:
    """
    Install a release if it is not there yet.

    Two callers at once wait for each other. Raises `InstallError`.
    """
    BUILD.mkdir(exist_ok=True)
    with (BUILD / f"airflow-env-{release.version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_installed(release):
            return
        shutil.rmtree(release.folder, ignore_errors=True)
        say(f"installing Airflow {release.version} into {release.folder} (once, about 30 s) ...")
        _create(release)
        (release.folder / STAMP).write_text(release.stamp())


def say(line: str) -> None:
    """Tell the person at the screen how far we are."""
    print(line, file=sys.stderr, flush=True)


def _is_installed(release: Release) -> bool:
    stamp = release.folder / STAMP
    return stamp.is_file() and stamp.read_text() == release.stamp() and release.command.is_file()


def _create(release: Release) -> None:
    uv = find_uv()
    _run(release, [uv, "venv", "--quiet", "--python", base_interpreter(), str(release.folder)])
    # uv ignores the upper bound of Requires-Python ("<3.13" in 2.11.2's metadata),
    # which is what lets 2.11.2 be installed on Debian 13, where Python is 3.13.
    _run(
        release,
        [
            *(uv, "pip", "install", "--quiet", "--compile-bytecode"),
            *("--python", str(release.python)),
            *("--constraint", str(release.constraints)),
            *release.packages,
        ],
    )


def find_uv() -> str:
    """Return the command uv. Raises `InstallError`."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise InstallError(f"cannot install Airflow: no uv beside {sys.executable} nor in PATH")
    return found


def _run(release: Release, argv: list[str]) -> None:
    # Python itself is the distribution's; uv would otherwise download one of its own.
    environ = airflow_environ() | {"UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy"}
    try:
        done = subprocess.run(
            argv,
            env=environ,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InstallError(
            f"cannot install Airflow {release.version}: not within {_INSTALL_TIMEOUT_S} s"
        ) from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = " ".join(lines)[:600] or f"uv ended with status {done.returncode}"
        raise InstallError(f"cannot install Airflow {release.version}: {why}")


def main(versions: list[str]) -> int:
    """Install the releases named on the command line; status 1 and one line if that fails."""
    try:
        for version in versions or RELEASES:
            say(f"Airflow {version} is in {install(version).folder}")
    except InstallError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
