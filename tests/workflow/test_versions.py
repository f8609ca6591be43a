"""Workers of two application versions: no workflow waits for a worker that does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from engine_worker import DEADLINE_SECONDS, engine_worker, lines
from faults import wait_until
from node_process import write_config

from node.config import load_config
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A node whose dead workers are noticed after a second."""
    return write_config(tmp_path, engine={"heartbeat_seconds": 0.2, "dead_seconds": 1.0})


@pytest.fixture
def client(config_file: Path) -> Iterator[WorkflowClient]:
    """The engine's client."""
    with closing(WorkflowClient(load_config(config_file))) as client:
        yield client


def enqueue(client: WorkflowClient, folder: Path, is_held: bool = False) -> None:
    """Enqueue the workflow that counts its steps in ``folder``; its second step may be held."""
    folder.mkdir(parents=True)
    if is_held:
        (folder / "hold").touch()
    client.enqueue(STUDY_QUEUE, "process", folder.name, str(folder))


def is_over(client: WorkflowClient, workflow_id: str) -> bool:
    """True once the workflow ended in SUCCESS."""
    return [each.engine_status for each in client.workflows("process", workflow_id)] == ["SUCCESS"]


@pytest.mark.slow
def test_return_to_an_earlier_version_begins_new_workflows(
    config_file: Path, client: WorkflowClient, tmp_path: Path
) -> None:
    """After a later version ran, a worker of the earlier one begins new workflows again, and says so in its log."""
    for version in ("version=1", "version=2"):
        with engine_worker(config_file, version):
            enqueue(client, tmp_path / version[-1])
            wait_until(lambda name=version[-1]: is_over(client, name), DEADLINE_SECONDS)
    with engine_worker(config_file, "version=1"):
        enqueue(client, tmp_path / "again")
        wait_until(lambda: is_over(client, "again"), DEADLINE_SECONDS)
    assert config_file.with_name("worker.log").read_text("utf-8").count("current_version_replaced") == 1


@pytest.mark.slow
def test_begun_workflows_without_a_worker_of_their_version_are_reported(
    config_file: Path, client: WorkflowClient, tmp_path: Path
) -> None:
    """A workflow that a dead worker of another version began stays as it is, and the log says that it has no worker."""
    folder, log = tmp_path / "begun", config_file.with_name("worker.log")
    with engine_worker(config_file, "version=1") as first:
        enqueue(client, folder, is_held=True)
        wait_until(lambda: lines(folder / "second"), DEADLINE_SECONDS)
        first.kill()
        first.wait()
    (folder / "hold").unlink()
    with engine_worker(config_file, "version=2"):
        wait_until(lambda: "workflows_without_worker" in log.read_text("utf-8"), DEADLINE_SECONDS)
    assert len(lines(folder / "second")) == 1
    assert not is_over(client, "begun")


@pytest.mark.slow
def test_each_version_takes_over_its_own(tmp_path: Path, postgres_database: str) -> None:
    """If the first of all workers by name has another version, a worker of the dead one's version takes over."""
    engine = {"database": postgres_database, "heartbeat_seconds": 0.5, "dead_seconds": 3.0}
    files = {
        device: write_config(
            tmp_path / device,
            node={"folder": str(tmp_path / "shared")},
            engine=engine,
            segmentation={"device": device},
        )
        for device in ("auto", "cpu", "cuda")
    }
    folder = tmp_path / "shared" / "lost"
    with (
        closing(WorkflowClient(load_config(files["cuda"]))) as client,
        engine_worker(files["cuda"], "version=1") as lost,
    ):
        enqueue(client, folder, is_held=True)
        wait_until(lambda: lines(folder / "second"), DEADLINE_SECONDS)
        with engine_worker(files["auto"], "version=2"), engine_worker(files["cpu"], "version=1") as taker:
            lost.kill()
            lost.wait()
            (folder / "hold").unlink()
            wait_until(lambda: is_over(client, "lost"), DEADLINE_SECONDS)
    assert lines(folder / "second") == [str(lost.pid), str(taker.pid)]
