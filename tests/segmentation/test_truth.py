"""Label maps of experts: two conventions of values and file names, and what is ambiguous."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from node.errors import ContentRefused, InstanceRefused
from node.methods.contract import CORE, ENHANCING, OEDEMA
from node.segmentation.nifti_case import read_case
from node.segmentation.truth import LabelConvention, convention_of, labelled_cases, read_truth
from node.study import Contrast

OLD, NEW = LabelConvention.BRATS_2017, LabelConvention.BRATS_2023


def write(file: Path, values: list[float]) -> Path:
    """A volume of one row that holds ``values`` from left to right as stored in LPS; returns its folder."""
    file.parent.mkdir(exist_ok=True)
    array = np.array(values, np.float32).reshape(-1, 1, 1)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])), file)
    return file.parent


def case(tmp_path: Path, name: str, values: list[float]) -> Path:
    """A case with a label map only."""
    return write(tmp_path / name / f"{name}_seg.nii.gz", values)


@pytest.mark.parametrize(
    ("values", "convention", "expected"),
    [
        ([0, 1, 2, 4], OLD, [0, CORE, OEDEMA, ENHANCING]),
        ([0, 1, 2, 3], NEW, [0, CORE, OEDEMA, ENHANCING]),
        ([0, 1, 2, 0], OLD, [0, CORE, OEDEMA, 0]),
    ],
)
def test_values_tell_the_convention(tmp_path, values, convention, expected):
    """Enhancing tumour is 4 to 2022 and 3 since 2023; without either, both conventions say the same."""
    folder = case(tmp_path, "one", values)
    assert convention_of([folder]) is convention
    assert read_truth(folder).ravel().tolist() == expected


def test_map_with_3_and_4_is_refused_until_the_convention_is_named(tmp_path):
    """3 and 4 may be enhancing tumour and cavity; what 3 is beside an enhancing 4 is in neither convention."""
    folder = case(tmp_path, "one", [1, 2, 3, 4])
    with pytest.raises(ContentRefused, match=r"labels 3 \(one\) and 4 \(one\) occur.*--labels brats2023"):
        read_truth(folder)
    assert read_truth(folder, NEW).ravel().tolist() == [CORE, OEDEMA, ENHANCING, 0]
    with pytest.raises(ContentRefused, match="one: label 3 has no meaning"):
        read_truth(folder, OLD)


def test_cases_of_both_conventions_in_one_folder_are_refused(tmp_path):
    """A case with a cavity and no enhancing tumour looks like an old one; the cases beside it tell, or nobody does."""
    cases = [case(tmp_path, "newer", [1, 2, 3]), case(tmp_path, "other", [1, 2, 4])]
    with pytest.raises(ContentRefused, match=r"3 \(newer\) and 4 \(other\)"):
        convention_of(cases)


@pytest.mark.parametrize("value", [5, -1, 0.5])
def test_values_that_are_no_labels_are_refused(tmp_path, value):
    """A map with other values, or with values between labels, as interpolation makes them, is no truth."""
    with pytest.raises(ContentRefused, match="values other than 0 to 4"):
        read_truth(case(tmp_path, "one", [0, 1, value]))


def test_labelled_cases_are_found(tmp_path):
    """Every folder with a label map counts, wherever it lies, by old and new file names; none at all is an error."""
    with pytest.raises(InstanceRefused, match="no labelled case"):
        labelled_cases(tmp_path)
    old = case(tmp_path, "b", [0, 1])
    new = write(tmp_path / "a" / "a-seg.nii.gz", [0, 1])
    assert labelled_cases(tmp_path) == [new, old]


def test_file_names_since_2023_are_read(tmp_path):
    """t1n, t1c, t2w and t2f are T1, T1c, T2 and FLAIR."""
    names = {"t1n": Contrast.T1, "t1c": Contrast.T1C, "t2w": Contrast.T2, "t2f": Contrast.FLAIR}
    for value, name in enumerate(names, 1):
        folder = write(tmp_path / "one" / f"one-{name}.nii.gz", [value])
    volumes = read_case(folder).volumes_zyx
    assert {contrast: volume.item() for contrast, volume in volumes.items()} == dict(
        zip(names.values(), (1, 2, 3, 4), strict=True)
    )


def test_a_case_with_both_names_is_refused(tmp_path):
    """Two files that could be the label map are one too many."""
    case(tmp_path, "one", [0, 1])
    folder = write(tmp_path / "one" / "one-seg.nii.gz", [0, 1])
    with pytest.raises(InstanceRefused, match="2 files called"):
        read_truth(folder)
