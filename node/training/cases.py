"""Labelled cases as training reads them: half precision on disk, so that a patch is read without the rest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.errors import ContentRefused
from node.methods.contract import CORE, ENHANCING
from node.methods.dropout_unet import CHANNELS
from node.segmentation.nifti_case import read_case
from node.segmentation.truth import read_truth
from node.study import Contrast

_CARVED_MM = 4
"""The tumour is carved out with so much of its surroundings."""

_CENTRES = 4000
"""So many voxels of tumour, core and brain are kept as possible centres of patches."""


_CENTRE_KINDS = ("brain", "tumour", "core")


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """One labelled case.

    Attributes:
        values: float16, ``[4, z, y, x]``, contrasts as in `CHANNELS`, each divided by its mean inside the brain; 0
            outside it. Mapped from disk.
        labels_zyx: uint8, BraTS labels as in ``contract``. Mapped from disk.
        carved_zyx: bool, the tumour and its surroundings. Mapped from disk.
        deviations: standard deviation of each contrast inside the brain, in its means.
        centres: voxels ``[n, 3]`` of ``brain``, ``tumour`` and ``core``; what a case lacks has none.
    """

    name: str
    values: NDArray[np.float16]
    labels_zyx: NDArray[np.uint8]
    carved_zyx: NDArray[np.bool_]
    deviations: NDArray[np.float32]
    centres: dict[str, NDArray[np.int16]]


def prepared(case_folder: Path, cache: Path) -> TrainingCase:
    """The case of ``case_folder``, from ``cache`` if it was prepared before.

    Raises:
        InstanceRefused: a file of the case is missing or unreadable.
        ContentRefused: the case is not as training needs it; names case and contrast.
    """
    folder = cache / case_folder.name
    if not (folder / "case.json").is_file():
        _prepare(case_folder, folder)
    facts = json.loads((folder / "case.json").read_text("utf-8"))
    return TrainingCase(
        case_folder.name,
        np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False),
        np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False),
        np.load(folder / "carved.npy", mmap_mode="r", allow_pickle=False),
        np.array(facts["deviations"], np.float32),
        {kind: np.load(folder / f"centres_{kind}.npy", allow_pickle=False) for kind in _CENTRE_KINDS},
    )


def _prepare(case_folder: Path, folder: Path) -> None:
    """Write the case's arrays; ``case.json`` last, which says that all are there."""
    case = read_case(case_folder)
    labels = read_truth(case_folder)
    values, deviations = [], []
    for contrast in CHANNELS:
        volume = case.volumes_zyx[contrast]
        inside = volume[volume > 0]
        if not inside.size or inside.std() == 0:
            raise ContentRefused(f"{case_folder.name}: {contrast} is empty or constant inside the brain")
        values.append((volume.clip(0) / inside.mean()).astype(np.float16))
        deviations.append(float(inside.std() / inside.mean()))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "values.npy", np.stack(values))
    np.save(folder / "labels.npy", labels)
    ball = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 1), _CARVED_MM)
    np.save(folder / "carved.npy", ndimage.binary_dilation(labels > 0, ball))
    core = (labels == CORE) | (labels == ENHANCING)
    masks = (values[CHANNELS.index(Contrast.T1C)] > 0, labels > 0, core)
    random = np.random.default_rng(0)
    for kind, mask in zip(_CENTRE_KINDS, masks, strict=True):
        np.save(folder / f"centres_{kind}.npy", _some(mask, random))
    (folder / "case.json").write_text(json.dumps({"deviations": deviations}) + "\n", "utf-8")


def _some(mask: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int16]:
    places = np.argwhere(mask).astype(np.int16)
    return places[random.permutation(len(places))[:_CENTRES]]
