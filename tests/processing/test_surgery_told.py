"""What headers say of surgery on its way into the request, the record of the step, and the reuse of regions."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from node.config import build_config
from node.processing.input_state import InputState
from node.processing.request import ProcessingRequest, _named
from node.processing.result_files import earlier_segmentation
from node.study import Contrast, Instance, Selection, Series

WORD = "Study Description (0008,1030) says 'postop'"


def request_of(tmp_path):
    instance = Instance(tmp_path / "one.dcm", "1.2.3", "1.2.840.10008.5.1.4.1.1.4")
    series = Series("1.2", "1.1", "MR", "T1 KM", 5, "1.3", (instance,))
    selection = Selection("1.1", {Contrast.T1C: series}, ())
    model = "anisotropic_nets_brats17"
    return ProcessingRequest("b" * 32, "1.1", selection, None, datetime.now(UTC), model, regions_of="a" * 32)


def test_refusal_of_exams_after_surgery_is_part_of_the_digest(tmp_path):
    """The setting "refuse" gives a study another workflow; the default leaves the ids of earlier versions."""
    request, state = request_of(tmp_path), InputState()
    ids = [
        _named(replace(request, workflow_id=""), build_config(values), state).workflow_id
        for values in ({}, {"clinical": {"postoperative": "caution"}}, {"clinical": {"postoperative": "refuse"}})
    ]
    assert ids[0] == ids[1] != ids[2]


def test_regions_are_not_used_again_once_headers_tell_of_surgery(tmp_path):
    """Regions of an exam that was taken for one before surgery are made anew when a correction tells of surgery."""
    request, source = request_of(tmp_path), tmp_path / ("a" * 32)
    source.mkdir()
    surgery = {"state": "pre-operative assumed", "evidence": []}
    result = {
        "state": "reported", "brain_ml": 1.0, "agreement": {}, "cautions": [], "replaces": None,
        "selection": {"cautions": []}, "seconds": {"segment": 1.0}, "surgery": surgery,
    }  # fmt: skip
    for name in ("label_map.nii.gz", "disagreement.nii.gz", "regions.npz"):
        (source / name).write_bytes(b"")
    folder = tmp_path / ("b" * 32)
    (source / "result.json").write_text(json.dumps(result))
    assert earlier_segmentation(request, folder, [WORD]) is None
    assert earlier_segmentation(request, folder).surgery == surgery
    surgery["evidence"] = [WORD]
    (source / "result.json").write_text(json.dumps(result))
    assert earlier_segmentation(request, folder, [WORD]).surgery["evidence"] == [WORD]
