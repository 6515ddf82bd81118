"""The servers of these tests: each is started once, when a test asks for it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pidtrail.airflow.metadata import Metadata
from tests.database.mariadb import MariaDb
from tests.database.server import Server
from tests.database.writer import Airflow


@contextmanager
def serving(server: Server | MariaDb) -> Iterator[Server | MariaDb]:
    """Serve until the block ends."""
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with serving(server := Server()):
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    with serving(server := MariaDb()):
        yield server


@pytest.fixture(
    params=[
        pytest.param("postgresql", marks=pytest.mark.needs_postgres),
        pytest.param("mariadb", marks=pytest.mark.needs_mariadb),
    ]
)
def server(request: pytest.FixtureRequest) -> Server | MariaDb:
    """Either of them; a test module may name one of its own."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server | MariaDb)
    return found


@pytest.fixture
def airflow(server: Server | MariaDb, request: pytest.FixtureRequest) -> Iterator[Airflow]:
    airflow = Airflow(server, f"x{zlib.crc32(request.node.name.encode())}")
    yield airflow
    airflow.connection.close()


@pytest.fixture
def metadata(airflow: Airflow) -> Iterator[Metadata]:
    metadata = Metadata(airflow.url, since_epoch_ns=time.time_ns())
    yield metadata
    metadata.close()
