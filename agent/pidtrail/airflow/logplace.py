"""
Where Airflow puts the logs of tasks and how it names them, without asking Airflow.

From the environment of the traced scheduler, then of pidtrail, then airflow.cfg, as for
the database (location.py). [logging] base_log_folder and log_filename_template; before 2.0
they stood in [core], which 2.x still reads (airflow/configuration.py @ 2.11.2).
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pidtrail.airflow.environment import environ_of, home_of
from pidtrail.airflow.location import airflow_home, config_path, expand
from pidtrail.events import AirflowFact

_SECTIONS = ("logging", "core")
ORIGIN = "airflow-config"


class LogPlace(NamedTuple):
    """
    The folder of the logs, and a template if one is set; None where it is not known.

    The folder is as the kernel shows it in the links of open files: without symbolic links.
    """

    folder: str | None
    template: str | None

    def fact(self) -> AirflowFact | None:
        """Return it as a record, None if there is nothing to tell; `seq` and time are 0."""
        known = {"folder": self.folder, "filename": self.template}
        detail = {name: value for name, value in known.items() if value is not None}
        if not detail:
            return None
        return AirflowFact(seq=0, ts_boot_ns=0, origin=ORIGIN, table="log_template", detail=detail)


def locate_logs(
    environ: Mapping[str, str], scheduler_pid: int | None = None, *, proc: Path = Path("/proc")
) -> LogPlace:
    """
    Return where the logs are; `environ` is the environment of pidtrail.

    Reads files; what cannot be read is passed over. A folder that is only supposed,
    Airflow's default, is told if it is there.
    """
    theirs = environ_of(scheduler_pid, proc)
    home = airflow_home(theirs, environ, home_of(scheduler_pid, proc))
    parser = _read(config_path(theirs, environ, home))

    def setting(name: str) -> str | None:
        for section in _SECTIONS:
            for env in (theirs, environ):
                value = env.get(f"AIRFLOW__{section.upper()}__{name.upper()}")
                if value:
                    return value
        for section in _SECTIONS:
            value = parser.get(section, name, fallback="")
            if value:
                # Airflow interpolates, so a percent sign is doubled in the file.
                return value.replace("%%", "%").replace("{AIRFLOW_HOME}", home)
        return None

    given = setting("base_log_folder")
    folder = expand(given, theirs or environ) if given else f"{home.rstrip('/')}/logs"
    # Path.is_dir() raises where a folder above may not be entered.
    known = given is not None or os.path.isdir(folder)  # noqa: PTH112
    return LogPlace(os.path.realpath(folder) if known else None, setting("log_filename_template"))


def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, configparser.Error):
        return configparser.ConfigParser(interpolation=None)
    return parser
