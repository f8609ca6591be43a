"""Results are made once, and say which results they replace."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from copied_values import set_bytes
from instances import encode_instance, make_instance
from node_process import write_config
from pydicom import Dataset
from recording_steps import RecordingSteps
from small_study import make_small_study, write_small_study

from node.config import Config, load_config
from node.dicom.uids import derived_uid
from node.errors import InstanceRefused
from node.processing import result_files
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest, build_request
from node.processing.result_files import existing_results, write_results
from node.processing.step_records import Segmentation
from node.segmentation import regions_file
from node.segmentation.volume import read_volume
from node.series.explain import selection_as_dict
from node.sr_writer.codes import SEGMENTS
from node.study import Contrast, Software


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config, without a model."""
    return load_config(write_config(tmp_path / "node"))


@pytest.fixture
def study_request(tmp_path: Path, config: Config) -> ProcessingRequest:
    """The small study's order."""
    return build_request(write_small_study(tmp_path / "study", make_small_study()), config)


def write_made(folder: Path, request: ProcessingRequest, **more: Any) -> Path:
    """Results as an earlier version of the node left them."""
    folder.mkdir(parents=True)
    for name in ("seg", "sr"):
        instance = make_instance()
        instance.SOPInstanceUID = derived_uid(request.workflow_id, name)
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        (folder / f"{name}.dcm").write_bytes(encode_instance(instance))
    chosen = request.selection and selection_as_dict(request.selection)
    facts = {"state": "reported", "workflow_id": request.workflow_id, "volumes_ml": {"x": 1.0}, "selection": chosen}
    facts |= {
        "created": "2024-01-02T03:04:05+00:00",
        "sha256": {name: result_files._sha256(folder / name) for name in FILES},
    }
    (folder / "result.json").write_text(json.dumps(facts | more), encoding="utf-8")
    return folder


FILES = ("seg.dcm", "sr.dcm")


