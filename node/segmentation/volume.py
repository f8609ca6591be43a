"""Convert a DICOM series to an image; no other module does so.

dicom2nifti converts the planes of the series. highdicom independently computes the affine from their positions and
cosines (PS3.3 C.7.6.2). Both must agree in affine and, slice by slice, in content. A third reader, GDCM, reads the
first, middle and last slice from their files, and must agree, too. Otherwise the series is refused.

Coordinates are LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import Dataset

from node.dicom.pixel_description import first_pixel_problem, padding_mask, rescale_of
from node.errors import ContentRefused, GeometryRefused, InstanceRefused
from node.segmentation.converter import CONVERSION_ERRORS, Plane, converted, neutral_series
from node.segmentation.second_reader import check_with_second_reader, is_same_content
from node.segmentation.source_images import MALFORMED, SourceImage, files_of, read_images, stored_values
from node.series.stack import FEWEST_SLICES, POSITION_TOLERANCE_MM, SPACING_TOLERANCE, irregularity
from node.study import Series


@dataclass(frozen=True, slots=True)
class SourceVolume:
    """One series as an image.

    Attributes:
        image: float32, LPS; index x runs along a row (columns), y down a column (rows), z over slices, right-handed.
        series: the series of which it was read.
        sources: for each slice z its file and frame number (1 for single-frame instances).
    """

    image: sitk.Image
    series: Series
    sources: tuple[tuple[Path, int], ...]

    @property
    def affine_lps(self) -> NDArray[np.float64]:
        """4x4, index (x, y, z) to LPS in mm."""
        return affine_of(self.image)


def affine_of(image: sitk.Image) -> NDArray[np.float64]:
    """4x4 affine of ``image``: index (x, y, z) to LPS in mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def image_from_affine(array_zyx: NDArray[Any], affine_lps: NDArray[np.float64]) -> sitk.Image:
    """The image that has ``affine_lps`` (index x, y, z to LPS in mm; orthogonal columns)."""
    spacing_xyz = np.linalg.norm(affine_lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array_zyx))
    image.SetSpacing(spacing_xyz.tolist())
    image.SetDirection((affine_lps[:3, :3] / spacing_xyz).ravel().tolist())
    image.SetOrigin(affine_lps[:3, 3].tolist())
    return image


def read_volume(series: Series) -> SourceVolume:
    """Read ``series`` (classic or enhanced MR, in one instance or several) as an image.

    Padding (PS3.3 C.7.5.1.1.2) gets the least value of the image.

    Raises:
        InstanceRefused: a file cannot be read or its pixel data cannot be decoded.
        GeometryRefused: an attribute is missing; planes are not parallel, not evenly spaced, duplicated, or sheared
            against each other; the readers disagree.
        ContentRefused: every pixel is padding.
    """
    try:
        return _read(series)
    except InstanceRefused as error:
        raise InstanceRefused(f"{series.label}: {str(error).removeprefix(f'{series.label}: ')}") from None


def _read(series: Series) -> SourceVolume:
    images = _in_order(series, read_images(series))
    planes = [
        _plane(image, images[0], stored) for image, stored in zip(images, stored_values(series, images), strict=True)
    ]
    first, last = (np.array(plane.position_mm) for plane in (planes[0], planes[-1]))
    datasets = neutral_series(planes, float(np.linalg.norm(last - first)) / (len(planes) - 1))
    expected = _affine_of_planes(series, datasets)
    affine_lps, array_zyx = _right_handed(*_converted(series, datasets))
    array_zyx = array_zyx.astype(np.float32)
    _check_agreement(series, (affine_lps, array_zyx), expected, planes)
    check_with_second_reader(series, images, array_zyx, POSITION_TOLERANCE_MM)
    image = image_from_affine(_without_padding(series, array_zyx, planes, images), affine_lps)
    return SourceVolume(image, series, files_of(images))


