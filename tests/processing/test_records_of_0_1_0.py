"""What glionode 0.1.0 recorded is read, and finished, by this version.

``data/database_0_1_0.sql`` is the SQLite database of a node of version 0.1.0, and the JSON file beside it says what
that version showed of it: one study delivered to one destination and retried for the other, one refused, one of which a
delivery was cancelled, and one not begun. ``{host}`` stands for the node's host name.
"""

from __future__ import annotations

import base64
import json
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fake_archive import uids_of
from faults import FakePacs, wait_until
from instances import encode_instance, make_instance
from node_process import write_config
from old_database import restore
from pydicom.uid import MRImageStorage
from threshold_worker import threshold_worker

from node.config import Config, load_config
from node.delivery.records import Answer, Plan
from node.dicom.uids import derived_uid
from node.errors import UnreadableRecordError
from node.processing.request import ProcessingRequest
from node.processing.request_sequence import earlier_requests, judged_by_study, workflows_of_study
from node.processing.step_records import SEGMENTED, FollowingWorkflow, ReportedResults, ResultsExist, Segmentation
from node.processing.study_history import read_history
from node.processing.study_status import read_study_statuses
from node.workflow.client import WorkflowClient
from node.workflow.engine import migrate_records
from node.workflow.records import recorded_step
from node.workflow.serialization import RecordSerializer

DATA = Path(__file__).with_name("data")
EXPECTED = json.loads((DATA / "database_0_1_0.json").read_text("utf-8"))
RETRIED, _, _, NOT_BEGUN = EXPECTED["studies"]
FOLDER_OF_0_1_0 = "/tmp/glionode-0.1.0/var"
LIMIT_SECONDS = 60.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node with the database of 0.1.0, migrated."""
    config = load_config(write_config(tmp_path, engine={"heartbeat_seconds": 0.05, "dead_seconds": 1.0}))
    restore(config).close()
    assert migrate_records(config).unreadable == []
    return config


@pytest.fixture
def client(config: Config) -> Iterator[WorkflowClient]:
    """Its engine."""
    with closing(WorkflowClient(config)) as client:
        yield client


def test_statuses_are_those_that_0_1_0_showed(config: Config, client: WorkflowClient) -> None:
    """Every study's state, reason, deliveries and judged instances are what 0.1.0 itself read from its database."""
    found = [each.as_dict() | {"judged": sorted(each.judged)} for each in read_study_statuses(config, client)]
    assert [each.pop("waiting") is not None for each in found] == [False, False, False, True]  # a key since then
    assert found == [study | {"attention": []} for study in EXPECTED["studies"]]


@pytest.mark.parametrize("study", EXPECTED["history"])
def test_history_is_the_one_that_0_1_0_showed(config: Config, client: WorkflowClient, study: str) -> None:
    """Every recorded step of a study is listed at its moment (of instances nothing is left: the spool is another)."""
    found = [[moment.isoformat(), event] for moment, event in read_history(config, client, study)]
    assert found == EXPECTED["history"][study]


@pytest.mark.parametrize("study", EXPECTED["workflows"])
def test_workflows_are_found_by_study(client: WorkflowClient, study: str) -> None:
    """The dispatcher finds a study's workflows of 0.1.0, and what was judged, so that nothing is processed twice."""
    records = workflows_of_study(client, study)
    assert [each.workflow_id for each in records] == EXPECTED["workflows"][study]
    assert list(earlier_requests(records, "another")) == EXPECTED["workflows"][study]
    assert judged_by_study(client).keys() == EXPECTED["workflows"].keys()


STEPS: dict[str, Any] = {
    "segment": Segmentation, "report": ReportedResults, "plan": Plan, "send": list[Answer],
}  # fmt: skip
"""What the steps of today return, by the names that 0.1.0 recorded too."""


