"""
Command lines: what an exec of Airflow, of sudo or of a task runner is about.

Pure and total: any argv gives facts or None, never an exception. Options are
those of airflow/cli/cli_config.py of 2.7-2.11 and 3.x; a command line never
holds a try number (airflow/models/taskinstance.py generate_command @ 2.10.5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from pidtrail.airflow.facts import Role, TitleFacts
from pidtrail.events import TaskRef

_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*\Z")
_SCRIPTED = re.compile(r"(?:(?:ba|da|a|k|z)?sh|(?:python|pypy)[0-9.]*)\Z")
_SMALL_INT = re.compile(r"-?[0-9]{1,10}\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")

# Options of the interpreter and of sudo(8) that take the next word as their value.
_PYTHON_VALUED = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_SUDO_VALUED = frozenset(
    {"-u", "-g", "-U", "-p", "-C", "-D", "-R", "-T", "-h", "-r", "-t"}
    | {"--user", "--group", "--prompt", "--chdir", "--chroot"}
)

# Of `tasks run`, `tasks test` and `dags test`; every other option is a switch.
_TASK_VALUED = frozenset(
    {"--subdir", "-S", "--pool", "--cfg-path", "--pickle", "-p", "--job-id", "-j", "--map-index"}
    | {"--depends-on-past", "-d", "--task-params", "-t", "--env-vars", "--bundle-name", "-B"}
    | {"--conf", "-c", "--carrier", "--mark-success-pattern"}
)

_COMPONENTS = {
    "scheduler": Role.SCHEDULER,
    "triggerer": Role.TRIGGERER,
    "dag-processor": Role.DAG_PROCESSOR,
    "api-server": Role.API_SERVER,
    # A parent of a scheduler, a triggerer and the rest, each a process of its own.
    "standalone": Role.OTHER,
    "webserver": Role.OTHER,
    "serve-logs": Role.OTHER,
    "internal-api": Role.OTHER,
}

# Written into `python -c` when a 3.x runner runs itself again below sudo
# (sdk execution_time/task_runner.py) or is started by exec (supervisor.py).
_RUNNER_CODE = ("airflow.sdk.execution_time.task_runner", "_child_exec_main")
_EXECUTE_WORKLOAD = "airflow.sdk.execution_time.execute_workload"


def small_int(text: object) -> int | None:
    """Return a decimal number of at most ten digits (or an int of that size), else None."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int):
        return text if abs(text) < 10**10 else None
    return int(text) if isinstance(text, str) and _SMALL_INT.match(text) else None


def uuid_text(text: object) -> str | None:
    """Return a UUID in its dashed lower-case form, or None if the text is not one."""
    return text.lower() if isinstance(text, str) and _UUID.match(text) else None


def argv_facts(argv: Sequence[str], *, truncated: bool = False) -> TitleFacts | None:
    """
    Return what an exec'ed command line says, or None if it is none of Airflow's.

    `truncated` says that the end of argv is missing; the map index is None then,
    as its option comes last. `sudo` gives role `sudo` with the task instance of
    the command behind it.
    """
    if not argv or not may_be_airflow(argv[0]):
        return None
    words = list(argv)
    if (sudo := sudo_words(words)) is not None:
        inner = argv_facts(behind_sudo(sudo), truncated=truncated)
        return None if inner is None else inner._replace(role=Role.SUDO)
    if _basename(words[0]) == "airflow":
        return airflow_command(words[1:], truncated=truncated)
    if _PYTHON.match(_basename(words[0])):
        return _python(words[1:], truncated=truncated)
    return None


@lru_cache(maxsize=1024)
def may_be_airflow(program: str) -> bool:
    """Return whether a command line that begins so may be one of Airflow's; few begin otherwise."""
    name = _basename(program)
    return name in {"airflow", "sudo"} or bool(_PYTHON.match(name) or _SCRIPTED.match(name))


def sudo_words(argv: Sequence[str]) -> list[str] | None:
    """
    Return the words of sudo from its name on, None if the program is another.

    In images without sudo a script of that name stands in: then the kernel puts the
    interpreter of its first line, with one option at most, before the script (execve(2)).
    """
    words = list(argv)
    if words and _SCRIPTED.match(_basename(words[0])):
        words = words[2:] if words[1:2] and words[1].startswith("-") else words[1:]
        return words if words and words[0].endswith("/sudo") else None
    return words if words and _basename(words[0]) == "sudo" else None


def airflow_command(words: Sequence[str], *, truncated: bool = False) -> TitleFacts | None:
    """Return what `airflow WORDS…` is, or None for a command that runs no part of Airflow."""
    command = next((word for word in words if not word.startswith("-")), None)
    if command is None:
        return None
    rest = list(words[list(words).index(command) + 1 :])
    if command in _COMPONENTS:
        return TitleFacts(_COMPONENTS[command], command=command, truncated=truncated)
    if command == "celery" and rest[:1] == ["worker"]:
        return TitleFacts(Role.CELERY_WORKER, command="celery worker", truncated=truncated)
    if command == "tasks" and rest[:1] == ["run"]:
        return _tasks_run(rest[1:], truncated=truncated)
    if command in {"tasks", "dags"} and rest[:1] == ["test"]:
        return _test(command, rest[1:], truncated=truncated)
    return None


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def user_of_sudo(words: Sequence[str]) -> str | None:
    """Return whom a command line of sudo names with `-u`, None if nobody."""
    for word, following in pairwise(words):
        if word in {"-u", "--user"}:
            return following
        if word.startswith("--user="):
            return word.partition("=")[2]
    return None


