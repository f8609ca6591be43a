"""A case in BraTS form: read four co-registered, skull-stripped NIfTI files, write a label map.

NIfTI's RAS coordinates are converted to LPS in this module; its users see LPS only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from node.errors import ContentRefused, InstanceRefused
from node.study import Contrast

SUFFIXES = {Contrast.FLAIR: "flair", Contrast.T1: "t1", Contrast.T1C: "t1ce", Contrast.T2: "t2"}
TRUTH_SUFFIX = "seg"
_LPS = axcodes2ornt(("L", "P", "S"))


@dataclass(frozen=True, slots=True)
class NiftiCase:
    """Four contrasts as the cascade needs them, and the geometry for its label map.

    Attributes:
        volumes_zyx: float32, ``[z, y, x]``, axes turned to LPS.
        header_image: the FLAIR image as stored; the label map is written with its affine and orientation.
    """

    name: str
    volumes_zyx: dict[Contrast, NDArray[np.float32]]
    header_image: Any


def _find(folder: Path, suffix: str) -> Path:
    found = sorted(folder.glob(f"*_{suffix}.nii.gz")) + sorted(folder.glob(f"*_{suffix}.nii"))
    if len(found) != 1:
        raise InstanceRefused(f"{folder.name}: {len(found)} files called *_{suffix}.nii.gz, one is needed")
    return found[0]


def _load(file: Path) -> Any:
    try:
        image = nibabel.load(file)
        image.get_fdata(dtype=np.float32)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise InstanceRefused(f"{file.name}: cannot be read as NIfTI ({type(error).__name__})") from None
    if image.ndim != 3:
        raise ContentRefused(f"{file.name}: has {image.ndim} dimensions, not 3")
    return image


def _lps_zyx(image: Any) -> NDArray[np.float32]:
    turn = ornt_transform(io_orientation(image.affine), _LPS)
    turned = image.as_reoriented(turn)
    return np.ascontiguousarray(turned.get_fdata(dtype=np.float32).transpose(2, 1, 0))


def read_case(folder: Path) -> NiftiCase:
    """Read ``*_flair``, ``*_t1``, ``*_t1ce`` and ``*_t2`` ``.nii.gz`` (or ``.nii``) of ``folder``.

    Raises:
        InstanceRefused: a file is missing or unreadable.
        ContentRefused: the four are not on one grid.
    """
    if not folder.is_dir():
        raise InstanceRefused(f"{folder}: no such folder")
    images = {contrast: _load(_find(folder, suffix)) for contrast, suffix in SUFFIXES.items()}
    first = images[Contrast.FLAIR]
    for contrast, image in images.items():
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise ContentRefused(f"{folder.name}: {contrast} and FLAIR are not on one grid")
    volumes = {contrast: _lps_zyx(image) for contrast, image in images.items()}
    return NiftiCase(folder.name, volumes, first)


def read_truth(folder: Path) -> NDArray[np.uint8]:
    """The expert's label map (``*_seg``) of a case, ``[z, y, x]``, axes turned to LPS."""
    return _lps_zyx(_load(_find(folder, TRUTH_SUFFIX))).astype(np.uint8)


def write_label_map(label_zyx: NDArray[np.uint8], case: NiftiCase, file: Path) -> None:
    """Write ``label_zyx`` (LPS) in the orientation and geometry of the case's FLAIR file."""
    back = ornt_transform(_LPS, io_orientation(case.header_image.affine))
    label_xyz = nibabel.orientations.apply_orientation(label_zyx.transpose(2, 1, 0), back)
    image = nibabel.Nifti1Image(np.ascontiguousarray(label_xyz), case.header_image.affine)
    image.header.set_xyzt_units("mm")
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, file)
