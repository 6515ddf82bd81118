"""Where the metadata database is found, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidtrail.airflow.location import Location, locate, normalised

PG = "postgresql+psycopg2://u:hunter2@h/db"
NAME = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def process(tmp_path: Path, **env: str) -> Path:
    """Return a /proc in which process 7 has that environment."""
    (tmp_path / "proc/7").mkdir(parents=True)
    content = b"".join(f"{name}={value}".encode() + b"\0" for name, value in env.items())
    (tmp_path / "proc/7/environ").write_bytes(content)
    return tmp_path / "proc"


def config(home: Path, text: str) -> Path:
    home.mkdir(exist_ok=True)
    (home / "airflow.cfg").write_text(text)
    return home / "airflow.cfg"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgresql://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        (
            "postgresql+psycopg://u:p@h/d?sslmode=require",
            "postgresql+psycopg2://u:p@h/d?sslmode=require",
        ),
        (
            "postgresql+asyncpg://u:p@h/d?ssl=require&statement_cache_size=0",
            "postgresql+psycopg2://u:p@h/d?sslmode=require",
        ),
        ("sqlite:////abs/airflow.db", "sqlite:////abs/airflow.db"),
        ("sqlite+aiosqlite:///rel.db", "sqlite:///rel.db"),
        ("mysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        (
            "mysql+mysqldb://u:p@h:3306/d?ssl_mode=REQUIRED",
            "mysql+pymysql://u:p@h:3306/d?ssl_mode=REQUIRED",
        ),
        ("mariadb+mariadbconnector://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ("oracle://u:p@h/d", "oracle://u:p@h/d"),
        ("nonsense", "nonsense"),
    ],
)
def test_any_driver_of_a_known_database_becomes_ours(url: str, expected: str) -> None:
    assert normalised(url) == expected


def test_what_the_user_gave_comes_first() -> None:
    assert locate(PG, {NAME: "sqlite:///x"}) == Location(PG, "--airflow-db")


def test_the_environment_comes_next_the_older_name_included() -> None:
    assert locate(None, {NAME: PG}) == Location(PG, NAME)
    older = "AIRFLOW__CORE__SQL_ALCHEMY_CONN"
    assert locate(None, {older: PG}) == Location(PG, older)


def test_the_traced_schedulers_environment_is_read(tmp_path: Path) -> None:
    proc = process(tmp_path, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql://u:$PW@h/d", PW="x$1")

    assert locate(None, {}, 7, proc=proc) == Location(
        "postgresql+psycopg2://u:x$1@h/d", f"{NAME} of process 7"
    )


@pytest.mark.parametrize(
    ("suffix", "what"), [("CMD", "a command"), ("SECRET", "a secrets backend")]
)
def test_a_computed_url_is_named_and_not_run(tmp_path: Path, suffix: str, what: str) -> None:
    witness = tmp_path / "ran"

    location = locate(None, {f"{NAME}_{suffix}": f"touch {witness}"})

    assert location.url is None
    assert location.problem is not None
    assert what in location.problem
    assert not witness.exists()

    config(tmp_path, f"[database]\nsql_alchemy_conn_{suffix.lower()} = touch {witness}\n")
    location = locate(None, {"AIRFLOW_HOME": str(tmp_path)})
    assert location.url is None
    assert not witness.exists()


def test_the_schedulers_configuration_file_is_read(tmp_path: Path) -> None:
    """Without interpolation, but with Airflow's doubled percent signs undone."""
    path = config(
        tmp_path / "home",
        "[core]\nfernet_key = a%b\n[database]\nsql_alchemy_conn = postgresql://u:a%%40b@h/d\n",
    )
    proc = process(tmp_path, AIRFLOW_HOME=str(path.parent))

    assert locate(None, {}, 7, proc=proc) == Location(
        "postgresql+psycopg2://u:a%40b@h/d", str(path)
    )


def test_airflow_config_names_another_file(tmp_path: Path) -> None:
    path = config(tmp_path / "elsewhere", "[core]\nsql_alchemy_conn = sqlite:////x/y.db\n")

    assert locate(
        None, {"AIRFLOW_CONFIG": "$D/elsewhere/airflow.cfg", "D": str(tmp_path)}
    ) == Location("sqlite:////x/y.db", str(path))


def test_an_absent_option_means_airflows_default(tmp_path: Path) -> None:
    config(tmp_path, "[database]\n# sql_alchemy_conn = sqlite:////old\n")

    location = locate(None, {"AIRFLOW_HOME": str(tmp_path)})

    assert location.url == f"sqlite:///{tmp_path}/airflow.db"


def hidden(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a /proc in which process 7, whose user has that home, hides its settings."""
    monkeypatch.setattr("pidtrail.airflow.location.home_of", lambda _pid, _proc: str(home))
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/environ").write_bytes(b"run_id=x', '--x=1', \0\0\0\0")
    return tmp_path / "proc"


@pytest.mark.parametrize("text", [None, "", "[database]\nsql_alchemy_conn = sqlite:////x.db\n"])
def test_who_hides_his_settings_is_said_to_and_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """The file that 2.x writes at its first start has a default that may hold no more."""
    if text is not None:
        config(tmp_path / "airflow", text)

    assert locate(None, {}, 7, proc=hidden(tmp_path, tmp_path, monkeypatch)) == Location(
        None,
        problem="the environment of process 7 cannot be read, nor its memory: name its database "
        "as db or db_file in [airflow] of the service's settings, or as --airflow-db",
    )


def test_a_file_that_names_a_server_is_supposed_to_be_his(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path / "airflow", f"[database]\nsql_alchemy_conn = {PG}\n")

    assert locate(None, {}, 7, proc=hidden(tmp_path, tmp_path, monkeypatch)) == Location(
        PG, f"{path}, supposed to be that of process 7"
    )


def test_who_is_gone_hides_nothing(tmp_path: Path) -> None:
    location = locate(None, {"HOME": str(tmp_path)}, 7, proc=tmp_path)

    assert location.problem == (
        f"no Airflow database found: {tmp_path}/airflow/airflow.cfg does not exist"
    )


def test_a_destroyed_environment_does_not_hide_our_own_airflow_home(tmp_path: Path) -> None:
    """`pidtrail trace -- airflow scheduler` with 2.x: only pidtrail's copy is left."""
    path = config(tmp_path / "home", "[database]\nsql_alchemy_conn = sqlite:////x.db\n")
    proc = process(tmp_path)

    assert locate(None, {"AIRFLOW_HOME": str(path.parent)}, 7, proc=proc).found == str(path)


def test_the_mark_below_a_task_is_no_database(tmp_path: Path) -> None:
    """Airflow 3 forbids the database to tasks by a URL that leads nowhere."""
    location = locate(None, {NAME: "airflow-db-not-allowed:///", "HOME": str(tmp_path)})

    assert location.problem is not None


@pytest.mark.parametrize("text", ["no section", "[a]\nb", "\0", "[database\n"])
def test_a_broken_configuration_file_gives_a_reason_without_its_content(
    tmp_path: Path, text: str
) -> None:
    path = config(tmp_path, text + "hunter2")

    location = locate(None, {"AIRFLOW_HOME": str(tmp_path)})

    assert location == Location(None, problem=f"{path} is not a configuration file")
