"""Marks show what the engine's own records show, on either database."""

from __future__ import annotations

from contextlib import closing

from node.config import Config
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE


def test_marks_agree_with_the_records(either_config: Config) -> None:
    """Study, state and last change of each workflow; only of the names asked for."""
    with closing(WorkflowClient(either_config)) as client:
        for number in range(3):
            study = {"study_instance_uid": f"1.2.{number}", "judged-x": "yes"}
            client.enqueue(STUDY_QUEUE, "process", f"w{number}", attributes=study)
        client.enqueue(STUDY_QUEUE, "notice", "n", attributes={})
        client.enqueue(STUDY_QUEUE, "deliver", "w0-pacs")
        client.cancel("w1")
        marks = {mark.workflow_id: mark for mark in client.marks(("process", "deliver"))}
        records = [record for name in ("process", "deliver") for record in client.workflows(name)]
        assert {record.workflow_id for record in records} == set(marks)
        for record in records:
            mark = marks[record.workflow_id]
            assert mark.engine_status == record.engine_status
            assert mark.study_instance_uid == record.attributes.get("study_instance_uid")
            assert mark.updated_ms == int(record.updated.timestamp() * 1000)
        for name in ("process", "deliver"):
            given = client.attributes(name)
            assert sorted(map(repr, given)) == sorted(repr(dict(each.attributes)) for each in client.workflows(name))


def test_workflows_are_listed_by_many_ids(either_config: Config) -> None:
    """More than one statement takes; those of another name are left out."""
    with closing(WorkflowClient(either_config)) as client:
        client.enqueue(STUDY_QUEUE, "process", "w1", attributes={"study_instance_uid": "1.2"})
        client.enqueue(STUDY_QUEUE, "deliver", "w1-pacs")
        ids = [f"w{number}" for number in range(1200)]
        assert [each.workflow_id for each in client.workflows("process", workflow_ids=[*ids, "w1-pacs"])] == ["w1"]
        assert client.workflows("process", workflow_ids=[]) == []
