"""A workflow runs once per id, no step is computed twice, and no workflow is lost when a worker is killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from engine_worker import DEADLINE_SECONDS, engine_worker, lines, start_worker
from faults import wait_until
from node_process import write_config
from small_disk import fill, small_disk

from node.config import Config, load_config
from node.errors import ConfigError, EngineError
from node.study import Destination
from node.workflow.client import WorkflowClient
from node.workflow.engine import APPLICATION_VERSION, NOTICE_QUEUE, STUDY_QUEUE, delivery_queue, running_worker
from node.workflow.serialization import RecordSerializer
from node.workflow.states import PublishedState
from node.workflow.steps import DirectSteps
from node.workflow.workflow_id import WorkflowId
from node.workflow.workflow_record import WorkflowRecord


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config; a workflow in which workers crashed twice fails."""
    engine = {"max_recoveries": 2, "heartbeat_seconds": 0.2, "dead_seconds": 1.0}
    return load_config(write_config(tmp_path, engine=engine))


@pytest.fixture
def client(config: Config) -> Iterator[WorkflowClient]:
    """The engine's client."""
    client = WorkflowClient(config)
    yield client
    client.close()


def worker(config: Config, *flags: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A worker process that is ready, and stopped by SIGTERM unless a test has killed it."""
    return engine_worker(config.folder.parent / "config.toml", *flags)


def counting_folder(config: Config, name: str) -> Path:
    """The folder in which a workflow counts its steps."""
    folder = config.folder / name
    folder.mkdir(parents=True)
    return folder


def record_of(client: WorkflowClient, name: str, workflow_id: str) -> WorkflowRecord:
    """The record of one workflow."""
    (record,) = client.workflows(name, workflow_id)
    return record


def wait_for_end(client: WorkflowClient, name: str, workflow_id: str) -> WorkflowRecord:
    """The record of a workflow, once it is over."""
    wait_until(lambda: record_of(client, name, workflow_id).engine_status in ("SUCCESS", "ERROR"), DEADLINE_SECONDS)
    return record_of(client, name, workflow_id)


@pytest.mark.slow
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
        wait_for_end(client, "deliver", "once-child")
    assert (record.output, record.state, record.error) == ({"first": 1, "second": 1}, None, None)
    assert {name: len(lines(folder / name)) for name in ("first", "second", "child")} == {
        "first": 1,
        "second": 1,
        "child": 1,
    }


@pytest.mark.slow
def test_killed_worker_computes_nothing_twice(config: Config, client: WorkflowClient) -> None:
    """After SIGKILL in the second step, the next worker keeps the first step's result and runs only the second."""
    folder = counting_folder(config, "killed")
    (folder / "hold").touch()
    client.enqueue(STUDY_QUEUE, "process", "killed", str(folder))
    with worker(config) as first:
        wait_until(lambda: lines(folder / "second"), DEADLINE_SECONDS)
        assert record_of(client, "process", "killed").state == PublishedState("segmented")
        first.kill()
        assert first.wait() == -signal.SIGKILL
    (folder / "hold").unlink()
    assert record_of(client, "process", "killed").engine_status == "PENDING"
    with worker(config) as second:
        record = wait_for_end(client, "process", "killed")
        wait_for_end(client, "deliver", "killed-child")
    assert record.output == {"first": 1, "second": 2}
    assert lines(folder / "first") == [str(first.pid)]
    assert lines(folder / "second") == [str(first.pid), str(second.pid)]
    assert lines(folder / "child") == [str(second.pid)]


@pytest.mark.slow
def test_worker_on_a_full_disk_ends_and_finishes_later(tmp_path: Path) -> None:
    """A step whose result does not fit on the disk ends the worker; with room again it finishes the workflow."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        engine = {"heartbeat_seconds": 0.2, "dead_seconds": 1.0}
        config_file = write_config(tmp_path, node={"folder": str(disk / "var")}, engine=engine)
        folder = tmp_path / "large"
        folder.mkdir()
        (folder / "hold").touch()
        with closing(WorkflowClient(load_config(config_file))) as client:
            client.enqueue(NOTICE_QUEUE, "large", "large", str(folder))
            process = start_worker(config_file)
            try:
                wait_until(lambda: lines(folder / "large"), DEADLINE_SECONDS)
                ballast = fill(disk)
                (folder / "hold").unlink()
                assert process.wait(DEADLINE_SECONDS) == 1
                process = start_worker(config_file)  # it may end as well, or wait
                wait_until(
                    lambda: process.poll() is not None or config_file.with_name(f"ready-{process.pid}").exists(),
                    DEADLINE_SECONDS,
                )
                ballast.unlink()
                if process.poll() is not None:
                    process = start_worker(config_file)
                assert wait_for_end(client, "large", "large").output == 300_000
            finally:
                process.kill()
                process.wait()
    assert len(lines(folder / "large")) == 2


@pytest.mark.slow
def test_workflow_whose_outcome_was_not_recorded_is_resumed(config: Config, client: WorkflowClient) -> None:
    """If the database refused a workflow's outcome, the same worker resumes it, and computes no step again."""
    folder = counting_folder(config, "forgotten")
    client.enqueue(STUDY_QUEUE, "process", "forgotten", str(folder))
    with worker(config, "forgets") as only:
        assert wait_for_end(client, "process", "forgotten").output == {"first": 1, "second": 1}
    assert lines(folder / "second") == [str(only.pid)]


@pytest.mark.slow
def test_workflow_that_crashes_its_workers_ends_and_others_go_on(config: Config, client: WorkflowClient) -> None:
    """After engine.max_recoveries crashes the workflow is not begun again; a workflow that only waited goes on."""
    folder = counting_folder(config, "poison")
    (folder / "poison").touch()
    client.enqueue(NOTICE_QUEUE, "receiving", "waiting", str(counting_folder(config, "waiting")), 3600.0)
    with worker(config) as first:
        wait_until(lambda: client._client.list_workflow_steps("waiting"), DEADLINE_SECONDS)
        client.enqueue(STUDY_QUEUE, "process", "poison", str(folder))
        assert first.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    process = start_worker(config.folder.parent / "config.toml")
    assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    with worker(config):
        record = wait_for_end(client, "process", "poison")
        client.send("waiting", "commitment", "here", "key")
        assert wait_for_end(client, "receiving", "waiting").output[0] == "here"
    assert (record.engine_status, record.error) == (
        "ERROR", "the worker died at it too often (engine.max_recoveries)",
    )  # fmt: skip
    assert len(lines(folder / "second")) == 2


@pytest.mark.slow
def test_restarts_in_good_order_are_no_crashes(config: Config, client: WorkflowClient) -> None:
    """A workflow that ran during more restarts than engine.max_recoveries is finished."""
    folder = counting_folder(config, "restarted")
    (folder / "hold").touch()
    client.enqueue(STUDY_QUEUE, "process", "restarted", str(folder))
    for number in range(1, 5):
        with worker(config):
            wait_until(lambda begun=number: len(lines(folder / "second")) == begun, DEADLINE_SECONDS)
    (folder / "hold").unlink()
    with worker(config):
        assert wait_for_end(client, "process", "restarted").output == {"first": 1, "second": 5}


@pytest.mark.slow
def test_waiting_deliveries_hold_up_no_study(tmp_path: Path) -> None:
    """While a hundred deliveries wait for one destination, another delivery to it and a study still run."""
    config = load_config(write_config(tmp_path, [Destination("pacs", "PACS", "127.0.0.1", 104)]))
    with closing(WorkflowClient(config)) as client, worker(config):
        for number in range(100):
            client.enqueue(delivery_queue("pacs"), "sleeping", f"waiting-{number}", 3600.0)
        wait_until(
            lambda: [each.engine_status for each in client.workflows("sleeping")] == 100 * ["PENDING"],
            DEADLINE_SECONDS,
        )
        client.enqueue(delivery_queue("pacs"), "sleeping", "short", 0.0)
        client.enqueue(STUDY_QUEUE, "process", "study", str(counting_folder(config, "study")))
        wait_until(lambda: record_of(client, "sleeping", "short").engine_status == "SUCCESS", DEADLINE_SECONDS)
        assert wait_for_end(client, "process", "study").engine_status == "SUCCESS"


def leave_work(config: Config, client: WorkflowClient) -> Path:
    """Leave a workflow in its second step, and another one that no worker began; returns the first one's folder."""
    folder = counting_folder(config, "begun")
    (folder / "hold").touch()
    client.enqueue(STUDY_QUEUE, "process", "begun", str(folder))
    with worker(config, f"version={APPLICATION_VERSION}") as first:
        wait_until(lambda: lines(folder / "second"), DEADLINE_SECONDS)
        first.kill()
        first.wait()
    (folder / "hold").unlink()
    client.enqueue(STUDY_QUEUE, "process", "fresh", str(counting_folder(config, "fresh")))
    return folder


@pytest.mark.slow
def test_upgrade_finishes_begun_workflows(config: Config, client: WorkflowClient) -> None:
    """A later glionode of the same application version keeps the steps that were recorded, and does the rest."""
    folder = leave_work(config, client)
    with worker(config, f"version={APPLICATION_VERSION}", "release=99.0"):
        assert wait_for_end(client, "process", "begun").output == {"first": 1, "second": 2}
        assert wait_for_end(client, "process", "fresh").output == {"first": 1, "second": 1}
        wait_for_end(client, "deliver", "begun-child")
    assert len(lines(folder / "child")) == 1


@pytest.mark.slow
def test_begun_workflow_waits_for_a_worker_of_its_version(config: Config, client: WorkflowClient) -> None:
    """A worker of another application version runs workflows that no worker began; others wait for their version."""
    folder = leave_work(config, client)
    with worker(config, "version=another"):
        wait_for_end(client, "process", "fresh")
    assert record_of(client, "process", "begun").engine_status == "PENDING"
    assert len(lines(folder / "second")) == 1
    with worker(config, f"version={APPLICATION_VERSION}"):
        assert wait_for_end(client, "process", "begun").output == {"first": 1, "second": 2}


@pytest.mark.slow
def test_sleep_is_not_begun_anew(config: Config, client: WorkflowClient) -> None:
    """A sleep that a kill interrupts ends at its first planned moment: not sooner, and not counted from the restart."""
    seconds = 15.0  # far more than the start of a worker takes
    client.enqueue(NOTICE_QUEUE, "sleeping", "asleep", seconds)
    with worker(config) as first:
        # the step before and the end of the sleep are recorded: neither is to be done again
        wait_until(lambda: len(client._client.list_workflow_steps("asleep")) == 2, DEADLINE_SECONDS)
        asleep = time.time()
        first.kill()
        first.wait()
    wait_until(lambda: time.time() > asleep + seconds / 3)  # so that the two ways of counting give different moments
    restart = time.time()
    with worker(config):
        before, after = wait_for_end(client, "sleeping", "asleep").output
    assert before + seconds <= after < restart + seconds


@pytest.mark.slow
@pytest.mark.parametrize("days", [-1, 0, 1], ids=["set forward", "right", "set back"])
def test_wait_for_a_message_ends_in_time_whatever_the_clock_says(
    config: Config, client: WorkflowClient, days: int
) -> None:
    """A wait for a message that a kill interrupts ends in time, also if the clock was set by a day."""
    folder = counting_folder(config, "waits")
    client.enqueue(NOTICE_QUEUE, "receiving", "waits", str(folder), 3.0)
    with worker(config) as first:
        wait_until(lambda: len(client._client.list_workflow_steps("waits")) > 2, DEADLINE_SECONDS)
        first.kill()
        first.wait()
    with closing(sqlite3.connect(config.folder / "glionode.sqlite")) as database, database:
        (moment,) = database.execute("SELECT output FROM operation_outputs WHERE function_name = 'wait'").fetchone()
        shifted = str(RecordSerializer().serialize(RecordSerializer().deserialize(moment) + days * 86400))
        database.execute("UPDATE operation_outputs SET output = ? WHERE function_name = 'wait'", (shifted,))
    with worker(config):
        assert wait_for_end(client, "receiving", "waits").output == [None, 1]


@pytest.mark.slow
def test_message_is_received_once_over_a_restart(config: Config, client: WorkflowClient) -> None:
    """A message sent while no worker runs is received by the next one; sent twice with one key it is received once."""
    folder = counting_folder(config, "told")
    client.enqueue(NOTICE_QUEUE, "receiving", "told", str(folder), 3600.0)
    with worker(config) as first:
        wait_until(lambda: client._client.list_workflow_steps("told"), DEADLINE_SECONDS)
        first.kill()
        first.wait()
    for _ in range(2):
        client.send("told", "commitment", {"committed": ["1.2"]}, "key")
    with worker(config):
        assert wait_for_end(client, "receiving", "told").output == [{"committed": ["1.2"]}, 1]


@pytest.mark.slow
def test_second_worker_is_refused(config: Config) -> None:
    """A second worker of one host and device on one folder is refused, also at a second try, by naming the file."""
    refusal = r"node\.folder: another worker runs here \(.*-work-auto\.lock is locked\)"
    with worker(config):
        for _ in range(2):
            with pytest.raises(ConfigError, match=refusal), running_worker(config, {}):
                pytest.fail("two workers run under one id")
    with worker(config):
        pass


@pytest.mark.slow
def test_programming_error_is_final(config: Config, client: WorkflowClient) -> None:
    """A workflow that a programming error ended is run once: restarts and look-outs for lost workflows leave it so."""
    folder = counting_folder(config, "defective")
    client.enqueue(NOTICE_QUEUE, "defective", "defective", str(folder))
    with worker(config):
        record = wait_for_end(client, "defective", "defective")
    assert (record.engine_status, record.error) == ("ERROR", "KeyError")
    with worker(config):
        client.enqueue(NOTICE_QUEUE, "sleeping", "meanwhile", 3 * config.engine.dead_seconds)
        wait_for_end(client, "sleeping", "meanwhile")
    assert record_of(client, "defective", "defective") == record
    assert len(lines(folder / "runs")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_ours", "error"), [(True, "pacs: 0xC000 cannot understand"), (False, "ValueError")], ids=["ours", "foreign"]
)
def test_error_is_recorded_without_foreign_text(
    config: Config, client: WorkflowClient, is_ours: bool, error: str
) -> None:
    """A failed workflow has the text of glionode's errors, but only the kind of others, which may repeat a header."""
    client.enqueue(NOTICE_QUEUE, "failing", "failing", "pacs: 0xC000 cannot understand", is_ours)
    with worker(config):
        record = wait_for_end(client, "failing", "failing")
    assert (record.engine_status, record.error) == ("ERROR", error)


def test_workflows_are_listed_by_name_in_order(client: WorkflowClient) -> None:
    """The list holds the workflows of one name, oldest first, with their attributes; without a worker they wait."""
    for workflow_id in ("b", "a", "c"):
        client.enqueue(STUDY_QUEUE, "process", workflow_id, "folder", attributes={"study": workflow_id})
    client.enqueue(NOTICE_QUEUE, "deliver", "other", "folder")
    found = client.workflows("process")
    assert [record.workflow_id for record in found] == ["b", "a", "c"]
    assert {record.engine_status for record in found} == {"ENQUEUED"}
    assert [record.attributes for record in found] == [{"study": "b"}, {"study": "a"}, {"study": "c"}]
    assert [record.workflow_id for record in client.workflows("process", prefix="a")] == ["a"]


def test_missing_database_is_an_engine_error(config: Config) -> None:
    """If the database is gone when a workflow is to be enqueued, the error names its configuration key."""
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
    """Without an engine a step is a plain call, and nothing else has an effect."""
    steps: Any = DirectSteps()
    assert steps.step("sum", lambda left, right: left + right, 2, 3) == 5
    steps.publish("selected")
    steps.start(NOTICE_QUEUE, WorkflowId("digest").delivery("pacs"))
    steps.sleep(1e9)
