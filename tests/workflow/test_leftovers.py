"""What dead workers left is removed after an hour, and nothing that anybody still needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOS
from engine_worker import DEADLINE_SECONDS, engine_worker
from faults import wait_until
from node_process import write_config

from node.config import Config, load_config
from node.workflow.leftovers import REMOVAL_SECONDS, ROUND_SECONDS, Leftovers
from node.workflow.tables import ENGINE_WORKFLOWS, UNDER_WAY, WORKERS, open_tables
from node.workflow.worker_files import alive_file, worker_lock, workers_with_files

OWN, DEAD = "host-work-auto", "old-work-auto"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node."""
    config = load_config(write_config(tmp_path))
    config.folder.mkdir(parents=True)
    return config


@pytest.fixture
def tables(config: Config) -> Iterator[sa.Engine]:
    """The node's database with a row and files of a living worker and of a dead one."""
    DBOS.migrate(config.database_url)
    engine = open_tables(config)
    with engine.begin() as connection:
        for worker in (OWN, DEAD):
            connection.execute(sa.insert(WORKERS).values(executor_id=worker, beat=1, application_version="1"))
            with worker_lock(config.folder, worker):
                alive_file(config.folder, worker).touch()
    yield engine
    engine.dispose()


@pytest.fixture
def leftovers(config: Config, tables: sa.Engine) -> Leftovers:
    """The living worker's look at the others, after the first round."""
    leftovers = Leftovers(tables, config.folder, OWN, 60.0)
    assert leftovers.remove({OWN: 1, DEAD: 1}, (), 0.0) == []
    return leftovers


def add_mark(tables: sa.Engine, workflow_id: str, status: str) -> None:
    """Add a workflow of this status that the dead worker ran."""
    with tables.begin() as connection:
        row = {"workflow_uuid": workflow_id, "status": status, "name": "process", "created_at": 1}
        connection.execute(sa.insert(ENGINE_WORKFLOWS).values(row))
        connection.execute(sa.insert(UNDER_WAY).values(workflow_id=workflow_id, executor_id=DEAD, crashes=1))


def workers(tables: sa.Engine) -> set[str]:
    """The workers that have a row."""
    with tables.connect() as connection:
        return set(connection.execute(sa.select(WORKERS.c.executor_id)).scalars())


def test_dead_worker_is_removed_after_an_hour(config: Config, tables: sa.Engine, leftovers: Leftovers) -> None:
    """Row, lock and alive file of a worker without a heartbeat for an hour go; those of the own worker stay."""
    assert leftovers.remove({OWN: 2, DEAD: 1}, (), REMOVAL_SECONDS - 1.0) == []
    assert workers(tables) == {OWN, DEAD}
    later = REMOVAL_SECONDS - 1.0 + ROUND_SECONDS
    assert leftovers.remove({OWN: 3, DEAD: 1}, (), later) == [DEAD]
    assert workers(tables) == workers_with_files(config.folder) == {OWN}
    assert leftovers.remove({OWN: 4}, (), later + ROUND_SECONDS) == []


def test_worker_with_heartbeats_stays(tables: sa.Engine, leftovers: Leftovers) -> None:
    """A worker whose count changes is never removed, and looks between two rounds cost nothing."""
    for number in range(2, 12):
        now = number * ROUND_SECONDS
        assert leftovers.remove({OWN: number, DEAD: number}, (), now) == []
        assert leftovers.remove({OWN: number, DEAD: 1}, (), now + 1.0) == []
    assert workers(tables) == {OWN, DEAD}


def test_owner_of_a_workflow_stays(tables: sa.Engine, leftovers: Leftovers) -> None:
    """A dead worker is kept as long as workflows that are not over carry its name."""
    assert leftovers.remove({OWN: 2, DEAD: 1}, [DEAD], REMOVAL_SECONDS) == []
    assert workers(tables) == {OWN, DEAD}
    assert leftovers.remove({OWN: 3, DEAD: 1}, [], REMOVAL_SECONDS + ROUND_SECONDS) == [DEAD]


def test_running_worker_of_another_database_stays(config: Config, tables: sa.Engine, leftovers: Leftovers) -> None:
    """A worker that holds its lock is kept with its row, whatever the heartbeats say."""
    with worker_lock(config.folder, DEAD):
        assert leftovers.remove({OWN: 2, DEAD: 1}, (), REMOVAL_SECONDS) == []
    assert workers(tables) == workers_with_files(config.folder) == {OWN, DEAD}


def test_row_that_changed_meanwhile_stays(config: Config, tables: sa.Engine, leftovers: Leftovers) -> None:
    """A row whose count is not the one that was judged belongs to a worker that gives heartbeats again."""
    with tables.begin() as connection:
        connection.execute(sa.update(WORKERS).where(WORKERS.c.executor_id == DEAD).values(beat=2))
    leftovers.remove({OWN: 2, DEAD: 1}, (), REMOVAL_SECONDS)
    assert workers(tables) == {OWN, DEAD}


def test_crash_counts_are_kept_while_their_workflow_is(config: Config, tables: sa.Engine, leftovers: Leftovers) -> None:
    """A mark of a workflow that is over is removed; another one keeps the files that tell of its worker's crash."""
    add_mark(tables, "over", "SUCCESS")
    add_mark(tables, "waits", "ENQUEUED")
    assert leftovers.remove({OWN: 2, DEAD: 1}, (), REMOVAL_SECONDS) == []
    with tables.connect() as connection:
        assert set(connection.execute(sa.select(UNDER_WAY.c.workflow_id)).scalars()) == {"waits"}
    assert alive_file(config.folder, DEAD).exists()
    with tables.begin() as connection:
        connection.execute(sa.update(ENGINE_WORKFLOWS).values(status="CANCELLED"))
    assert leftovers.remove({OWN: 3, DEAD: 1}, (), REMOVAL_SECONDS + ROUND_SECONDS) == [DEAD]
    assert not alive_file(config.folder, DEAD).exists()


@pytest.mark.slow
def test_killed_worker_is_removed_by_another(tmp_path: Path, postgres_database: str) -> None:
    """Of two workers that share database and folder, the one that lives removes the row and files of the killed one."""
    engine = {"database": postgres_database, "heartbeat_seconds": 0.2, "dead_seconds": 1.0}
    shared = {"folder": str(tmp_path / "shared")}
    first = write_config(tmp_path / "first", node=shared, engine=engine, segmentation={"device": "cpu"})
    second = write_config(tmp_path / "second", node=shared, engine=engine)
    folder = load_config(first).folder
    with engine_worker(first, "removes=2") as killed, engine_worker(second, "removes=2"):
        wait_until(lambda: len(workers_with_files(folder)) == 2, DEADLINE_SECONDS)
        killed.kill()
        killed.wait()
        wait_until(lambda: len(workers_with_files(folder)) == 1, DEADLINE_SECONDS)
        tables = open_tables(load_config(first))
        wait_until(lambda: len(workers(tables)) == 1, DEADLINE_SECONDS)
        tables.dispose()
        with engine_worker(first):
            assert len(workers_with_files(folder)) == 2
