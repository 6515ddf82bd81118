"""Airflow 2.x on PostgreSQL: scheduler, and a triggerer where it is needed."""

from __future__ import annotations

import json
import select
from pathlib import Path
from typing import Any

from demo.airflow_host import AirflowHost, TaskState, free_ports
from demo.environment import Release
from demo.postgres import Postgres
from demo.processes import Ledger, Manner, Piece, StageError

_CONSOLE = Path(__file__).with_name("console2.py")
_ANSWER_TIMEOUT_S = 60


class Airflow2(AirflowHost):
    """
    Airflow 2.x with a PostgreSQL server of its own on `port` (None: any free one).

    No webserver: runs are started and read by `console2.py`, one process.
    """

    def __init__(  # noqa: PLR0913 (what the base class takes, and a port)
        self,
        release: Release,
        ledger: Ledger,
        dags: Path,
        *,
        parallelism: int = 8,
        with_triggerer: bool = False,
        port: int | None = None,
    ) -> None:
        super().__init__(
            release, ledger, dags, parallelism=parallelism, with_triggerer=with_triggerer
        )
        self._postgres = Postgres(ledger, port or free_ports(1)[0])
        self._console: Piece | None = None

    @property
    def database(self) -> str:
        """The PostgreSQL database of this stage."""
        return self._postgres.url

    @property
    def local_database(self) -> str:
        """The same database for who has no network; only when it was started."""
        return self._postgres.local_url

    def version_settings(self) -> dict[str, str]:
        """No DAG file read twice."""
        return {
            "SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3600",
            "SCHEDULER__DAG_DIR_LIST_INTERVAL": "3600",
            "SCHEDULER__PARSING_PROCESSES": "1",
        }

    def start(self) -> None:
        """Start the database, migrate it, start the scheduler and what goes with it."""
        self.prepare_home()
        self._postgres.start()
        self.migrate()
        self.start_scheduler()
        if self._with_triggerer:
            self.spawn("triggerer", "triggerer", "--skip-serve-logs")
        self.start_console()

    def start_console(self) -> None:
        """Start the process that starts runs and reads their states."""
        argv = [str(self._release.python), str(_CONSOLE)]
        self._console = self._ledger.spawn("console", argv, self.environ(), Manner(pipes=True))

    def dags(self) -> set[str]:
        """Names of the DAGs that are serialized."""
        return set(self._ask(do="dags"))

    def trigger(self, dag_id: str, run_id: str) -> None:
        """Start one run."""
        self._ask(do="trigger", dag_id=dag_id, run_id=run_id)

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """State of one run."""
        state = self._ask(do="states", dag_id=dag_id, run_id=run_id)["run"]
        return None if state is None else str(state)

    def task_states(self, dag_id: str, run_id: str) -> list[TaskState]:
        """States of the task instances of one run."""
        return [
            TaskState(*row) for row in self._ask(do="states", dag_id=dag_id, run_id=run_id)["tasks"]
        ]

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear as the webserver does, without its audit row."""
        self._ask(do="clear", dag_id=dag_id, run_id=run_id)

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Set a state as the webserver does, without its audit row."""
        self._ask(do="set_state", dag_id=dag_id, run_id=run_id, task_id=task_id, state=state)

    def set_pid(self, dag_id: str, run_id: str, task_id: str, pid: int) -> None:
        """Write into the database."""
        self._ask(do="set_pid", dag_id=dag_id, run_id=run_id, task_id=task_id, pid=pid)

    def _ask(self, **question: str | int) -> Any:
        if self._console is None:
            raise StageError("Airflow 2.x was not started")
        log = self._console.log
        questions, answers = self._console.popen.stdin, self._console.popen.stdout
        assert questions is not None  # spawned with pipes
        assert answers is not None
        try:
            questions.write(json.dumps(question).encode() + b"\n")
            questions.flush()
        except BrokenPipeError as error:
            raise StageError(f"the console ended; see {log}") from error
        if not select.select([answers], [], [], _ANSWER_TIMEOUT_S)[0]:
            raise StageError(f"no answer within {_ANSWER_TIMEOUT_S} s; see {log}")
        line = answers.readline()
        if not line:
            raise StageError(f"the console ended; see {log}")
        answer = json.loads(line)
        if "error" in answer:
            raise StageError(f"{question['do']}: {answer['error']}")
        return answer["answer"]
