"""Which task instance a log file is named after, by whatever template; and when none."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.airflow.lognames import LogNames, LogTemplate, UnreadableTemplate
from pidtrail.events import AirflowFact, TaskRef

BASE = "/srv/logs"
PLAIN = "{{ ti.dag_id }}/{{ ti.run_id }}/{{ ti.task_id }}/{{ try_number }}.log"
MAPPED = (
    "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ti.run_id }}"
    "{% if ti.map_index >= 0 %}/{{ ti.map_index }}{% endif %}/try-{{ ti.try_number }}.log"
)
OLD = "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ts }}/{{ try_number }}.log"
NOW = (
    "dag_id={{ ti.dag_id }}/run_id={{ ti.run_id }}/task_id={{ ti.task_id }}/"
    "{% if ti.map_index >= 0 %}map_index={{ ti.map_index }}/{% endif %}"
    "attempt={{ try_number|default(ti.try_number) }}.log"
)
NAMES = st.text(alphabet="ab-_.1=é", min_size=1, max_size=8)


def told(filename: str | None = None, folder: str | None = None) -> AirflowFact:
    detail = {"filename": filename, "folder": folder}
    return AirflowFact(
        seq=1,
        ts_boot_ns=1,
        origin="airflow-db",
        table="log_template",
        detail={name: value for name, value in detail.items() if value is not None},
    )


def names(*facts: AirflowFact) -> LogNames:
    found = LogNames()
    for fact in facts:
        found.learn(fact)
    return found


@pytest.mark.parametrize(
    ("template", "path", "task"),
    [
        (PLAIN, "d/r/t/2.log", TaskRef("d", "t", "r", None, 2)),
        (MAPPED, "d/t/r/try-1.log", TaskRef("d", "t", "r", -1, 1)),
        (MAPPED, "d/t/r/7/try-1.log", TaskRef("d", "t", "r", 7, 1)),
        (OLD, "d/t/2026-01-02T03:04:05.000001+00:00/3.log", TaskRef("d", "t", None, None, 3)),
        (NOW, "dag_id=d/run_id=r/task_id=t/attempt=4.log", TaskRef("d", "t", "r", -1, 4)),
        (NOW, "dag_id=d/run_id=r/task_id=t/map_index=0/attempt=4.log",
         TaskRef("d", "t", "r", 0, 4)),
        ("{dag_id}/{task_id}/{execution_date}/{try_number}.log",
         "d/t/2026-01-02T03:04:05+00:00/3.log", TaskRef("d", "t", None, None, 3)),
        ("{{ti.dag_id}}__{{ti.task_id}}__{{ti.map_index}}.{{try_number}}.log",
         "d__t__-1.2.log", TaskRef("d", "t", None, -1, 2)),
        ("{{ ti.dag_id }}/{{ ts_nodash }}/{{ ti.dag_id }}.{{ ti.task_id }}.log",
         "d/20260102T030405/d.t.log", TaskRef("d", "t")),
    ],
)  # fmt: skip
def test_a_path_is_read_back_by_its_template(template: str, path: str, task: TaskRef) -> None:
    assert LogTemplate(template, BASE).task(f"{BASE}/{path}") == task


@pytest.mark.parametrize(
    ("template", "path"),
    [
        (PLAIN, "/elsewhere/d/r/t/2.log"),  # not below the folder of the logs
        (PLAIN, f"{BASE}/d/r/t/u/2.log"),
        (PLAIN, f"{BASE}/d/r/t/two.log"),
        (OLD, f"{BASE}/d/t/manual__1/3.log"),
        ("{{ ti.dag_id }}-{{ ti.task_id }}.log", f"{BASE}/a-b-c.log"),  # a-b and c, or a and b-c
        ("{{ ti.dag_id }}/{{ ti.dag_id }}.{{ ti.task_id }}.log", f"{BASE}/d/e.t.log"),
        # Index 1 of t, or the task t.1, for a dot may stand in an id.
        ("{{ ti.dag_id }}/{{ ti.task_id }}{% if ti.map_index >= 0 %}.{{ ti.map_index }}{% endif %}",
         f"{BASE}/d/t.1"),
    ],
)  # fmt: skip
def test_what_a_template_did_not_surely_make_is_nobodys(template: str, path: str) -> None:
    assert LogTemplate(template, BASE).task(path) is None


def test_ids_that_cannot_be_cut_in_two_ways_are_told_apart() -> None:
    """The same template, other ids."""
    template = LogTemplate("{{ ti.dag_id }}-{{ ti.task_id }}.log", BASE)

    assert template.task(f"{BASE}/a-b.log") == TaskRef("a", "b")


@given(
    dag=NAMES, task=NAMES, run=NAMES, number=st.integers(1, 99), separator=st.sampled_from("-_/.")
)
def test_a_name_that_was_made_is_read_back_or_not_at_all(
    dag: str, task: str, run: str, number: int, separator: str
) -> None:
    """Whatever ids there are, it is never another task instance's."""
    template = separator.join(
        ["{{ ti.dag_id }}", "{{ ti.task_id }}", "{{ ti.run_id }}", "{{ try_number }}.log"]
    )
    path = f"{BASE}/" + separator.join([dag, task, run, f"{number}.log"])

    assert LogTemplate(template, BASE).task(path) in {None, TaskRef(dag, task, run, None, number)}


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ ti.dag_id }}/{{ ti.task_id }}/{{ macros.uuid.uuid4() }}.log", "macros.uuid"),
        ("{{ ti.dag_id | upper }}/{{ ti.task_id }}.log", "upper"),
        ("{{ ti.dag_id }}/{{ ti.task_id }}{% for x in y %}{% endfor %}.log", "for x in y"),
        ("{{ ti.dag_id }}/{{ ti.task_id }}{% if ti.map_index >= 0 %}m.log", "no end"),
        ("{{ ti.dag_id }}/{{ ti.task_id }}{% if ti.map_index >= 0 %}m{% endif %}.log", "map index"),
        ("{{ ti.dag_id }}/{{ ti.task_id }}{# x #}.log", "braces"),
        ("{{ ti.dag_id }}/{{ try_number }}.log", "DAG and task"),
        ("{dag_id}/{task_id}/{try_number:02d}.log", "02d"),
        ("a" * 2000, "longer"),
    ],
)
def test_what_cannot_be_read_back_is_said(template: str, why: str) -> None:
    with pytest.raises(UnreadableTemplate, match=why) as caught:
        LogTemplate(template, BASE)

    assert "\n" not in str(caught.value)


