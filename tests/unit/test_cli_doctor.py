from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pidtrail import cli
from pidtrail.airflow.facts import Role
from pidtrail.airflow.running import Running
from pidtrail.cli import doctor
from pidtrail.errors import SourceUnavailable, UsageError
from pidtrail.events import Event
from pidtrail.sources import host, ladder
from tests.unit.records import header


class Fake:
    """A source that opens, or does not, and notes that it was closed."""

    name = "fake"
    fidelity = header().fidelity

    def __init__(self, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.roots: Sequence[int] | None = None
        self.closed = False

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:  # noqa: ARG002
        """Open, or refuse."""
        if self.refusal is not None:
            raise SourceUnavailable(self.refusal, "do\nsomething")
        self.roots = roots

    def last(self) -> list[Event]:
        """Hold nothing back."""
        return []

    def next_seq(self) -> int:
        """Return a number that no record has."""
        return 1

    def snapshot(self) -> list[Event]:
        """Return nothing."""
        return []

    def read(self) -> list[Event]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the table of sources, empty, for a test to fill."""
    table: dict[str, Any] = {}
    monkeypatch.setattr(ladder, "SOURCES", table)
    monkeypatch.setattr(doctor, "SOURCES", table)
    return table


def test_the_best_source_that_opens_is_taken(sources: dict[str, Any]) -> None:
    """And why the better ones were not is kept for the header."""
    good = Fake()
    sources |= {"best": lambda: Fake("no BTF"), "good": lambda: good, "worse": Fake}
    source, refused = ladder.open_best("auto", [7])

    assert source is good
    assert good.roots == [7]
    assert refused == {"best": "no BTF (do\nsomething)"}


def test_a_named_source_has_no_stand_in(sources: dict[str, Any]) -> None:
    """Who asks for one wants that one, or to know why not."""
    sources |= {"best": lambda: Fake("no BTF"), "good": Fake}

    with pytest.raises(SourceUnavailable, match="no BTF"):
        ladder.open_best("best", [])
    with pytest.raises(UsageError, match="there is auto, best, good"):
        ladder.open_best("bcc", [])


def test_when_nothing_opens_all_reasons_are_told(sources: dict[str, Any]) -> None:
    sources |= {"a": lambda: Fake("no BTF"), "b": lambda: Fake("no netlink")}

    with pytest.raises(SourceUnavailable, match=r"(?s)a: no BTF.*b: no netlink"):
        ladder.open_best("auto", [])


@pytest.mark.parametrize(("refusal", "status"), [(None, 0), ("missing CAP_BPF", 1)])
def test_doctor_opens_each_source_and_closes_it_again(
    sources: dict[str, Any], capsys: pytest.CaptureFixture[str], refusal: str | None, status: int
) -> None:
    """The status tells a script whether anything works; reasons stay on their line."""
    fake = Fake(refusal)
    sources["fake"] = lambda: fake

    assert cli.run(["doctor", "--json"]) == status

    found = json.loads(capsys.readouterr().out)

    assert found["schema"] == "pidtrail.doctor/1"
    assert found["works"] is (status == 0)
    assert fake.closed is (status == 0)
    assert fake.roots == (None if refusal else [])

    assert cli.run(["doctor"]) == status

    shown = capsys.readouterr().out

    assert ("  fake       works" in shown) is (status == 0)
    assert ("missing CAP_BPF (do\\nsomething)" in shown) is (status == 1)
    assert "\x1b" not in shown


def test_doctor_names_airflow_and_its_database_without_the_password(
    sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither as text nor as JSON."""
    sources["fake"] = Fake
    running = [
        Running(1 << 22, 1, Role.SCHEDULER, "airflow\n"),
        Running((1 << 22) + 1, 1 << 22, Role.EXECUTOR_WORKER, None),
    ]
    monkeypatch.setattr(doctor, "airflow_processes", lambda: running)
    monkeypatch.setenv(
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql+psycopg2://me:hush@db.example/airflow"
    )
    assert cli.run(["doctor"]) == 0
    assert cli.run(["doctor", "--json"]) == 0

    shown = capsys.readouterr().out

    assert "hush" not in shown
    assert shown.count("db.example/airflow") == 2
    assert "4194304    scheduler          airflow\\n" in shown
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" in shown


def test_doctor_names_workers_without_a_scheduler(
    sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were left behind, and it says what to do."""
    sources["fake"] = Fake
    running = [
        Running(1 << 22, 1, Role.EXECUTOR_WORKER, "airflow"),
        Running((1 << 22) + 1, 1, Role.EXECUTOR_WORKER, "airflow", abandoned=True),
    ]
    monkeypatch.setattr(doctor, "airflow_processes", lambda: running)
    assert cli.run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert cli.run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)

    assert [one["abandoned"] for one in told["airflow"]] == [False, True]
    assert shown.count("airflow  no scheduler above it\n") == 1
    assert "left behind when its scheduler was killed" in shown


def test_what_a_host_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without securityfs, swaps or mounts gives no facts, and no failure."""
    monkeypatch.setattr(host, "read", lambda _: None)
    monkeypatch.setattr(host, "libbpf_version", lambda: None)
    found = host.look()

    assert (found.lockdown, found.swap, found.hidepid, found.pid_max) == (None,) * 4
    assert (found.libbpf, found.tracefs) == (None, None)
    assert dict(doctor.facts(found))["kernel lockdown"] == "?"


@pytest.mark.parametrize(
    ("text", "mode"),
    [("[none] integrity\n", "none"), ("none [integrity]\n", "integrity"), ("", None)],
)
def test_the_mode_of_lockdown_stands_in_brackets(
    monkeypatch: pytest.MonkeyPatch, text: str, mode: str | None
) -> None:
    monkeypatch.setattr(host, "read", lambda _: text)

    assert host.lockdown() == mode


def test_hidepid_is_read_from_the_mount_of_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "sysfs /sys sysfs rw 0 0\nproc /proc proc rw,nosuid,hidepid=invisible 0 0\n"
    monkeypatch.setattr(host, "read", lambda _: mounts)

    assert host.hidepid() == "invisible"
