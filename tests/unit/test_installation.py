"""Which installation of Airflow a root is of: by the address of its database, from its settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pidtrail.airflow.installation import Belonging, address_of, own_address

CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://u:p@localhost/airflow", "postgresql+psycopg2://v@127.0.0.1:5432/airflow"),
        ("postgres://DB.example./airflow", "postgresql+asyncpg://db.example/airflow?ssl=require"),
        ("postgresql:///airflow?host=localhost&port=5433", "postgresql://[::1]:5433/airflow"),
        ("mysql+mysqldb://u:p%40@h/a", "mariadb://h:3306/a?charset=utf8mb4"),
        ("mysql://u@[fe80::1]/a", "mysql+pymysql://u@[fe80::1]:3306/a"),
        ("sqlite:////srv/a.db", "sqlite+aiosqlite:////srv/../srv/a.db?timeout=5"),
    ],
)
def test_one_database_has_one_name(one: str, other: str) -> None:
    """Whoever logs in, with whatever driver and however the address is written."""
    assert address_of(one) == address_of(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://h/one", "postgresql://h/two"),
        ("postgresql://h/one", "postgresql://h:5433/one"),
        ("postgresql://h/one", "postgresql://i/one"),
        ("postgresql://h/one", "mysql://h/one"),
        ("postgresql:///a?host=/run/one", "postgresql:///a?host=/run/two"),
        (
            "postgresql://h/a?options=-csearch_path%3Done",
            "postgresql://h/a?options=-csearch_path%3Dtwo",
        ),
        ("sqlite:////srv/a.db", "sqlite:////srv/b.db"),
    ],
)
def test_two_databases_have_two_names(one: str, other: str) -> None:
    """Near misses."""
    assert address_of(one) != address_of(other)


def test_a_name_holds_no_secret() -> None:
    url = "postgresql+psycopg2://airflow:hunter2@db/airflow?sslpassword=hunter2&password=hunter2"

    assert address_of(url) == "postgresql://db/airflow"


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///:memory:", "postgresql://h:port/a"])
def test_what_is_no_address_has_no_name(url: str) -> None:
    assert address_of(url) is None


def test_a_file_is_named_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)

    assert address_of(f"sqlite:///{tmp_path}/link/a.db") == f"sqlite:///{tmp_path}/a.db"
    assert address_of("sqlite:///a.db") == f"sqlite:///{Path.cwd()}/a.db"


def process(folder: Path, **environ: str) -> Path:
    """Make a /proc with one process, 7, and return it."""
    (folder / "7").mkdir()
    pairs = [f"{name}={value}".encode() for name, value in environ.items()]
    (folder / "7/environ").write_bytes(b"\0".join(pairs))
    return folder


def test_the_settings_of_a_root_tell(tmp_path: Path) -> None:
    proc = process(tmp_path, HOME="/", **{CONN: "postgresql://u:p@db/airflow"})

    assert own_address(7, proc=proc) == "postgresql://db/airflow"


def test_those_of_pidtrail_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is told to read says nothing of whom it follows."""
    monkeypatch.setenv(CONN, "postgresql://db/of_pidtrail")
    (tmp_path / "home").mkdir()

    assert own_address(7, proc=process(tmp_path, AIRFLOW_HOME=str(tmp_path / "home"))) is None


def test_the_default_counts_if_it_is_there(tmp_path: Path) -> None:
    """A Celery worker of 3.x has a home, and no database in it."""
    home = tmp_path / "home"
    home.mkdir()
    proc = process(tmp_path, AIRFLOW_HOME=str(home))

    assert own_address(7, proc=proc) is None
    (home / "airflow.db").touch()
    assert own_address(7, proc=proc) == f"sqlite:///{os.path.realpath(home)}/airflow.db"


def test_who_has_no_environment_any_more_tells_nothing(tmp_path: Path) -> None:
    """A 2.x scheduler's title stands where it was."""
    proc = process(tmp_path)
    (proc / "7/environ").write_bytes(b"\0" * 64)

    assert own_address(7, proc=proc) is None
    assert own_address(8, proc=proc) is None


ONE, TWO, NAMED = "postgresql://one/a", "postgresql://two/a", "postgresql://pooler:6432/a"


def test_roots_are_of_the_databases_in_their_settings() -> None:
    belonging = Belonging()

    assert belonging.take({1: (ONE, ONE), 2: (TWO, TWO), 3: (None, ONE)}) == {
        1: ONE,
        2: TWO,
        3: None,
    }
    assert belonging.of_database(ONE) == ONE


def test_the_database_that_is_named_is_that_of_the_only_airflow() -> None:
    """Whatever its own settings call it; of one that comes later nobody said so."""
    belonging = Belonging()

    assert belonging.take({1: (ONE, NAMED), 2: (ONE, NAMED)}) == {1: NAMED, 2: NAMED}
    assert belonging.take({3: (TWO, NAMED), 4: (ONE, NAMED)}) == {3: TWO, 4: NAMED}
    assert belonging.of_database(NAMED) == NAMED


def test_the_database_that_is_named_is_that_of_the_one_with_its_address() -> None:
    belonging = Belonging()

    assert belonging.take({1: (ONE, ONE), 2: (TWO, ONE)}) == {1: ONE, 2: TWO}
    assert belonging.of_database(ONE) == ONE


def test_a_database_that_may_be_of_two_is_of_none() -> None:
    """Near miss: neither has the address that was named."""
    belonging = Belonging()

    assert belonging.take({1: (ONE, NAMED), 2: (TWO, NAMED)}) == {1: ONE, 2: TWO}
    assert belonging.of_database(NAMED) is None


def test_the_api_is_that_of_the_only_airflow() -> None:
    """With a database beside it, or only a root's settings; not where there are two."""
    belonging = Belonging()
    assert belonging.of_api([]) is None
    assert belonging.of_api([ONE]) == ONE

    belonging.take({1: (ONE, None)})
    assert belonging.of_api([]) == ONE
    assert belonging.of_api([TWO]) is None

    belonging.take({2: (TWO, None)})
    assert belonging.of_api([]) is None
