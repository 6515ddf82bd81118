"""The service's settings: all of them have a default, and what cannot be is named in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pidtrail import cli
from pidtrail.cli.agent import text_of
from pidtrail.config import LIVE, Config, changed, parsed, with_live
from pidtrail.errors import PidtrailError

DEFAULTS = Path(__file__).resolve().parents[2] / "systemd" / "pidtrail.toml"


def test_the_installed_file_shows_exactly_the_defaults() -> None:
    """Each line that is commented out, taken in, changes nothing; and no setting is left out."""
    text = DEFAULTS.read_text(encoding="utf-8")
    shown = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    settings = re.findall(r"^([a-z_]+) = ", shown, flags=re.MULTILINE)

    assert parsed(text, "file") == Config()
    assert parsed(shown, "file") == Config()
    tables = (getattr(Config(), name) for name in Config.__struct_fields__)
    assert sorted(settings) == sorted(name for t in tables for name in t.__struct_fields__)


def test_an_empty_file_is_all_defaults() -> None:
    assert parsed("", "file") == Config()


def test_settings_are_taken() -> None:
    config = parsed(
        """
        [capture]
        source = "connector"
        [airflow]
        plugin = false
        db_file = "/etc/pidtrail/db"
        [history]
        max_age = "36h"
        max_size = "200MB"
        """,
        "file",
    )

    assert (config.capture.source, config.airflow.plugin) == ("connector", False)
    assert (config.history.max_age_s, config.history.max_bytes) == (36 * 3600, 200_000_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[capture", "/etc/x.toml is not TOML: "),
        ("[capture]\ninterval = 'x'", "[capture] interval: expected `float`, got `str`"),
        ("[capture]\ninterval = 0", "[capture] interval: "),
        ("[capture]\nsource = 'kprobe'", "[capture] source: "),
        ("[capture]\nintervall = 1", "[capture] intervall: there is no such setting"),
        ("[sinks]\nx = 1", "[sinks]: there is no such setting"),
        ("capture = 3", "[capture]: expected `object`, got `int`"),
        ("[history]\nmax_age = '7 days'", "[history]: max_age must be such as"),
        ("[history]\nmax_age = '1s'", "[history]: max_age must be 60s or more"),
        ("[history]\nmax_size = '1'", "[history]: max_size must be such as"),
        ("[history]\nmax_size = '1MB'", "[history]: max_size must be 16MB or more"),
        ("[history]\ndirectory = 'here'", "[history] directory: it must begin with /"),
        ("[airflow]\nlog_template = '{{ x }}'", "[airflow] log_template: it must begin with /"),
        ("[airflow]\nplugin = true", "[airflow] plugin: "),
        ("[airflow]\ndb = 'sqlite:////a'\ndb_file = '/b'", "[airflow]: db and db_file are both"),
        ("[airflow]\nlog_template = '/x/{{ secret.key }}'", "[airflow]: log_template cannot be"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(text: str, said: str) -> None:
    with pytest.raises(PidtrailError) as caught:
        parsed(text, "/etc/x.toml")

    assert said in str(caught.value)
    assert str(caught.value).startswith("/etc/x.toml")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("key", ["db", "db_file", "api_user", "sql"])
def test_a_password_in_the_wrong_place_is_not_repeated(key: str) -> None:
    """Neither a URL that belongs in a file of its own, nor a value of an unknown key."""
    value = 3 if key == "api_user" else '"postgresql://airflow:hunter2@db/airflow"'
    with pytest.raises(PidtrailError) as caught:
        parsed(f"[airflow]\n{key} = {value}", "file")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read: No such file"), (b"\xff", "is not text"), (b"[x]\n", "[x]: there is")],
)
def test_a_file_that_cannot_be_used_ends_the_start_with_status_1(
    tmp_path: Path, content: bytes | None, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pidtrail.toml"
    if content is not None:
        file.write_bytes(content)

    assert cli.run(["agent", "--config", str(file)]) == 1
    printed = capfd.readouterr().err.splitlines()
    assert len(printed) == 1
    assert str(file) in printed[0]
    assert said in printed[0]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('db_file = "{0}/none"', "cannot be read"),
        ('db_file = "{0}/empty"', "does not hold the URL of a database"),
        ('api = "http://user@airflow"', "[airflow]: api may not hold a user"),
        ('api = "http://127.0.0.1:1"\napi_user = "me"', "api_password_file is not set"),
        ('api = "http://127.0.0.1:1"\napi_token_file = "{0}/empty"', "[airflow]: api_token_file: "),
    ],
)
def test_files_that_the_settings_name_are_read_at_the_start(
    tmp_path: Path, lines: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch(mode=0o600)
    file = tmp_path / "pidtrail.toml"
    file.write_text("[airflow]\n" + lines.format(tmp_path), encoding="utf-8")

    assert cli.run(["agent", "--config", str(file)]) == 1
    (printed,) = capfd.readouterr().err.splitlines()
    assert said in printed


def test_a_mark_of_windows_before_a_text_is_left_out(tmp_path: Path) -> None:
    """As its editors put there; it is no part of a URL, and no TOML."""
    (tmp_path / "url").write_bytes(b"\xef\xbb\xbfsqlite:////a\r\n")

    assert text_of(tmp_path / "url").strip() == "sqlite:////a"


def test_wrong_usage_is_status_2() -> None:
    assert CliRunner().invoke(cli.cli, ["agent", "somewhere"]).exit_code == 2


def test_what_can_change_while_it_runs_is_taken_over_and_nothing_else() -> None:
    old = Config()
    new = parsed(
        """
        [capture]
        interval = 2
        [history]
        directory = "/srv/history"
        max_age = "2d"
        [socket]
        group = "staff"
        """,
        "file",
    )
    taken = with_live(old, new)

    assert changed(old, old) == []
    assert changed(old, new) == [
        "[capture] interval", "[history] directory", "[history] max_age", "[socket] group",
    ]  # fmt: skip
    assert changed(old, taken) == ["[history] max_age", "[socket] group"]
    assert changed(taken, new) == ["[capture] interval", "[history] directory"]
    assert set(changed(old, taken)) <= LIVE
