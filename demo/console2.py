"""
What the stage asks of an Airflow 2.x, in one process of its own.

Runs in Airflow's environment, because the stage has no PostgreSQL driver and
each `airflow` command takes three seconds to import. One JSON object per line
in, one out: `{"do": "trigger", "dag_id": .., "run_id": ..}`, `{"do": "dags"}`,
`{"do": "states", "dag_id": .., "run_id": ..}`, and so on: see the functions.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from airflow.api.common.trigger_dag import trigger_dag
from airflow.models import DagModel, DagRun, TaskInstance
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import clear_task_instances
from airflow.utils.session import create_session


def dags() -> list[str]:
    """Names of the DAGs that the scheduler can run."""
    # Triggering needs both rows; the file processor commits them one after the other.
    with create_session() as session:
        rows = session.query(DagModel.dag_id).join(
            SerializedDagModel, SerializedDagModel.dag_id == DagModel.dag_id
        )
        return [row.dag_id for row in rows]


def trigger(dag_id: str, run_id: str) -> None:
    """Start one run."""
    trigger_dag(dag_id, run_id=run_id)


def states(dag_id: str, run_id: str) -> dict[str, Any]:
    """
    Return the state of a run (None: no such run) and of its task instances.

    A task instance is `[task_id, map_index, try_number, state]`.
    """
    with create_session() as session:
        run = session.query(DagRun.state).filter_by(dag_id=dag_id, run_id=run_id).one_or_none()
        rows = session.query(
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.try_number,
            TaskInstance.state,
        ).filter_by(dag_id=dag_id, run_id=run_id)
        return {"run": run and run.state, "tasks": [list(row) for row in rows]}


def rows(session: Any, dag_id: str, run_id: str, task_id: str | None = None) -> list[Any]:
    """Return the task instances of a run, or one of them."""
    query = session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id)
    return list(query if task_id is None else query.filter_by(task_id=task_id))


def clear(dag_id: str, run_id: str) -> None:
    """Clear a run, as views and REST API do."""
    with create_session() as session:
        clear_task_instances(rows(session, dag_id, run_id), session)


def set_state(dag_id: str, run_id: str, task_id: str, state: str) -> None:
    """Set the state of a task instance."""
    with create_session() as session:
        for instance in rows(session, dag_id, run_id, task_id):
            instance.set_state(state, session=session)


def set_pid(dag_id: str, run_id: str, task_id: str, pid: int) -> None:
    """Write another pid into a row."""
    with create_session() as session:
        for instance in rows(session, dag_id, run_id, task_id):
            instance.pid = pid


def main() -> None:
    """Answer until stdin is closed; what Airflow prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands: dict[str, Callable[..., Any]] = {
        command.__name__: command for command in (dags, trigger, states, clear, set_state, set_pid)
    }
    for line in sys.stdin:
        question = json.loads(line)
        command = commands[question.pop("do")]
        try:
            answer = {"answer": command(**question)}
        except Exception as error:  # noqa: BLE001 - the driver decides what is fatal
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
