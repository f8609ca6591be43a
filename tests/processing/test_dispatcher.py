"""The desk: studies ordered once, tried again by hand, cancelled, and told what they replace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from instances import make_instance, write_instance_file
from node_process import running_node, write_config
from small_study import make_small_study, study_instance_uid, write_small_study

from node.config import Config, build_config, load_config
from node.errors import StorageError, StudyError
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.request import ProcessingRequest, build_request
from node.processing.study_status import read_study_statuses
from node.study import Contrast
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE


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


@pytest.fixture
def dispatcher(config: Config, client: WorkflowClient) -> StudyDispatcher:
    """A desk without a worker: what is ordered waits."""
    return StudyDispatcher(config, client, Metrics())


def receive(config: Config, study: dict, name: str = "small") -> str:
    """Put a study into the spool; its UID."""
    uid = study_instance_uid(make_small_study(name))
    write_small_study(config.spool_folder / uid / "1.2.3", study)
    return uid


def requests(client: WorkflowClient, uid: str) -> list[tuple[str, str]]:
    """The study's workflows: id and engine status, oldest first."""
    found = client.workflows("process", attributes={"study_instance_uid": uid})
    return [(record.workflow_id, record.engine_status) for record in found]


def test_study_is_not_tried_again_while_it_is_processed(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """A study that waits for its turn, or has it, is not ordered a second time."""
    uid = receive(config, make_small_study())
    dispatcher.start(uid)
    with pytest.raises(StudyError, match="is being processed"):
        dispatcher.retry(uid, {})
    assert len(requests(client, uid)) == 1


def test_cancelled_study_can_be_tried_again(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """Cancelling ends what is under way and says so; trying again makes another attempt of the same order."""
    uid = receive(config, make_small_study())
    dispatcher.start(uid)
    (cancelled,) = dispatcher.cancel(uid)
    (line,) = read_study_statuses(config, client)
    assert (line.workflow_id, line.state) == (cancelled, "cancelled")
    assert dispatcher.retry(uid, {}) == f"{cancelled}.2"
    assert requests(client, uid) == [(cancelled, "CANCELLED"), (f"{cancelled}.2", "ENQUEUED")]
    dispatcher.cancel(uid)
    with pytest.raises(StudyError, match="nothing is under way"):
        dispatcher.cancel(uid)


def test_series_chosen_by_hand_makes_another_order(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """--use orders the study with that series; the order that still waited is ended, and named as the earlier one."""
    study = make_small_study()
    uid = receive(config, study)
    dispatcher.start(uid)
    ((first, _),) = requests(client, uid)
    second = dispatcher.retry(uid, {Contrast.T1C: str(study["T1"][0].SeriesInstanceUID), Contrast.T1: "2"})
    assert second != first
    assert requests(client, uid) == [(first, "CANCELLED"), (second, "ENQUEUED")]
    (text,) = (each.input["args"][0] for each in client._client.list_workflows(workflow_ids=[second]))
    request = ProcessingRequest.from_json(text)
    assert request.earlier == (first,)
    assert request.selection is not None
    assert request.selection.chosen[Contrast.T1C].series_instance_uid == study["T1"][0].SeriesInstanceUID


def test_study_deleted_since_is_not_ordered(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """A study that retention deleted between restart and quiet time is not ordered as one without instances."""
    dispatcher.start("1.2.3.4")
    assert client.workflows("process") == []


def test_study_that_may_come_back_is_not_forgotten(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """While retention looks at a study once more, out of its place, an order for it is put off, not dropped."""
    uid = receive(config, make_small_study())
    away = config.spool_folder / ".deleting" / uid
    away.parent.mkdir()
    (config.spool_folder / uid).rename(away)
    with pytest.raises(StorageError, match="looked at for deletion"):
        dispatcher.start(uid)
    assert requests(client, uid) == []


def store(config: Config, study: dict) -> str:
    """Put a study into the spool under the names that the receiver gives; its UID."""
    uid = study_instance_uid(study)
    for instance in (each for several in study.values() for each in several):
        folder = config.spool_folder / uid / instance.SeriesInstanceUID
        folder.mkdir(parents=True, exist_ok=True)
        write_instance_file(folder, instance)
    return uid


def test_what_was_judged_is_settled_by_its_names(
    config: Config, dispatcher: StudyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart a judged study is known without reading its files; another instance makes it open again."""
    study = make_small_study()
    late = study["T2"].pop()
    uid = store(config, study)
    assert dispatcher.judged_before([uid]) == frozenset()
    dispatcher.start(uid)
    with monkeypatch.context() as patch:
        patch.setattr("node.processing.request.read_study", None)
        assert dispatcher.judged_before([uid, "1.2.3"]) == {uid}
    store(config, {"T2": [late]})
    assert dispatcher.judged_before([uid]) == frozenset()


def test_impossible_wish_is_told_at_once(config: Config, client: WorkflowClient, dispatcher: StudyDispatcher) -> None:
    """A series that does not exist, or a study nobody sent, is an error now, not a refused study later."""
    uid = receive(config, make_small_study())
    with pytest.raises(StudyError, match="99"):
        dispatcher.retry(uid, {Contrast.T1C: "99"})
    assert requests(client, uid) == []


def test_study_that_nobody_knows_is_no_study(config: Config, dispatcher: StudyDispatcher) -> None:
    """Trying again and cancelling say so in the same words; of one whose inputs are gone it is said that they are."""
    uid = receive(config, make_small_study())
    for ask in (lambda uid: dispatcher.retry(uid, {}), dispatcher.cancel):
        with pytest.raises(StudyError, match=r"^no study 1\.2\.3\.4$"):
            ask("1.2.3.4")
    dispatcher.start(uid)
    (config.spool_folder / uid).rename(config.folder / "away")
    dispatcher.cancel(uid)
    with pytest.raises(StudyError, match="nothing of it is in the spool"):
        dispatcher.retry(uid, {})


def add_localizer(config: Config, uid: str) -> str:
    """A late series that changes nothing; its UID."""
    localizer = make_instance(99, study_instance_uid=uid, series_instance_uid="1.2.3.99")
    localizer.SeriesDescription, localizer.SeriesNumber = "localizer", 99
    write_instance_file(config.spool_folder / uid / "1.2.3", localizer)
    return "1.2.3.99"


def add_runner_up(config: Config, uid: str) -> None:
    """A late T1c of thicker slices: the choice stays, but it is one of two."""
    late = make_small_study()["T1c"]
    for number, instance in enumerate(late[::2]):
        instance.SeriesInstanceUID, instance.SeriesNumber = "1.2.3.77", 77
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.77.{number + 1}"
        instance.SeriesDescription = "T1 cor post contrast"
    write_small_study(config.spool_folder / uid / "1.2.3.77", {"T1c": late[::2]})


def request_of(client: WorkflowClient, workflow_id: str) -> ProcessingRequest:
    """The request that a workflow was enqueued with."""
    (text,) = (each.input["args"][0] for each in client._client.list_workflows(workflow_ids=[workflow_id]))
    return ProcessingRequest.from_json(text)


def test_a_late_series_that_changes_only_the_words_has_the_report_made_anew(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """The same series under an id of its own, with the regions of the first; a second start changes nothing."""
    uid = receive(config, make_small_study())
    dispatcher.start(uid)
    ((first, _),) = requests(client, uid)
    add_runner_up(config, uid)
    dispatcher.start(uid)
    (_, status), (second, _) = requests(client, uid)
    assert status == "CANCELLED"
    anew = request_of(client, second)
    assert anew.selection is not None
    assert (anew.regions_of, anew.earlier) == (first, (first,))
    assert anew.selection.chosen == request_of(client, first).selection.chosen
    add_localizer(config, uid)
    dispatcher.start(uid)
    assert [workflow_id for workflow_id, _ in requests(client, uid)] == [first, second]
    dispatcher.cancel(uid)
    assert dispatcher.retry(uid, {}) == f"{second}.2"


def test_words_of_a_report_without_record_are_read_from_its_result(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """A workflow of an earlier version does not record them: its result does; without a result nothing is done anew."""
    uid = receive(config, make_small_study())
    request = build_request(config.spool_folder / uid, config)
    attributes = {"study_instance_uid": uid, f"judged-{request.instances}": "yes"}
    folder = config.work_folder / request.workflow_id
    client.enqueue(STUDY_QUEUE, "process", request.workflow_id, request.as_json(), str(folder), attributes=attributes)
    add_localizer(config, uid)
    dispatcher.start(uid)
    assert len(requests(client, uid)) == 1
    folder.mkdir(parents=True)
    result = {"state": "reported", "selection": {"short": ["T1c: the only T1c"], "cautions": []}}
    (folder / "result.json").write_text(json.dumps(result), "utf-8")
    add_runner_up(config, uid)
    dispatcher.start(uid)
    assert len(requests(client, uid)) == 2


def test_changed_setting_runs_nothing_again_by_itself(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """A restart with another mode leaves every study alone whose instances were judged; trying again takes the mode."""
    uid = receive(config, make_small_study())
    dispatcher.start(uid)
    changed = StudyDispatcher(config.with_segmentation(mode="published"), client, Metrics())
    changed.start(uid)
    ((first, _),) = requests(client, uid)
    dispatcher.cancel(uid)
    assert changed.retry(uid, {}) != first
    assert len(requests(client, uid)) == 2


def test_all_that_was_looked_at_is_remembered(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """Handed over as complete, then as stable with a localizer more, a study is one order, also by other settings."""
    study = make_small_study()
    uid = receive(config, study)
    complete = frozenset(str(instances[0].SeriesInstanceUID) for instances in study.values())
    add_localizer(config, uid)
    dispatcher.start(uid, complete)
    dispatcher.start(uid)
    changed = StudyDispatcher(config.with_segmentation(mode="published"), client, Metrics())
    changed.start(uid)
    changed.start(uid, complete)
    assert len(requests(client, uid)) == 1
    (line,) = read_study_statuses(config, client)
    assert len(line.judged) == 2


@pytest.mark.slow
def test_changed_rule_runs_nothing_again_by_itself(
    tmp_path: Path, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """A study refused for a word that nobody knew stays so until it is tried again."""
    study = make_small_study()
    for instance in study["FLAIR"]:
        instance.SeriesDescription = "Wasserdunkel"
        for keyword in ("EchoTime", "RepetitionTime", "InversionTime", "EchoTrainLength"):
            delattr(instance, keyword)
    config = load_config(tmp_path / "config.toml")
    uid = receive(config, study)
    dispatcher.start(uid)
    ((refused, _),) = requests(client, uid)
    rules = {"node": {"folder": str(config.folder)}, "series": {"rules": {"FLAIR": ["wasserdunkel"]}}}
    ruled = build_config(rules)
    taught = StudyDispatcher(ruled, client, Metrics())
    taught.start(uid)
    assert len(requests(client, uid)) == 1
    assert taught.retry(uid, {}) != refused


@pytest.mark.slow
def test_comparison_ends_nothing_that_waits(
    config: Config, client: WorkflowClient, dispatcher: StudyDispatcher
) -> None:
    """An order that only images can decide leaves the study's others waiting, for it may find that they are right."""
    study = make_small_study()
    uid = receive(config, {contrast: study[contrast] for contrast in ("T1", "T2", "FLAIR")})
    dispatcher.start(uid)
    for instance in study["T1c"]:
        instance.SeriesDescription = study["T1"][0].SeriesDescription
    receive(config, study)
    dispatcher.start(uid)
    assert [status for _, status in requests(client, uid)] == ["ENQUEUED", "ENQUEUED"]


@pytest.mark.slow
def test_complete_means_the_four_in_quiet_series(config: Config, dispatcher: StudyDispatcher) -> None:
    """A study is complete with its four quiet series, whatever else still arrives, and not with three."""
    study = make_small_study()
    uid = receive(config, study)
    series = {contrast: str(instances[0].SeriesInstanceUID) for contrast, instances in study.items()}
    assert dispatcher.is_complete(uid, frozenset(series.values()))
    assert not dispatcher.is_complete(uid, frozenset(series.values()) - {series["FLAIR"]})


@pytest.mark.slow
def test_admin_works_while_the_node_runs(tmp_path: Path) -> None:
    """studies, show, retry, cancel and send do their work beside a running node; show tells the whole history."""
    config_file = write_config(tmp_path, engine={"attempts": 1}, assembly={"stable_seconds": 0.5})
    study = make_small_study()
    with running_node(config_file) as node:
        uid = receive(node.config, study)
        client = WorkflowClient(node.config)
        StudyDispatcher(node.config, client, Metrics()).start(uid)
        node.wait_until(lambda: node.study(uid).get("state") == "failed", 60)
        client.close()
        assert "glionode models pull" in node.study(uid)["reason"]
        retried = node.command("retry", uid)
        assert (retried.returncode, retried.stdout.split(":")[0]) == (0, "ordered again")
        node.wait_until(
            lambda: node.study(uid)["workflow_id"].endswith(".2") and node.study(uid)["state"] == "failed", 60
        )
        shown = json.loads(node.command("show", uid).stdout)
        events = [each["event"] for each in shown["history"]]
        assert events[0] == "first instance received", shown["history"]
        assert sum(event.endswith(": ordered") for event in events) == 2
        assert node.command("cancel", uid).returncode == 1
        assert "no destination" in node.command("send", str(config_file), "nowhere").stderr
