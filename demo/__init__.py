"""
`make demo`: a real Airflow, traced, and what the kernel says of its PIDs.

The tests in `tests/airflow` start Airflow with the same parts. Nothing here is
shipped in the wheel; standard library only, but for the tables of `run.py`.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
