"""What `pidtrail lab` prints and answers, and that its page tells the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from pidtrail import cli
from pidtrail.events import Event
from pidtrail.lab import leftovers, runner
from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.catalogue import EXPERIMENTS
from pidtrail.lab.claims import CLAIMS, answers
from pidtrail.lab.cpu_migration import CpuMigration
from pidtrail.lab.experiment import Experiment, Pair
from pidtrail.lab.judging import skipped
from pidtrail.lab.model import LabReport
from pidtrail.reports.lab import render_lab
from tests.unit.records import header
from tests.unit.test_lab_judging import later, moved, told, who

PAGE = (Path(__file__).resolve().parents[2] / "docs/claims.md").read_text(encoding="utf-8")


class FakeSource:
    """A source that opens everywhere and says what it is given."""

    name = "fake"
    fidelity = header().fidelity

    def close(self) -> None:
        """Nothing is open."""


class FakeBench:
    """A bench without processes."""

    events: ClassVar[list[Event]] = []

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def drain(self) -> None:
        """Read what there is: all of it is there."""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> type[FakeBench]:
    """A lab on a kernel whose records the test makes."""
    monkeypatch.setattr(runner, "Bench", FakeBench)
    monkeypatch.setattr(runner, "open_best", lambda *_, **__: (FakeSource(), {}))
    monkeypatch.setattr(leftovers, "sweep", list)
    monkeypatch.setattr(CpuMigration, "missing", lambda _: None)
    monkeypatch.setattr(FakeBench, "events", moved())
    return FakeBench


def acting(pair: Pair | BaseException) -> Any:
    """Return what takes the place of an experiment's act."""

    def act(_: Experiment, __: Bench) -> Pair:
        if isinstance(pair, BaseException):
            raise pair
        return pair

    return act


def lab(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.run(["lab", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.usefixtures("kernel")
def test_what_holds_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CpuMigration, "act", acting(Pair(who(), later(who()))))

    status, out, _ = lab(capsys, "cpu-migration")

    assert status == 0
    assert "1,000 moves between CPUs" in out
    assert "PID kept" in out
    assert "1 as expected, 0 contradicted, 0 skipped" in out


@pytest.mark.usefixtures("kernel")
def test_a_kernel_that_changes_a_pid_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = later(who(101), pidfs_inode=who().pidfs_inode)
    monkeypatch.setattr(CpuMigration, "act", acting(Pair(who(), changed)))

    status, out, _ = lab(capsys, "cpu-migration", "--json")

    assert status == 1
    report = json.loads(out)
    (result,) = report["results"]
    assert report["schema"] == "pidtrail.lab/1"
    assert report["holds"] is False
    assert result["holds"] is False
    assert result["pid_changed"] is True
    assert (result["before"]["pid"], result["after"]["pid"]) == (100, 101)
    assert result["expected"]["pid_changed"] is False
    assert {"name", "claim", "exercised", "parent_changed", "evidence", "skipped"} <= result.keys()

    status, out, _ = lab(capsys, "cpu-migration")

    assert status == 1
    assert "CONTRADICTED" in out
    assert "not as expected on this kernel" in out


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    "error",
    [Skip("it needs a floppy disk"), PermissionError(1, "not here"), TimeoutError("too slow")],
)
def test_what_cannot_be_done_is_skipped_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    monkeypatch.setattr(CpuMigration, "act", acting(error))

    status, out, _ = lab(capsys, "cpu-migration", "--json")

    (result,) = json.loads(out)["results"]
    assert status == 0
    assert result["holds"] is None
    assert str(error) in result["skipped"]


@pytest.mark.usefixtures("kernel")
def test_a_source_that_cannot_carry_the_evidence_is_not_even_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        FakeSource, "fidelity", header().fidelity.__class__(
            has_argv=True, has_titles=True, has_wstatus=False, has_start_ns=False,
            has_counters=False, has_signals=False, sees_short_lived=False, counts_loss=False,
        ),
    )  # fmt: skip
    monkeypatch.setattr(CpuMigration, "act", acting(AssertionError("was tried")))

    status, out, _ = lab(capsys, "cpu-migration")

    assert status == 0
    assert "source fake cannot evidence it" in out


def test_an_unknown_name_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["teleport"], ["teleport", "--list"]):
        status, out, err = lab(capsys, *arguments)

        assert status == 2
        assert out == ""
        assert "no experiment teleport" in err
        assert err.count("\n") == 1


def test_the_list_names_all_with_their_claims(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = lab(capsys, "--list")

    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(EXPERIMENTS)
    assert list(json.loads(lab(capsys, "--list", "--json")[1])) == list(EXPERIMENTS)
    assert all(kind.claim in out for kind in EXPERIMENTS.values())


def test_no_experiment_is_forgotten() -> None:
    asked = """
        cpu-migration context-switch page-out stop-continue scheduling-class cgroup-move exec
        exec-from-thread setsid-setpgid setuid rename reparent subreaper freeze ptrace-attach
        memory-pressure fork vfork-exec posix-spawn double-fork retry restart sudo-chain
        shell-pipeline pid-namespace pid-reuse
    """
    assert set(asked.split()) <= EXPERIMENTS.keys()


@pytest.mark.parametrize("width", [None, 80, 120])
def test_the_table_fits(width: int | None) -> None:
    results = [skipped(kind(), "it needs a floppy disk") for kind in EXPERIMENTS.values()]
    results[0] = told(CpuMigration(), who(), later(who()), moved())
    text = render_lab(LabReport(results, answers(results), holds=True), width=width)

    head, *rows = text.partition("\n\n")[0].splitlines()
    assert head.split() == ["experiment", "claim", "exercised", "before", "after", "verdict"]
    assert max(map(len, rows)) <= (width or 140)
    assert text.isprintable() or "\x1b" not in text
    assert all(kind.name in text for kind in EXPERIMENTS.values())


def test_colour_is_only_added() -> None:
    results = [told(CpuMigration(), who(), later(who()), moved())]
    report = LabReport(results, answers(results), holds=True)

    plain, coloured = render_lab(report), render_lab(report, colour=True)

    assert "\x1b[" in coloured
    assert "\x1b[" not in plain


def test_the_page_tells_of_every_experiment() -> None:
    for name in EXPERIMENTS:
        assert name in PAGE, name


def test_the_page_repeats_no_experiment_that_is_not_there() -> None:
    for line in PAGE.splitlines():
        if line.startswith("- Repeat: `pidtrail lab "):
            names = line.partition("`pidtrail lab ")[2].partition("`")[0].split()
            assert set(names) <= EXPERIMENTS.keys(), line


def test_the_page_answers_as_many_claims_as_the_lab() -> None:
    assert PAGE.count('\n### "') == len(CLAIMS)
