"""``glionode demo``: an embedded PACS, the node's own processes, one synthetic exam, there and back."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from faults import free_port
from instances import make_instance, write_instance_file
from node_process import LOOPBACK
from pydicom import dcmread
from shared_run import Demo, demo_folder

from node.demo.mr_writer import WrittenStudy
from node.demo.patient import SyntheticPatient
from node.demo.run import SHIPPED_MODEL, run_demo
from node.errors import RefusedError
from node.sr_writer.report import read_volumes
from node.study import Contrast

pytestmark = [pytest.mark.slow, pytest.mark.long(250), pytest.mark.timeout(2000)]

LABELS = ["Whole tumour", "Tumour core", "Enhancing tumour"]
VOLUME_TOLERANCE = 0.35  # of the truth: the method's error on an exam that it was not made for


@pytest.fixture
def demo(whole_demo: Demo) -> Demo:
    """The demo with its own synthetic patient."""
    return whole_demo


def test_results_lie_in_the_folder(demo: Demo) -> None:
    """The PACS of the demo holds one SEG and one SR of one study, and the outcome names where they lie."""
    out = demo.outcome.folder
    seg, sr = (dcmread(out / "pacs" / name) for name in ("SEG.dcm", "SR.dcm"))
    assert (seg.Modality, sr.Modality) == ("SEG", "SR")
    assert seg.StudyInstanceUID == sr.StudyInstanceUID
    assert [str(item.SegmentLabel) for item in seg.SegmentSequence] == LABELS
    assert read_volumes(sr) == demo.outcome.volumes_ml
    assert str(out) in " ".join(demo.outcome.lines())


def test_numbers_are_near_the_truth(demo: Demo) -> None:
    """Each volume of the report is near the synthetic patient's, and the table shows both."""
    outcome = demo.outcome
    assert list(outcome.volumes_ml) == list(outcome.truth_ml) == LABELS
    for label, truth_ml in outcome.truth_ml.items():
        assert outcome.volumes_ml[label] == pytest.approx(truth_ml, rel=VOLUME_TOLERANCE), label
    table = outcome.table()
    assert [column.header for column in table.columns] == ["segment", "volume / mL", "true / mL"]
    assert list(table.columns[1].cells) == [f"{volume:.1f}" for volume in outcome.volumes_ml.values()]


def test_overlay_is_a_picture(demo: Demo) -> None:
    """overlay.png shows grey anatomy and, on a small part of it, the colours of the regions."""
    picture = matplotlib.image.imread(demo.outcome.folder / "overlay.png")[..., :3]
    assert min(picture.shape[:2]) >= 300
    colourful = np.ptp(picture, axis=-1) > 0.2
    grey = (np.ptp(picture, axis=-1) < 0.05) & (picture.mean(axis=-1) > 0.1) & (picture.mean(axis=-1) < 0.9)
    assert 0.001 < colourful.mean() < 0.3
    assert grey.mean() > 0.05
    assert len(np.unique((picture[grey] * 255).astype(int), axis=0)) > 50


def test_progress_goes_forward(demo: Demo) -> None:
    """What is being done is told, with a fraction that only grows."""
    fractions = [fraction for _, fraction in demo.told]
    assert fractions == sorted(fractions)
    assert {text for text, _ in demo.told} >= {"making a synthetic patient", "routing the exam to the node"}
    assert 0 <= fractions[0] <= fractions[-1] <= 1


def test_same_seed_makes_the_same_patient(demo: Demo, synthetic_patient: SyntheticPatient) -> None:
    """The patient that the demo made equals, to the last bit, the one that was made apart from it."""
    np.testing.assert_array_equal(demo.patient.label_zyx, synthetic_patient.label_zyx)
    np.testing.assert_array_equal(demo.patient.brain_zyx, synthetic_patient.brain_zyx)
    for contrast, signal in synthetic_patient.contrast_zyx.items():
        np.testing.assert_array_equal(demo.patient.contrast_zyx[contrast], signal)


def test_same_patient_gives_the_same_exam(demo: Demo, synthetic_exam: WrittenStudy) -> None:
    """The files of the demo's exam hold the bytes of the exam that was written apart from it."""
    folder = synthetic_exam.series[0].files[0].parents[1]
    written, again = (
        {path.relative_to(root): path for path in root.rglob("*.dcm")}
        for root in (folder, demo.outcome.folder / "exam")
    )
    assert len(written) > 400
    assert sorted(written) == sorted(again)
    assert [name for name, path in written.items() if path.read_bytes() != again[name].read_bytes()] == []


def test_without_a_source_the_shipped_model_answers(tmp_path: Path, synthetic_exam: WrittenStudy) -> None:
    """Where the published model cannot be fetched, the shipped one gives SEG and SR, here of T1c alone; it is told."""
    exam = tmp_path / "exam"
    (t1c,) = (each for each in synthetic_exam.series if each.acquisition.contrast is Contrast.T1C)
    shutil.copytree(t1c.files[0].parent, exam)
    outcome = run_demo(exam, tmp_path / "out", f"http://{LOOPBACK}:{free_port()}", None)
    assert outcome.method == SHIPPED_MODEL
    assert list(outcome.volumes_ml) == LABELS
    said = outcome.lines()[0]
    assert said.startswith(f"method: {SHIPPED_MODEL}, shipped with glionode: http://")
    assert "cannot be reached" in said
    sr = dcmread(outcome.folder / "pacs" / "SR.dcm")
    assert SHIPPED_MODEL in str(sr)


def test_exam_that_cannot_be_used_is_refused(tmp_path: Path, models_folder: Path) -> None:
    """An exam without the contrasts is refused with the reason, before anything is started."""
    exam = tmp_path / "exam"
    exam.mkdir()
    write_instance_file(exam, make_instance())
    out = demo_folder(tmp_path / "out", models_folder)
    with pytest.raises(RefusedError, match="no T1"):
        run_demo(exam, out, "", None)
    assert sorted(path.name for path in out.iterdir()) == ["models"]
