"""
Makes docs/messages.md: what `explain --message` knows, each with an example.

    .venv/bin/python -m tests.unit.messages_page

A test fails while the page is not what this makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pidtrail.airflow import (
    messages_2,
    messages_3,
    messages_api,
    messages_celery,
    messages_ending,
    messages_host,
    messages_scheduling,
    messages_sudo,
)
from pidtrail.airflow.message_form import Message
from tests.unit.test_messages import LINES

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/messages.md"
HEAD: Final = """\
# Messages

What Airflow, and what runs beside it, says about processes, and what `pidtrail explain --message
"…"` makes of it. Give it the line, or several, as they stand in a log, a page or a mail: with what
stands before them, coloured, as JSON, broken, or only a part. `--message -` reads stdin. With
secrets in it, what is said of it has none. Of a long text the first and the last 10,000 characters
are looked at.

Some messages are of processes that run no task; those have no verdicts.

This page is made from the tables of `agent/pidtrail/airflow/messages_*.py` by
`.venv/bin/python -m tests.unit.messages_page`.
"""
PARTS: Final = (
    ("Airflow 2.x", messages_2.TABLE),
    ("Airflow 3.x", messages_3.TABLE),
    ("Calls of the execution API", messages_api.TABLE),
    ("Celery", messages_celery.TABLE),
    ("sudo", messages_sudo.TABLE),
    ("Ends of processes", messages_ending.TABLE),
    ("Schedulers and their like", messages_scheduling.TABLE),
    ("Kernel, systemd, containers, shells", messages_host.TABLE),
)


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for title, table in PARTS:
        lines += [f"## {title}", ""]
        for message in table:
            lines += section(message)
    return "\n".join(lines).rstrip() + "\n"


def section(message: Message) -> Iterator[str]:
    """Yield the lines about one message."""
    yield f"### {message.kind}"
    yield ""
    examples = [line for kind, line in LINES if kind == message.kind]
    for example in examples[:1]:
        yield f"    {' '.join(example.split())[:160]}"
        yield ""
    yield f"- **Airflow** {message.versions}; {message.where}"
    yield f"- **Means**: {message.meaning}"
    for what in dict.fromkeys((*message.pids.values(), *message.pid_keys.values())):
        yield f"- **A number**: {what}"
    yield f"- **Alarm**: {message.alarm}"
    yield f"- **Do**: {message.advice}"
    if message.codes:
        codes = (f"[`{code}`](verdicts.md#{code})" for code in message.codes)
        yield f"- **Verdicts**: {', '.join(codes)}"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
