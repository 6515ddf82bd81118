"""
The Airflow releases that pidtrail is tried on beside the two newest: one per change that matters.

2.7.3 has no `task_instance_history`, 2.10.5 the last form of the pid check before
2.11; 3.0.6 has no `running` row in the audit log, 3.1.8 the first history rows for
orphan resets. The pins are what was newest when each was released.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from demo.environment import RELEASES, Release

_PINS = Path(__file__).with_name("constraints")


def _older(version: str, *packages: str) -> Release:
    return Release(version, (f"apache-airflow=={version}", *packages), _PINS / f"{version}.txt")


OLDER: Final = {
    release.version: release
    for release in (
        _older("2.7.3", "psycopg2-binary"),
        _older("2.10.5", "psycopg2-binary"),
        _older("3.0.6", "apache-airflow-providers-standard"),
        _older("3.1.8", "apache-airflow-providers-standard"),
    )
}
NEWEST: Final = {version: RELEASES[version] for version in ("3.3.2", "2.11.2")}
