"""Small labelled cases in BraTS form, generated: a round head with a tumour of three shells."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from node.segmentation.nifti_case import SUFFIXES
from node.study import Contrast

EDGE = 48
_VALUES = {  # brain, oedema, core, enhancing
    Contrast.FLAIR: (100, 200, 150, 160),
    Contrast.T1: (120, 100, 80, 90),
    Contrast.T1C: (110, 95, 70, 220),
    Contrast.T2: (90, 190, 180, 150),
}


def write_generated_case(folder: Path, seed: int) -> Path:
    """Write one case of 48 x 48 x 48 voxels into ``folder``; the tumour's place and size follow from ``seed``."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(EDGE)] * 3, indexing="ij")).astype(np.float32)
    brain = ((grid - EDGE / 2) ** 2).sum(0) < 22**2
    centre = random.uniform(18, 30, 3).reshape(3, 1, 1, 1)
    distance = np.sqrt(((grid - centre) ** 2).sum(0)) * random.uniform(0.85, 1.15)
    label = np.select([distance < 4, distance < 7, distance < 11], [1, 4, 2], 0).astype(np.uint8)
    folder.mkdir(parents=True)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    for contrast, (normal, oedema, core, enhancing) in _VALUES.items():
        volume = np.select([label == 2, label == 1, label == 4], [oedema, core, enhancing], normal)
        volume = (volume + random.normal(0, 5, brain.shape)) * brain
        file = folder / f"{folder.name}{SUFFIXES[contrast][0]}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), file)
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"{folder.name}_seg.nii.gz")
    return folder
