"""What becomes of a study: its order, and the workflow around the steps."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from instances import make_instance, write_instance_file
from node_process import write_config
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1
from recording_steps import RecordingSteps
from small_study import all_instances, make_series, make_small_study, study_instance_uid, write_small_study

from node.config import Config, load_config
from node.dicom.uids import derived_uid
from node.errors import ContentRefused, EngineError, ModelPackError
from node.processing.pipeline import Pipeline
from node.processing.request import (
    ProcessingRequest,
    RequestOptions,
    build_request,
    with_first_creation_time,
)
from node.processing.request_sequence import TOLD, request_attributes
from node.processing.selection_steps import following_workflow, known_request, later_workflow
from node.study import Comparison, Contrast, Destination
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE
from node.workflow.workflow_id import WorkflowId

SEGMENTED = {"brain_ml": 1.0, "agreement": {}, "cautions": [], "seconds": 0.0}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config."""
    return load_config(write_config(tmp_path / "node"))


def config_with(tmp_path: Path, *destinations: Destination, **sections: dict[str, Any]) -> Config:
    """A config that sends to ``destinations``."""
    return load_config(write_config(tmp_path / "node", destinations, **sections))


# ---- the order -------------------------------------------------------------------------------------------------


def test_small_study_is_selected(tmp_path: Path, config: Config) -> None:
    """The small study of these tests holds all four contrasts, so that what is refused is what a test spoilt."""
    study = make_small_study()
    request = build_request(write_small_study(tmp_path / "study", study), config)
    assert request.refusal is None
    assert request.selection is not None
    assert {str(contrast): series.series_instance_uid for contrast, series in request.selection.chosen.items()} == {
        contrast: str(instances[0].SeriesInstanceUID) for contrast, instances in study.items()
    }
    assert request.study_instance_uid == study_instance_uid(study)


def test_order_does_not_depend_on_file_names(tmp_path: Path, config: Config) -> None:
    """The same instances under other names, in other folders, in another order, give the same workflow id."""
    study = make_small_study()
    first = build_request(write_small_study(tmp_path / "first", study), config)
    for number, instance in enumerate(reversed(list(all_instances(study)))):
        folder = tmp_path / "second" / str(number % 7)
        folder.mkdir(parents=True, exist_ok=True)
        write_instance_file(folder, instance).rename(folder / f"IM{number:03}")
    second = build_request(tmp_path / "second", config)
    assert second.workflow_id == first.workflow_id


def test_order_does_not_depend_on_what_is_not_used(tmp_path: Path, config: Config) -> None:
    """A late localizer leaves the workflow id as it is: the selected instances are the same."""
    folder = write_small_study(tmp_path / "study", make_small_study())
    first = build_request(folder, config)
    localizer = make_instance(99, study_instance_uid=first.study_instance_uid, series_instance_uid="1.2.3.99")
    localizer.SeriesDescription, localizer.SeriesNumber = "localizer", 99
    write_instance_file(folder, localizer)
    assert build_request(folder, config).workflow_id == first.workflow_id


def test_order_depends_on_instances_and_settings(tmp_path: Path, config: Config) -> None:
    """One instance less, or another mode, gives another workflow id; the device does not."""
    study = make_small_study()
    folder = write_small_study(tmp_path / "study", study)
    whole = build_request(folder, config)
    assert build_request(folder, config.with_segmentation(device="cpu")).workflow_id == whole.workflow_id
    published = build_request(folder, config.with_segmentation(mode="published"))
    (folder / f"{study['T1'][-1].SOPInstanceUID}.dcm").unlink()
    less = build_request(folder, config)
    assert less.selection is not None
    assert len({whole.workflow_id, published.workflow_id, less.workflow_id}) == 3


