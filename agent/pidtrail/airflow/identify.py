"""
Which task instance, and which part in running it, a process tells of by itself.

Rule 1: pure. Text in, facts out; nothing is read, and nothing here ever raises.
Rule 2: unknown is None. A text that was cut gives what stands before the cut
        and says `truncated`; it never gives half an id.
Rule 3: -1 ("not mapped") is a fact, and is said only where the text proves it.

Titles are what Airflow writes with setproctitle; the places, read in the
released packages, are cited below. A title is a claim: a child shows its
parent's title until it sets its own, and a Celery pool worker of 3.3+ keeps the
title of its last task instance. `correlate` weighs that.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pidtrail.airflow.commands import airflow_command, argv_facts, small_int, uuid_text
from pidtrail.airflow.facts import Role, TitleFacts
from pidtrail.events import TaskRef

__all__ = [
    "Role",
    "TitleFacts",
    "argv_facts",
    "env_task",
    "log_path_task",
    "merge",
    "title_facts",
]

# A Python string literal, whole. The branches exclude each other: linear time.
_LITERAL = re.compile(r"""\s*,?\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_WORKER = re.compile(
    r"airflow worker -- LocalExecutor(?: \[(?P<team>.*)\])?(?:: (?P<what>.*))?\Z", re.DOTALL
)
_CELERY = re.compile(r"\[celeryd: (?P<node>[^\]]*):(?P<process>[A-Za-z]+(?:-[0-9]+)?)\]")

# The file that supervisor and runner hold open. airflow/utils/log/file_task_handler.py with
# the default [logging] log_filename_template of 2.3+. `.SchedulerJob.log` and
# `.trigger.N.log` are written by others and do not end in `attempt=N.log`. The
# kernel appends " (deleted)" to the link of a removed file (fs/d_path.c).
_LOG_PATH = re.compile(
    r"(?:^|/)dag_id=(?P<dag>[^/]+)/run_id=(?P<run>[^/]+)/task_id=(?P<task>[^/]+)"
    r"/(?:map_index=(?P<map>-?[0-9]{1,10})/)?attempt=(?P<attempt>[0-9]{1,10})\.log"
    r"(?: \(deleted\))?\Z"
)

# What the kernel keeps of a title as comm: 15 characters (include/linux/sched.h TASK_COMM_LEN).
_CUT: Mapping[str, Role] = {
    "airflow task supervisor: "[:15]: Role.SUPERVISOR,
    "airflow task runner: "[:15]: Role.RUNNER,
}

# Titles that say all in their first words. airflow/dag_processing/{manager,processor}.py
# @ 2.7-2.11, airflow/utils/serve_logs, airflow/cli/commands/api_server_command.py and
# airflow/api_fastapi/gunicorn_config.py @ 3.x; gunicorn/util.py _setproctitle.
_PREFIXES: tuple[tuple[str, Role, int | None, str | None], ...] = (
    ("airflow executor -- LocalExecutor", Role.EXECUTOR_MANAGER, 2, None),
    ("airflow scheduler -- DagFileProcessorManager", Role.DAG_PROCESSOR, 2, None),
    ("airflow scheduler - DagFileProcessor ", Role.DAG_PROCESSOR, 2, None),
    ("airflow api_server -- ", Role.API_SERVER, 3, "api-server"),
    ("airflow api-server worker", Role.API_SERVER, 3, "api-server"),
    ("[ready] airflow api-server worker", Role.API_SERVER, 3, "api-server"),
    ("airflow serve-logs", Role.OTHER, None, "serve-logs"),
    ("gunicorn: ", Role.OTHER, None, None),
    ("[ready] gunicorn: ", Role.OTHER, None, None),
)


def shown_facts(argv: Sequence[str]) -> TitleFacts | None:
    """
    Return what a command line says that was read from /proc, or None if it is none of Airflow's.

    A title comes out of there as one item: it was written over the arguments.
    """
    found = title_facts(argv[0]) if len(argv) == 1 else None
    return found if found is not None else argv_facts(argv)


