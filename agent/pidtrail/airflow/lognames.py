"""
Reading back which task instance a log file is named after, whatever `log_filename_template` says.

Rule 1: pure. A template that cannot be read back is said so; nothing else raises.
Rule 2: never a wrong attribution. A path that a template could have made of two
        task instances, or two templates of different ones, names none.

Airflow makes a path of a template and of a task instance (airflow/utils/log/
file_task_handler.py _render_filename @ 2.11.2, utils/helpers.py
log_filename_template_renderer @ 3.3.2); here the same template is read the other way.
It is taken only below the folder of Airflow's logs, for `{{ ti.dag_id }}/{{ try_number }}.log`
fits any file.

What a template may hold: the names of `_JINJA`, and a part for mapped tasks only; or, without
"{{", the names of `_FORMAT` as str.format takes them. A date is not a run: `run_id` is
then None, and the process's title or its row has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pidtrail.airflow.identify import log_path_task
from pidtrail.events import AirflowFact, TaskRef

__all__ = ["LogNames", "LogTemplate", "UnreadableTemplate"]

TABLE: Final = "log_template"
"""Of the `airflow_fact` records that carry a template, or the folder of the logs."""

_JINJA: Final = {
    "ti.dag_id": "dag",
    "ti.task_id": "task",
    "ti.run_id": "run",
    "ti.map_index": "map",
    "ti.try_number": "try",
    "task_instance.dag_id": "dag",
    "task_instance.task_id": "task",
    "task_instance.run_id": "run",
    "dag.dag_id": "dag",
    "task.task_id": "task",
    "dag_run.run_id": "run",
    "run_id": "run",
    "try_number": "try",
    "try_number|default(ti.try_number)": "try",
    "ts": "date",
    "ts_nodash": "bare_date",
}
_FORMAT: Final = {
    "dag_id": "dag",
    "task_id": "task",
    "run_id": "run",
    "try_number": "try",
    "execution_date": "date",
    "logical_date": "date",
    "data_interval_start": "date",
    "data_interval_end": "date",
}
_TOKEN: Final = re.compile(r"\{\{(?P<name>[^{}]*)\}\}|\{%(?P<word>[^{}%]*)%\}")
_FIELD: Final = re.compile(r"\{(?P<name>[^{}]*)\}")
_ID: Final = "[^/]+"
_WHAT: Final = {
    "dag": _ID,
    "task": _ID,
    "run": _ID,
    "map": "-1|[0-9]{1,10}",
    "try": "[0-9]{1,10}",
    "date": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:?\d\d)?",
    "bare_date": r"\d{8}T\d{6}(?:\.\d{1,6})?(?:[+-]\d{4})?",
}
_LONGEST_TEMPLATE: Final = 1000
_LONGEST_PATH: Final = 4096
_MOST_TEMPLATES: Final = 50
# A triggerer writes beside the task's own log (file_task_handler.py add_triggerer_suffix), and
# others put `.NAME.log` behind it (set_context).
_BESIDE: Final = re.compile(r"\.log\.[^/]*\.log\Z")


class UnreadableTemplate(Exception):
    """A template from which no task instance can be read back; the text says why, in one line."""


class LogTemplate:
    """
    One template below one folder, or one that begins with "/", turned into its own inverse.

    Raises UnreadableTemplate.
    """

    def __init__(self, template: str, folder: str | None = None) -> None:
        if len(template) > _LONGEST_TEMPLATE:
            raise UnreadableTemplate(f"it is longer than {_LONGEST_TEMPLATE} characters")
        parts = list(_jinja(template) if "{{" in template else _format(template))
        names = {part.name for part in parts}
        if not {"dag", "task"} <= names:
            raise UnreadableTemplate("it does not name both DAG and task")
        if any(part.mapped for part in parts) and not any(
            part.mapped and part.name == "map" for part in parts
        ):
            raise UnreadableTemplate("what it has for mapped tasks does not name the map index")
        self._has_map = "map" in names
        self._bare_map = any(part.name == "map" and not part.mapped for part in parts)
        absolute = template.startswith("/")
        if not absolute and folder is None:
            raise UnreadableTemplate("the folder of Airflow's logs is not known")
        head = "" if absolute else re.escape(f"{(folder or '').rstrip('/')}/")
        # The longest reading first, and the shortest first: if both come to the same,
        # there is no other in between.
        self._longest = re.compile(rf"\A{head}{_pattern(parts, lazy='')}\Z")
        self._shortest = re.compile(rf"\A{head}{_pattern(parts, lazy='?')}\Z")

    def task(self, path: str) -> TaskRef | None:
        """Return the task instance that a path is named after, None if none or not surely one."""
        found, other = self._longest.match(path), self._shortest.match(path)
        if found is None or other is None or found.groups() != other.groups():
            return None
        read = found.groupdict()
        mapped, tried = read.get("map"), read.get("try")
        unmapped = -1 if self._has_map and not self._bare_map else None
        return TaskRef(
            dag_id=read["dag"],
            task_id=read["task"],
            run_id=read.get("run"),
            map_index=unmapped if mapped is None else int(mapped),
            try_number=None if tried is None else int(tried),
        )


class LogNames:
    """
    All the names that the log files of one Airflow can have: the default's, and further ones.

    `problems` has one line for each template that cannot be read back.
    """

    def __init__(self) -> None:
        self._folder: str | None = None
        self._texts: dict[str, None] = {}
        self._templates: list[LogTemplate] = []
        self.problems: dict[str, None] = {}

    def learn(self, fact: AirflowFact) -> None:
        """Take in a record of table `log_template`; others tell nothing."""
        if fact.table != TABLE or fact.detail is None:
            return
        folder, template = fact.detail.get("folder"), fact.detail.get("filename")
        if isinstance(folder, str) and self._folder is None:
            self._folder = folder
        if isinstance(template, str) and len(self._texts) < _MOST_TEMPLATES:
            self._texts[template] = None
        self._templates, self.problems = [], {}
        for text in self._texts:
            try:
                self._templates.append(LogTemplate(text, self._folder))
            except UnreadableTemplate as error:
                # Without a folder nothing is missed of the default, which needs none.
                if not _is_default(text):
                    line = f"the log file names of {text[:200]!r} cannot be read back: {error}"
                    self.problems[line] = None

    def task(self, path: str) -> TaskRef | None:
        """Return the task instance that a log file belongs to, None if it is no task log."""
        path = path.removesuffix(" (deleted)")  # fs/d_path.c
        found = log_path_task(path)
        if found is not None or len(path) > _LONGEST_PATH or _BESIDE.search(path):
            return found
        read = {task for template in self._templates if (task := template.task(path)) is not None}
        return read.pop() if len(read) == 1 else None


class _Part(NamedTuple):
    """A piece of a template: literal text, or the name of what stands there."""

    text: str
    name: str | None
    mapped: bool


def _jinja(template: str) -> Iterator[_Part]:
    mapped = False
    position = 0
    for token in _TOKEN.finditer(template):
        yield _literal(template[position : token.start()], mapped=mapped)
        position = token.end()
        if token["word"] is None:
            expression = "".join(token["name"].split())
            if expression not in _JINJA:
                raise UnreadableTemplate(f"it holds {{{{ {expression[:60]} }}}}")
            yield _Part("", _JINJA[expression], mapped)
            continue
        word = " ".join(token["word"].split())
        if word == "if ti.map_index >= 0" and not mapped:
            mapped = True
        elif word == "endif" and mapped:
            mapped = False
        else:
            raise UnreadableTemplate(f"it holds {{% {word[:60]} %}}")
    if mapped:
        raise UnreadableTemplate("an {% if %} in it has no end")
    yield _literal(template[position:], mapped=False)


def _format(template: str) -> Iterator[_Part]:
    position = 0
    for field in _FIELD.finditer(template):
        yield _literal(template[position : field.start()], mapped=False)
        position = field.end()
        if field["name"] not in _FORMAT:
            raise UnreadableTemplate(f"it holds {{{field['name'][:60]}}}")
        yield _Part("", _FORMAT[field["name"]], mapped=False)
    yield _literal(template[position:], mapped=False)


def _literal(text: str, *, mapped: bool) -> _Part:
    if "{" in text or "}" in text:
        raise UnreadableTemplate("its braces do not pair")
    return _Part(text, None, mapped)


def _pattern(parts: list[_Part], *, lazy: str) -> str:
    """Return the regular expression of a template; `lazy` is what makes its parts short."""
    pattern, seen, inside = "", set(), False
    for part in parts:
        if part.mapped and not inside:
            pattern += "(?:"
        elif inside and not part.mapped:
            pattern += f")?{lazy}"
        inside = part.mapped
        if part.name is None:
            pattern += re.escape(part.text)
        elif part.name in {"date", "bare_date"}:
            pattern += f"(?:{_WHAT[part.name]})"
        elif part.name in seen:
            pattern += f"(?P={part.name})"
        else:
            seen.add(part.name)
            what = _WHAT[part.name].replace("+", f"+{lazy}").replace("}", f"}}{lazy}")
            pattern += f"(?P<{part.name}>{what})"
    return pattern + (f")?{lazy}" if inside else "")


def _is_default(template: str) -> bool:
    """Tell whether a template is one that every Airflow has in its table, by itself."""
    return "dag_id={{ ti.dag_id }}/run_id=" in template or template.startswith(
        "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ts }}/"
    )