def test_refused_order_changes_when_the_missing_series_arrives(tmp_path: Path, config: Config) -> None:
    """A study without FLAIR is ordered as refused, always under one id; complete, under another."""
    study = make_small_study()
    flair = study.pop("FLAIR")
    folder = write_small_study(tmp_path / "study", study)
    refused = build_request(folder, config)
    assert refused.selection is None
    assert "no FLAIR" in (refused.refusal or "")
    assert build_request(folder, config).workflow_id == refused.workflow_id
    write_small_study(folder, {"FLAIR": flair})
    complete = build_request(folder, config)
    assert complete.selection is not None
    assert complete.workflow_id != refused.workflow_id


def test_unreadable_study_is_ordered_as_refused(tmp_path: Path, config: Config) -> None:
    """A folder without a readable instance gives an order, too: refused, under the name it is known by."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "1.2.3.dcm").write_bytes(b"not DICOM")
    request = build_request(folder, config, RequestOptions("1.2.3.4"))
    assert (request.study_instance_uid, request.selection) == ("1.2.3.4", None)
    assert "1.2.3.dcm: not a DICOM Part 10 file" in (request.refusal or "")
    assert build_request(folder, config, RequestOptions("1.2.3.4")).workflow_id == request.workflow_id
    (folder / "1.2.4.dcm").write_bytes(b"nor this")
    assert build_request(folder, config, RequestOptions("1.2.3.4")).workflow_id != request.workflow_id


def test_earlier_moment_is_kept(tmp_path: Path) -> None:
    """An order takes over when it was first made from its own result, and only from its own."""
    earlier, now = datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=UTC), datetime.now(UTC)
    request = ProcessingRequest("a" * 32, "1.2.3", None, "a reason", now)
    assert with_first_creation_time(request, tmp_path) == request
    result = {"workflow_id": "b" * 32, "created": earlier.isoformat()}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert with_first_creation_time(request, tmp_path) == request
    (tmp_path / "result.json").write_text(json.dumps(result | {"workflow_id": request.workflow_id}))
    assert with_first_creation_time(request, tmp_path) == replace(request, created=earlier)


# ---- the workflow of a study -----------------------------------------------------------------------------------


@pytest.fixture
def study_request(tmp_path: Path, config: Config) -> ProcessingRequest:
    """The small study's order."""
    return build_request(write_small_study(tmp_path / "study", make_small_study()), config)


def process(config: Config, steps: RecordingSteps, request: ProcessingRequest, folder: Path) -> dict[str, Any]:
    """Run the workflow of one study."""
    return Pipeline(config).process(steps, request.as_json(), str(folder))


def raising(error: Exception) -> Callable[..., Any]:
    """A step that ends so."""

    def step(*_: object) -> None:
        raise error

    return step


def test_order_survives_the_database(study_request: ProcessingRequest) -> None:
    """An order read back from its text is the order: selection, paths, moment and all; unknown keys do no harm."""
    assert ProcessingRequest.from_json(study_request.as_json()) == study_request
    later = json.loads(study_request.as_json()) | {"key_of_a_later_version": 1}
    assert ProcessingRequest.from_json(json.dumps(later)) == study_request


def test_study_goes_its_way(tmp_path: Path, study_request: ProcessingRequest) -> None:
    """Segment, report, then one delivery for each destination in a queue and under an id of its own."""
    peers = [Destination(name, "PACS", "127.0.0.1", 104) for name in ("archive", "reading")]
    steps = RecordingSteps("w.2", segment=lambda *_: SEGMENTED, report=lambda *_: {"volumes_ml": {"whole_tumour": 2.0}})
    outcome = process(config_with(tmp_path, *peers), steps, study_request, tmp_path)
    assert outcome == {"state": "reported", "reason": None, "volumes_ml": {"whole_tumour": 2.0}}
    assert (steps.names, steps.told) == (["segment", "report"], ["selected", "segmented", "reported"])
    files = ["seg.dcm", "sr.dcm"]
    assert steps.started == [
        (
            f"deliver-{peer.name}",
            "deliver",
            f"w.2-{peer.name}",
            study_request.study_instance_uid,
            str(tmp_path),
            peer.name,
            files,
        )
        for peer in peers
    ]


