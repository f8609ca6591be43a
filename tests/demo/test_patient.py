"""The synthetic patient and its examination: truth, geometry, contrast, valid and repeatable DICOM."""

import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from highdicom.spatial import PixelToReferenceTransformer
from lab import needs

from node.demo.mr_writer import STANDARD_EXAM, sample_label, write_study
from node.demo.patient import ENHANCING, NECROSIS, OEDEMA, TRUE_VOLUME_ML, make_patient
from node.study import Contrast

BY_DESCRIPTION = [pytest.param(i, id=a.series_description) for i, a in enumerate(STANDARD_EXAM)]
pytestmark = pytest.mark.slow  # the patient takes half a minute to make
SMALL_EXAM = tuple(replace(acquisition, size=(*acquisition.size[:2], 3)) for acquisition in STANDARD_EXAM)


@pytest.fixture
def patient(synthetic_patient):
    return synthetic_patient


@pytest.fixture
def study(synthetic_exam):
    return synthetic_exam


def read(series):
    return [pydicom.dcmread(file) for file in series.files]


def pixels(series):
    return np.stack([dataset.pixel_array for dataset in read(series)])


def series_of(study, contrast):
    return next(series for series in study.series if series.acquisition.contrast is contrast)


@pytest.mark.parametrize("label", [NECROSIS, OEDEMA, ENHANCING])
def test_each_label_has_its_declared_volume(patient, label):
    """The label map holds the declared volume of each tumour part within 0.1 mL."""
    voxel_ml = abs(np.linalg.det(patient.affine_lps[:3, :3])) / 1000
    assert np.count_nonzero(patient.label_zyx == label) * voxel_ml == pytest.approx(TRUE_VOLUME_ML[label], abs=0.1)


def test_no_other_label_and_all_of_the_tumour_is_brain(patient):
    """Labels are those of BraTS, and lie inside the brain mask."""
    assert set(np.unique(patient.label_zyx)) == {0, NECROSIS, OEDEMA, ENHANCING}
    assert patient.brain_zyx[patient.label_zyx > 0].all()


def test_the_tumour_is_on_the_left(patient):
    """Every tumour voxel has a positive LPS x, far from the midline on average, while the brain straddles it."""
    z, y, x = np.nonzero(patient.label_zyx)
    tumour_x = (patient.affine_lps @ np.stack([x, y, z, np.ones_like(x)]))[0]
    brain_x = np.nonzero(patient.brain_zyx)[2] + patient.affine_lps[0, 3]
    assert tumour_x.min() > 0
    assert tumour_x.mean() > 20
    assert abs(brain_x.mean()) < 5


@pytest.mark.parametrize(
    ("contrast", "label", "low", "high"),
    [  # standard scores over the brain; spans of real gliomas, a little widened
        (Contrast.T1, NECROSIS, -1.3, 0.4),
        (Contrast.T1, OEDEMA, -0.3, 0.7),
        (Contrast.T1C, NECROSIS, -1.4, 0.4),
        (Contrast.T1C, OEDEMA, -0.4, 0.5),
        (Contrast.T1C, ENHANCING, 1.4, 4.0),
        (Contrast.T2, NECROSIS, 1.5, 3.4),
        (Contrast.T2, OEDEMA, 0.5, 1.4),
        (Contrast.T2, ENHANCING, 0.8, 2.4),
        (Contrast.FLAIR, NECROSIS, 1.0, 3.3),
        (Contrast.FLAIR, OEDEMA, 1.1, 2.4),
    ],
)
def test_the_tumour_is_as_bright_as_real_ones(patient, contrast, label, low, high):
    """Each tumour part's standard score over the brain lies in the span seen in real gliomas."""
    signal = patient.contrast_zyx[contrast]
    brain = signal[patient.brain_zyx]
    assert low < (signal[patient.label_zyx == label].mean() - brain.mean()) / brain.std() < high


@pytest.mark.parametrize("number", BY_DESCRIPTION)
def test_every_instance_lies_where_the_acquisition_says(study, number):
    """The header's geometry, read by highdicom, puts each slice's corner pixels where the acquisition's affine does."""
    series = study.series[number]
    columns, rows, slices = series.acquisition.size
    assert len(series.files) == slices
    corners = np.array([[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]])
    for index, dataset in enumerate(read(series)):
        expected = series.acquisition.affine_lps @ np.c_[corners, np.full(4, index), np.ones(4)].T
        found = PixelToReferenceTransformer.for_image(dataset)(corners)
        np.testing.assert_allclose(found, expected[:3].T, atol=1e-4)


