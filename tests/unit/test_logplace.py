"""Where the logs of tasks are and how they are named, as the configuration says."""

from __future__ import annotations

from pathlib import Path

from pidtrail.airflow.logplace import LogPlace, locate_logs

FOLDER = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
TEMPLATE = "AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE"


def process(tmp_path: Path, **env: str) -> Path:
    """Return a /proc in which process 7 has that environment."""
    (tmp_path / "proc/7").mkdir(parents=True)
    content = b"".join(f"{name}={value}".encode() + b"\0" for name, value in env.items())
    (tmp_path / "proc/7/environ").write_bytes(content)
    return tmp_path / "proc"


def test_the_environment_says_both() -> None:
    assert locate_logs({FOLDER: "/srv/logs", TEMPLATE: "x"}) == LogPlace("/srv/logs", "x")


def test_the_scheduler_s_own_environment_comes_first(tmp_path: Path) -> None:
    proc = process(tmp_path, **{FOLDER: "/theirs"})

    assert locate_logs({FOLDER: "/ours", TEMPLATE: "x"}, 7, proc=proc) == LogPlace("/theirs", "x")


def test_airflow_cfg_says_it_with_doubled_percent_signs(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text(
        f"[logging]\nbase_log_folder = {tmp_path}/l\n"
        "log_filename_template = {%% if ti.map_index >= 0 %%}x{%% endif %%}\n"
    )

    assert locate_logs({"AIRFLOW_HOME": str(tmp_path)}) == LogPlace(
        f"{tmp_path.resolve()}/l", "{% if ti.map_index >= 0 %}x{% endif %}"
    )


def test_the_default_folder_is_told_if_it_is_there(tmp_path: Path) -> None:
    """The kernel names the file that is really open, so links are followed."""
    home = {"AIRFLOW_HOME": str(tmp_path)}
    assert locate_logs(home) == LogPlace(None, None)
    assert locate_logs(home).fact() is None
    (tmp_path / "real").mkdir()
    (tmp_path / "logs").symlink_to("real")

    assert locate_logs(home).folder == str((tmp_path / "real").resolve())