def test_refusal_by_a_step_ends_the_way(tmp_path: Path, config: Config, study_request: ProcessingRequest) -> None:
    """A study that a step refuses is refused with that reason; nothing is sent; the selection is kept."""
    steps = RecordingSteps(segment=raising(ContentRefused("no brain was found")))
    outcome = process(config, steps, study_request, tmp_path / "work")
    assert outcome == {
        "state": "refused", "reason": "no brain was found", "volumes_ml": None, "kind": "ContentRefused",
    }  # fmt: skip
    assert (steps.names, steps.told, steps.started) == (["segment", "refuse"], ["selected", "refused"], [])
    result = json.loads((tmp_path / "work" / "result.json").read_text("utf-8"))
    assert (result["state"], result["reason"], result["files"]) == ("refused", "no brain was found", [])
    assert set(result["selection"]["chosen"]) == {str(contrast) for contrast in Contrast}


def test_refused_order_computes_nothing(tmp_path: Path, config: Config) -> None:
    """A study without a selection is only written down: its reason, its UID, and that there was none."""
    request = ProcessingRequest("a" * 32, "", None, "the folder holds 2 studies", datetime.now(UTC))
    steps = RecordingSteps()
    assert process(config, steps, request, tmp_path / "work")["state"] == "refused"
    assert steps.names == ["refuse"]
    result = json.loads((tmp_path / "work" / "result.json").read_text("utf-8"))
    assert result["study_instance_uid"] is result["selection"] is None


def test_trouble_outside_the_study_orders_another_attempt(
    tmp_path: Path, config: Config, study_request: ProcessingRequest
) -> None:
    """A model that is not installed fails this attempt, naming the command; the next has a doubled pause."""
    pause = config.engine.attempt_pause_seconds
    for attempt in (1, 3):
        steps = RecordingSteps(str(WorkflowId(study_request.workflow_id, attempt)))
        outcome = process(config, steps, study_request, tmp_path / "work")
        assert (outcome["state"], outcome["kind"]) == ("failed", "ModelPackError")
        assert "glionode models pull" in outcome["reason"]
        following = str(WorkflowId(study_request.workflow_id, attempt + 1))
        assert steps.started == [("gpu", "process", following, study_request.as_json(), str(tmp_path / "work"))]
        assert steps.delays == [pause * 2 ** (attempt - 1)]
    assert not (tmp_path / "work" / "result.json").exists()


def test_pauses_between_attempts_stop_growing(tmp_path: Path, study_request: ProcessingRequest) -> None:
    """However many attempts failed, the next one is made after engine.longest_attempt_pause_seconds at most."""
    engine = {"attempts": 100, "attempt_pause_seconds": 0.2, "longest_attempt_pause_seconds": 20.0}
    for attempt, pause in ((7, 12.8), (8, 20.0), (99, 20.0)):
        steps = RecordingSteps(str(WorkflowId(study_request.workflow_id, attempt)))
        process(config_with(tmp_path, engine=engine), steps, study_request, tmp_path / "work")
        assert steps.delays == [pytest.approx(pause)]


def test_last_attempt_orders_no_other(tmp_path: Path, config: Config, study_request: ProcessingRequest) -> None:
    """After engine.attempts attempts the study has failed, and stays so until a human tries it again."""
    steps = RecordingSteps(str(WorkflowId(study_request.workflow_id, config.engine.attempts)))
    assert process(config, steps, study_request, tmp_path / "work")["state"] == "failed"
    assert steps.started == []


def test_superseded_study_is_not_tried_again(tmp_path: Path, study_request: ProcessingRequest) -> None:
    """An attempt that fails while a later order of the study exists is the last one, says so, and alarms nobody."""
    config = config_with(tmp_path, notify={"urls": ["json://127.0.0.1:1/"], "states": ["failed"]})
    steps = RecordingSteps(study_request.workflow_id, later=lambda *_: "b" * 32)
    outcome = process(config, steps, study_request, tmp_path / "work")
    assert outcome["state"] == "failed"
    assert outcome["reason"].endswith("; not tried again, for a later order of the study exists")
    assert steps.started == []


