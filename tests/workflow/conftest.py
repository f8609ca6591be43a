"""Nodes with a database of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from node_process import write_config
from postgres import running_postgres

from node.config import Config, load_config

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres_database(postgres_server: str) -> str:
    """The URL of a new database on the server."""
    url = sa.make_url(postgres_server)
    name = f"node{next(_NUMBERS)}"
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def either_config(tmp_path: Path, request: pytest.FixtureRequest) -> Config:
    """A node with a new database of each kind."""
    engine = {} if request.param == "sqlite" else {"database": request.getfixturevalue("postgres_database")}
    return load_config(write_config(tmp_path, engine=engine))
