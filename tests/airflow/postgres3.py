"""
Airflow 3.x on PostgreSQL, as most who run it have it.

Where many tasks run at once SQLite is no stage for 3.x: the api-server writes its audit
rows in its event loop, and stands still there for as long as another process has the
one lock (`Airflow3` in demo/airflow3.py, which has no other database to install).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

from sqlalchemy import create_engine, text

from demo import BUILD
from demo.airflow2 import Airflow2
from demo.airflow3 import Airflow3
from demo.environment import STAMP, InstallError, Release, airflow_environ, find_uv
from demo.postgres import Postgres
from demo.processes import Ledger

SET_PID = text(
    "UPDATE task_instance SET pid = :pid"
    " WHERE dag_id = :dag_id AND run_id = :run_id AND task_id = :task_id"
)
DRIVERS = ("psycopg2-binary", "asyncpg")


class Airflow3OnPostgres(Airflow3):
    """Airflow 3.x with a PostgreSQL server of its own on `port`."""

    def __init__(
        self,
        release: Release,
        ledger: Ledger,
        dags: Path,
        *,
        port: int,
        parallelism: int = 8,
        with_triggerer: bool = False,
    ) -> None:
        super().__init__(
            release, ledger, dags, parallelism=parallelism, with_triggerer=with_triggerer
        )
        self._postgres = Postgres(ledger, port)
        self._drivers = drivers_for(release)

    @property
    def database(self) -> str:
        """The PostgreSQL database of this stage."""
        return self._postgres.url

    def version_settings(self) -> dict[str, str]:
        """Keep to few connections."""
        few = {"DATABASE__SQL_ALCHEMY_POOL_SIZE": "10", "DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "10"}
        return super().version_settings() | few

    def environ(self) -> dict[str, str]:
        """Add the drivers."""
        environ = super().environ()
        path = os.pathsep.join([environ["PYTHONPATH"], str(self._drivers)])
        return environ | {"PYTHONPATH": path}

    def set_pid(self, dag_id: str, run_id: str, task_id: str, pid: int) -> None:
        """Write into the database."""
        where = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "pid": pid}
        engine = create_engine(self.database)
        with engine.begin() as connection:
            connection.execute(SET_PID, where)
        engine.dispose()

    def make_database(self) -> None:
        """Serve an empty database, and migrate it."""
        self._postgres.start()
        self.migrate()


def stage_on_postgres(release: Release) -> type[Airflow2 | Airflow3OnPostgres]:
    """Return what puts a release on stage with a PostgreSQL server of its own."""
    return Airflow2 if release.version.startswith("2.") else Airflow3OnPostgres


def drivers_for(release: Release) -> Path:
    """
    Return a folder with PostgreSQL's drivers for a release, beside its environment.

    Raises `InstallError`.
    """
    folder = BUILD / f"airflow-postgres-{release.version}"
    stamp = folder / STAMP
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == release.stamp():
            return folder
        argv = [
            *(find_uv(), "pip", "install", "--quiet", "--no-deps", "--target", str(folder)),
            *("--python", str(release.python), "--constraint", str(release.constraints)),
            *DRIVERS,
        ]
        done = subprocess.run(
            argv, env=airflow_environ(), capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            raise InstallError(f"no drivers of PostgreSQL: {done.stderr.strip()[-400:]}")
        stamp.write_text(release.stamp())
    return folder