@lru_cache(maxsize=2048)
def title_facts(title: str) -> TitleFacts | None:
    """
    Return what a process title says, or None if it is not one of Airflow's.

    Also takes a command line joined with spaces, as /proc shows it or as the
    2.x scheduler restores it after having borrowed the title of its Manager
    (airflow/executors/local_executor.py start @ 2.10.5).
    """
    if title.startswith("airflow worker -- "):
        return _worker(title)
    if title.startswith("airflow task supervisor: "):
        task, _, truncated = _command_list(title.partition(": ")[2])
        return TitleFacts(Role.SUPERVISOR, task, major=2, truncated=truncated)
    if title.startswith("airflow task runner: "):
        return _runner_2(title.partition(": ")[2])
    if title.startswith("airflow supervisor: "):
        ti_id = uuid_text(title.partition(": ")[2])
        task = TaskRef(ti_id=ti_id) if ti_id else None
        # Nobody takes it back (executors/base_executor.py run_workload @ 3.3.2).
        return TitleFacts(Role.SUPERVISOR, task, major=3, lingers=True)
    if title in _CUT:
        return TitleFacts(_CUT[title], major=2, truncated=True)
    for prefix, role, major, command in _PREFIXES:
        if title.startswith(prefix):
            return TitleFacts(role, major=major, command=command)
    if title.startswith("[celeryd: "):
        return _celery(title)
    return _joined_argv(title)


def log_path_task(path: str) -> TaskRef | None:
    """
    Return the task instance attempt that a log file belongs to, or None if it is no task log.

    Complete in all versions: the file is named after all five keys. A log
    without a `map_index=` folder is of a task that is not mapped.
    """
    found = _LOG_PATH.search(path)
    if found is None:
        return None
    mapped = found["map"]
    return TaskRef(
        dag_id=found["dag"],
        task_id=found["task"],
        run_id=found["run"],
        map_index=-1 if mapped is None else int(mapped),
        try_number=int(found["attempt"]),
    )


def env_task(env: Mapping[str, str]) -> TaskRef | None:
    """
    Return the task instance of `AIRFLOW_CTX_*` variables, or None if there are none.

    Seen only in processes exec'ed below a runner: setproctitle destroys the
    environment of the runner itself. There is no map index among them
    (airflow/models/taskinstance.py @ 2.10.5; sdk execution_time/context.py @ 3.x).
    """

    def value(name: str) -> str | None:
        return env.get(f"AIRFLOW_CTX_{name}") or None

    task = TaskRef(
        dag_id=value("DAG_ID"),
        task_id=value("TASK_ID"),
        run_id=value("DAG_RUN_ID"),
        try_number=small_int(value("TRY_NUMBER")),
    )
    return None if task == TaskRef() else task


def merge(one: TaskRef, other: TaskRef) -> TaskRef | None:
    """
    Return what both say together, or None if they contradict each other.

    Commutative; a field that one of them leaves open is taken from the other.
    """

    def joined(name: str) -> tuple[bool, object]:
        left, right = getattr(one, name), getattr(other, name)
        if left is None or right is None:
            return True, right if left is None else left
        return left == right, left

    fields = {name: joined(name) for name in TaskRef.__struct_fields__}
    if not all(agree for agree, _ in fields.values()):
        return None
    return TaskRef(**{name: value for name, (_, value) in fields.items()})  # type: ignore[arg-type]


