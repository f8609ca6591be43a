"""A second reader of the files, GDCM by way of SimpleITK, whose decoder and parser share nothing with pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.tag import Tag

from node.dicom.frames import image_lookups
from node.dicom.value_rules import finite_number
from node.errors import GeometryRefused, InstanceRefused
from node.segmentation.source_images import SourceImage
from node.study import Series

LEAST_CORRELATION = 0.999
"""Two readings of one slice agree if their correlation is at least this; intensity scaling may differ."""

_COSINE_TOLERANCE = 1e-3
_OF_THE_IMAGE = (0x0020, 0x0028, 0x5200, 0x7FE0)  # groups of relationship, image, frames and pixels
_OFFSETS = (Tag("ExtendedOffsetTable"), Tag("ExtendedOffsetTableLengths"))


def is_same_content(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """True if two readings of one slice are the same, up to intensity scaling."""
    if one.shape != other.shape:
        return False
    ours, theirs = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    if ours.std() == 0 or theirs.std() == 0:  # constant in one of them only: they cannot agree
        return bool(ours.std() == theirs.std())
    return bool(np.corrcoef(ours, theirs)[0, 1] >= LEAST_CORRELATION)


def check_with_second_reader(
    series: Series, images: Sequence[SourceImage], array_zyx: NDArray[Any], tolerance_mm: float
) -> None:
    """Compare the first, the middle and the last slice with what GDCM reads from their files.

    Args:
        images: the image of each slice of ``array_zyx``.
        tolerance_mm: how far GDCM's position of a file's first image may be from Image Position (Patient).

    Raises:
        InstanceRefused: GDCM cannot decode a file.
        GeometryRefused: GDCM reads other pixels, another position or another orientation.
    """
    read: dict[Path, NDArray[Any]] = {}
    for z in sorted({0, len(images) // 2, len(images) - 1}):
        source = images[z]
        if source.path not in read:
            image = _read(series, source)
            _check_place(series, source, image, tolerance_mm)
            read[source.path] = _frames(image, source.dataset)
        frames = read[source.path]
        if source.frame > len(frames) or not is_same_content(frames[source.frame - 1], array_zyx[z]):
            raise GeometryRefused(f"{series.label}: slice {z + 1} differs in content between two readers")


def _frames(image: sitk.Image, dataset: Dataset) -> NDArray[Any]:
    """[frame, row, column] with the sign of the stored values: SimpleITK inverts images that are MONOCHROME1."""
    array = sitk.GetArrayViewFromImage(image).astype(np.float64)
    sign = -1 if dataset.PhotometricInterpretation == "MONOCHROME1" else 1
    frames: NDArray[Any] = sign * (array if array.ndim == 3 else array[np.newaxis])
    return frames


def _check_place(series: Series, source: SourceImage, image: sitk.Image, tolerance_mm: float) -> None:
    """Compare position and cosines of the file's first image."""
    first = image_lookups(source.dataset, (1,))[0]
    position, cosines = (
        np.array(first(keyword), dtype=float) for keyword in ("ImagePositionPatient", "ImageOrientationPatient")
    )
    columns = np.array(image.GetDirection()).reshape(3, 3).T[:2].ravel()
    if np.abs(np.array(image.GetOrigin()) - position).max() > tolerance_mm:
        raise GeometryRefused(f"{series.label}: two readers disagree about Image Position (Patient) (0020,0032)")
    if np.abs(columns - cosines).max() > _COSINE_TOLERANCE:
        raise GeometryRefused(f"{series.label}: two readers disagree about Image Orientation (Patient) (0020,0037)")


def _read(series: Series, source: SourceImage) -> sitk.Image:
    try:
        return _read_image_alone(source) if _stops_gdcm(source.dataset) else _read_file(source.path)
    except RuntimeError:  # its text names the file's path
        uid = source.dataset.SOPInstanceUID
        raise InstanceRefused(
            f"{series.label}: pixel data of instance {uid} cannot be decoded by a second reader"
        ) from None


def _read_file(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader.Execute()


def _stops_gdcm(dataset: Dataset) -> bool:
    """True if ``dataset`` holds a Spacing Between Slices of 0 or of text, or an Extended Offset Table.

    GDCM 3.0 reads no image that has one of them, although no pixel and no place depends on it.
    """
    spacing = dataset.get("SpacingBetweenSlices")
    return (spacing is not None and not (finite_number(spacing) or 0) > 0) or "ExtendedOffsetTable" in dataset


def _read_image_alone(source: SourceImage) -> sitk.Image:
    """The image as GDCM reads it from a file without the attributes of `_stops_gdcm`.

    What else describes the image, and the bytes of its pixels, are those of the source.
    """
    dataset = dcmread(source.path)
    image = Dataset()
    kept = (tag for tag in dataset.keys() if tag.group in _OF_THE_IMAGE and tag not in _OFFSETS)  # noqa: SIM118
    image.update({tag: dataset.get_item(tag) for tag in kept})
    for keyword in ("SOPClassUID", "SOPInstanceUID", "Modality"):
        image[keyword] = dataset[keyword]
    image.file_meta = dataset.file_meta
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.dcm"
        image.save_as(path, enforce_file_format=True)
        return _read_file(path)
