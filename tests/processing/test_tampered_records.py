"""A row that somebody else wrote runs no code and stops nothing: it is the trouble of one study, which names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest
import sqlalchemy as sa
from command_line import run_glionode
from dbos._schemas.system_database import SystemSchema
from faults import wait_until
from node_process import write_config
from old_database import RECORD_COLUMNS, Payload, pickled, restore, tamper
from threshold_worker import threshold_worker

from node.config import Config, load_config
from node.errors import RetryableError
from node.metrics import Metrics
from node.processing.known_studies import KnownStudies
from node.processing.request_sequence import judged_by_study, workflows_of_study
from node.processing.study_history import read_history
from node.processing.study_status import StudyStatus, read_study_statuses
from node.web.page import Sources, build_page
from node.workflow.client import WorkflowClient
from node.workflow.engine import ACTIVE, STUDY_QUEUE, delivery_queue, migrate_records, running_worker
from node.workflow.records import recorded_step
from node.workflow.steps import Steps
from node.workflow.tables import engine_table, open_database

RETRIED = "925edd8d094e9d8c9e20e969545e2d1c"
NOT_BEGUN = "2.25.305015668649537218896030675205708983884"
STUDY = "2.25.77978816594100830835711330016387389006"
QUICK = {"heartbeat_seconds": 0.05, "dead_seconds": 1.0, "max_recoveries": 2}
FORMS = ["py_pickle", None, "glionode_json", "portable_json", "another"]
PLAIN_TEXT_COLUMNS = {
    "workflow_uuid", "status", "name", "authenticated_user", "assumed_role", "authenticated_roles", "executor_id",
    "application_version", "application_id", "class_name", "config_name", "queue_name", "deduplication_id",
    "queue_partition_key", "forked_from", "owner_xid", "creator_xid", "parent_workflow_id", "serialization",
    "schedule_name", "application_name", "function_name", "child_workflow_id", "destination_uuid", "topic",
    "message_uuid", "key", "schedule_id", "workflow_name", "workflow_class_name", "schedule", "last_fired_at",
    "cron_timezone", "version_id", "version_name", "queue_id",
}  # fmt: skip
"""The engine's other columns of text: it uses them as they are, or as JSON (``authenticated_roles``)."""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node with the database of 0.1.0, migrated."""
    config = load_config(write_config(tmp_path, engine=QUICK))
    restore(config).close()
    migrate_records(config)
    return config


@pytest.fixture
def client(config: Config) -> Iterator[WorkflowClient]:
    """Its engine."""
    with closing(WorkflowClient(config)) as client:
        yield client


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """The file that a payload would create."""
    return tmp_path / "flag"


def statuses(config: Config, client: WorkflowClient) -> dict[str, StudyStatus]:
    """Study Instance UID to status."""
    return {each.study_instance_uid: each for each in read_study_statuses(config, client)}


def test_columns_of_records_are_known() -> None:
    """A release of the engine with another column of text fails here, until it is known whether it holds records."""
    columns = {
        column.name
        for table in SystemSchema.metadata_obj.tables.values()
        for column in table.c
        if isinstance(column.type, sa.String)
    }
    assert columns == RECORD_COLUMNS | PLAIN_TEXT_COLUMNS


@pytest.mark.parametrize("form", FORMS)
def test_no_reader_runs_a_pickle(config: Config, client: WorkflowClient, flag: Path, form: str | None) -> None:
    """Neither ``studies`` nor ``show`` nor the page nor the dispatcher runs a pickle, whatever form its row names."""
    tamper(config, pickled(Payload(flag)), form)
    with closing(WorkflowClient(config)) as later:  # the index of a fresh process, too
        found = statuses(config, later)
        assert [each.state for each in found.values()].count("failed") >= 2
        assert len(found) == 4
        read_history(config, later, STUDY)
        judged_by_study(later)
        workflows_of_study(later, STUDY)

        async def page() -> httpx.Response:
            app = build_page(config, Sources(later, Metrics(), lambda: True))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as asked:
                return await asked.get("/")

        assert anyio.run(page).status_code == 200
    shown = run_glionode("studies", "--config", config.folder.parent / "config.toml")
    assert shown.exit_code == 0
    assert not flag.exists()


