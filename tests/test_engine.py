"""The engine's promises: once per id, nothing computed twice, nothing forgotten when a worker is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import wait_until
from node_process import write_config

from node.config import Config, load_config
from node.engine import NOTICE_QUEUE, STUDY_QUEUE, DurableSteps, WorkflowClient, WorkflowRecord, running_worker
from node.errors import ConfigError, EngineError
from node.steps import DirectSteps

WORKER = Path(__file__).with_name("engine_worker.py")
DEADLINE_SECONDS = 60.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config."""
    return load_config(write_config(tmp_path))


@pytest.fixture
def client(config: Config) -> Iterator[WorkflowClient]:
    """The engine seen from outside."""
    client = WorkflowClient(config)
    yield client
    client.close()


@contextmanager
def worker(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that is ready, and stopped by SIGTERM unless a test has killed it."""
    command = [sys.executable, str(WORKER), str(config.folder.parent / "config.toml")]
    process = subprocess.Popen(command)
    try:
        wait_until((config.folder / f"ready-{process.pid}").exists, DEADLINE_SECONDS)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def counting_folder(config: Config, name: str) -> Path:
    """Where a workflow counts its steps."""
    folder = config.folder / name
    folder.mkdir(parents=True)
    return folder


def lines(file: Path) -> list[str]:
    """The lines of a file that may not be there yet."""
    return file.read_text().splitlines() if file.exists() else []


def record_of(client: WorkflowClient, name: str, workflow_id: str) -> WorkflowRecord:
    """One workflow as recorded."""
    (record,) = client.workflows(name, workflow_id)
    return record


def wait_for_end(client: WorkflowClient, name: str, workflow_id: str) -> WorkflowRecord:
    """The workflow once it is over."""
    wait_until(lambda: record_of(client, name, workflow_id).engine_status in ("SUCCESS", "ERROR"), DEADLINE_SECONDS)
    return record_of(client, name, workflow_id)


def test_same_id_runs_once(config: Config, client: WorkflowClient) -> None:
    """A workflow enqueued three times under one id, also after it ended, runs once."""
    folder = counting_folder(config, "once")
    client.enqueue(STUDY_QUEUE, "process", "once", str(folder))
    client.enqueue(STUDY_QUEUE, "process", "once", str(folder))
    with worker(config):
        record = wait_for_end(client, "process", "once")
        client.enqueue(STUDY_QUEUE, "process", "once", str(folder))
        client.enqueue(STUDY_QUEUE, "process", "next", str(counting_folder(config, "next")))
        wait_for_end(client, "process", "next")
        wait_for_end(client, "child", "once-child")
    assert (record.output, record.state, record.error) == ({"first": 1, "second": 1}, None, None)
    assert {name: len(lines(folder / name)) for name in ("first", "second", "child")} == {
        "first": 1,
        "second": 1,
        "child": 1,
    }


def test_killed_worker_computes_nothing_twice(config: Config, client: WorkflowClient) -> None:
    """After SIGKILL in the second step, the next worker keeps the first step's result and runs only the second."""
    folder = counting_folder(config, "killed")
    (folder / "hold").touch()
    client.enqueue(STUDY_QUEUE, "process", "killed", str(folder))
    with worker(config) as first:
        wait_until(lambda: lines(folder / "second"), DEADLINE_SECONDS)
        assert record_of(client, "process", "killed").state == "segmented"
        first.kill()
        assert first.wait() == -signal.SIGKILL
    (folder / "hold").unlink()
    assert record_of(client, "process", "killed").engine_status == "PENDING"
    with worker(config) as second:
        record = wait_for_end(client, "process", "killed")
        wait_for_end(client, "child", "killed-child")
    assert record.output == {"first": 1, "second": 2}
    assert lines(folder / "first") == [str(first.pid)]
    assert lines(folder / "second") == [str(first.pid), str(second.pid)]
    assert lines(folder / "child") == [str(second.pid)]


def test_sleep_is_not_begun_anew(config: Config, client: WorkflowClient) -> None:
    """A sleep that a kill interrupts ends when it was meant to: not sooner, and not counted from the restart."""
    seconds = 5.0
    client.enqueue(NOTICE_QUEUE, "sleeping", "asleep", seconds)
    with worker(config) as first:
        # the step before, and the sleep itself with its end, are recorded: nothing of it is to be done again
        wait_until(lambda: len(client._client.list_workflow_steps("asleep")) == 2, DEADLINE_SECONDS)
        asleep = time.time()
        first.kill()
        first.wait()
    wait_until(lambda: time.time() > asleep + seconds / 2)  # so that the two ways of counting differ clearly
    restart = time.time()
    with worker(config):
        before, after = wait_for_end(client, "sleeping", "asleep").output
    assert before + seconds <= after < restart + seconds


def test_clock_that_was_set_back_does_not_prolong_a_wait() -> None:
    """A wait whose recorded end lies an hour ahead, for the clock was set back since, lasts no longer than asked."""

    class SetBack(DurableSteps):
        def step(self, name: str, function: Any, *arguments: Any) -> Any:
            return function(*arguments) + 3600.0

    begun = time.monotonic()
    SetBack().sleep(0.05)
    assert time.monotonic() - begun < 3600.0


def test_clock_that_was_set_forward_ends_a_wait() -> None:
    """A wait whose recorded end has passed, for the clock was set forward since, is over at once."""

    class SetForward(DurableSteps):
        def step(self, name: str, function: Any, *arguments: Any) -> Any:
            return function(*arguments) - 7200.0

    begun = time.monotonic()
    SetForward().sleep(3600.0)
    assert time.monotonic() - begun < 3600.0


def test_second_worker_is_refused(config: Config) -> None:
    """Another worker of this host and device on one folder is refused by naming the lock, also by a third try."""
    refusal = r"node\.folder: another worker runs here \(.*-work-auto\.lock is locked\)"
    with worker(config):
        for _ in range(2):
            with pytest.raises(ConfigError, match=refusal), running_worker(config, {}):
                pytest.fail("two workers run under one id")
    with worker(config):
        pass


@pytest.mark.parametrize(
    ("is_ours", "error"), [(True, "pacs: 0xC000 cannot understand"), (False, "ValueError")], ids=["ours", "foreign"]
)
def test_error_is_told_without_foreign_text(config: Config, client: WorkflowClient, is_ours: bool, error: str) -> None:
    """A failed workflow keeps our errors' text; of others only the kind, for their text may repeat a header."""
    client.enqueue(NOTICE_QUEUE, "failing", "failing", "pacs: 0xC000 cannot understand", is_ours)
    with worker(config):
        record = wait_for_end(client, "failing", "failing")
    assert (record.engine_status, record.error) == ("ERROR", error)


def test_workflows_are_listed_by_name_in_order(client: WorkflowClient) -> None:
    """The list holds the workflows of one name, oldest first, with what they are about; without a worker they wait."""
    for workflow_id in ("b", "a", "c"):
        client.enqueue(STUDY_QUEUE, "process", workflow_id, "folder", about={"study": workflow_id})
    client.enqueue(NOTICE_QUEUE, "child", "other", "folder")
    found = client.workflows("process")
    assert [record.workflow_id for record in found] == ["b", "a", "c"]
    assert {record.engine_status for record in found} == {"ENQUEUED"}
    assert [record.about for record in found] == [{"study": "b"}, {"study": "a"}, {"study": "c"}]
    assert [record.workflow_id for record in client.workflows("process", prefix="a")] == ["a"]


def test_database_trouble_is_an_engine_error(config: Config) -> None:
    """A database that is gone is named by its key when a workflow is to be enqueued."""
    client = WorkflowClient(config)
    try:
        for file in config.folder.glob("glionode.sqlite*"):
            file.unlink()
        config.folder.rmdir()
        with pytest.raises(EngineError, match=r"engine\.database"):
            client.enqueue(STUDY_QUEUE, "process", "lost", "folder")
    finally:
        client.close()


def test_direct_steps_compute_at_once() -> None:
    """Without an engine a step is a plain call; nothing else happens."""
    steps: Any = DirectSteps()
    assert steps.step("sum", lambda left, right: left + right, 2, 3) == 5
    steps.tell("selected")
    steps.start(NOTICE_QUEUE, "deliver", "id")
    steps.sleep(1e9)