def test_later_order_is_found_in_the_database(tmp_path: Path, config: Config, study_request: ProcessingRequest) -> None:
    """One of another selection that was enqueued after this one; without an engine there is none."""
    assert later_workflow(config, study_request, "") is None
    with closing(WorkflowClient(config)) as client:
        for each in (study_request, replace(study_request, workflow_id="b" * 32)):
            client.enqueue(STUDY_QUEUE, "process", each.workflow_id, "", "", attributes=request_attributes(each))
    assert later_workflow(config, study_request, study_request.workflow_id) == "b" * 32
    assert later_workflow(config, study_request, "b" * 32) is None


def test_order_of_what_is_there_now_is_found_in_the_database(
    tmp_path: Path, config: Config, study_request: ProcessingRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the study was ordered so; a database that does not answer, or no engine, leaves it to the next attempt."""
    outdated = replace(study_request, workflow_id="a" * 32, versions="of before")
    assert known_request(config, outdated, outdated.workflow_id) is None
    with closing(WorkflowClient(config)) as client:
        client.enqueue(
            STUDY_QUEUE, "process", study_request.workflow_id, "", "", attributes=request_attributes(study_request)
        )
    found = known_request(config, outdated, outdated.workflow_id)
    assert found is not None
    assert ProcessingRequest.from_json(found).workflow_id == study_request.workflow_id
    assert known_request(config, study_request, study_request.workflow_id) is None
    assert known_request(config, outdated, "") is None
    monkeypatch.setattr("node.processing.selection_steps.WorkflowClient", raising(EngineError("down")))
    assert known_request(config, outdated, outdated.workflow_id) is None


@pytest.mark.parametrize("force", [False, True])
def test_images_that_lead_to_the_same_series_in_other_words_make_the_report_anew(
    tmp_path: Path, config: Config, study_request: ProcessingRequest, force: bool
) -> None:
    """A request of its own follows, which uses the regions again; a forced one is the same request once more."""
    told = request_attributes(study_request) | {TOLD: "a digest of other words"}
    with closing(WorkflowClient(config)) as client:
        client.enqueue(STUDY_QUEUE, "process", study_request.workflow_id, "", "", attributes=told)
        client.enqueue(STUDY_QUEUE, "process", "c" * 32, "", "", attributes={**told, "comparing": "c" * 32})
    found = following_workflow(config, replace(study_request, force=force), "c" * 32, str(tmp_path / "work"))
    assert found.request is not None
    again = ProcessingRequest.from_json(found.request)
    if force:
        assert found.workflow_id == f"{study_request.workflow_id}.2"
        assert again.regions_of == ""
    else:
        assert found.workflow_id == again.workflow_id != study_request.workflow_id
        assert again.regions_of == study_request.workflow_id
    assert found.folder == str(tmp_path / "work" / again.workflow_id)


@pytest.mark.parametrize("step", ["compare", "refuse"])
def test_disk_trouble_anywhere_orders_another_attempt(
    tmp_path: Path, config: Config, study_request: ProcessingRequest, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Also while images are compared, or a refusal is written down."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    broken = {"compare": "selection_steps.build_request", "refuse": "pipeline.write_refused"}
    monkeypatch.setattr(f"node.processing.{broken[step]}", raising(full))
    study_request = replace(study_request, selection=None, refusal="no FLAIR", is_undecided=step == "compare")
    steps = RecordingSteps(study_request.workflow_id)
    outcome = process(config, steps, study_request, tmp_path / "work")
    assert (outcome["state"], outcome["reason"]) == ("failed", "the disk: No space left on device")
    assert [each[2] for each in steps.started] == [f"{study_request.workflow_id}.2"]


def test_what_images_decided_goes_on_in_a_workflow_of_its_own(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the digest of the selection, as if headers had decided; the comparison ends there and names it."""
    study = make_small_study()
    for instance in study["T1c"]:
        instance.SeriesDescription = study["T1"][0].SeriesDescription
    folder = write_small_study(tmp_path / "study", study)
    request = build_request(folder, config)
    compare = "node.segmentation.enhancement.compare_enhancement"
    monkeypatch.setattr(
        compare, lambda one, other: Comparison("one" if one.series_number == 2 else "other", "brighter")
    )
    steps = RecordingSteps(f"{request.workflow_id}.2")
    outcome = process(config, steps, request, tmp_path / "work" / request.workflow_id)
    ((queue, name, following, text, work),) = steps.started
    decided = ProcessingRequest.from_json(text)
    assert (outcome["state"], outcome["follows"]) == ("compared", following)
    assert (queue, name, following) == ("gpu", "process", f"{decided.workflow_id}.2")
    assert work == str(tmp_path / "work" / decided.workflow_id)
    assert decided.selection is not None
    assert decided.selection.chosen[Contrast.T1C].series_number == 2
    add_localizer(folder, request.study_instance_uid)
    again = build_request(folder, config)
    assert again.workflow_id != request.workflow_id
    assert ProcessingRequest.from_json(Pipeline(config).compare(again)).workflow_id == decided.workflow_id


def with_second_t2(study: dict[str, list[Dataset]]) -> dict[str, list[Dataset]]:
    """A T2 of a later number, which is passed over unless the first cannot be used."""
    again = make_series("T2")
    for instance in again:
        instance.SeriesInstanceUID, instance.SeriesNumber = derived_uid("test", "second T2"), 9
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = derived_uid(instance.SOPInstanceUID)
        instance.PixelSpacing = [2.0, 2.0]
    return {**study, "second T2": again}


def undecodable(instance: Dataset) -> None:
    """A compressed image that is none: headers do not show it."""
    instance.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    instance.PixelData = encapsulate([b"\xff\xd8 no image \xff\xd9"])
    instance["PixelData"].VR = "OB"


def chosen_t2(request: ProcessingRequest) -> int | None:
    """Series Number of the T2."""
    assert request.selection is not None
    return request.selection.chosen[Contrast.T2].series_number


def test_series_whose_pixels_make_no_volume_gives_way_to_the_runner_up(tmp_path: Path, config: Config) -> None:
    """Before any network runs, the study goes on with the next best series, and the verdict says why."""
    study = with_second_t2(make_small_study())
    best = chosen_t2(build_request(write_small_study(tmp_path / "whole", study), config))
    name = {3: "T2", 9: "second T2"}[best or 0]
    undecodable(study[name][5])
    folder = write_small_study(tmp_path / "study", study)
    request = build_request(folder, config)
    assert chosen_t2(request) == best  # headers do not show it
    steps = RecordingSteps(request.workflow_id)
    outcome = process(config, steps, request, tmp_path / "work" / request.workflow_id)
    ((queue, workflow, following, text, work),) = steps.started
    decided = ProcessingRequest.from_json(text)
    assert (steps.names, outcome["state"], outcome["follows"]) == (
        ["segment", "reselect", "succeed"], "reselected", following,
    )  # fmt: skip
    assert (queue, workflow, following) == ("gpu", "process", decided.workflow_id)
    assert work == str(tmp_path / "work" / decided.workflow_id)
    assert chosen_t2(decided) == 12 - (best or 0)
    assert decided.selection is not None
    (verdict,) = [each for each in decided.selection.verdicts if each.series_number == best]
    assert verdict.note.startswith("not usable: pixel data of instance")
    assert "cannot be decoded" in outcome["reason"]


def test_study_without_a_runner_up_is_refused_with_the_reason_of_the_pixels(tmp_path: Path, config: Config) -> None:
    """The refusal names the series and what is wrong with it, and it is final."""
    study = make_small_study()
    undecodable(study["FLAIR"][5])
    request = build_request(write_small_study(tmp_path / "study", study), config)
    outcome = process(config, RecordingSteps(request.workflow_id), request, tmp_path / "work" / "w")
    assert (outcome["state"], outcome["kind"]) == ("refused", "SelectionRefused")
    assert "no FLAIR" in outcome["reason"]
    assert f"pixel data of instance {study['FLAIR'][5].SOPInstanceUID} cannot be decoded" in outcome["reason"]


def test_series_chosen_by_hand_is_not_replaced(tmp_path: Path, config: Config) -> None:
    """If the pixels of a series that a user chose make no volume, the study is refused; nothing else is taken."""
    study = with_second_t2(make_small_study())
    undecodable(study["T2"][5])
    options = RequestOptions(use={Contrast.T2: "3"})
    request = build_request(write_small_study(tmp_path / "study", study), config, options)
    outcome = process(config, RecordingSteps(request.workflow_id), request, tmp_path / "work" / "w")
    assert outcome["state"] == "refused"
    assert "T2 series 3 'T2 TSE tra', chosen by hand, cannot be used: pixel data of instance" in outcome["reason"]


def add_localizer(folder: Path, study: str) -> None:
    """A late series that changes nothing."""
    localizer = make_instance(99, study_instance_uid=study, series_instance_uid="1.2.3.99")
    localizer.SeriesDescription, localizer.SeriesNumber = "localizer", 99
    write_instance_file(folder, localizer)


def test_ids_of_notices_are_those_of_no_delivery(tmp_path: Path, study_request: ProcessingRequest) -> None:
    """Whatever a destination is called, its delivery and the study's notice are two workflows."""
    peer = Destination("notice-reported", "PACS", "127.0.0.1", 104)
    config = config_with(tmp_path, peer, notify={"urls": ["json://127.0.0.1:1/"], "states": ["reported"]})
    steps = RecordingSteps("w", segment=lambda *_: SEGMENTED, report=lambda *_: {"volumes_ml": {}})
    process(config, steps, study_request, tmp_path / "work")
    assert sorted(each[2] for each in steps.started) == ["notice-reported-w", "w-notice-reported"]


@pytest.mark.parametrize(
    "error",
    [TypeError, KeyError, AttributeError, ValueError, ZeroDivisionError, NotImplementedError, RecursionError],
)
@pytest.mark.parametrize("step", ["_segment", "_report", "compare"])
def test_programming_error_ends_the_study_at_once(
    tmp_path: Path, study_request: ProcessingRequest, monkeypatch: pytest.MonkeyPatch, error: type, step: str
) -> None:
    """It has one attempt: the study has failed, humans are told its kind and place, and no header's value leaks."""
    config = config_with(tmp_path, notify={"urls": ["json://127.0.0.1:1/"], "states": ["failed"]})
    if step == "compare":
        monkeypatch.setattr("node.processing.pipeline.decided_request", raising(error("DOE^JOHN")))
        study_request = replace(study_request, selection=None, refusal="undecided", is_undecided=True)
    else:
        monkeypatch.setattr(Pipeline, step, raising(error("DOE^JOHN")))
    steps = RecordingSteps(**({"segment": lambda *_: SEGMENTED} if step == "_report" else {}))
    outcome = process(config, steps, study_request, tmp_path / "work")
    assert (outcome["state"], outcome["kind"]) == ("failed", "DefectError")
    assert outcome["reason"].startswith(f"{error.__name__} in test_pipeline.py:")
    told = ("notice", "notice", "notice-failed-w", "failed", study_request.study_instance_uid, outcome["reason"])
    assert steps.started == [told]
    assert "DOE" not in json.dumps(outcome)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, OSError])
