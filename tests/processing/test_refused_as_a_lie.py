"""What a study's images say against it ends the study with the reason, before any network runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from node_process import write_config
from recording_steps import RecordingSteps
from small_study import all_instances, make_small_study, write_small_study

from node.config import load_config
from node.errors import ContentRefused
from node.processing.loaded_method import LoadedMethod
from node.processing.pipeline import Pipeline
from node.processing.request import build_request
from node.segmentation import method
from node.segmentation.exam_reader import ExamReader
from node.segmentation.volume import SourceVolume, image_from_affine

REASON = "by their images, series 3 (T2) and series 4 (FLAIR) are exchanged"


class NoNetworks:
    """In the place of the cascade; running it is the error."""

    def run(self, *_: Any) -> None:
        pytest.fail("the networks ran although the exam was refused")


@pytest.mark.parametrize("is_lie", [True, False])
def test_lie_ends_the_study_before_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lie: bool) -> None:
    """The outcome is refused, with the reason of the check; without a lie the networks are reached."""
    config = load_config(write_config(tmp_path / "node"))
    request = build_request(write_small_study(tmp_path / "study", make_small_study()), config)

    def volumes(_: ExamReader, selection: Any) -> Any:
        image = image_from_affine(np.ones((8, 8, 8), np.float32), np.eye(4))
        return {contrast: SourceVolume(image, series, ()) for contrast, series in selection.chosen.items()}

    def check(_volumes: Any, _brain: Any, _seen: Any, names: Any) -> tuple[str, ...]:
        assert len(names) == 4
        if is_lie:
            raise ContentRefused(REASON)
        return ()

    monkeypatch.setattr(ExamReader, "take", volumes)
    monkeypatch.setattr(ExamReader, "why_unusable", lambda *_: None)
    monkeypatch.setattr(LoadedMethod, "of", lambda *_: NoNetworks())
    monkeypatch.setattr(method, "align_rigid", lambda *_: sitk.Transform(3, sitk.sitkIdentity))
    monkeypatch.setattr(method, "brain_mask", lambda *_: np.ones((8, 8, 8), bool))
    monkeypatch.setattr(method, "check_plausible", check)

    def process() -> Any:
        work = str(tmp_path / "work" / request.workflow_id)
        return Pipeline(config).process(RecordingSteps(request.workflow_id), request.as_json(), work)

    if is_lie:
        outcome = process()
        assert (outcome["state"], outcome["reason"]) == ("refused", REASON)
    else:
        with pytest.raises(pytest.fail.Exception, match="the networks ran"):
            process()


@pytest.mark.parametrize(
    ("keyword", "value", "refusal", "caution"),
    [
        ("StudyDescription", "MRI head postop", None, "Study Description (0008,1030) says 'postop'"),
        ("PatientAge", "012Y", None, "Patient's Age (0010,1010)"),
        ("PatientSpeciesDescription", "Felis catus", "(0010,2201) names another species", None),
        ("StudyDescription", "daily QA phantom", "says 'phantom'", None),
    ],
)
def test_header_is_told_in_the_request(
    tmp_path: Path, keyword: str, value: str, refusal: str | None, caution: str | None
) -> None:
    """What a header says of the subject refuses the request or is among its cautions; the verdicts are kept."""
    study = make_small_study()
    for instance in all_instances(study):
        setattr(instance, keyword, value)
    request = build_request(write_small_study(tmp_path / "study", study), load_config(write_config(tmp_path / "node")))
    if refusal:
        assert refusal in (request.refusal or "")
        assert request.considered is not None
        assert not any(each.chosen for each in request.considered.verdicts)
    else:
        assert request.selection is not None
        assert sum((caution or "") in text for text in request.selection.cautions) == 1
