"""The workflows of one study are found without reading those of the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS
from node_process import write_config

from node.config import Config, load_config
from node.workflow.client import WorkflowClient
from node.workflow.engine import NOTICE_QUEUE, STUDY_QUEUE, delivery_queue
from node.workflow.study_index import StudyIndex
from node.workflow.tables import is_sqlite, open_database

OTHERS = 5000
STUDY = {"study_instance_uid": "1.2.3"}
OTHER = {"study_instance_uid": "1.2.30"}


@pytest.fixture
def client(either_config: Config) -> Iterator[WorkflowClient]:
    """The engine's client."""
    with closing(WorkflowClient(either_config)) as client:
        yield client


def enqueue(client: WorkflowClient, workflow_id: str, **attributes: str) -> None:
    """Enqueue a workflow of the study."""
    client.enqueue(STUDY_QUEUE, "process", workflow_id, attributes=STUDY | attributes)


def add_history(client: WorkflowClient) -> None:
    """Add finished workflows of other studies, as the engine records them."""
    database = client._client._sys_db
    row = {"status": "SUCCESS", "name": "process", "created_at": 1000, "updated_at": 1000}
    rows = [
        row | {"workflow_uuid": f"other-{number}", "attributes": {"study_instance_uid": f"1.2.840.{number}"}}
        for number in range(OTHERS)
    ]
    with database.engine.begin() as connection:
        connection.execute(sa.insert(database.tables.workflow_status), rows)
    with database.engine.connect() as connection:  # as PostgreSQL does by itself from time to time
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("VACUUM"))
        connection.execute(sa.text("ANALYZE"))


@contextmanager
def recorded_reads() -> Iterator[list[tuple[str, Any]]]:
    """The statements, and their parameters, that read the engine's table of workflows."""
    reads: list[tuple[str, Any]] = []

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT") and "workflow_status" in statement:
            reads.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        yield reads
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", record)


@contextmanager
def database_of(config: Config) -> Iterator[sa.Engine]:
    """The node's database."""
    database = open_database(config)
    yield database
    database.dispose()


def plan(config: Config, statement: str, parameters: Any) -> str:
    """How the database executes a statement."""
    explain = "EXPLAIN QUERY PLAN" if is_sqlite(config) else "EXPLAIN"
    with database_of(config) as database, database.connect() as connection:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.slow
def test_history_is_not_read(either_config: Config, client: WorkflowClient) -> None:
    """Among thousands of workflows of other studies, every statement for a study's workflows uses an index."""
    add_history(client)
    enqueue(client, "a")
    with recorded_reads() as reads:
        assert [each.workflow_id for each in client.workflows("process", attributes=STUDY)] == ["a"]
    assert reads
    uses_index, reads_all = (
        ("SEARCH", "SCAN") if is_sqlite(either_config) else ("Index Scan", "Seq Scan on workflow_st")
    )
    for plan_text in (plan(either_config, *read) for read in reads):
        assert uses_index in plan_text
        assert reads_all not in plan_text


@pytest.mark.slow
def test_study_is_found_exactly(client: WorkflowClient) -> None:
    """Only workflows of this study, of the asked name, with the asked prefix and attributes are found, oldest first."""
    for workflow_id in ("b", "a", "c"):
        enqueue(client, workflow_id, judged="yes" if workflow_id != "b" else "no")
    client.enqueue(STUDY_QUEUE, "process", "d", attributes=OTHER)
    client.enqueue(STUDY_QUEUE, "process", "e")
    client.enqueue(delivery_queue("pacs"), "deliver", "b-pacs", attributes=STUDY)

    def found(name: str, attributes: dict[str, str], prefix: str | None = None) -> list[str]:
        return [each.workflow_id for each in client.workflows(name, prefix, attributes)]

    assert found("process", STUDY) == ["b", "a", "c"]
    assert found("process", STUDY, "a") == ["a"]
    assert found("process", STUDY | {"judged": "yes"}) == ["a", "c"]
    assert found("process", OTHER) == ["d"]
    assert found("deliver", STUDY) == ["b-pacs"]
    assert found("deliver", OTHER) == []
    assert len(client.workflows("process")) == 5


def test_later_changes_are_found(client: WorkflowClient) -> None:
    """Attributes that are added later keep the workflow in the index; a deleted workflow is no longer found."""
    enqueue(client, "a")
    enqueue(client, "b")
    client.describe("a", {"judged": "yes"})
    assert [each.workflow_id for each in client.workflows("process", attributes=STUDY | {"judged": "yes"})] == ["a"]
    client.delete(["a"])
    assert [each.workflow_id for each in client.workflows("process", attributes=STUDY)] == ["b"]


def test_workflows_of_an_earlier_version_are_found(either_config: Config, client: WorkflowClient) -> None:
    """What was enqueued before there was an index, and by processes that know of none, is found."""
    drop = sa.text("DROP INDEX IF EXISTS glionode_workflows_by_study")
    with database_of(either_config) as database, database.begin() as connection:
        connection.execute(drop)
    client._client.enqueue(
        {"queue_name": NOTICE_QUEUE, "workflow_name": "notice", "workflow_id": "before", "attributes": STUDY}
    )
    with closing(WorkflowClient(either_config)) as later:
        client._client.enqueue(
            {"queue_name": NOTICE_QUEUE, "workflow_name": "notice", "workflow_id": "after", "attributes": STUDY}
        )
        assert [each.workflow_id for each in later.workflows("notice", attributes=STUDY)] == ["before", "after"]


def test_index_is_created_once_by_all(tmp_path: Path) -> None:
    """Clients that open one SQLite database at the same moment create the index without an error."""
    config = load_config(write_config(tmp_path))
    config.folder.mkdir(parents=True)
    DBOS.migrate(config.database_url)
    gate, failures = threading.Barrier(8), []

    def open_index() -> None:
        gate.wait()
        try:
            StudyIndex(config).close()
        except sa.exc.SQLAlchemyError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_index) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
