"""The bench of scale measures a database that holds what it says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from glionode_bench.scale import _copy_rows, _fill_spool, _run_template, _write_config
from glionode_bench.scale_studies import _UIDS, _coarse

from node.config import load_config
from node.demo.acquisition import STANDARD_EXAM
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.known_studies import KnownStudies
from node.processing.study_status import read_study_statuses
from node.scp.spool import Spool
from node.workflow.client import WorkflowClient


def test_copied_studies_are_delivered_studies(tmp_path: Path) -> None:
    """Each as the one that went through the engine; those in the spool count as judged."""
    config = load_config(_write_config(tmp_path))
    _run_template(config)
    _copy_rows(config, 12)
    _fill_spool(config, 12, 3)
    client = WorkflowClient(config)
    try:
        statuses = read_study_statuses(config, client)
        assert Counter(each.state for each in statuses) == {"delivered": 12}
        assert KnownStudies(config, client).all() == statuses
        held = Spool(config.spool_folder).studies()
        assert len(held) == 3
        assert StudyDispatcher(config, client, Metrics()).judged_before(held) == set(held)
    finally:
        client.close()


def test_the_coarse_exam_covers_the_same_head() -> None:
    """Fewer and larger voxels, to within one of them."""
    for acquisition in STANDARD_EXAM:
        coarse = _coarse(acquisition)
        for axis, spacing in ((0, acquisition.pixel_spacing[1]), (1, acquisition.pixel_spacing[0])):
            assert abs(coarse.size[axis] * 2.0 - acquisition.size[axis] * spacing) <= 2.0
        covered = coarse.size[2] * coarse.spacing_between_slices_mm
        assert abs(covered - acquisition.size[2] * acquisition.spacing_between_slices_mm) <= 2.0


def test_uids_keep_their_length() -> None:
    """Or encoded lengths in the files would be wrong."""
    uid = b"2.25.149370659619406555381835773533822884123"
    assert _UIDS.sub(lambda match: match[0][:-6] + b"000001", uid) == uid[:-6] + b"000001"
