"""Real series of several vendors as dcm2niix reads them: the same voxels at the same places."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import lab
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from node.segmentation.volume import read_volume
from node.series.headers import read_study
from node.series.substacks import parts_of
from node.study import Series

DEBIAN, NEWER = "/usr/bin/dcm2niix", f"{sys.prefix}/bin/dcm2niix"
PROGRAMS = [pytest.param(DEBIAN, marks=lab.needs(DEBIAN), id="Debian's"),
            pytest.param(NEWER, marks=lab.needs(NEWER), id="newer")]  # fmt: skip
SERIES = {  # folder of the test data: Series Numbers that are one volume, or hold some
    "brainix": (301, 401, 501, 601, 701, 702, 801),
    "vendors/ge_mprage": None,
    "vendors/siemens_prone_sag_t1": None,
    "vendors/siemens_decubitus_sag_t1": None,
    "vendors/philips_dual_echo": None,
    "stress/philips_enhanced_t1/In/Philips/401_T1W_FFE_Sno_CS2": None,
    "stress/compressed_and_negative/Database/Brainix/Flair": None,
}
CASES = [pytest.param(folder, number, id=f"{folder} {number or ''}".strip())
         for folder, numbers in SERIES.items() for number in numbers or (None,)]  # fmt: skip


@cache
def series_of(folder: Path) -> tuple[Series, ...]:
    """The series of one study's folder."""
    return read_study(folder).series


def volumes_of_dcm2niix(program: str, series: Series, folder: Path) -> list[nibabel.Nifti1Image]:
    """What dcm2niix makes of the files of ``series``, in canonical orientation."""
    source, out = folder / "source", folder / "out"
    source.mkdir(parents=True)
    out.mkdir()
    for number, instance in enumerate(series.instances):
        (source / f"{number}.dcm").symlink_to(instance.path)
    run = lab.run_program(program, "-z", "n", "-b", "n", "-p", "n", "-o", str(out), str(source))
    found = [nibabel.as_closest_canonical(nibabel.load(file)) for file in sorted(out.glob("*.nii"))]
    assert found, run.stdout
    return found


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("folder", "number"), CASES)
def test_real_series_is_read_as_by_dcm2niix(data_folder, tmp_path, folder, number, program):
    """Every voxel has the value and the place that dcm2niix gives it; of a split series, in each of its parts."""
    (series,) = [one for one in series_of(data_folder / folder) if number in (None, one.series_number)]
    for place, part in enumerate([each.series for each in parts_of(series)] or [series]):
        source = read_volume(part)
        affine = np.diag([-1, -1, 1, 1]) @ source.affine_lps
        ours = nibabel.as_closest_canonical(
            nibabel.Nifti1Image(sitk.GetArrayFromImage(source.image).transpose(2, 1, 0), affine)
        )
        theirs = volumes_of_dcm2niix(program, part, tmp_path / str(place))
        same = [
            other
            for other in theirs
            if other.shape == ours.shape
            and np.allclose(other.affine, ours.affine, atol=0.01)
            and np.allclose(other.get_fdata(), ours.get_fdata(), rtol=1e-5, atol=1e-3)
        ]
        assert len(same) == 1, (part.label, ours.shape, [other.shape for other in theirs])
