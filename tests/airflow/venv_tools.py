"""
What tasks make virtual environments with, in a folder of the stage: virtualenv, and uv.

The packages that go into a new environment come from wheels that virtualenv carries,
so that no task needs a network. Imported by Airflow, so nothing of pidtrail is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from demo.processes import StageError

PINS = Path(__file__).with_name("constraints") / "virtualenv.txt"
FOLDER = "venv-tools"


def provide(home: Path) -> None:
    """Install them below a stage's home. Raises `StageError`."""
    uv, folder = Path(sys.executable).with_name("uv"), home / FOLDER
    command = [str(uv), "pip", "install", "--quiet", "--target", str(folder), "-r", str(PINS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise StageError(f"virtualenv cannot be installed: {done.stderr.strip()[-400:]}")
    (folder / "bin/uv").symlink_to(uv)


def use(home: Path) -> None:
    """
    Let this process, and what it starts, find them.

    2.x calls `python -m virtualenv`, 3.x calls uv if it is in PATH (utils/python_virtualenv.py
    @ 2.11.2, providers/standard/utils/python_virtualenv.py @ 3.3.2).
    """
    folder = home / FOLDER
    wheels = folder / "virtualenv/seed/wheels/embed"
    sys.path.append(str(folder))
    for name, path in {"PATH": folder / "bin", "PYTHONPATH": folder}.items():
        os.environ[name] = os.pathsep.join([str(path), *filter(None, [os.environ.get(name)])])
    os.environ |= {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1"}
    os.environ["VIRTUALENV_NO_PERIODIC_UPDATE"] = "1"
    os.environ["VIRTUALENV_OVERRIDE_APP_DATA"] = str(folder / "data")