def behind_sudo(words: list[str]) -> list[str]:
    """Return the command behind sudo's own options and VAR=value words (sudo(8))."""
    index = 1
    while index < len(words):
        word = words[index]
        if word == "--":
            return words[index + 1 :]
        if word in _SUDO_VALUED:
            index += 2
        elif word.startswith("-") or re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):
            index += 1
        else:
            return words[index:]
    return []


def _python(words: list[str], *, truncated: bool) -> TitleFacts | None:
    """Return what `python WORDS…` is: a script called airflow, a module, or a runner's `-c`."""
    index = 0
    while index < len(words):
        word, following = words[index], words[index + 1 : index + 2]
        if word == "-c":
            if following and any(mark in following[0] for mark in _RUNNER_CODE):
                return TitleFacts(Role.RUNNER, major=3, truncated=truncated)
            return None
        if word == "-m":
            if following == ["airflow"]:
                return airflow_command(words[index + 2 :], truncated=truncated)
            if following == [_EXECUTE_WORKLOAD]:
                return _execute_workload(words[index + 2 :], truncated=truncated)
            return None
        if word in _PYTHON_VALUED:
            index += 2
        elif word.startswith("-"):
            index += 1
        elif _basename(word) == "airflow":
            return airflow_command(words[index + 1 :], truncated=truncated)
        else:
            return None
    return None


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """Return the positional words, and the options with their values (None: a switch)."""
    positional: list[str] = []
    options: dict[str, str | None] = {}
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "-" or not word.startswith("-"):
            positional.append(word)
        elif word.startswith("--") and "=" in word:
            name, _, value = word.partition("=")
            options[name] = value
        elif word in _TASK_VALUED:
            options[word] = words[index] if index < len(words) else None
            index += 1
        else:
            options[word] = None
    return positional, options


def _map_index(options: dict[str, str | None], *, truncated: bool) -> int | None:
    if "--map-index" in options:
        return small_int(options["--map-index"])
    return None if truncated else -1


def _tasks_run(words: Sequence[str], *, truncated: bool) -> TitleFacts:
    """
    Read `tasks run DAG TASK RUN …`: `--local` supervises, `--raw` runs user code.

    With neither, the command only queues the task instance for an executor.
    """
    positional, options = _split(words)
    role, mode = Role.OTHER, "tasks run"
    if "--raw" in options or "-r" in options:
        role, mode = Role.RUNNER, "tasks run --raw"
    elif "--local" in options or "-l" in options:
        role, mode = Role.SUPERVISOR, "tasks run --local"
    # The last word of a cut command line may itself be cut.
    known = positional if not truncated or options else positional[:-1]
    dag, task, run = [*known, None, None, None][:3]
    return TitleFacts(
        role,
        task=None
        if dag is None
        else TaskRef(dag, task, run, map_index=_map_index(options, truncated=truncated)),
        job_id=small_int(options.get("--job-id", options.get("-j"))),
        major=2,
        command=mode,
        truncated=truncated,
    )


def _test(group: str, words: Sequence[str], *, truncated: bool) -> TitleFacts:
    """
    Read `tasks test DAG TASK [DATE]` and `dags test DAG [DATE]`.

    User code runs in this very process, without supervisor or executor, unless
    `dags test` is told to use one (`--use-executor`, from 2.10). The optional word
    is a logical date or a run_id; a date is no run_id and is left out.
    """
    positional, options = _split(words)
    if "--use-executor" in options:
        return TitleFacts(Role.OTHER, command=f"{group} test", truncated=truncated)
    dag = positional[0] if positional else None
    if dag is None:
        return TitleFacts(Role.RUNNER, command=f"{group} test", truncated=truncated)
    if group == "dags":
        return TitleFacts(Role.RUNNER, TaskRef(dag), command="dags test", truncated=truncated)
    when = positional[2] if len(positional) > 2 else None
    run = None if when is None or re.match(r"[0-9]{4}-?[0-9]{2}", when) else when
    task = positional[1] if len(positional) > 1 else None
    reference = TaskRef(dag, task, run, map_index=_map_index(options, truncated=truncated))
    return TitleFacts(Role.RUNNER, reference, command="tasks test", truncated=truncated)


def _execute_workload(words: Sequence[str], *, truncated: bool) -> TitleFacts:
    """
    Read `python -m airflow.sdk.execution_time.execute_workload` (containers, 3.x).

    `--json-string` names the task instance, unless it was redacted before it
    came here, as it also holds a token (sdk execution_time/execute_workload.py).
    """
    task = _workload_task(_json_string(words))
    return TitleFacts(
        Role.SUPERVISOR, task, major=3, command="execute_workload", truncated=truncated
    )


def _json_string(words: Sequence[str]) -> str | None:
    """Return the value of `--json-string`, or None."""
    following = iter(words)
    for word in following:
        if word == "--json-string":
            return next(following, None)
        if word.startswith("--json-string="):
            return word.partition("=")[2]
    return None


def _workload_task(text: str | None) -> TaskRef | None:
    """Return the task instance of an ExecuteTask workload, or None."""
    if text is None:
        return None
    try:
        workload = json.loads(text)
    except (ValueError, RecursionError):
        return None
    ti = workload.get("ti") if isinstance(workload, dict) else None
    if not isinstance(ti, dict):
        return None

    def named(key: str) -> str | None:
        value = ti.get(key)
        return value if isinstance(value, str) else None

    return TaskRef(
        named("dag_id"),
        named("task_id"),
        named("run_id"),
        map_index=small_int(ti.get("map_index")),
        try_number=small_int(ti.get("try_number")),
        ti_id=uuid_text(ti.get("id")),
    )
