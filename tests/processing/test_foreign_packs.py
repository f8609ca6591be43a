"""Exams whose regions come from packs of other software: installed, listed, chosen, and named in SEG and report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from cards import OTHERS, know_cards, make_card
from foreign_packs import bundle_pack, nnunet_pack, onnx_pack, torchscript_pack
from node_process import write_config
from numpy.typing import NDArray
from recording_steps import RecordingSteps

from node.config import Config, load_config
from node.demo.acquisition import AXIAL, STANDARD_EXAM
from node.demo.mr_writer import write_study
from node.demo.patient import SyntheticPatient
from node.methods import added_pack
from node.methods.contract import REGIONS
from node.methods.dropout_pack import SHIPPED
from node.methods.registry import load_method
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest, build_request
from node.segmentation import method, surgery
from node.segmentation.skull import SkullTrace
from node.study import Contrast
from node.workflow.steps import DirectSteps

EDGE = 42  # voxels of 2 mm
_VALUES = {Contrast.T1: (300, 280), Contrast.T1C: (300, 900), Contrast.T2: (300, 500), Contrast.FLAIR: (300, 600)}
SLOW = [pytest.param(each, marks=pytest.mark.slow) for each in (bundle_pack, nnunet_pack)]
KINDS = [torchscript_pack, onnx_pack, *SLOW]


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DICOM files of a head that is a ball, 76 mm wide, with a tumour that is one, off its middle."""
    grid = 2.0 * np.stack(np.meshgrid(*[np.arange(EDGE) - (EDGE - 1) / 2] * 3, indexing="ij"))
    head = (grid**2).sum(0) < 38**2
    label = np.where(((grid - np.array([8, -10, 12]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 15**2, 4, 0).astype(np.uint8)
    signals = {each: np.where(label, ill, well).astype(np.float32) * head for each, (well, ill) in _VALUES.items()}
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -(EDGE - 1)
    patient = SyntheticPatient(0, signals, label, head, affine)
    small = [
        replace(
            each, orientation=AXIAL, size=(EDGE, EDGE, EDGE), pixel_spacing=(2.0, 2.0), centre_mm=(0.0, 0.0, 0.0),
            spacing_between_slices_mm=2.0, slice_thickness_mm=1.5,
        )
        for each in STANDARD_EXAM if each.contrast
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("exam")
    write_study(folder, patient, small)
    return folder


def whole_head(image: sitk.Image, *_: Any) -> NDArray[np.bool_]:
    """The ball, where the brain mask's networks would look for a brain."""
    return np.asarray(sitk.GetArrayFromImage(image) > 150)


@pytest.fixture(autouse=True)
def _no_real_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a real head has: a brain that networks find, tissues to register by, and a plausible picture."""
    monkeypatch.setattr(method, "brain_mask", whole_head)
    monkeypatch.setattr(method, "align_rigid", lambda *_: sitk.Transform(3, sitk.sitkIdentity))
    monkeypatch.setattr(method, "check_plausible", lambda *_: ())


def configured(tmp_path: Path, *models: str, **sections: Any) -> Config:
    """A node with this list of packs."""
    return load_config(write_config(tmp_path / "node", segmentation={"models": list(models)}, **sections))


def add(config: Config, folder: Path) -> None:
    """Install the pack in ``folder``."""
    added_pack.add_pack(folder, config.models_folder)


def processed(config: Config, exam: Path, out: Path) -> dict[str, Any]:
    """``result.json`` of the exam, processed as by ``glionode process``."""
    request = build_request(exam, config)
    outcome = Pipeline(config).process(DirectSteps(), request.as_json(), str(out))
    assert outcome["state"] == "reported", outcome["reason"]
    result: dict[str, Any] = json.loads((out / "result.json").read_text("utf-8"))
    return result


@pytest.mark.parametrize("make", KINDS)
def test_exam_gives_seg_and_report_that_name_the_pack(tmp_path: Path, exam: Path, make: Callable[[Path], Path]) -> None:
    """A pack of each kind answers an exam: its regions alone, named with its version in SEG, report and result."""
    config = configured(tmp_path, "mine")
    add(config, make(tmp_path / "mine"))
    result = processed(config, exam, tmp_path / "out")
    given = ["whole_tumour", "tumour_core"] if make in (torchscript_pack, onnx_pack) else list(REGIONS)
    assert list(result["volumes_ml"]) == given
    assert result["versions"]["model"] == "mine 1"
    assert (result["agreement"], result["versions"]["contrasts"]) == ({}, "T1c, FLAIR")
    seg, report = (pydicom.dcmread(tmp_path / "out" / name) for name in ("seg.dcm", "sr.dcm"))
    algorithms = [each.SegmentationAlgorithmIdentificationSequence[0] for each in seg.SegmentSequence]
    assert {(each.AlgorithmName, each.AlgorithmVersion) for each in algorithms} == {("mine", "1")}
    assert len(algorithms) == len(given)
    text = "\n".join(str(each.value) for each in report.iterall() if each.keyword == "TextValue")
    lacking = "mine does not outline enhancing tumour"
    for told in ("\n".join(result["cautions"]), text):
        assert "mine was used with T1c and FLAIR alone: the method takes no others" in told
        assert (lacking in told) is (len(given) == 2)


def test_regions_lie_where_the_tumour_is(tmp_path: Path, exam: Path) -> None:
    """A network that marks bright T1c finds the ball that is bright there, of 14.1 mL."""
    config = configured(tmp_path, "mine")
    add(config, onnx_pack(tmp_path / "mine"))
    result = processed(config, exam, tmp_path / "out")
    assert result["volumes_ml"]["tumour_core"] == pytest.approx(14.1, abs=0.7)
    assert result["volumes_ml"]["whole_tumour"] == pytest.approx(14.1, abs=2)
    label = nibabel.load(tmp_path / "out" / "label_map.nii.gz")
    found = np.argwhere(np.asarray(label.dataobj) > 0).mean(axis=0)
    x, y, z = nibabel.affines.apply_affine(np.diag([-1, -1, 1, 1]) @ label.affine, found)
    np.testing.assert_allclose((x, y, z), (12, -10, 8), atol=1)


def test_missing_regions_are_told_with_all_four_contrasts(tmp_path: Path, exam: Path, monkeypatch: Any) -> None:
    """Also a pack that takes all that an exam holds says which regions it does not give."""
    know_cards(monkeypatch, make_card("core", optional=OTHERS, outputs=REGIONS[1:2]))
    request = build_request(exam, configured(tmp_path, "core"))
    assert request.selection is not None
    assert request.selection.cautions[0] == "core does not outline whole tumour and enhancing tumour"


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "ILA", "SRP"])
def test_axes_of_the_card_are_those_of_the_network(tmp_path: Path, orientation: str) -> None:
    """A network sees its axes as its card says, and its answer is turned back; one that looks at a corner shows it."""
    folder = torchscript_pack(
        tmp_path / "mine", network={"normalisation": "none", "activation": "sigmoid"},
        grid={"spacing_mm": 1.0, "orientation": orientation},
    )  # fmt: skip
    from node.methods.card import CARD, read_card_file
    from node.methods.foreign_regions import channels_of, from_axes

    card = read_card_file(folder / CARD)
    place = {"z": np.arange(6), "y": np.arange(7), "x": np.arange(8)}
    z, y, x = np.meshgrid(*place.values(), indexing="ij")
    volumes = {each: (100 * z + 10 * y + x + 1).astype(np.float32) for each in (Contrast.T1C, Contrast.FLAIR)}
    channels = channels_of(volumes, card)
    assert (from_axes(channels[0], card.grid) == volumes[Contrast.T1C]).all()
    steps = {"L": 1, "R": -1, "P": 10, "A": -10, "S": 100, "I": -100}
    for axis, letter in enumerate(orientation):
        assert (np.diff(channels[0], axis=axis) == steps[letter]).all()
    assert load_method(card, tmp_path).run(volumes).label_zyx.shape == (6, 7, 8)


def test_pack_replaced_under_its_name_is_another_method(tmp_path: Path, exam: Path) -> None:
    """Another card under the same name gives another request, so that retry makes new results."""
    config = configured(tmp_path, "mine")
    add(config, torchscript_pack(tmp_path / "first" / "mine"))
    first = build_request(exam, config).workflow_id
    assert build_request(exam, config).workflow_id == first
    (config.models_folder / "mine").rename(tmp_path / "away")
    add(config, torchscript_pack(tmp_path / "second" / "mine", version="2"))
    assert build_request(exam, config).workflow_id != first


def test_damaged_pack_fails_the_study_and_is_not_replaced_by_another(tmp_path: Path, exam: Path) -> None:
    """A listed pack whose file is damaged is named in the failure, although another pack could run."""
    config = configured(tmp_path, "mine", SHIPPED.name)
    add(config, torchscript_pack(tmp_path / "mine"))
    (config.models_folder / "mine" / "network.ts").write_bytes(b"damaged")
    request = build_request(exam, config)
    steps = RecordingSteps(request.workflow_id)
    outcome = Pipeline(config).process(steps, request.as_json(), str(tmp_path / "work" / request.workflow_id))
    assert outcome["state"] == "failed"
    assert outcome["reason"] == "model pack mine: network.ts differs from the card"
    assert [each[2] for each in steps.started] == [f"{request.workflow_id}.2"]  # tried again, once it is mended


# ---- before or after surgery -----------------------------------------------------------------------------------


@pytest.fixture
def _trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surgery, "skull_traces", lambda *_: (SkullTrace("left", "missing bone", 14.0),))


def two_packs(tmp_path: Path) -> Config:
    """A node whose first pack was made for exams before surgery, the second for those after it."""
    config = configured(tmp_path, "before", "after")
    add(config, torchscript_pack(tmp_path / "before"))
    add(config, onnx_pack(tmp_path / "after", states=["post-operative"]))
    return config


@pytest.mark.usefixtures("_trace")
def test_images_that_show_surgery_lead_to_the_pack_made_for_it(tmp_path: Path, exam: Path) -> None:
    """The workflow ends before the network runs; another one, with the other pack, says why and does not turn back."""
    config = two_packs(tmp_path)
    request = build_request(exam, config)
    assert request.model == "before"
    steps = RecordingSteps(request.workflow_id)
    work = tmp_path / "work"
    outcome = Pipeline(config).process(steps, request.as_json(), str(work / request.workflow_id))
    assert (outcome["state"], steps.names) == ("reselected", ["segment", "succeed"])
    assert "missing bone in skull and scalp on the left" in outcome["reason"]
    ((_, _, following, text, folder),) = steps.started
    decided = ProcessingRequest.from_json(text)
    assert (decided.model, decided.workflow_id) == ("after", following)
    last = RecordingSteps(following)
    assert Pipeline(config).process(last, text, folder)["state"] == "reported"
    result = json.loads((Path(folder) / "result.json").read_text("utf-8"))
    assert result["versions"]["model"] == "after 1"
    assert any(each.startswith("after was chosen before before: the exam is after") for each in result["cautions"])
    assert any(each.endswith("The method was made for such exams, too") for each in result["cautions"])


@pytest.mark.usefixtures("_trace")
def test_process_goes_on_with_the_other_pack_at_once(tmp_path: Path, exam: Path) -> None:
    """Without an engine there is one result, of the pack made for exams after surgery."""
    assert processed(two_packs(tmp_path), exam, tmp_path / "out")["versions"]["model"] == "after 1"


@pytest.mark.usefixtures("_trace")
@pytest.mark.parametrize("why", ["needs more", "states", "alone"])
def test_where_no_other_pack_fits_the_caution_stays(tmp_path: Path, exam: Path, why: str) -> None:
    """If the other pack cannot do with the exam or was made for no such exams, the first one runs, with its caution."""
    config = configured(tmp_path, "before", *(["after"] if why != "alone" else []))
    add(config, torchscript_pack(tmp_path / "before"))
    if why == "needs more":
        shutil.copytree(exam, tmp_path / "exam")
        exam = tmp_path / "exam"
        (t2,) = [each.series_number for each in STANDARD_EXAM if each.contrast is Contrast.T2]
        shutil.rmtree(exam / str(t2))
        add(config, onnx_pack(tmp_path / "after", states=["post-operative"], needed=["T1c", "T2"]))
    elif why == "states":
        add(config, onnx_pack(tmp_path / "after"))
    result = processed(config, exam, tmp_path / "out")
    assert result["versions"]["model"] == "before 1"
    assert any("The method was made for exams before surgery" in each for each in result["cautions"])
    assert result["surgery"]["state"] == "post-operative"


def test_pack_for_exams_after_surgery_alone_is_told_on_others(tmp_path: Path, exam: Path) -> None:
    """Where nothing else is listed it runs on an exam without a trace of surgery, and the report says so."""
    config = configured(tmp_path, "after")
    add(config, onnx_pack(tmp_path / "after", states=["post-operative"]))
    result = processed(config, exam, tmp_path / "out")
    assert any(each.endswith("The method was made for exams after surgery alone") for each in result["cautions"])
