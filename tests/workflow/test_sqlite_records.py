"""What is read of an SQLite database without the engine is what the engine's client reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from node_process import write_config
from old_database import restore

from node.config import Config, load_config
from node.errors import EngineError, RefusedError
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE, delivery_queue
from node.workflow.serialization import FORMAT_NAME, RecordSerializer
from node.workflow.sqlite_records import SqliteRecords

NAMES = ("process", "deliver")
REPORTED = {"state": "reported", "reason": None, "seconds": 1.5}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config."""
    return load_config(write_config(tmp_path))


@pytest.fixture
def file(config: Config) -> Path:
    """A database with workflows in each state, some of whose rows are damaged."""
    with closing(WorkflowClient(config)) as client:
        for number in range(8):
            study = {"study_instance_uid": f"1.2.{number}", "judged-x": "yes"}
            client.enqueue(STUDY_QUEUE, "process", f"w{number}", "{}", attributes=study, priority=number + 1)
        client.enqueue(delivery_queue("pacs"), "deliver", "w0-pacs")
        client.enqueue(STUDY_QUEUE, "notice", "n")
        client.cancel("w1")
    file = config.folder / "glionode.sqlite"
    form = RecordSerializer()
    published = form.serialize({"state": "segmented", "reason": None})
    event = "INSERT INTO workflow_events (workflow_uuid, key, value, serialization) VALUES (?, 'state', ?, ?)"
    statements = [
        ("UPDATE workflow_status SET status = 'SUCCESS' WHERE workflow_uuid IN ('w2', 'w3', 'w7')", ()),
        ("INSERT INTO workflow_output (workflow_uuid, output) VALUES ('w2', ?)", (form.serialize(REPORTED),)),
        ("UPDATE workflow_status SET output = 'no record' WHERE workflow_uuid = 'w3'", ()),
        ("UPDATE workflow_status SET status = 'ERROR', error = ? WHERE workflow_uuid = 'w4'",
         (form.serialize(RefusedError("no T1c")),)),
        ("UPDATE workflow_status SET status = 'PENDING' WHERE workflow_uuid IN ('w5', 'w6')", ()),
        (event, ("w5", published, FORMAT_NAME)),
        (event, ("w6", "gASVAA==", "py_pickle")),
        ("UPDATE workflow_status SET attributes = 'no JSON' WHERE workflow_uuid = 'w6'", ()),
        ("UPDATE workflow_status SET output = ?, serialization = 'another' WHERE workflow_uuid = 'w7'",
         (form.serialize(REPORTED),)),
        ("INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, started_at_epoch_ms,"
         " completed_at_epoch_ms) VALUES ('w2', 1, 'segment', 1000, 3500), ('w2', 2, 'report', 4000, 4250),"
         " ('w2', 3, 'other', 5000, 9000), ('w3', 1, 'segment', 5000, NULL)", ()),
    ]  # fmt: skip
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement, values in statements:
            connection.execute(statement, values)
    return file


@pytest.fixture
def client(config: Config, file: Path) -> Iterator[WorkflowClient]:
    """The engine's client of that database."""
    with closing(WorkflowClient(config)) as client:
        yield client


@pytest.fixture
def records(file: Path) -> Iterator[SqliteRecords]:
    """The same database, read without the engine."""
    found = SqliteRecords.opened(file)
    assert found is not None
    with closing(found):
        yield found


def test_both_read_the_same(client: WorkflowClient, records: SqliteRecords) -> None:
    """Marks, records and times agree, in their order, for every state and every damage."""
    assert records.marks(NAMES) == client.marks(NAMES)
    assert len(records.marks(NAMES)) == 9
    for name in NAMES:
        assert records.workflows(name) == client.workflows(name)
    ids = ["w6", "none", "w0", "w0-pacs", "w2"]
    assert records.workflows("process", workflow_ids=ids) == client.workflows("process", workflow_ids=ids)
    assert [each.workflow_id for each in records.workflows("process", workflow_ids=ids)] == ["w6", "w0", "w2"]
    assert records.workflows("process", workflow_ids=[]) == []
    steps = (["w2", "w3"], ("segment", "report"))
    assert records.step_seconds(*steps) == client.step_seconds(*steps) == {"w2": 2.75}


def test_each_damage_is_the_trouble_of_its_workflow(records: SqliteRecords) -> None:
    """What is readable is read; what is not is named."""
    found = {each.workflow_id: each for each in records.workflows("process")}
    assert found["w2"].output == REPORTED
    assert found["w4"].error == "no T1c"
    assert found["w5"].state is not None
    assert found["w5"].state.state == "segmented"
    assert {each for each, record in found.items() if record.unreadable} == {"w3", "w6", "w7"}


def test_only_a_database_of_this_version_is_read_without_the_engine(config: Config, file: Path) -> None:
    """Records of glionode 0.1.0, a later form, or a table that is missing are left to the engine's client."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE glionode_record_format SET format = 'later'")
    assert SqliteRecords.opened(file) is None
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE glionode_record_format SET format = ?", (FORMAT_NAME,))
        connection.execute("ALTER TABLE workflow_output RENAME TO before")
    assert SqliteRecords.opened(file) is None
    file.unlink()
    restore(config).close()
    assert SqliteRecords.opened(file) is None


def test_database_that_fails_is_an_engine_error(records: SqliteRecords, file: Path) -> None:
    """A database that breaks while it is read is told as the client tells it."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE workflow_events")
    with pytest.raises(EngineError, match=r"engine\.database: OperationalError"):
        records.workflows("process")