def test_error_of_memory_device_or_disk_has_another_attempt(
    tmp_path: Path, config: Config, study_request: ProcessingRequest, monkeypatch: pytest.MonkeyPatch, error: type
) -> None:
    """The same study may succeed later, when memory is free, the device is back or the disk answers."""
    monkeypatch.setattr(Pipeline, "_segment", raising(error("DOE^JOHN")))
    steps = RecordingSteps(study_request.workflow_id)
    outcome = process(config, steps, study_request, tmp_path / "work")
    assert (outcome["state"], outcome["kind"]) == ("failed", "UnforeseenError")
    assert [each[2] for each in steps.started] == [f"{study_request.workflow_id}.2"]
    assert "DOE" not in json.dumps(outcome)


@pytest.mark.parametrize(("state", "is_told"), [("refused", True), ("failed", False)])
def test_humans_are_told_of_the_states_they_chose(
    tmp_path: Path, study_request: ProcessingRequest, state: str, is_told: bool
) -> None:
    """A state that notify.states lists starts a notice with its reason, another does not."""
    notify = {"urls": ["json://127.0.0.1:1/"], "states": ["refused"]}
    config = config_with(tmp_path, notify=notify, engine={"attempts": 1})
    error = ContentRefused("no brain") if state == "refused" else ModelPackError("no model")
    steps = RecordingSteps(segment=raising(error))
    assert process(config, steps, study_request, tmp_path / "work")["state"] == state
    expected = [("notice", "notice", f"notice-{state}-w", state, study_request.study_instance_uid, str(error))]
    assert steps.started == (expected if is_told else [])


