"""Exams on one grid, as the plausibility checks get them: labelled cases, raw exams, and the synthetic patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from node.demo.patient import make_patient
from node.errors import RefusedError
from node.segmentation import grid as grids
from node.segmentation.align import align_rigid
from node.segmentation.brain import brain_mask
from node.segmentation.enhancement import compare_enhancement
from node.segmentation.nifti_case import SUFFIXES, read_case
from node.segmentation.volume import image_from_affine, read_volume
from node.series.headers import read_study
from node.series.select import select
from node.series.vocabulary import load_vocabulary
from node.study import Contrast

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Exam:
    """Four registered contrasts on one LPS grid of 1 mm; ``is_raw``: with skull and skin."""

    name: str
    is_raw: bool
    volumes_zyx: Mapping[Contrast, Volume]
    brain_zyx: Mask
    seen_zyx: Mapping[Contrast, Mask]


def exams(data: Path) -> Iterator[Exam]:
    """Every exam of four contrasts below ``data``, and the synthetic patient.

    Folders with ``*_flair.nii.gz`` are cases in BraTS form, folders with ``flair.nii.gz`` raw ones; any other direct
    subfolder is read as a DICOM study, and left out if it is no exam that the node selects from.
    """
    for file in sorted(data.rglob("flair.nii.gz")):
        yield _registered(file.parent.name, {each: _nifti(file.parent, each) for each in Contrast})
    for folder in sorted(each for each in data.iterdir() if each.is_dir() and not any(each.rglob("*.nii.gz"))):
        images = _dicom(folder)
        if images:
            yield _registered(folder.name, images)
    patient = make_patient()
    of_patient = {each: image_from_affine(patient.contrast_zyx[each], patient.affine_lps) for each in Contrast}
    yield _registered("synthetic", of_patient)
    for file in sorted(data.rglob("*_flair.nii.gz")):
        volumes = read_case(file.parent).volumes_zyx
        brain = volumes[Contrast.FLAIR] > 0
        yield Exam(file.parent.name, False, volumes, brain, dict.fromkeys(SUFFIXES, np.ones_like(brain)))


def _registered(name: str, images: Mapping[Contrast, sitk.Image]) -> Exam:
    reference = images[Contrast.T1C]
    grid = grids.common_grid(reference)
    fixed = grids.to_grid(reference, grid)
    volumes, seen = {Contrast.T1C: _array(fixed)}, {Contrast.T1C: grids.field_of_view(reference, grid)}
    for contrast in (Contrast.T1, Contrast.T2, Contrast.FLAIR):
        transform = align_rigid(fixed, images[contrast], f"{name} {contrast}")
        volumes[contrast] = _array(grids.to_grid(images[contrast], grid, transform))
        seen[contrast] = grids.field_of_view(images[contrast], grid, transform)
    return Exam(name, True, volumes, brain_mask(fixed, name), seen)


def _array(image: sitk.Image) -> Volume:
    return np.asarray(sitk.GetArrayFromImage(image), np.float32)


def _nifti(folder: Path, contrast: Contrast) -> sitk.Image:
    image = nibabel.load(folder / f"{contrast.lower()}.nii.gz")
    return image_from_affine(image.get_fdata(dtype=np.float32).transpose(2, 1, 0), _RAS_TO_LPS @ image.affine)


def _dicom(folder: Path) -> dict[Contrast, sitk.Image]:
    """The images of the exam in ``folder``; empty if the node selects none from it."""
    try:
        selection = select(read_study(folder), load_vocabulary(), compare=compare_enhancement)
        return {contrast: read_volume(series).image for contrast, series in selection.chosen.items()}
    except RefusedError:
        return {}