def test_tampered_study_is_named_and_the_others_are_listed(config: Config, client: WorkflowClient, flag: Path) -> None:
    """The study of a tampered row has failed, with workflow and column; every other study is what it was."""
    before = statuses(config, client)
    tamper(config, pickled(Payload(flag)), "py_pickle", RETRIED)
    found = statuses(config, client)
    study = found.pop(STUDY)
    assert (study.state, study.kind) == ("failed", "UnreadableRecordError")
    columns = "workflow_output.output, workflow_output.error"
    assert study.reason == f"engine.database: workflow {RETRIED}: {columns} cannot be read"
    assert found == {uid: each for uid, each in before.items() if uid != STUDY}
    assert not flag.exists()


@pytest.mark.parametrize(
    ("table", "column", "text", "reason"),
    [
        ("workflow_output", "output", '{"value":{"reason":null}}', "workflow_output.output holds no state"),
        ("workflow_output", "output", '{"value":["reported"]}', "workflow_output.output holds no state"),
        ("workflow_output", "output", '{"value":{"state":"gone","reason":null}}', "state 'gone', which this version"),
        ("workflow_output", "output", '{"error":{"kind":"KeyError"}}', "workflow_output.output cannot be read"),
        ("workflow_output", "error", '{"value":1}', "workflow_output.error cannot be read"),
    ],
)
def test_record_of_another_type_is_named(
    config: Config, client: WorkflowClient, table: str, column: str, text: str, reason: str
) -> None:
    """JSON that is a record, but not one of this place, is the failure of its study alone."""
    clause = engine_table(table, ("workflow_uuid", column))
    database = open_database(config)
    with database.begin() as connection:
        connection.execute(sa.update(clause).where(clause.c.workflow_uuid == RETRIED).values({column: text}))
    database.dispose()
    found = statuses(config, client)
    assert found[STUDY].state == "failed"
    assert reason in (found[STUDY].reason or "")
    assert RETRIED in (found[STUDY].reason or "")
    assert len(found) == 4


@pytest.mark.parametrize("text", ['["a"]', '{"study_instance_uid":["a"]}', '{"study_instance_uid":{"a":1}}'])
def test_attributes_of_another_type_stop_no_start(config: Config, client: WorkflowClient, text: str) -> None:
    """A receiver that starts reads which studies were judged: all but the one whose attributes are damaged."""
    table = engine_table("workflow_status", ("workflow_uuid", "attributes"))
    database = open_database(config)
    with database.begin() as connection:
        connection.execute(sa.update(table).where(table.c.workflow_uuid == RETRIED).values(attributes=text))
    database.dispose()
    assert NOT_BEGUN in judged_by_study(client)
    assert STUDY not in judged_by_study(client)


DAMAGED = ["", "{", '{"study_instance_uid":', "7", b"\xff", "[" * 100_000]


def damage(config: Config, attributes: str | bytes) -> None:
    """Replace the attributes of one workflow, in a database that has no index of them yet."""
    table = engine_table("workflow_status", ("workflow_uuid", "attributes"))
    database = open_database(config)
    with database.begin() as connection:
        connection.execute(sa.text("DROP INDEX IF EXISTS glionode_workflows_of_study"))
        connection.execute(sa.update(table).where(table.c.workflow_uuid == RETRIED).values(attributes=attributes))
    database.dispose()


@pytest.mark.parametrize("attributes", DAMAGED, ids=range(len(DAMAGED)))
def test_attributes_that_are_no_json_are_named(config: Config, client: WorkflowClient, attributes: str | bytes) -> None:
    """The workflow is a study of its own that failed, with workflow and column; lists and page show all others."""
    before = statuses(config, client)
    damage(config, attributes)
    with closing(WorkflowClient(config)) as later:
        for found in (
            statuses(config, later),
            {each.study_instance_uid: each for each in KnownStudies(config, later).all()},
        ):
            study = found.pop(f"unknown study of workflow {RETRIED}")
            assert (study.state, study.kind) == ("failed", "UnreadableRecordError")
            named = f"engine.database: workflow {RETRIED}: workflow_status.attributes cannot be read"
            assert study.reason == named
            assert found == {uid: each for uid, each in before.items() if uid != STUDY}
        assert NOT_BEGUN in judged_by_study(later)
        assert [each.workflow_id for each in workflows_of_study(later, STUDY)] == []
        assert workflows_of_study(later, NOT_BEGUN) != []


