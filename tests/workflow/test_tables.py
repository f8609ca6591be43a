"""Databases of glionode 0.1.0 are extended in place, by one process or by several at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from node.config import Config
from node.workflow.crash_counter import CrashCounter
from node.workflow.tables import UNDER_WAY, WORKERS, open_database, open_tables

OF_0_1_0 = (
    "CREATE TABLE glionode_under_way (workflow_id VARCHAR(255) NOT NULL, executor_id VARCHAR(255), "
    "deaths INTEGER NOT NULL, PRIMARY KEY (workflow_id))",
    "CREATE TABLE glionode_workers (executor_id VARCHAR(255) NOT NULL, beat BIGINT NOT NULL, "
    "PRIMARY KEY (executor_id))",
    "INSERT INTO glionode_workers VALUES ('host-work-auto', 4)",
    "INSERT INTO glionode_under_way VALUES ('study', 'host-work-auto', 1)",
)


@contextmanager
def closed(engine: sa.Engine) -> Iterator[sa.Engine]:
    """``engine``, disposed of in the end."""
    yield engine
    engine.dispose()


@pytest.fixture
def config_of_0_1_0(either_config: Config) -> Config:
    """A node whose database holds the tables and rows of version 0.1.0."""
    either_config.folder.mkdir(parents=True, exist_ok=True)
    with closed(open_database(either_config)) as database, database.begin() as connection:
        for statement in OF_0_1_0:
            connection.execute(sa.text(statement))
    return either_config


def open_at_once(config: Config, number: int = 6) -> list[Exception]:
    """Open the tables in several threads at the same moment; returns the errors."""
    gate, errors = threading.Barrier(number), []

    def run() -> None:
        gate.wait()
        try:
            open_tables(config).dispose()
        except sa.exc.SQLAlchemyError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_database_of_0_1_0_is_extended(config_of_0_1_0: Config, tmp_path: Path) -> None:
    """The heartbeats and crash counts of 0.1.0 are kept, and its workers are those of application version 1."""
    for _ in range(2):
        with closed(open_tables(config_of_0_1_0)) as tables, tables.connect() as connection:
            assert connection.execute(sa.select(WORKERS)).all() == [("host-work-auto", 4, "1")]
            assert connection.execute(sa.select(UNDER_WAY)).all() == [("study", "host-work-auto", 1)]
    with closed(open_tables(config_of_0_1_0)) as tables:
        counter = CrashCounter(tables, "other-work-auto", tmp_path / "other.alive", 3)
        with counter.counted("study"), tables.connect() as connection:
            assert connection.execute(sa.select(UNDER_WAY)).all() == [("study", "other-work-auto", 2)]


def test_workers_of_0_1_0_go_on_beside_this_version(config_of_0_1_0: Config) -> None:
    """The statements that 0.1.0 writes with still work after the tables were extended."""
    with closed(open_tables(config_of_0_1_0)) as tables, tables.begin() as connection:
        connection.execute(sa.text("INSERT INTO glionode_workers (executor_id, beat) VALUES ('old-work-auto', 1)"))
        connection.execute(sa.text("UPDATE glionode_workers SET beat = beat + 1"))
        connection.execute(
            sa.text("INSERT INTO glionode_under_way (workflow_id, executor_id, deaths) VALUES ('w', 'x', 0)")
        )
        rows = connection.execute(sa.select(WORKERS).order_by(WORKERS.c.executor_id)).all()
    assert rows == [("host-work-auto", 5, "1"), ("old-work-auto", 2, "1")]


def test_several_processes_extend_at_once(config_of_0_1_0: Config) -> None:
    """Processes that open a database of 0.1.0 at the same moment meet no error and lose nothing."""
    assert open_at_once(config_of_0_1_0) == []
    with closed(open_tables(config_of_0_1_0)) as tables, tables.connect() as connection:
        assert connection.execute(sa.select(WORKERS)).all() == [("host-work-auto", 4, "1")]


def test_several_processes_create_at_once(either_config: Config) -> None:
    """Processes that open a new database at the same moment meet no error."""
    either_config.folder.mkdir(parents=True, exist_ok=True)
    assert open_at_once(either_config) == []