def _in_order(series: Series, images: Sequence[SourceImage]) -> list[SourceImage]:
    """The images along their normal, so that column, row and slice make a right-handed system.

    Raises:
        GeometryRefused: they are no regular volume; the text names the attribute.
        InstanceRefused: their pixels cannot be read by their description.
    """
    lookups = [image.lookup for image in images]
    reason = irregularity(lookups)
    if reason is None and not lookups[0]("FrameOfReferenceUID"):
        reason = f"Frame of Reference UID (0020,0052) is missing in {len(images)} of {len(images)} images"
    if reason is None and len(images) < FEWEST_SLICES:
        reason = f"{len(images)} slices are too few for a volume"
    if reason:
        raise GeometryRefused(f"{series.label}: {reason}")
    reason = first_pixel_problem(lookups)
    if reason:
        raise InstanceRefused(f"{series.label}: {reason}")
    row, column = np.array(lookups[0]("ImageOrientationPatient"), dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    return sorted(images, key=lambda image: float(normal @ np.array(image.lookup("ImagePositionPatient"), dtype=float)))


def _plane(image: SourceImage, first: SourceImage, stored: NDArray[Any]) -> Plane:
    """The plane of ``image``; cosines and spacing are those of ``first``, since they may be rounded differently."""
    slope, intercept = rescale_of(image.lookup)
    return Plane(
        stored,
        rescale_slope=slope,
        rescale_intercept=intercept,
        position_mm=tuple(float(value) for value in image.lookup("ImagePositionPatient")),
        orientation=tuple(float(value) for value in first.lookup("ImageOrientationPatient")),
        pixel_spacing_mm=tuple(float(value) for value in first.lookup("PixelSpacing")),
    )


def _affine_of_planes(series: Series, datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    """Affine (index column, row, slice to LPS in mm) as highdicom computes it from the planes' positions."""
    try:
        volume = highdicom.get_volume_from_series(
            list(datasets), rtol=SPACING_TOLERANCE, apply_real_world_transform=False, apply_voi_transform=False
        )
    except MALFORMED as error:
        raise GeometryRefused(f"{series.label}: its planes form no regular volume ({type(error).__name__})") from None
    return _right_handed(volume.affine[:, [2, 1, 0, 3]], volume.array)[0]


def _converted(series: Series, datasets: Sequence[Dataset]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    try:
        return converted(datasets)
    except (*CONVERSION_ERRORS, *MALFORMED) as error:  # their texts are constants of the library
        raise GeometryRefused(f"{series.label}: cannot be converted to a volume ({type(error).__name__})") from None


def _without_padding(
    series: Series, array_zyx: NDArray[np.float32], planes: Sequence[Plane], images: Sequence[SourceImage]
) -> NDArray[np.float32]:
    """``array_zyx`` with the least value of the image where pixels are padding."""
    masks = [padding_mask(plane.stored, image.lookup) for plane, image in zip(planes, images, strict=True)]
    if all(mask is None for mask in masks):
        return array_zyx
    padding = np.stack([np.zeros(array_zyx.shape[1:], bool) if mask is None else mask for mask in masks])
    if padding.all():
        raise ContentRefused(f"{series.label}: every pixel is padding, Pixel Padding Value (0028,0120)")
    return np.where(padding, array_zyx[~padding].min(), array_zyx)


def _right_handed(affine: NDArray[np.float64], array_zyx: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """The same volume with its slices in reverse order, unless column, row and slice are a right-handed system."""
    if np.linalg.det(affine[:3, :3]) > 0:
        return affine, array_zyx
    turned = affine.copy()
    turned[:3, 3] += (array_zyx.shape[0] - 1) * affine[:3, 2]
    turned[:3, 2] *= -1
    return turned, array_zyx[::-1]


def _check_agreement(
    series: Series,
    conversion: tuple[NDArray[np.float64], NDArray[Any]],
    expected: NDArray[np.float64],
    planes: Sequence[Plane],
) -> None:
    """Check that shape, the eight corners in mm, and each slice's content (up to intensity scaling) are the same."""
    affine, array_zyx = conversion
    shape = (len(planes), *planes[0].stored.shape)
    if array_zyx.shape != shape:
        raise GeometryRefused(f"{series.label}: converted to {array_zyx.shape} voxels, planes say {shape}")
    _check_corners(series, affine, expected, shape)
    for z, plane in enumerate(planes):
        if not is_same_content(array_zyx[z], plane.stored):
            raise GeometryRefused(f"{series.label}: slice {z + 1} differs in content after conversion")


def _check_corners(
    series: Series, affine: NDArray[np.float64], expected: NDArray[np.float64], shape_zyx: tuple[int, ...]
) -> None:
    size_xyz = np.array(shape_zyx[::-1]) - 1
    corners = np.array([[*(size_xyz * corner), 1] for corner in np.ndindex(2, 2, 2)])
    difference_mm = float(np.abs(corners @ (affine - expected).T).max())
    if difference_mm > POSITION_TOLERANCE_MM:
        raise GeometryRefused(f"{series.label}: affine and plane positions disagree by {difference_mm:.2f} mm")
