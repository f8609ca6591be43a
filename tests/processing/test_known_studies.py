"""The statuses of many studies: the same as those that are read anew, with far less reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from node_process import write_config
from statuses import marks_of
from test_study_status import RecordedWorkflows, delivered, delivery, process

from node.config import Config, load_config
from node.processing.known_studies import KnownStudies
from node.processing.study_status import read_study_statuses
from node.workflow.workflow_record import WorkflowMark, WorkflowRecord

OUTCOME = {"state": "reported", "reason": None}


@dataclass
class Client(RecordedWorkflows):
    """Stands in for the engine's client; ``read``: the ids of the records that it was asked for."""

    read: list[str] = field(default_factory=list)

    def marks(self, names: tuple[str, ...]) -> list[WorkflowMark]:
        """Of both kinds."""
        return [mark for name in names for mark in marks_of(name, super(Client, self).workflows(name))]

    def workflows(self, name: str, workflow_ids: Sequence[str] | None = None) -> list[WorkflowRecord]:
        """All of one name, or those asked for."""
        found = [each for each in super().workflows(name) if workflow_ids is None or each.workflow_id in workflow_ids]
        self.read += [each.workflow_id for each in found]
        return found


def reported(number: int, **facts: object) -> WorkflowRecord:
    """A study that is done, other than all others by its number."""
    return process(f"w{number}", f"1.2.{number}", engine_status="SUCCESS", output=OUTCOME, minute=number, **facts)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config."""
    return load_config(write_config(tmp_path))


def test_all_are_what_is_read_anew(config: Config) -> None:
    """Of several attempts, with deliveries that name no study, and with one that is being received."""
    (config.spool_folder / "1.2.99").mkdir(parents=True)
    again = process("w1.2", "1.2.1", engine_status="PENDING", state="selected", minute=9)
    client = Client([reported(1), reported(2), again], [delivered("pacs"), *_renamed("w2")])
    assert KnownStudies(config, client).all() == read_study_statuses(config, client)


def _renamed(workflow_id: str) -> list[WorkflowRecord]:
    return [replace(delivered("pacs"), workflow_id=f"{workflow_id}-pacs")]


def test_the_latest_are_read_alone(config: Config) -> None:
    """With what is being received; the number of the others is told."""
    client = Client([reported(number) for number in range(10)])
    statuses, unshown = KnownStudies(config, client).latest(3)
    assert [each.study_instance_uid for each in statuses] == ["1.2.7", "1.2.8", "1.2.9"]
    assert unshown == 7
    assert client.read == ["w7", "w8", "w9"]


def test_what_has_not_changed_is_not_read_again(config: Config) -> None:
    """What is active is; so is a study with a new delivery, a later attempt, or another time of its last change."""
    active = process("w3", "1.2.3", engine_status="PENDING", state="selected")
    client = Client([reported(1), reported(2), active])
    known = KnownStudies(config, client)
    known.all()
    client.read.clear()
    assert known.all() == read_study_statuses(config, Client(client.process))
    assert client.read == ["w3"]
    client.read.clear()
    client.deliver += _renamed("w1")
    assert known.all() == read_study_statuses(config, Client(client.process, client.deliver))
    assert client.read == ["w1", "w3", "w1-pacs"]
    client.read.clear()
    client.process[1] = _later(client.process[1])
    assert known.all() == read_study_statuses(config, Client(client.process, client.deliver))
    assert client.read == ["w2", "w3"]


def _later(record: WorkflowRecord) -> WorkflowRecord:
    return replace(record, updated=record.updated + timedelta(seconds=1), output=OUTCOME | {"state": "refused"})


def test_studies_that_are_gone_are_forgotten(config: Config) -> None:
    """Retention deleted their records."""
    client = Client([reported(1), reported(2)])
    known = KnownStudies(config, client)
    known.all()
    client.process.pop(0)
    assert [each.study_instance_uid for each in known.all()] == ["1.2.2"]


def test_a_delivery_without_a_request_is_no_study(config: Config) -> None:
    """As in the list that is read anew."""
    client = Client([], [delivery("pacs")])
    assert KnownStudies(config, client).all() == []
