"""The pickled records of glionode 0.1.0 are rewritten once, as a whole, while no worker runs; none of them is run."""

from __future__ import annotations

import base64
import pickle
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from node_process import write_config
from old_database import Payload, make_old, pickled, places, tamper

from node.config import Config, load_config
from node.errors import ConfigError, DeliveryError, EngineError, SelectionRefused, UnreadableRecordError
from node.study import Selection
from node.workflow import migration
from node.workflow.client import WorkflowClient
from node.workflow.engine import APPLICATION_VERSION, NOTICE_QUEUE, STUDY_QUEUE, migrate_records, running_worker
from node.workflow.pickled_records import record_of_pickle
from node.workflow.record_format import MIGRATE_COMMAND
from node.workflow.serialization import FORMAT_NAME, OtherError, RecordSerializer
from node.workflow.states import NORMAL_PRIORITY
from node.workflow.tables import WORKERS, engine_table, open_database
from node.workflow.worker_files import worker_lock

STUDY = {"study_instance_uid": "1.2.3"}


def rows(config: Config) -> dict[str, list[Any]]:
    """Every record in the database, by its column, with the form that is noted beside it."""
    found = {}
    with closing_database(config) as connection:
        for name, column, is_named in places():
            table = engine_table(name, (column, "serialization"))
            columns = [table.c[column], *([table.c.serialization] if is_named else [])]
            found[f"{name}.{column}"] = sorted(map(tuple, connection.execute(sa.select(*columns))), key=str)
    return found


class closing_database:  # noqa: N801 - used as a statement
    """A connection to the node's database, with everything closed and committed in the end."""

    def __init__(self, config: Config) -> None:
        self._engine = open_database(config)

    def __enter__(self) -> sa.Connection:
        self._connection = self._engine.connect()
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.commit()
        self._connection.close()
        self._engine.dispose()


def fill(config: Config) -> None:
    """Enqueue workflows, and add what workers record, without a worker."""
    record = RecordSerializer().serialize
    with closing(WorkflowClient(config)) as client:
        for workflow_id in ("a", "b", "c"):
            client.enqueue(STUDY_QUEUE, "process", workflow_id, '{"request": 1}', ["x", None], attributes=STUDY)
        client.send("a", "commitment", {"committed": ["1.2"]}, "key")
    steps = engine_table(
        "operation_outputs",
        ("workflow_uuid", "function_id", "function_name", "output", "error", "serialization", "retention_timestamp"),
    )
    row = {"function_name": "s", "serialization": FORMAT_NAME, "error": None, "output": None, "retention_timestamp": 1}
    results = [record(each) for each in ({"brain_ml": 1.5}, [1, 2], None, 17.25)]
    made = [row | {"workflow_uuid": "a", "function_id": i, "output": text} for i, text in enumerate(results)]
    made.append(row | {"workflow_uuid": "b", "function_id": 1, "error": record(DeliveryError("PACS refused"))})
    made.append(row | {"workflow_uuid": "b", "function_id": 2, "error": record(OtherError("KeyError"))})
    events = engine_table("workflow_events", ("workflow_uuid", "key", "value", "serialization"))
    with closing_database(config) as connection:
        connection.execute(sa.insert(steps), made)
        value = {"workflow_uuid": "a", "key": "state", "serialization": FORMAT_NAME, "value": record({"state": "sent"})}
        connection.execute(sa.insert(events), [value])


def quick(config: Config) -> Config:
    """The config with heartbeats that need not be waited for long."""
    section = config.engine.model_copy(update={"heartbeat_seconds": 0.02})
    return config.model_copy(update={"engine": section})


@pytest.fixture
def config(either_config: Config) -> Config:
    """A node whose database holds records."""
    config = quick(either_config)
    fill(config)
    return config


class OtherKeyError(KeyError):
    """Pickled in place of an error that is not glionode's own."""