def test_results_that_are_there_are_not_made_anew(
    tmp_path: Path, config: Config, study_request: ProcessingRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version, station name or a missing model changes no byte of them: they are delivered as they are."""
    folder = write_made(tmp_path / "work" / study_request.workflow_id, study_request)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(result_files, "__version__", "99")
    steps = RecordingSteps(f"{study_request.workflow_id}.2")
    outcome = Pipeline(config).process(steps, study_request.as_json(), str(folder))
    assert outcome == {"state": "reported", "reason": None, "volumes_ml": {"x": 1.0}}
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_results_are_made_anew_for_who_asks_to_see_it(
    tmp_path: Path, config: Config, study_request: ProcessingRequest
) -> None:
    """On the command line, a folder that holds the results already is no reason to compute nothing."""
    folder = write_made(tmp_path / "work", study_request)
    steps = RecordingSteps("")
    outcome = Pipeline(config, force=True).process(steps, study_request.as_json(), str(folder))
    assert (outcome["state"], outcome["kind"]) == ("failed", "ModelPackError")  # it is not installed here


def spoil(folder: Path, how: str) -> None:
    """Make results that cannot be trusted."""
    result = json.loads((folder / "result.json").read_text("utf-8"))
    if how == "gone":
        (folder / "sr.dcm").unlink()
    elif how == "no DICOM":
        (folder / "sr.dcm").write_bytes(b"no DICOM")
        del result["sha256"]
    elif how == "cut":
        (folder / "seg.dcm").write_bytes((folder / "seg.dcm").read_bytes()[:-2])
    elif how == "another's":
        (folder / "seg.dcm").write_bytes(encode_instance(make_instance(3)))
        del result["sha256"]
    else:
        result |= {"refused": {"state": "refused"}, "another order": {"workflow_id": "x"}, "no JSON": {}}[how]
    text = "{" if how == "no JSON" else json.dumps(result)
    (folder / "result.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("how", ["gone", "no DICOM", "cut", "another's", "refused", "another order", "no JSON"])
def test_results_that_are_not_whole_are_made_anew(tmp_path: Path, study_request: ProcessingRequest, how: str) -> None:
    """Only files that are read back, hold the order's UIDs and the bytes that were written are trusted."""
    folder = write_made(tmp_path / "work", study_request)
    assert existing_results(study_request, folder) is not None
    spoil(folder, how)
    assert existing_results(study_request, folder) is None


def test_results_that_cannot_be_read_now_are_not_made_anew(
    tmp_path: Path, config: Config, study_request: ProcessingRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble of the disk ends the attempt: nothing is written over what is there."""
    folder = write_made(tmp_path / "work", study_request)

    def stale(_: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(result_files.pydicom, "dcmread", stale)
    outcome = Pipeline(config).process(RecordingSteps(study_request.workflow_id), study_request.as_json(), str(folder))
    assert (outcome["state"], outcome["reason"]) == ("failed", "the disk: Stale file handle")


def test_results_that_go_between_two_steps_are_made_in_the_next_attempt(
    tmp_path: Path, config: Config, study_request: ProcessingRequest
) -> None:
    """The report is not made from regions that nobody computed."""
    folder = write_made(tmp_path / "work", study_request)
    pipeline = Pipeline(config)

    def segment_then_lose(*arguments: Any) -> dict[str, Any]:
        facts = pipeline.segment(*arguments)
        (folder / "seg.dcm").unlink()
        return facts

    steps = RecordingSteps(study_request.workflow_id, segment=segment_then_lose)
    outcome = pipeline.process(steps, study_request.as_json(), str(folder))
    assert (outcome["state"], outcome["kind"], len(steps.started)) == ("failed", "VerificationError", 1)


def test_report_names_the_latest_earlier_one(tmp_path: Path, study_request: ProcessingRequest) -> None:
    """Not an order that was cancelled, refused or failed; and it says truly whether other series were chosen."""
    reported, refused, cancelled = "a" * 32, "b" * 32, "c" * 32
    write_made(tmp_path / reported, replace(study_request, workflow_id=reported))
    write_made(tmp_path / refused, replace(study_request, workflow_id=refused), state="refused")
    study_request = replace(study_request, earlier=(cancelled, refused, reported))
    found = result_files._replaced(tmp_path, study_request)
    assert found is not None
    assert found["workflow_id"] == reported
    (text,) = result_files._replacement(study_request, found)
    assert text.startswith(f"replaces the report of 2024-01-02 03:04 ({derived_uid(reported, 'sr')}): ")
    assert text.endswith("of the same series, made anew since")
    (text,) = result_files._replacement(study_request, found | {"selection": {"chosen": {}}})
    assert text.endswith("other series were chosen since")
    assert result_files._replaced(tmp_path, replace(study_request, earlier=(cancelled, refused))) is None
    assert result_files._replacement(study_request, None) == []


def study_with(keyword: str, vr: str, value: bytes) -> dict[str, list[Dataset]]:
    """The small study with these bytes in one attribute of its T1c series."""
    study = make_small_study()
    for instance in study["T1c"]:
        set_bytes(instance, keyword, vr, value)
    return study


def written_for(
    study: dict[str, list[Dataset]], folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Results of ``study``, made without a model."""
    request = build_request(write_small_study(folder / "study", study), config)
    assert request.selection is not None
    shape = read_volume(request.selection.chosen[Contrast.T1C]).image.GetSize()[::-1]
    masks = {concept.region: np.ones(shape, bool) for concept in SEGMENTS}
    monkeypatch.setattr(regions_file, "read_masks", lambda _: masks)
    monkeypatch.setattr(result_files, "_method", lambda *_: Software("test", "1"))
    segmented = Segmentation(brain_ml=1.0, agreement={}, cautions=["a doubt"], seconds=0.0)
    (folder / "work").mkdir()
    return write_results(config, request, folder / "work", segmented)


def test_a_changed_value_is_told_once_and_never_quoted(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result and the report hold one caution that names the attribute, beside those of the method."""
    result = written_for(study_with("PatientAge", "AS", b"45 years"), tmp_path, config, monkeypatch)
    doubt, change = result["cautions"]
    assert (doubt, "PatientAge" in change, "45" in change) == ("a doubt", True, False)
    report = pydicom.dcmread(tmp_path / "work" / "sr.dcm")
    texts = [str(item.get("TextValue")) for item in report.ContentSequence]
    assert [text for text in texts if text.startswith("Caution")] == ["Caution: a doubt", f"Caution: {change}"]
    assert "PatientAge" not in report


def test_a_series_with_an_instance_of_another_patient_is_refused(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slice under another ID leaves it open whose images they are: no result is written."""
    study = make_small_study()
    study["T1c"][7].PatientID = "ANOTHER"
    with pytest.raises(InstanceRefused, match=r"^\(0010,0020\) Patient ID differs"):
        written_for(study, tmp_path, config, monkeypatch)


@pytest.mark.parametrize(("keyword", "vr"), [("PatientName", "PN"), ("PatientID", "LO")])
def test_a_study_of_two_patients_is_refused(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, keyword: str, vr: str
) -> None:
    """No result is written under a name or an ID chosen of two; the reason names the attribute's tag."""
    with pytest.raises(InstanceRefused, match=r"^\(0010,00[12]0\) Patient"):
        written_for(study_with(keyword, vr, b"12\\34"), tmp_path, config, monkeypatch)
    assert not list((tmp_path / "work").glob("*.dcm"))


def made_with_regions(tmp_path: Path, request: ProcessingRequest) -> Path:
    """Results with the files of the regions, their report itself a replacement."""
    assert request.selection is not None
    selection = list(request.selection.cautions)
    segmented = {"brain_ml": 1200.5, "agreement": {"whole_tumour": {"dice": 0.9}}, "seconds": {"segment": 7.5}}
    cautions = ["replaces the report of 2024-01-01", *selection, "small enhancing tumour"]
    folder = tmp_path / "work" / request.workflow_id
    write_made(folder, request, **segmented, cautions=cautions, replaces="0" * 32)
    for name in result_files._REGION_FILES:
        (folder / name).write_bytes(name.encode())
    return folder


def test_regions_of_the_earlier_request_are_used_again(tmp_path: Path, study_request: ProcessingRequest) -> None:
    """Copied byte by byte, with the cautions of the segmentation and the request's own on the selection."""
    earlier = made_with_regions(tmp_path, study_request)
    assert study_request.selection is not None
    selection = replace(study_request.selection, cautions=("another caution",))
    anew = replace(study_request, workflow_id="a" * 32, regions_of=study_request.workflow_id, selection=selection)
    folder = tmp_path / "work" / anew.workflow_id
    found = result_files.earlier_segmentation(anew, folder)
    assert found is not None
    assert found.cautions == ["another caution", "small enhancing tumour"]
    assert (found.brain_ml, found.seconds) == (1200.5, 7.5)
    for name in result_files._REGION_FILES:
        assert (folder / name).read_bytes() == (earlier / name).read_bytes()


@pytest.mark.parametrize("missing", ["result.json", "regions.npz"])
def test_regions_that_are_gone_are_computed(
    tmp_path: Path, config: Config, study_request: ProcessingRequest, missing: str
) -> None:
    """Where the earlier results are deleted, or not there yet, the method runs: here it lacks its model pack."""
    (made_with_regions(tmp_path, study_request) / missing).unlink()
    anew = replace(study_request, workflow_id="a" * 32, regions_of=study_request.workflow_id)
    folder = tmp_path / "work" / anew.workflow_id
    assert result_files.earlier_segmentation(anew, folder) is None
    outcome = Pipeline(config).process(RecordingSteps(anew.workflow_id), anew.as_json(), str(folder))
    assert (outcome["state"], outcome["kind"]) == ("failed", "ModelPackError")
