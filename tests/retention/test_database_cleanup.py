"""What is known of a study goes from the engine's database when nothing else of it is left."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from node_process import write_config
from small_study import make_small_study, study_instance_uid, write_small_study
from statuses import delivery_statuses

from node.config import Config, load_config
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.study_status import StudyStatus, read_study_statuses
from node.retention.cleanup import retention_round
from node.retention.database_cleanup import delete_study_records
from node.workflow.client import WorkflowClient
from node.workflow.engine import NOTICE_QUEUE, STUDY_QUEUE, delivery_queue
from node.workflow.states import StudyState

DONE = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
STUDY, OTHER = "1.2.3", "1.2.4"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config; results need not be kept."""
    config = load_config(write_config(tmp_path, retention={"result_days": 0.0}))
    config.work_folder.mkdir(parents=True)
    return config


@pytest.fixture
def client(config: Config) -> Iterator[WorkflowClient]:
    """The engine seen from outside; two studies were ordered, delivered and told of."""
    client = WorkflowClient(config)
    for study, request in ((STUDY, "w"), (OTHER, "v")):
        attributes = {"study_instance_uid": study, "judged-x": "yes"}
        client.enqueue(STUDY_QUEUE, "process", request, "order", attributes=attributes)
        client.enqueue(delivery_queue("pacs"), "deliver", f"{request}-pacs", study, attributes=attributes)
        client.enqueue(NOTICE_QUEUE, "notice", f"notice-reported-{request}", study, attributes=attributes)
        client.send(f"{request}-pacs", "commitment", {"study": study}, f"key {request}")
        for each in (request, f"{request}-pacs", f"notice-reported-{request}"):
            client.cancel(each)
    yield client
    client.close()


def line(study: str = STUDY, folder: str = "w", **facts: object) -> StudyStatus:
    """A delivered study."""
    found = StudyStatus(
        study, folder, StudyState.DELIVERED, None, DONE, delivery_statuses(pacs="delivered"), DONE, None, folder
    )
    return replace(found, **facts)


def known(client: WorkflowClient) -> set[str]:
    """The ids of all workflows."""
    return {each.workflow_id for name in ("process", "deliver", "notice") for each in client.workflows(name)}


def forget(config: Config, *lines: StudyStatus, now: datetime = DONE) -> list[str]:
    """Forget what was over by ``now``."""
    return delete_study_records(config, lines, lambda moment: moment <= now)


def test_nothing_of_a_study_stays_in_the_database(config: Config, client: WorkflowClient) -> None:
    """Orders, deliveries, notices and messages go; another study's stay."""
    assert forget(config, line(), line(OTHER, "v", since=DONE + timedelta(days=1))) == [STUDY]
    assert known(client) == {"v", "v-pacs", "notice-reported-v"}
    client.close()
    with sqlite3.connect(config.folder / "glionode.sqlite") as database:
        text = "\n".join(database.iterdump())
    database.close()
    assert OTHER in text
    assert STUDY not in text
    assert "w-pacs" not in text


def test_study_of_which_something_is_left_is_known(config: Config, client: WorkflowClient) -> None:
    """Its inputs, its results, earlier results of it, or a workflow that is not over; or its days have not passed."""
    everything = known(client)
    assert forget(config, line(), now=DONE - timedelta(seconds=1)) == []
    for state in ("failed", "reporting", "segmented"):
        assert forget(config, line(state=state)) == []
    for folder, name in ((config.spool_folder, STUDY), (config.work_folder, "w"), (config.work_folder, "earlier")):
        (folder / name).mkdir(parents=True)
        (folder / name / "result.json").write_text(json.dumps({"study_instance_uid": STUDY}))
        assert forget(config, line()) == []
        shutil.rmtree(folder / name)
    config.work_folder.rename(config.folder / "not mounted")
    assert forget(config, line()) == []
    (config.folder / "not mounted").rename(config.work_folder)
    assert known(client) == everything
    client.enqueue(delivery_queue("pacs"), "deliver", "w.2-pacs", STUDY, attributes={"study_instance_uid": STUDY})
    assert forget(config, line()) == []
    client.cancel("w.2-pacs")
    assert forget(config, line()) == [STUDY]


@pytest.mark.slow
def test_forgotten_study_runs_again_when_it_is_sent_again(config: Config, client: WorkflowClient) -> None:
    """Under the same id, and with it the same UIDs; until then, the same input again does nothing."""
    study = make_small_study()
    uid = study_instance_uid(study)
    write_small_study(config.spool_folder / uid / "1.2.3", study)
    dispatcher = StudyDispatcher(config, client, Metrics())
    dispatcher.start(uid)
    (first,) = dispatcher.cancel(uid)
    dispatcher.start(uid)
    away = config.folder / "away"
    (config.spool_folder / uid).rename(away)
    (told,) = [each for each in read_study_statuses(config, client) if each.study_instance_uid == uid]
    assert (told.workflow_id, told.state) == (first, "cancelled")
    assert uid in delete_study_records(config, [told], lambda _: True)
    away.rename(config.spool_folder / uid)
    dispatcher.start(uid)
    (again,) = client.workflows("process", attributes={"study_instance_uid": uid})
    assert (again.workflow_id, again.engine_status) == (first, "ENQUEUED")


def test_hourly_round_forgets(config: Config, client: WorkflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention does it by itself."""
    monkeypatch.setattr("node.retention.cleanup.read_study_statuses", lambda *_: [line()])
    config.spool_folder.mkdir(parents=True)
    retention_round(config)
    assert known(client) == {"v", "v-pacs", "notice-reported-v"}
