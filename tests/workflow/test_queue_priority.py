"""Workers begin waiting workflows in the order of their priority, also after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from engine_worker import DEADLINE_SECONDS, engine_worker, lines
from faults import wait_until

from node.config import Config
from node.workflow.client import WorkflowClient
from node.workflow.engine import NOTICE_QUEUE, STUDY_QUEUE
from node.workflow.priority_levels import LEVELS, level_of_priority, priority_of_level


@pytest.fixture
def client(either_config: Config) -> Iterator[WorkflowClient]:
    """The engine's client."""
    with closing(WorkflowClient(either_config)) as client:
        yield client


def enqueue(config: Config, client: WorkflowClient, name: str, priority: int) -> Path:
    """A workflow that notes its steps in a folder of its own."""
    folder = config.folder / name
    folder.mkdir(parents=True)
    client.enqueue(STUDY_QUEUE, "process", name, str(folder), priority=priority)
    return folder


@pytest.mark.slow
def test_workers_begin_in_the_order_of_priority(either_config: Config, client: WorkflowClient) -> None:
    """Of those that wait, the lowest number is begun first, after a kill, too; a child has its parent's priority."""
    config = either_config
    begun = enqueue(config, client, "begun", 40)
    (begun / "hold").touch()
    with engine_worker(config.folder.parent / "config.toml") as first:
        wait_until(lambda: lines(begun / "second"), DEADLINE_SECONDS)
        names = {"low": 40, "late": 30, "urgent": 10, "raised": 40, "high": 20}
        folders = [enqueue(config, client, name, priority) for name, priority in names.items()]
        assert client.change_priority("raised", 5)
        assert not client.change_priority("begun", 5)
        first.kill()
        first.wait()
    (begun / "hold").unlink()
    with engine_worker(config.folder.parent / "config.toml"):
        wait_until(lambda: all(lines(folder / "second") for folder in folders), DEADLINE_SECONDS)
        wait_until(lambda: len(client.workflows("deliver")) == 6, DEADLINE_SECONDS)
    order = sorted(folders, key=lambda folder: (folder / "first").stat().st_mtime_ns)
    assert [folder.name for folder in order] == ["raised", "urgent", "high", "late", "low"]
    children = {each.workflow_id: each.priority for each in client.workflows("deliver")}
    assert children["urgent-child"] == 10
    assert children["raised-child"] == 5
    assert not client.change_priority("urgent", 1)


def test_delayed_attempt_can_be_raised(either_config: Config, client: WorkflowClient) -> None:
    """What waits to be tried again waits; an unknown workflow, or one that is over, does not."""
    client._client.enqueue(
        {"queue_name": NOTICE_QUEUE, "workflow_name": "notice", "workflow_id": "later", "delay_seconds": 3600.0}
    )
    assert client.change_priority("later", 1)
    assert client.workflows("notice")[0].priority == 1
    client.cancel("later")
    assert not client.change_priority("later", 2)
    assert not client.change_priority("unknown", 2)


def test_levels_have_numbers() -> None:
    """A level comes back from its number, and other numbers are told as they are."""
    for level, number in LEVELS.items():
        assert (priority_of_level(level), level_of_priority(number)) == (number, level)
    assert (priority_of_level(7), level_of_priority(7)) == (7, "7")