@pytest.mark.parametrize("number", BY_DESCRIPTION[1:])
def test_every_acquisition_covers_the_tumour_and_the_brain(patient, number):
    """The brain's voxels all lie inside the acquired volume, and the sampled label volumes are the true ones."""
    acquisition = STANDARD_EXAM[number]
    z, y, x = np.nonzero(patient.brain_zyx)
    to_index = np.linalg.inv(acquisition.affine_lps) @ patient.affine_lps
    index = (to_index @ np.stack([x, y, z, np.ones_like(x)]))[:3].T
    assert (index > -0.5).all()
    assert (index < np.array(acquisition.size) - 0.5).all()
    voxel_ml = abs(np.linalg.det(acquisition.affine_lps[:3, :3])) / 1000
    label = sample_label(patient, acquisition)
    for value, volume_ml in TRUE_VOLUME_ML.items():
        assert np.count_nonzero(label == value) * voxel_ml == pytest.approx(volume_ml, rel=0.03)


def test_only_the_rim_takes_up_contrast_agent(patient, study):
    """Read back from the files, the rim outshines the oedema in T1c but not in T1; the core is dark in both."""
    ratio = {}
    for contrast in (Contrast.T1, Contrast.T1C):
        series = series_of(study, contrast)
        signal, label = pixels(series), sample_label(patient, series.acquisition)
        oedema = signal[label == OEDEMA].mean()
        ratio[contrast] = [signal[label == value].mean() / oedema for value in (ENHANCING, NECROSIS)]
    assert 0.9 < ratio[Contrast.T1][0] < 1.1
    assert ratio[Contrast.T1C][0] > 1.5
    assert ratio[Contrast.T1][1] < 0.9
    assert ratio[Contrast.T1C][1] < 0.9


def test_the_exam_is_one_small_study_in_one_frame_of_reference(study):
    """All instances share study and frame of reference, have UIDs of their own, and take less than 80 MB."""
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for series in study.series for f in series.files]
    assert {header.StudyInstanceUID for header in headers} == {study.study_instance_uid}
    assert {header.FrameOfReferenceUID for header in headers} == {study.frame_of_reference_uid}
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)
    assert len({header.SeriesInstanceUID for header in headers}) == len(STANDARD_EXAM)
    assert sum(f.stat().st_size for series in study.series for f in series.files) < 80e6


def test_the_agent_is_named_after_injection_only(study):
    """ContrastBolusAgent is present in the T1c series, which comes last, and nowhere else."""
    headers = [pydicom.dcmread(series.files[0], stop_before_pixels=True) for series in study.series]
    assert ["ContrastBolusAgent" in header for header in headers] == [False, False, False, False, True]
    assert [header.AcquisitionTime for header in headers] == sorted(header.AcquisitionTime for header in headers)


def test_the_same_arguments_write_the_same_bytes(patient, tmp_path):
    """Writing twice gives identical files; another seed gives another study with other noise."""
    first, second = (write_study(tmp_path / name, patient, SMALL_EXAM) for name in ("first", "second"))
    other = write_study(tmp_path / "other", patient, SMALL_EXAM, seed=1)
    for one, two, three in zip(first.series, second.series, other.series, strict=True):
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one.files, two.files, strict=True))
        assert one.series_instance_uid != three.series_instance_uid
        assert (pixels(one) != pixels(three)).any()
    assert other.study_instance_uid != first.study_instance_uid


def test_another_seed_makes_another_patient(patient):
    """Another seed gives another tumour of the same volumes; that the same seed repeats itself, the demo shows."""
    other = make_patient(seed=1)
    assert (other.label_zyx != patient.label_zyx).any()
    np.testing.assert_array_equal(np.bincount(other.label_zyx.ravel()), np.bincount(patient.label_zyx.ravel()))


@needs("dciodvfy")
@pytest.mark.parametrize("number", BY_DESCRIPTION)
def test_the_instances_are_valid_mr_images(study, number):
    """dciodvfy finds an MR Image Storage instance without errors in first, middle and last instance."""
    files = study.series[number].files
    for file in (files[0], files[len(files) // 2], files[-1]):
        found = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
        findings = found.stderr + found.stdout
        assert "MRImage" in findings
        assert [line for line in findings.splitlines() if line.startswith("Error")] == []