def test_every_record_is_rewritten_as_it_was(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the migration the database holds the records that this version would have written, also the second time."""
    monkeypatch.setattr(migration, "_ROWS_AT_ONCE", 2)
    before = rows(config)
    make_old(config)
    assert "py_pickle" in str(rows(config))
    migrated = migrate_records(config)
    assert (migrated.rewritten, migrated.unreadable) == (11, [])
    assert rows(config) == before
    again = migrate_records(config)
    assert (again.rewritten, again.unreadable) == (0, [])
    with closing(WorkflowClient(config)) as client:
        assert [each.workflow_id for each in client.workflows("process", attributes=STUDY)] == ["a", "b", "c"]


def test_unfinished_workflows_go_to_workers_of_this_version(config: Config) -> None:
    """What 0.1.0 began is finished by workers of this version, and what waits is not before urgent studies."""
    status = engine_table("workflow_status", ("workflow_uuid", "status", "application_version", "priority"))
    with closing_database(config) as connection:
        begun = sa.update(status).where(status.c.workflow_uuid == "a")
        connection.execute(begun.values(status="PENDING", application_version="1"))
        over = sa.update(status).where(status.c.workflow_uuid == "b")
        connection.execute(over.values(status="CANCELLED", application_version="1"))
        connection.execute(sa.update(status).values(priority=0))
    make_old(config)
    migrate_records(config)
    with closing_database(config) as connection:
        found = connection.execute(sa.select(status).order_by(status.c.workflow_uuid)).all()
    assert [(row.application_version, row.priority) for row in found] == [
        (APPLICATION_VERSION, NORMAL_PRIORITY), ("1", 0), (None, NORMAL_PRIORITY),
    ]  # fmt: skip


@pytest.mark.parametrize("opened", ["client", "worker"])
def test_node_that_meets_an_old_database_says_what_to_do(config: Config, opened: str) -> None:
    """Neither receiver nor worker nor command starts; the error says which command to run."""
    make_old(config)
    opening = WorkflowClient if opened == "client" else lambda config: running_worker(config, {}).__enter__()
    with pytest.raises(EngineError, match=MIGRATE_COMMAND):
        opening(config)


def test_interrupted_migration_changes_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it ends halfway, the database is the old one, and the next migration does all of it."""
    make_old(config)
    before = rows(config)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(migration, "_hand_over", interrupted)
        with pytest.raises(KeyboardInterrupt):
            migrate_records(config)
    assert rows(config) == before
    assert migrate_records(config).rewritten == 11


@pytest.mark.parametrize("form", ["py_pickle", None])
def test_migration_runs_no_pickle(config: Config, tmp_path: Path, form: str | None) -> None:
    """A record that 0.1.0 cannot have written is named and stays; nothing that it names is called."""
    make_old(config)
    flag = tmp_path / "flag"
    tamper(config, pickled(Payload(flag)), form, "a" if form else None)
    migrated = migrate_records(config)
    assert not flag.exists()
    assert any(place.startswith("workflow_input.inputs of a") for place in migrated.unreadable)
    if form:
        with closing(WorkflowClient(config)) as client:
            found = client.workflows("process", attributes=STUDY)
        assert [each.unreadable for each in found if each.workflow_id != "a"] == [None, None]
    assert not flag.exists()


def test_running_worker_is_met(config: Config) -> None:
    """A worker of this machine by its lock, and one of another machine by its heartbeats, keep the migration away."""
    make_old(config)
    with worker_lock(config.folder, "host-work-auto"), pytest.raises(ConfigError, match="another worker"):
        migrate_records(config)
    calls = []

    def beats(connection: sa.Connection, *_: object) -> None:
        if "glionode_workers" in str(_[1]) and str(_[1]).startswith("SELECT"):
            calls.append(1)
            if len(calls) == 2:
                connection.execute(sa.update(WORKERS).values(beat=WORKERS.c.beat + 1))

    with closing_database(config) as connection:
        connection.execute(sa.insert(WORKERS).values(executor_id="far-work-auto", beat=4))
    sa.event.listen(sa.Engine, "before_cursor_execute", beats)
    try:
        with pytest.raises(EngineError, match="far-work-auto"):
            migrate_records(config)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", beats)


def test_missing_database_is_an_error(tmp_path: Path) -> None:
    """A wrong path in the config does not become a new database."""
    config = load_config(write_config(tmp_path))
    with pytest.raises(EngineError, match="no file"):
        migrate_records(config)
    assert not (config.folder / "glionode.sqlite").exists()


def test_errors_of_0_1_0_keep_kind_and_text() -> None:
    """An error of glionode keeps its text, another one its kind; its class is never imported."""

    def migrated(error: Exception) -> Exception:
        return RecordSerializer().deserialize(record_of_pickle(pickled(error), is_error=True))

    found = migrated(SelectionRefused("no FLAIR", Selection("1", {}, (), ("caution",))))
    assert (type(found), str(found)) == (SelectionRefused, "no FLAIR")
    found = migrated(ValueError("Doe^Jane"))
    assert (type(found), str(found)) == (OtherError, "ValueError")
    found = migrated(OtherKeyError("Doe^Jane"))
    assert (type(found), str(found)) == (OtherError, "OtherKeyError")


def test_schedules_of_0_1_0_are_read() -> None:
    """The arguments of the hourly workflow hold a time."""
    moment = datetime(2026, 11, 29, 1, 17, tzinfo=UTC)
    text = record_of_pickle(pickled({"args": (moment, None), "kwargs": {}}))
    assert RecordSerializer().deserialize(text) == {"args": (moment, None), "kwargs": {}}


@pytest.mark.parametrize(
    "pickle_bytes",
    [
        pickle.dumps(Path("/")), pickle.dumps({1, 2}), pickle.dumps(eval), b"cos\nsystem\n(S'true'\ntR.", b"", b"\x80",
        pickle.dumps([1])[:-3], pickle.dumps(b"bytes"),
    ],
)  # fmt: skip
def test_other_pickles_are_unreadable(pickle_bytes: bytes) -> None:
    """A pickle that names anything that no record of 0.1.0 held, or that is damaged, is no record."""
    with pytest.raises(UnreadableRecordError):
        record_of_pickle(base64.b64encode(pickle_bytes).decode())


def test_text_that_is_no_pickle_is_unreadable() -> None:
    """Neither JSON nor other text is taken for a pickle."""
    for text in ("no base64!", '{"value":1}', ""):
        with pytest.raises(UnreadableRecordError):
            record_of_pickle(text)


def test_new_database_needs_no_migration(either_config: Config) -> None:
    """The first process notes the form of records before anything is recorded; the next ones find it."""
    for _ in range(2):
        with closing(WorkflowClient(either_config)) as client:
            client.enqueue(NOTICE_QUEUE, "notice", "n", attributes=STUDY)
    assert migrate_records(quick(either_config)).rewritten == 0
