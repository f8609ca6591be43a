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

SUFFIXES = {
    Contrast.FLAIR: ("_flair", "-t2f"),
    Contrast.T1: ("_t1", "-t1n"),
    Contrast.T1C: ("_t1ce", "-t1c"),
    Contrast.T2: ("_t2", "-t2w"),
}
"""Endings of file names in the BraTS challenges: to 2022, and since 2023."""

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


def find_file(folder: Path, *suffixes: str) -> Path:
    """The one NIfTI file of ``folder`` whose name ends with one of ``suffixes``.

    Raises:
        InstanceRefused: there is none, or there are several.
    """
    endings = [f"*{suffix}.nii{packed}" for suffix in suffixes for packed in (".gz", "")]
    found = [file for ending in endings for file in folder.glob(ending)]
    if len(found) != 1:
        named = " or ".join(f"*{suffix}.nii.gz" for suffix in suffixes)
        raise InstanceRefused(f"{folder.name}: {len(found)} files called {named}, one is needed")
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


def read_lps(file: Path) -> NDArray[np.float32]:
    """The volume of a NIfTI file, ``[z, y, x]``, axes turned to LPS.

    Raises:
        InstanceRefused: the file cannot be read as NIfTI.
        ContentRefused: it is no volume.
    """
    return _lps_zyx(_load(file))


def read_case(folder: Path) -> NiftiCase:
    """Read the four contrasts of ``folder``, ``.nii.gz`` or ``.nii``, named as `SUFFIXES` says.

    Raises:
        InstanceRefused: a file is missing or unreadable.
        ContentRefused: the four are not on one grid.
    """
    if not folder.is_dir():
        raise InstanceRefused(f"{folder}: no such folder")
    images = {contrast: _load(find_file(folder, *endings)) for contrast, endings in SUFFIXES.items()}
    first = images[Contrast.FLAIR]
    for contrast, image in images.items():
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise ContentRefused(f"{folder.name}: {contrast} and FLAIR are not on one grid")
    volumes = {contrast: _lps_zyx(image) for contrast, image in images.items()}
    return NiftiCase(folder.name, volumes, first)


def write_label_map(label_zyx: NDArray[np.uint8], case: NiftiCase, file: Path) -> None:
    """Write ``label_zyx`` (LPS) in the orientation and geometry of the case's FLAIR file."""
    back = ornt_transform(_LPS, io_orientation(case.header_image.affine))
    label_xyz = nibabel.orientations.apply_orientation(label_zyx.transpose(2, 1, 0), back)
    image = nibabel.Nifti1Image(np.ascontiguousarray(label_xyz), case.header_image.affine)
    image.header.set_xyzt_units("mm")
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, file)