@given(st.text(alphabet="{}%#ti.dag_idtask /\\\n()*+[", max_size=60), st.text(max_size=60))
def test_no_template_breaks_the_reader(template: str, path: str) -> None:
    with suppress(UnreadableTemplate):
        LogTemplate(template, BASE).task(f"{BASE}/{path}")


def test_the_longest_name_a_file_can_have_costs_nothing() -> None:
    """A task may open whatever it likes; the tracer must not be held up by that."""
    template = LogTemplate(
        "{{ ti.dag_id }}-{{ ti.task_id }}-{{ ti.run_id }}-{{ try_number }}", BASE
    )
    began = time.process_time()

    template.task(f"{BASE}/{'-' * 255}")

    assert time.process_time() - began < 10


def test_the_default_is_known_without_any_template() -> None:
    path = "/any/where/dag_id=d/run_id=r/task_id=t/attempt=1.log"

    assert names().task(f"{path} (deleted)") == TaskRef("d", "t", "r", -1, 1)
    assert names().task("/any/where/d/r/t/1.log") is None


def test_template_and_folder_may_come_from_two_places() -> None:
    """The database has the template, the configuration the folder."""
    for facts in ([told(PLAIN), told(folder=BASE)], [told(folder=BASE), told(PLAIN)]):
        found = names(*facts)
        assert found.task(f"{BASE}/d/r/t/1.log") == TaskRef("d", "t", "r", None, 1)
        assert not found.problems


def test_a_template_that_is_a_whole_path_needs_no_folder() -> None:
    assert names(told(f"/l/{PLAIN}")).task("/l/d/r/t/1.log") == TaskRef("d", "t", "r", None, 1)


def test_two_templates_that_disagree_name_nobody() -> None:
    other = "{{ ti.task_id }}/{{ ti.run_id }}/{{ ti.dag_id }}/{{ try_number }}.log"

    assert names(told(PLAIN, BASE), told(other)).task(f"{BASE}/a/b/c/1.log") is None


@pytest.mark.parametrize("beside", ["1.log.trigger.7.log", "1.log.SchedulerJob.log", "1.log.7.log"])
def test_what_others_write_beside_a_log_is_not_the_tasks(beside: str) -> None:
    template = "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ti.run_id }}.log"

    assert names(told(template, BASE)).task(f"{BASE}/d/t/{beside}") is None


def test_what_cannot_be_read_back_is_a_problem_in_one_line() -> None:
    found = names(told("{{ conf }}\x1b[2J", BASE), told("{{ conf }}\x1b[2J", BASE))

    (line,) = found.problems
    assert "{{ conf }}" in line
    assert "\x1b" not in line


def test_a_template_without_its_folder_is_a_problem_and_the_default_is_none() -> None:
    """Every database has the two defaults; nothing is missed of them."""
    assert not names(told(OLD), told(NOW)).problems
    (line,) = names(told(PLAIN)).problems
    assert "folder of Airflow's logs is not known" in line
