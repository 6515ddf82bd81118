"""What a URL of MySQL or MariaDB says beyond its address, in the words of our driver."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy.engine import make_url

from pidtrail.airflow.database import Database
from pidtrail.airflow.mysql import connect_arguments
from pidtrail.errors import DatabaseError


def arguments(query: str, host: str = "h:3306") -> dict[str, Any]:
    return connect_arguments(make_url(f"mysql+pymysql://u:hunter2@{host}/d?{query}"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("charset=utf8mb4&use_unicode=1", {}),
        ("unix_socket=/run/s", {"unix_socket": "/run/s"}),
        ("ssl_mode=preferred", {}),
        ("ssl_mode=DISABLED", {"ssl_disabled": True}),
        ("ssl_mode=VERIFY_CA", {"ssl_verify_cert": True}),
        ("ssl_ca=/ca.pem", {"ssl_ca": "/ca.pem", "ssl_verify_cert": True}),
        ("ssl_ca=/ca.pem&ssl_verify_cert=false", {"ssl_ca": "/ca.pem", "ssl_verify_cert": False}),
        ("ssl_check_hostname=true", {"ssl_verify_identity": True}),
    ],
)
def test_parameters_of_other_drivers_mean_the_same(query: str, expected: dict[str, Any]) -> None:
    assert arguments(query) == {"program_name": "pidtrail", **expected}


def test_required_encryption_asks_for_no_certificate() -> None:
    context = arguments("ssl_mode=REQUIRED")["ssl"]

    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode == ssl.CERT_NONE


def test_no_statement_of_a_url_is_sent() -> None:
    assert "init_command" not in arguments("init_command=DROP+TABLE+x")


@pytest.mark.parametrize("query", ["ssl_mode=SOME", "tls=yes", "ssl_disabled=perhaps"])
def test_what_is_not_known_is_one_line_and_not_passed_over(query: str) -> None:
    """It could be what makes the way safe."""
    with pytest.raises(DatabaseError, match=query.partition("=")[0]) as caught:
        Database(f"mysql://u:hunter2@h/d?{query}")

    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line_without_the_password() -> None:
    database = Database("mysql+mysqldb://u:hunter2@127.0.0.1:1/d")

    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/d") as caught, database.snapshot():
        pass

    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
