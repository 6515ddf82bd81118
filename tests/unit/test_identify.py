"""What titles, command lines, log paths and environments say of a task instance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.airflow.identify import (
    Role,
    TitleFacts,
    argv_facts,
    env_task,
    log_path_task,
    merge,
    title_facts,
)
from pidtrail.events import TaskRef

UUID = "01a201e5-1cc0-74cd-8647-0fa03c29cd58"
RUN = "manual__2026-01-01T00:00:00+00:00"
LOCAL = ["airflow", "tasks", "run", "d", "t", RUN, "--local", "--subdir", "DAGS_FOLDER/x.py"]
TASK = TaskRef("d", "t", RUN, map_index=-1)

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))
TITLE_LIKE = st.tuples(
    st.sampled_from(
        [
            "",
            "airflow worker -- ",
            "airflow worker -- LocalExecutor",
            "airflow worker -- LocalExecutor: ",
            "airflow worker -- LocalExecutor: [",
            "airflow task supervisor: ['",
            "airflow task runner: ",
            "airflow supervisor: ",
            "[celeryd: ",
            "/usr/bin/python3 /opt/bin/airflow ",
            "sudo -u ",
        ]
    ),
    ANY_TEXT,
).map("".join)
WORD = st.one_of(
    ANY_TEXT,
    st.sampled_from(
        [
            "airflow",
            "python3",
            "sudo",
            "-u",
            "-m",
            "-c",
            "tasks",
            "run",
            "test",
            "--raw",
            "--map-index",
            "--json-string",
            "airflow.sdk.execution_time.execute_workload",
            '{"ti": {}}',
            "-1",
            "=",
            "--",
        ]
    ),
)


@pytest.mark.parametrize(
    ("title", "facts"),
    [
        (
            "airflow worker -- LocalExecutor",
            TitleFacts(Role.EXECUTOR_WORKER, major=2, idle=True),
        ),
        (
            f"airflow worker -- LocalExecutor: {LOCAL}",
            TitleFacts(Role.EXECUTOR_WORKER, TASK, major=2, idle=False),
        ),
        (f"airflow task supervisor: {LOCAL}", TitleFacts(Role.SUPERVISOR, TASK, major=2)),
        (
            f"airflow task supervisor: {[*LOCAL, '--map-index', '12']}",
            TitleFacts(Role.SUPERVISOR, TaskRef("d", "t", RUN, map_index=12), major=2),
        ),
        (
            f"airflow task runner: d t {RUN} 24",
            TitleFacts(Role.RUNNER, TaskRef("d", "t", RUN), job_id=24, major=2),
        ),
        (
            "airflow task runner: d t a run with spaces 24",
            TitleFacts(Role.RUNNER, TaskRef("d", "t", "a run with spaces"), job_id=24, major=2),
        ),
        (
            "airflow worker -- LocalExecutor: <idle>",
            TitleFacts(Role.EXECUTOR_WORKER, major=3, idle=True),
        ),
        (
            "airflow worker -- LocalExecutor [team a]: <idle>",
            TitleFacts(Role.EXECUTOR_WORKER, major=3, idle=True),
        ),
        (
            f"airflow worker -- LocalExecutor: {UUID}",
            TitleFacts(Role.SUPERVISOR, TaskRef(ti_id=UUID), major=3, idle=False),
        ),
        (
            f"airflow worker -- LocalExecutor [a]: {UUID}",
            TitleFacts(Role.SUPERVISOR, TaskRef(ti_id=UUID), major=3, idle=False),
        ),
        (
            "airflow worker -- LocalExecutor: my_callback",
            TitleFacts(Role.EXECUTOR_WORKER, major=3, idle=False),
        ),
        (f"airflow worker -- {UUID}", TitleFacts(Role.RUNNER, TaskRef(ti_id=UUID), major=3)),
        (
            f"airflow supervisor: {UUID}",
            TitleFacts(Role.SUPERVISOR, TaskRef(ti_id=UUID), major=3, lingers=True),
        ),
        ("airflow executor -- LocalExecutor", TitleFacts(Role.EXECUTOR_MANAGER, major=2)),
        ("airflow scheduler -- DagFileProcessorManager", TitleFacts(Role.DAG_PROCESSOR, major=2)),
        ("airflow scheduler - DagFileProcessor /d/x.py", TitleFacts(Role.DAG_PROCESSOR, major=2)),
        (
            "airflow api_server -- host:127.0.0.1 port:48133",
            TitleFacts(Role.API_SERVER, major=3, command="api-server"),
        ),
        ("airflow serve-logs", TitleFacts(Role.OTHER, command="serve-logs")),
        ("gunicorn: master [gunicorn]", TitleFacts(Role.OTHER)),
        ("[ready] gunicorn: worker [airflow-webserver]", TitleFacts(Role.OTHER)),
        (
            "[celeryd: celery@host:MainProcess] -active- (worker)",
            TitleFacts(Role.CELERY_WORKER, command="celery worker"),
        ),
        (
            "[celeryd: celery@host:ForkPoolWorker-15]",
            TitleFacts(Role.EXECUTOR_WORKER, command="celery worker"),
        ),
        (
            "/v/bin/python3 /v/bin/airflow scheduler",
            TitleFacts(Role.SCHEDULER, command="scheduler"),
        ),
    ],
)
def test_every_title_of_airflow_is_understood(title: str, facts: TitleFacts) -> None:
    assert title_facts(title) == facts


@pytest.mark.parametrize(
    "title",
    [
        "",
        "bash",
        "airflow worker",
        "airflow task",
        "airflow worker --LocalExecutor",
        "python x.py",
        "/opt/airflow/tool --scheduler",
        "vim airflow scheduler",
    ],
)
def test_other_titles_are_not_airflows(title: str) -> None:
    assert title_facts(title) is None


@pytest.mark.parametrize(
    "prefix", ["airflow worker -- LocalExecutor: ", "airflow task supervisor: "]
)
def test_a_list_cut_anywhere_never_gives_half_an_id_or_a_guessed_map_index(prefix: str) -> None:
    """The kernel keeps only as much of a title as argv and environment had room for."""
    whole = f"{prefix}{[*LOCAL, '--map-index', '12']}"

    for length in range(len(prefix), len(whole)):
        facts = title_facts(whole[:length])
        assert facts is not None
        task = facts.task or TaskRef()
        assert task.dag_id in {None, "d"}
        assert task.task_id in {None, "t"}
        assert task.run_id in {None, RUN}
        assert task.map_index in {None, 12}


def test_a_cut_runner_title_gives_only_whole_ids() -> None:
    whole = f"airflow task runner: dag_x task_y {RUN} 24"

    for length in range(len("airflow task runner: "), len(whole) - 2):
        facts = title_facts(whole[:length])
        assert facts is not None
        task = facts.task or TaskRef()
        assert facts.job_id is None
        assert facts.truncated
        assert (task.dag_id, task.task_id, task.run_id) in {
            (None, None, None),
            ("dag_x", None, None),
            ("dag_x", "task_y", None),
        }


@pytest.mark.parametrize(
    "name", ["it's", 'say "x"', "a\nb", "\x1b[31mred\x1b[0m", "ü" * 10_000, "a\\'b"]
)
def test_a_name_survives_whatever_it_is_made_of(name: str) -> None:
    command = ["airflow", "tasks", "run", name, name, "r", "--local"]

    facts = title_facts(f"airflow task supervisor: {command}")

    assert facts is not None
    assert facts.task == TaskRef(name, name, "r", map_index=-1)
    assert log_path_task(f"/l/dag_id={name}/run_id=r/task_id={name}/attempt=1.log") == TaskRef(
        name, name, "r", map_index=-1, try_number=1
    )


@pytest.mark.parametrize(
    ("argv", "facts"),
    [
        (
            ["/v/bin/python", "/v/bin/airflow", "scheduler"],
            TitleFacts(Role.SCHEDULER, command="scheduler"),
        ),
        (["airflow", "standalone"], TitleFacts(Role.OTHER, command="standalone")),
        (["airflow", "triggerer"], TitleFacts(Role.TRIGGERER, command="triggerer")),
        (["airflow", "dag-processor"], TitleFacts(Role.DAG_PROCESSOR, command="dag-processor")),
        (["airflow", "api-server", "-p", "1"], TitleFacts(Role.API_SERVER, command="api-server")),
        (["airflow", "celery", "worker"], TitleFacts(Role.CELERY_WORKER, command="celery worker")),
        (
            ["python3.11", "-X", "dev", "-u", "-m", "airflow", "scheduler", "-n", "5"],
            TitleFacts(Role.SCHEDULER, command="scheduler"),
        ),
        (LOCAL, TitleFacts(Role.SUPERVISOR, TASK, major=2, command="tasks run --local")),
        (
            [
                "python3",
                "/v/bin/airflow",
                "tasks",
                "run",
                "d",
                "t",
                RUN,
                "--job-id",
                "7",
                "--raw",
                "--subdir",
                "x.py",
                "--cfg-path",
                "/tmp/x",
                "--map-index",
                "3",
            ],
            TitleFacts(
                Role.RUNNER,
                TaskRef("d", "t", RUN, map_index=3),
                job_id=7,
                major=2,
                command="tasks run --raw",
            ),
        ),
        (
            [
                "sudo",
                "-E",
                "-H",
                "-u",
                "bob",
                "PYTHONPATH=/x",
                "airflow",
                "tasks",
                "run",
                "d",
                "t",
                RUN,
                "--job-id",
                "7",
                "--raw",
            ],
            TitleFacts(Role.SUDO, TASK, job_id=7, major=2, command="tasks run --raw"),
        ),
        (
            [
                "sudo",
                "-E",
                "-H",
                "-u",
                "bob",
                "/v/bin/python",
                "-c",
                "from airflow.sdk.execution_time.task_runner import main; main()",
            ],
            TitleFacts(Role.SUDO, major=3),
        ),
        (
            [
                "/v/bin/python",
                "-c",
                (
                    "from airflow.sdk.execution_time.supervisor import _child_exec_main; "
                    "_child_exec_main()"
                ),
            ],
            TitleFacts(Role.RUNNER, major=3),
        ),
        (
            ["airflow", "tasks", "run", "d", "t", RUN],
            TitleFacts(Role.OTHER, TASK, major=2, command="tasks run"),
        ),
        (
            ["airflow", "tasks", "test", "d", "t", "2026-01-01", "--map-index=1"],
            TitleFacts(Role.RUNNER, TaskRef("d", "t", map_index=1), command="tasks test"),
        ),
        (
            ["airflow", "dags", "test", "d"],
            TitleFacts(Role.RUNNER, TaskRef("d"), command="dags test"),
        ),
        (
            ["airflow", "dags", "test", "d", "--use-executor"],
            TitleFacts(Role.OTHER, command="dags test"),
        ),
        (
            [
                "python",
                "-m",
                "airflow.sdk.execution_time.execute_workload",
                "--json-string",
                f'{{"ti": {{"id": "{UUID}", "dag_id": "d", "try_number": 2, "map_index": -1}}}}',
            ],
            TitleFacts(
                Role.SUPERVISOR,
                TaskRef("d", map_index=-1, try_number=2, ti_id=UUID),
                major=3,
                command="execute_workload",
            ),
        ),
        (
            [
                "python",
                "-m",
                "airflow.sdk.execution_time.execute_workload",
                "--json-string",
                "[redacted]",
            ],
            TitleFacts(Role.SUPERVISOR, major=3, command="execute_workload"),
        ),
    ],
)
def test_every_command_line_of_airflow_is_understood(argv: list[str], facts: TitleFacts) -> None:
    assert argv_facts(argv) == facts


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [""],
        ["bash", "-c", "airflow scheduler"],
        ["sudo", "ls"],
        ["sudo"],
        ["airflow"],
        ["airflow", "db"],
        ["python", "airflow.py"],
        ["python", "-c", "import airflow"],
        ["dumb-init", "--", "airflow", "scheduler"],
    ],
)
def test_other_command_lines_are_not_airflows(argv: list[str]) -> None:
    assert argv_facts(argv) is None


def test_a_cut_command_line_leaves_the_map_index_open() -> None:
    facts = argv_facts(LOCAL, truncated=True)

    assert facts is not None
    assert facts.task == TaskRef("d", "t", RUN)


@pytest.mark.parametrize(
    ("path", "task"),
    [
        (f"/l/dag_id=d/run_id={RUN}/task_id=g.t/attempt=2.log", TaskRef("d", "g.t", RUN, -1, 2)),
        (
            f"/l/dag_id=d/run_id={RUN}/task_id=t/map_index=4/attempt=1.log",
            TaskRef("d", "t", RUN, 4, 1),
        ),
        ("dag_id=d/run_id=r/task_id=t/attempt=1.log (deleted)", TaskRef("d", "t", "r", -1, 1)),
        ("/l/dag_id=d/run_id=r/task_id=t/attempt=1.log.SchedulerJob.log", None),
        ("/l/dag_id=d/run_id=r/task_id=t/attempt=1.log.trigger.7.log", None),
        ("/l/dag_id=d/run_id=r/task_id=t/attempt=x.log", None),
        ("/l/xdag_id=d/run_id=r/task_id=t/attempt=1.log", None),
        ("/l/scheduler.log", None),
        ("socket:[123]", None),
    ],
)
def test_a_log_path_names_the_whole_attempt(path: str, task: TaskRef | None) -> None:
    assert log_path_task(path) == task


def test_the_environment_of_an_execed_descendant_names_the_attempt_but_no_map_index() -> None:
    env = {
        "AIRFLOW_CTX_DAG_ID": "d",
        "AIRFLOW_CTX_TASK_ID": "t",
        "AIRFLOW_CTX_DAG_RUN_ID": RUN,
        "AIRFLOW_CTX_TRY_NUMBER": "2",
        "HOME": "/root",
    }

    assert env_task(env) == TaskRef("d", "t", RUN, try_number=2)
    assert env_task({"HOME": "/root", "AIRFLOW_CTX_DAG_ID": ""}) is None


def test_two_references_fill_each_other() -> None:
    assert merge(TaskRef("d", "t"), TaskRef(run_id="r", try_number=1)) == TaskRef(
        "d", "t", "r", None, 1
    )
    assert merge(TaskRef("d", map_index=-1), TaskRef("d", map_index=0)) is None
    assert merge(TaskRef(ti_id=UUID), TaskRef()) == TaskRef(ti_id=UUID)


@given(st.one_of(ANY_TEXT, TITLE_LIKE))
def test_any_title_gives_an_answer(title: str) -> None:
    title_facts(title)


@given(st.lists(WORD), st.booleans())
def test_any_command_line_gives_an_answer(argv: list[str], truncated: bool) -> None:
    argv_facts(argv, truncated=truncated)


@given(
    st.lists(
        st.sampled_from(["/", "dag_id=", "run_id=", "task_id=", "attempt=", ".log", "9", "\n"])
    )
)
def test_any_path_gives_an_answer(pieces: list[str]) -> None:
    log_path_task("".join(pieces))


@given(st.dictionaries(st.sampled_from(["AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_TRY_NUMBER"]), ANY_TEXT))
def test_any_environment_gives_an_answer(env: dict[str, str]) -> None:
    env_task(env)


VISIBLE = st.characters(min_codepoint=33, exclude_characters="/", exclude_categories=["C", "Z"])
IDS = st.text(VISIBLE, min_size=1)


@given(IDS, IDS, IDS, st.integers(-1, 10**6), st.integers(0, 10**6))
def test_what_airflow_writes_comes_back_from_titles_and_paths(
    dag: str, task: str, run: str, index: int, number: int
) -> None:
    reference = TaskRef(dag, task, run, map_index=index)
    folder = "" if index < 0 else f"map_index={index}/"
    path = f"/l/dag_id={dag}/run_id={run}/task_id={task}/{folder}attempt={number}.log"
    assert log_path_task(path) == TaskRef(dag, task, run, index, number)

    runner = title_facts(f"airflow task runner: {dag} {task} {run} {number}")
    assert runner == TitleFacts(Role.RUNNER, TaskRef(dag, task, run), job_id=number, major=2)
    assert merge(reference, TaskRef(dag, task, run)) == reference

    if not any(name.startswith("-") for name in (dag, task, run)):
        mapped = [] if index < 0 else ["--map-index", str(index)]
        command = ["airflow", "tasks", "run", dag, task, run, "--local", *mapped]
        supervisor = title_facts(f"airflow task supervisor: {command}")
        assert supervisor == TitleFacts(Role.SUPERVISOR, reference, major=2)


REFERENCES = st.builds(
    TaskRef,
    dag_id=st.sampled_from([None, "a", "b"]),
    map_index=st.sampled_from([None, -1, 0]),
    try_number=st.sampled_from([None, 1, 2]),
)


@given(REFERENCES, REFERENCES)
def test_merging_takes_no_side(one: TaskRef, other: TaskRef) -> None:
    assert merge(one, other) == merge(other, one)
    assert merge(one, one) == one
