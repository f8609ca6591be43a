"""Regions on disk: masks for the next pipeline step, and a NIfTI label map for viewers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from node.dicom.aside_file import written_aside
from node.methods.contract import CORE, ENHANCING, OEDEMA, REGIONS
from node.segmentation.exam import ExamSegmentation

REGIONS_FILE, LABEL_MAP_FILE, SPREAD_FILE = "regions.npz", "label_map.nii.gz", "disagreement.nii.gz"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_regions(exam: ExamSegmentation, folder: Path) -> None:
    """Write ``regions.npz`` (bit-packed masks), ``label_map.nii.gz`` (BraTS labels) and ``disagreement.nii.gz``
    (standard deviation of the views' probabilities), each to a file aside that is renamed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = exam.spread_zyx.shape
    packed = {region: np.packbits(mask) for region, mask in exam.masks_zyx.items()}
    with written_aside(folder / REGIONS_FILE) as aside, aside.open("wb") as stream:
        np.savez(stream, allow_pickle=False, shape=np.array(shape), **packed)
        stream.flush()
        os.fsync(stream.fileno())
    _write_nifti(label_map(exam), exam, folder / LABEL_MAP_FILE)
    _write_nifti(exam.spread_zyx, exam, folder / SPREAD_FILE)


def _write_nifti(array_zyx: NDArray[Any], exam: ExamSegmentation, file: Path) -> None:
    nifti = nibabel.Nifti1Image(array_zyx.transpose(2, 1, 0), _LPS_TO_RAS @ exam.source.affine_lps)
    nifti.header.set_xyzt_units("mm")
    with written_aside(file) as aside:
        nibabel.save(nifti, aside)


def label_map(exam: ExamSegmentation) -> NDArray[np.uint8]:
    """``[z, y, x]`` on the source grid: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour."""
    label = np.zeros(exam.spread_zyx.shape, np.uint8)
    for region, value in zip(REGIONS, (OEDEMA, CORE, ENHANCING), strict=True):
        if region in exam.masks_zyx:
            label[exam.masks_zyx[region]] = value
    return label


def read_masks(folder: Path) -> dict[str, NDArray[np.bool_]]:
    """Region to mask, ``[z, y, x]``, as ``write_regions`` wrote them."""
    with np.load(folder / REGIONS_FILE, allow_pickle=False) as stored:
        shape = tuple(int(n) for n in stored["shape"])
        count = int(np.prod(shape))
        given = [region for region in REGIONS if region in stored]
        return {region: np.unpackbits(stored[region], count=count).reshape(shape).astype(bool) for region in given}
