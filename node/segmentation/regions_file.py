"""Regions on disk between the steps of the pipeline, and as a NIfTI label map for people."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from node.segmentation.cascade import CORE, ENHANCING, OEDEMA, REGIONS
from node.segmentation.method import ExamSegmentation
from node.segmentation.volume import read_volume
from node.study import Contrast, Selection

REGIONS_FILE, LABEL_MAP_FILE = "regions.npz", "label_map.nii.gz"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_regions(exam: ExamSegmentation, folder: Path) -> None:
    """``regions.npz`` (bit-packed masks) and ``label_map.nii.gz`` (BraTS labels), each aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = exam.masks_zyx[REGIONS[0]].shape
    packed = {region: np.packbits(exam.masks_zyx[region]) for region in REGIONS}
    aside = folder / f".part.{REGIONS_FILE}"
    with aside.open("wb") as stream:
        np.savez(stream, allow_pickle=False, shape=np.array(shape), **packed)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(folder / REGIONS_FILE)
    aside = folder / f".part.{LABEL_MAP_FILE}"
    label_xyz = label_map(exam).transpose(2, 1, 0)
    nifti = nibabel.Nifti1Image(label_xyz, _LPS_TO_RAS @ exam.source.affine_lps)
    nifti.header.set_xyzt_units("mm")
    nibabel.save(nifti, aside)
    aside.replace(folder / LABEL_MAP_FILE)


def label_map(exam: ExamSegmentation) -> NDArray[np.uint8]:
    """``[z, y, x]`` on the source grid: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour."""
    label = np.zeros(exam.masks_zyx[REGIONS[0]].shape, np.uint8)
    for region, value in zip(REGIONS, (OEDEMA, CORE, ENHANCING), strict=True):
        label[exam.masks_zyx[region]] = value
    return label


def read_regions(selection: Selection, folder: Path, brain_ml: float, cautions: tuple[str, ...]) -> ExamSegmentation:
    """The exam as ``write_regions`` left it, with its T1c series read again."""
    with np.load(folder / REGIONS_FILE) as stored:
        shape = tuple(int(n) for n in stored["shape"])
        count = int(np.prod(shape))
        masks = {region: np.unpackbits(stored[region], count=count).reshape(shape).astype(bool) for region in REGIONS}
    return ExamSegmentation(read_volume(selection.chosen[Contrast.T1C]), masks, brain_ml, cautions)