def _worker(title: str) -> TitleFacts:
    """
    Read the titles of LocalExecutor workers and of 3.x runners.

    airflow/executors/local_executor.py @ 2.7.3-2.11.2 (`…: {command}`, a list),
    @ 3.0.6 and 3.3.2 (`[team]` since 3.2, `<idle>`, task instance id); the
    runner's in sdk execution_time/task_runner.py @ 1.3.2.
    """
    found = _WORKER.match(title)
    if found is None:
        ti_id = uuid_text(title.removeprefix("airflow worker -- "))
        if ti_id is None:
            return TitleFacts(Role.OTHER, truncated=True)
        return TitleFacts(Role.RUNNER, TaskRef(ti_id=ti_id), major=3)
    what = found["what"]
    if what is None:
        return TitleFacts(Role.EXECUTOR_WORKER, major=2, idle=True)
    if what == "<idle>":
        return TitleFacts(Role.EXECUTOR_WORKER, major=3, idle=True)
    if what.startswith("["):
        task, _, truncated = _command_list(what)
        return TitleFacts(Role.EXECUTOR_WORKER, task, major=2, idle=False, truncated=truncated)
    ti_id = uuid_text(what)
    if ti_id is not None:
        return TitleFacts(Role.SUPERVISOR, TaskRef(ti_id=ti_id), major=3, idle=False)
    # A callback or a connection test (airflow/executors/workloads @ 3.3.2), or a cut id.
    cut = bool(re.match(r"[0-9a-fA-F-]{1,35}\Z", what))
    return TitleFacts(Role.EXECUTOR_WORKER, major=3, idle=False, truncated=cut)


def _runner_2(words: str) -> TitleFacts:
    """
    Read `DAG TASK RUN JOB` of a 2.x runner (standard_task_runner.py @ 2.7.3-2.11.2).

    The job id is last; dag and task ids have no spaces (models/dag.py validate_key).
    Map index and try number are not in it.
    """
    head, _, last = words.rpartition(" ")
    job_id = small_int(last)
    parts = head.split(" ", 2)
    if job_id is None or len(parts) != 3 or not all(parts):
        # Cut somewhere in an id: only what is followed by a space is whole.
        whole = words.split(" ")[:-1][:2]
        dag, task = ([word or None for word in whole] + [None, None])[:2]
        reference = TaskRef(dag, task) if dag else None
        return TitleFacts(Role.RUNNER, reference, major=2, truncated=True)
    return TitleFacts(Role.RUNNER, TaskRef(parts[0], parts[1], parts[2]), job_id=job_id, major=2)


def _command_list(text: str) -> tuple[TaskRef | None, int | None, bool]:
    """
    Read the repr of `['airflow', 'tasks', 'run', …]`; return (task, job_id, truncated).

    The kernel keeps no more of a title than the process had room for argv and
    environment at exec, so the list may end anywhere.
    """
    words: list[str] = []
    position = 1 if text.startswith("[") else 0
    while (found := _LITERAL.match(text, position)) is not None:
        position = found.end()
        try:
            words.append(str(ast.literal_eval(found[1])))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None, None, True
    truncated = text[position:] != "]"
    facts = argv_facts(words, truncated=truncated)
    return (None, None, truncated) if facts is None else (facts.task, facts.job_id, truncated)


def _celery(title: str) -> TitleFacts | None:
    """
    Read `[celeryd: NODE:PROCESS] …` (celery/platforms.py set_mp_process_title @ 5.5).

    A pool process is the executor worker; which task it serves is not said.
    """
    found = _CELERY.match(title)
    if found is None:
        return None
    main = found["process"] == "MainProcess"
    role = Role.CELERY_WORKER if main else Role.EXECUTOR_WORKER
    return TitleFacts(role, command="celery worker")


def _joined_argv(title: str) -> TitleFacts | None:
    """Read a command line whose words were joined with spaces; ids that hold spaces are lost."""
    if "airflow" not in title:
        return None
    words = title.split()
    if words and words[0] == "airflow" and len(words) > 1 and words[1] in {"worker", "task"}:
        return None  # a title that looks like one of Airflow's, and is none we know
    return argv_facts(words) if words[0] != "airflow" else airflow_command(words[1:])
