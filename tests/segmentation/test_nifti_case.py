"""Cases in BraTS form: read in any orientation, written back where they came from."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from node.errors import ContentRefused, InstanceRefused
from node.segmentation.nifti_case import SUFFIXES, read_case, write_label_map
from node.study import Contrast

AFFINES = {
    "LPS, as BraTS": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "RAS": np.diag([1.0, 1.0, 1.0, 1.0]),
    "axes swapped": np.array([[0, 0, -1.0, 9], [1.0, 0, 0, 3], [0, -1.0, 0, 2], [0, 0, 0, 1]]),
}


def write(folder: Path, affine: np.ndarray, suffixes: dict[Contrast, tuple[str, str]] = SUFFIXES) -> np.ndarray:
    """One case whose voxels hold their own left-posterior-superior order."""
    rng = np.random.default_rng(0)
    array = rng.random((5, 6, 7)).astype(np.float32)
    for suffix, _ in suffixes.values():
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"x{suffix}.nii.gz")
    return array


@pytest.mark.parametrize("name", AFFINES)
def test_voxels_come_in_lps_and_go_back(name: str, tmp_path: Path) -> None:
    """Whatever the storage order, x runs to the left, y to posterior, z up; the label map overlays the file."""
    array = write(tmp_path, AFFINES[name])
    case = read_case(tmp_path)
    volume = case.volumes_zyx[Contrast.T1]
    z, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    stored = np.unravel_index(int(array.argmax()), array.shape)
    point_ras = AFFINES[name] @ [*stored, 1]
    # the extreme corner in LPS is index 0, so distances along the axes from there are the LPS indices
    corners = np.array([AFFINES[name] @ [i, j, k, 1] for i in (0, 4) for j in (0, 5) for k in (0, 6)])[:, :3]
    first = np.array([corners[:, 0].max(), corners[:, 1].max(), corners[:, 2].min()])
    assert np.allclose([x, y, z], (point_ras[:3] - first) * [-1, -1, 1])
    label = (volume == volume.max()).astype(np.uint8)
    write_label_map(label, case, tmp_path / "out.nii.gz")
    written = nibabel.load(tmp_path / "out.nii.gz")
    assert np.allclose(written.affine, AFFINES[name])
    assert written.get_fdata()[stored] == 1
    assert written.get_fdata().sum() == 1


def test_a_missing_contrast_is_named(tmp_path: Path) -> None:
    """Without T1c the file pattern is told."""
    write(tmp_path, AFFINES["RAS"], {c: s for c, s in SUFFIXES.items() if c is not Contrast.T1C})
    with pytest.raises(InstanceRefused, match=r"0 files called \*_t1ce"):
        read_case(tmp_path)


def test_two_grids_are_refused(tmp_path: Path) -> None:
    """All four must be on one grid."""
    write(tmp_path, AFFINES["RAS"])
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 6, 7), np.float32), np.diag([2.0, 1, 1, 1])), tmp_path / "x_t2.nii.gz")
    with pytest.raises(ContentRefused, match="T2 and FLAIR are not on one grid"):
        read_case(tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """A file that is no NIfTI is a refusal, not a crash."""
    write(tmp_path, AFFINES["RAS"])
    (tmp_path / "x_t1.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(InstanceRefused, match=r"x_t1\.nii\.gz"):
        read_case(tmp_path)