def test_refusal_is_sent_if_the_config_wants_it(tmp_path: Path, study_request: ProcessingRequest) -> None:
    """With delivery.send_refusals each destination gets one small SR that says why there is no result."""
    pacs = Destination("pacs", "PACS", "127.0.0.1", 104)
    config = config_with(tmp_path, pacs, delivery={"send_refusals": True})
    steps = RecordingSteps(segment=raising(ContentRefused("no brain was found")))
    process(config, steps, study_request, tmp_path / "work")
    ((queue, name, _, *_, files),) = steps.started
    assert (queue, name, files) == ("deliver-pacs", "deliver", ["refusal.dcm"])
    document = pydicom.dcmread(tmp_path / "work" / "refusal.dcm")
    assert "No result. no brain was found" in [item.get("TextValue") for item in document.ContentSequence]


def test_images_decide_where_words_do_not(tmp_path: Path, config: Config) -> None:
    """An undecided study is compared first; what images leave open, too, is refused with what they showed."""
    study = make_small_study()
    for instance in study["T1c"]:
        instance.SeriesDescription = study["T1"][0].SeriesDescription
    request = build_request(write_small_study(tmp_path / "study", study), config)
    assert (request.selection, request.is_undecided) == (None, True)
    steps = RecordingSteps()
    outcome = process(config, steps, request, tmp_path / "work")
    assert (steps.told, steps.names) == (["comparing", "refused"], ["compare", "refuse"])
    assert outcome["kind"] == "SelectionRefused"
    result = json.loads((tmp_path / "work" / "result.json").read_text("utf-8"))
    notes = [each["note"] for each in result["selection"]["series"] if each["contrast"] == "T1"]
    assert [note.startswith("not usable: undecided before or after contrast") for note in notes] == [True, True]
    assert all("images" in note for note in notes)


def test_refused_study_keeps_the_verdict_on_each_series(tmp_path: Path, config: Config) -> None:
    """``result.json`` of a study that lacks FLAIR says what every series was taken for; nothing is chosen."""
    study = make_small_study()
    del study["FLAIR"]
    request = build_request(write_small_study(tmp_path / "study", study), config)
    process(config, RecordingSteps(), ProcessingRequest.from_json(request.as_json()), tmp_path / "work")
    told = json.loads((tmp_path / "work" / "result.json").read_text("utf-8"))["selection"]
    assert told["chosen"] == {}
    assert [each["contrast"] for each in told["series"]] == ["T1", "T1c", "T2"]
    assert all(each["evidence"] for each in told["series"])


def test_undecided_study_is_refused_where_images_may_not_be_compared(tmp_path: Path) -> None:
    """With series.compare_images off, a study that only images could decide is refused at once."""
    study = make_small_study()
    for instance in study["T1c"]:
        instance.SeriesDescription = study["T1"][0].SeriesDescription
    config = config_with(tmp_path, series={"compare_images": False})
    request = build_request(write_small_study(tmp_path / "study", study), config)
    assert (request.selection, request.is_undecided) == (None, False)
    assert "undecided" in (request.refusal or "")