def test_worker_begins_beside_attributes_that_are_no_json(tmp_path: Path) -> None:
    """Of two workflows in the queue the damaged one does not hold up the other, and both are run."""
    config = load_config(write_config(tmp_path, engine=QUICK))
    with closing(WorkflowClient(config)) as client:
        for workflow_id in (RETRIED, "w"):
            client.enqueue(STUDY_QUEUE, "process", workflow_id, attributes={"study_instance_uid": STUDY})
        client.enqueue(delivery_queue("pacs"), "deliver", f"{RETRIED}-pacs")
        damage(config, "{")
        with running_worker(config, {"process": lambda _steps: {"state": "reported", "reason": None}}):
            wait_until(lambda: all(each.engine_status not in ACTIVE for each in client.workflows("process")), 20.0)
        assert {each.workflow_id for each in client.workflows("process") if each.engine_status == "SUCCESS"} == {
            RETRIED,
            "w",
        }


def test_tampered_event_is_named(config: Config, client: WorkflowClient, flag: Path) -> None:
    """What a running delivery published, and somebody else replaced, is named; the delivery counts as failed."""
    events = engine_table("workflow_events", ("workflow_uuid", "value", "serialization"))
    values = {"value": pickled(Payload(flag)), "serialization": "py_pickle"}
    database = open_database(config)
    with database.begin() as connection:
        connection.execute(sa.update(events).where(events.c.workflow_uuid == f"{RETRIED}-archive").values(values))
    database.dispose()
    study = statuses(config, client)[STUDY]
    assert study.state == "failed"
    assert study.deliveries["archive"].state == "failed"
    assert f"workflow {RETRIED}-archive: workflow_events.value of state cannot be read" in str(study.reason)
    assert not flag.exists()


def test_tampered_step_before_others_is_named(tmp_path: Path) -> None:
    """A workflow whose handling of the error does not fit what was recorded after the step ends with that error."""
    config = load_config(write_config(tmp_path, engine=QUICK))

    def process(steps: Steps) -> dict[str, str]:
        try:
            recorded_step(steps, "segment", dict[str, str], dict)
        except RetryableError as error:
            steps.step("later", dict)
            return {"state": "failed", "reason": str(error)}
        pytest.fail("the record was taken")

    steps = engine_table(
        "operation_outputs", ("workflow_uuid", "function_id", "function_name", "output", "serialization")
    )
    rows = [(1, "segment", '{"value":7}'), (2, "DBOS.setEvent", None), (3, "report", '{"value":{}}')]
    with closing(WorkflowClient(config)) as client:
        client.enqueue(STUDY_QUEUE, "process", "w", attributes={"study_instance_uid": STUDY})
        database = open_database(config)
        with database.begin() as connection:
            for number, name, output in rows:
                connection.execute(sa.insert(steps).values(("w", number, name, output, "glionode_json")))
        database.dispose()
        with running_worker(config, {"process": process}):
            wait_until(lambda: client.workflows("process")[0].engine_status not in ACTIVE, 20.0)
        (record,) = client.workflows("process")
    assert record.error is not None
    assert record.error.startswith("engine.database: workflow w, operation_outputs, step 'segment': ")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["py_pickle", "glionode_json", "another"])
def test_worker_runs_no_pickle(config: Config, client: WorkflowClient, flag: Path, form: str) -> None:
    """A worker that starts, resumes and takes from the queue ends each tampered workflow, and runs no pickle."""
    tamper(config, pickled(Payload(flag)), form)

    def active() -> list[str]:
        records = [*client.workflows("process"), *client.workflows("deliver")]
        return [each.workflow_id for each in records if each.engine_status in ACTIVE]

    assert len(active()) == 2
    with threshold_worker(config.folder.parent / "config.toml"):
        wait_until(lambda: not active(), 60.0)
    found = statuses(config, client)
    assert len(found) == 4
    assert [each.state for each in found.values()].count("failed") >= 3
    assert "bd81b9e9a0d412bf125d8ef1c4f12378" in str(found[NOT_BEGUN].reason)
    assert not flag.exists()
