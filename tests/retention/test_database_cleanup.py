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

from node.config import Config, load_config
from node.desk import StudyDesk
from node.engine import NOTICE_QUEUE, STUDY_QUEUE, WorkflowClient, delivery_queue
from node.forgetting import forget_studies
from node.ledger import LedgerLine, read_ledger
from node.metrics import Metrics
from node.retention import retention_round

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
    for study, order in ((STUDY, "w"), (OTHER, "v")):
        about = {"study_instance_uid": study, "judged-x": "yes"}
        client.enqueue(STUDY_QUEUE, "process", order, "order", about=about)
        client.enqueue(delivery_queue("pacs"), "deliver", f"{order}-pacs", study, about=about)
        client.enqueue(NOTICE_QUEUE, "notice", f"notice-reported-{order}", study, about=about)
        client.send(f"{order}-pacs", "commitment", {"study": study}, f"key {order}")
        for each in (order, f"{order}-pacs", f"notice-reported-{order}"):
            client.cancel(each)
    yield client
    client.close()


def line(study: str = STUDY, folder: str = "w", **facts: object) -> LedgerLine:
    """A delivered study."""
    found = LedgerLine(study, folder, "delivered", None, DONE, {"pacs": "delivered"}, DONE, None, folder)
    return replace(found, **facts)


def known(client: WorkflowClient) -> set[str]:
    """The ids of all workflows."""
    return {each.workflow_id for name in ("process", "deliver", "notice") for each in client.workflows(name)}


def forget(config: Config, *lines: LedgerLine, now: datetime = DONE) -> list[str]:
    """Forget what was over by ``now``."""
    return forget_studies(config, lines, lambda moment: moment <= now)


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
    client.enqueue(delivery_queue("pacs"), "deliver", "w.2-pacs", STUDY, about={"study_instance_uid": STUDY})
    assert forget(config, line()) == []
    client.cancel("w.2-pacs")
    assert forget(config, line()) == [STUDY]


def test_forgotten_study_runs_again_when_it_is_sent_again(config: Config, client: WorkflowClient) -> None:
    """Under the same id, and with it the same UIDs; until then, the same input again does nothing."""
    study = make_small_study()
    uid = study_instance_uid(study)
    write_small_study(config.spool_folder / uid / "1.2.3", study)
    desk = StudyDesk(config, client, Metrics())
    desk.start(uid)
    (first,) = desk.cancel(uid)
    desk.start(uid)
    away = config.folder / "away"
    (config.spool_folder / uid).rename(away)
    (told,) = [each for each in read_ledger(config, client) if each.study_instance_uid == uid]
    assert (told.workflow_id, told.state) == (first, "cancelled")
    assert uid in forget_studies(config, [told], lambda _: True)
    away.rename(config.spool_folder / uid)
    desk.start(uid)
    (again,) = client.workflows("process", about={"study_instance_uid": uid})
    assert (again.workflow_id, again.engine_status) == (first, "ENQUEUED")


def test_hourly_round_forgets(config: Config, client: WorkflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention does it by itself."""
    monkeypatch.setattr("node.retention.read_ledger", lambda *_: [line()])
    config.spool_folder.mkdir(parents=True)
    retention_round(config)
    assert known(client) == {"v", "v-pacs", "notice-reported-v"}