class Recorded:
    """Steps that give back what 0.1.0 recorded."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def step(self, *_: Any) -> Any:
        """What was recorded, whatever the step would do now."""
        return self._value


def test_requests_are_read() -> None:
    """The key ``is_by_hand`` of a request of 0.1.0 is ``force`` today; keys that are unknown today are ignored."""
    text = '{"workflow_id":"a","study_instance_uid":"1.2","selection":null,"refusal":"no FLAIR","created":'
    request = ProcessingRequest.from_json(text + '"2026-11-29T00:14:43.391635Z","is_by_hand":true,"gone":1}')
    assert (request.force, request.refusal) == (True, "no FLAIR")


@pytest.mark.parametrize("text", ["", "7", '{"workflow_id":"Doe^Jane"}'])
def test_text_that_is_no_request_is_unreadable(text: str) -> None:
    """Arguments that somebody else wrote are an error that names the place of the fault, not what stands there."""
    with pytest.raises(UnreadableRecordError) as error:
        ProcessingRequest.from_json(text)
    assert "Doe" not in str(error.value)


def test_steps_of_a_comparison_are_read() -> None:
    """The key ``order`` of the step ``succeed`` of 0.1.0 is ``request`` today."""
    recorded = Recorded({"workflow_id": "b.2", "order": None, "folder": "results/b"})
    found = recorded_step(recorded, "succeed", FollowingWorkflow, lambda: FollowingWorkflow("", None, ""))
    assert found == FollowingWorkflow("b.2", None, "results/b")


@pytest.mark.parametrize("name", STEPS)
def test_recorded_steps_are_read(config: Config, name: str) -> None:
    """Every result that 0.1.0 recorded for a step is read as what the step returns today."""
    with closing(sqlite3.connect(config.folder / "glionode.sqlite")) as database:
        query = "SELECT output FROM operation_outputs WHERE function_name = ?"
        values = [RecordSerializer().deserialize(output) for (output,) in database.execute(query, (name,))]
    assert values
    for value in values:
        found = recorded_step(Recorded(value), name, STEPS[name], lambda: pytest.fail("the step must not run again"))
        for one, recorded in zip(found, value, strict=True) if name == "send" else [(found, value)]:
            kept = {key: each for key, each in asdict(one).items() if key in recorded}
            assert kept
            assert kept == {key: recorded[key] for key in kept}


def test_step_that_found_existing_results_is_read() -> None:
    """What 0.1.0 recorded if the results were there, ``{"is_made": True}``, is no segmentation."""
    found = recorded_step(Recorded({"is_made": True}), "segment", SEGMENTED, lambda: pytest.fail("it ran again"))
    assert found == ResultsExist(is_made=True)


def moved(serialized: str, folder: Path) -> str:
    """Arguments of a workflow as the engine records them, with another node's folder."""

    def move(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(FOLDER_OF_0_1_0, str(folder))
        if isinstance(value, tuple | list):
            return type(value)(move(each) for each in value)
        return {key: move(each) for key, each in value.items()} if isinstance(value, dict) else value

    return base64.b64encode(pickle.dumps(move(pickle.loads(base64.b64decode(serialized))))).decode()


def states(config: Config, client: WorkflowClient) -> dict[str, str]:
    """Study Instance UID to the study's state."""
    return {each.study_instance_uid: each.state for each in read_study_statuses(config, client)}


@pytest.mark.slow
def test_delivery_that_0_1_0_began_is_finished(tmp_path: Path) -> None:
    """A worker of this version takes up a delivery after the recorded steps of 0.1.0: each result is sent once more."""
    digest = RETRIED["folder"]
    with FakePacs(sop_classes=[MRImageStorage]) as archive:
        engine = {"heartbeat_seconds": 0.2, "dead_seconds": 1.0}
        config_file = write_config(tmp_path, [replace(archive.destination, name="archive")], engine=engine)
        config = load_config(config_file)
        with closing(restore(config)) as database:
            database.execute("UPDATE workflow_status SET status='CANCELLED' WHERE status='ENQUEUED'")
            for workflow_id, inputs in database.execute("SELECT workflow_uuid, inputs FROM workflow_input").fetchall():
                row = (moved(inputs, config.folder), workflow_id)
                database.execute("UPDATE workflow_input SET inputs=? WHERE workflow_uuid=?", row)
            database.commit()
        migrate_records(config)
        for number, name in enumerate(("seg", "sr"), 1):
            instance = make_instance(number)
            instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = derived_uid(digest, name)
            file = config.work_folder / digest / f"{name}.dcm"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_instance(instance))
        with closing(WorkflowClient(config)) as client, threshold_worker(config_file):
            wait_until(lambda: states(config, client)[RETRIED["study_instance_uid"]] == "delivered", LIMIT_SECONDS)
    assert uids_of(archive.received) == [derived_uid(digest, "seg"), derived_uid(digest, "sr")]
