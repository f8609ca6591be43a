"""Convert a DICOM series to an image; no other module does so.

dicom2nifti converts the series. highdicom independently computes the planes' positions and pixels from
ImagePositionPatient and ImageOrientationPatient (PS3.3 C.7.6.2). Both must agree in affine and, slice by slice, in
content, or the series is refused. Coordinates are LPS; only dicom2nifti's result inside this file is RAS.
"""

from __future__ import annotations

import logging
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dicom2nifti.convert_dicom
import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from dicom2nifti.exceptions import ConversionError, ConversionValidationError
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError

from node.errors import GeometryRefused, InstanceRefused
from node.study import Series

POSITION_TOLERANCE_MM = 0.1
"""The two affines may differ by this much at a corner of the volume."""

SPACING_TOLERANCE = 0.01
"""Slice gaps may differ from their mean by this fraction (as highdicom's default for regular spacing)."""

_LEAST_CORRELATION = 0.999
_FEWEST_SLICES = 4
_ROUNDING = 1e-4  # of cosines and spacings between instances: 0.03 mm at the far side of a head
_NUMBERS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
_REQUIRED = (*_NUMBERS, "Rows", "Columns", "FrameOfReferenceUID")
# errors that pydicom, its decoders and the two converters raise on a data set that violates the standard
_MALFORMED = (
    ValueError, TypeError, LookupError, AttributeError, NotImplementedError, RuntimeError, ArithmeticError, OSError,
    EOFError, BytesLengthException, struct.error,
)  # fmt: skip
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
    """Read ``series`` (classic or enhanced MR) as an image.

    Raises:
        InstanceRefused: a file cannot be read or its pixel data cannot be decoded.
        GeometryRefused: an attribute is missing; planes are not parallel, not evenly spaced, duplicated, or sheared
            against each other; the two readers disagree.
    """
    datasets = [_read(instance.path) for instance in series.instances]
    is_enhanced = len(datasets) == 1 and "NumberOfFrames" in datasets[0]
    try:
        if is_enhanced:
            _check_present(series, datasets[0], ("Rows", "Columns", "FrameOfReferenceUID"))
        else:
            _check_classic(series, datasets)
    except _MALFORMED as error:
        raise InstanceRefused(f"{series.label}: an attribute cannot be read ({type(error).__name__})") from None
    for dataset in datasets:
        _decode(dataset, series)
    planes, sources = _planes(series, datasets, is_enhanced)
    affine_lps, array_zyx = _converted(series, datasets)
    affine_lps, array_zyx = _right_handed(affine_lps, array_zyx)
    plane_affine, plane_array = planes.affine, planes.array
    # highdicom's index is (slice, row, column); ours is (column, row, slice)
    expected = plane_affine[:, [2, 1, 0, 3]]
    if np.linalg.det(expected[:3, :3]) < 0:
        expected, plane_array, sources = _reversed(expected, plane_array, sources)
    _check_agreement(series, (affine_lps, array_zyx), (expected, plane_array))
    return SourceVolume(image_from_affine(array_zyx.astype(np.float32), affine_lps), series, tuple(sources))


def _read(path: Path) -> pydicom.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # malformed values are checked below; pydicom's warnings add nothing
            return pydicom.dcmread(path)
    except (InvalidDicomError, *_MALFORMED) as error:
        raise InstanceRefused(f"{path.name}: cannot be read as DICOM ({type(error).__name__})") from None


def _decode(dataset: pydicom.Dataset, series: Series) -> None:
    """Decode the pixel data, which pydicom caches, so that an error in it is not reported as one of geometry."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.pixel_array  # noqa: B018
    except _MALFORMED as error:
        uid = dataset.SOPInstanceUID
        raise InstanceRefused(
            f"{series.label}: pixel data of instance {uid} cannot be decoded ({type(error).__name__})"
        ) from None


def _check_present(series: Series, dataset: pydicom.Dataset, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if dataset.get(keyword) in (None, ""):
            raise GeometryRefused(f"{series.label}: instance {dataset.SOPInstanceUID} has no {keyword}")


def _check_classic(series: Series, datasets: list[pydicom.Dataset]) -> None:
    """Check that required attributes exist and agree between instances (PS3.3 C.7.6.2, C.7.6.3)."""
    for dataset in datasets:
        _check_present(series, dataset, _REQUIRED)
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID"):
        if len({str(dataset[keyword].value) for dataset in datasets}) > 1:
            raise GeometryRefused(f"{series.label}: {keyword} differs between its instances")
    numbers = {keyword: _numbers(series, datasets, keyword) for keyword in _NUMBERS}
    first = datasets[0]
    for keyword in ("PixelSpacing", "ImageOrientationPatient"):
        if np.abs(numbers[keyword] - numbers[keyword][0]).max() > _ROUNDING:
            raise GeometryRefused(f"{series.label}: {keyword} differs between its instances")
        for dataset in datasets[1:]:  # may be rounded differently, but highdicom requires them to be identical
            dataset[keyword].value = first[keyword].value
    if len(datasets) < _FEWEST_SLICES:
        raise GeometryRefused(f"{series.label}: {len(datasets)} slices are too few for a volume")
    along = _check_spacing(series, numbers["ImageOrientationPatient"][0], numbers["ImagePositionPatient"])
    # dicom2nifti reads runs of InstanceNumber as time points, but some scanners number slices in acquisition order
    for number, index in enumerate(np.argsort(along)):
        datasets[index].add_new("InstanceNumber", "IS", number + 1)  # unlike an assignment, it never reads the old one


def _numbers(series: Series, datasets: list[pydicom.Dataset], keyword: str) -> NDArray[np.float64]:
    """The values of ``keyword``, [instance, component]."""
    try:
        values = np.array([[float(number) for number in dataset[keyword].value] for dataset in datasets])
    except (ValueError, TypeError):
        values = np.empty(0)
    if values.shape != (len(datasets), _NUMBERS[keyword]) or not np.isfinite(values).all():
        raise GeometryRefused(f"{series.label}: {keyword} is not {_NUMBERS[keyword]} numbers in each instance")
    return values


def _check_spacing(
    series: Series, orientation: NDArray[np.float64], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Check that the planes are evenly spaced; return the position of each along the slice normal, in mm."""
    row, column = orientation.reshape(2, 3)
    if abs(np.linalg.norm(row) - 1) > 1e-3 or abs(np.linalg.norm(column) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        raise GeometryRefused(f"{series.label}: ImageOrientationPatient is not a pair of orthogonal unit vectors")
    along: NDArray[np.float64] = positions @ np.cross(row, column)
    gaps = np.diff(np.sort(along))
    typical = float(np.median(gaps))
    if (gaps < POSITION_TOLERANCE_MM).any():
        raise GeometryRefused(f"{series.label}: two instances share one ImagePositionPatient")
    if (gaps > 1.5 * typical).any():
        raise GeometryRefused(f"{series.label}: a slice is missing: gaps of {gaps.min():.2f} to {gaps.max():.2f} mm")
    if np.abs(gaps - gaps.mean()).max() > max(SPACING_TOLERANCE * typical, 0.01):
        raise GeometryRefused(f"{series.label}: slice gaps differ: {gaps.min():.2f} to {gaps.max():.2f} mm")
    return along


def _planes(
    series: Series, datasets: list[pydicom.Dataset], is_enhanced: bool
) -> tuple[highdicom.Volume, list[tuple[Path, int]]]:
    """The volume [slice, row, column] with its affine as read by highdicom, and the file and frame of each slice."""
    try:
        if is_enhanced:
            image = highdicom.Image.from_dataset(datasets[0], copy=False)
            volume = image.get_volume(
                rtol=SPACING_TOLERANCE, apply_real_world_transform=False, apply_voi_transform=False
            )
            frames = _frames_in_order(image, volume)
            return volume, [(series.instances[0].path, frame) for frame in frames]
        volume = highdicom.get_volume_from_series(
            datasets, rtol=SPACING_TOLERANCE, apply_real_world_transform=False, apply_voi_transform=False
        )
    except _MALFORMED as error:
        raise GeometryRefused(f"{series.label}: its planes form no regular volume: {error}") from None
    by_uid = {instance.sop_instance_uid: instance.path for instance in series.instances}
    order = _order_along(volume, np.array([dataset.ImagePositionPatient for dataset in datasets], dtype=float))
    return volume, [(by_uid[datasets[index].SOPInstanceUID], 1) for index in order]


def _order_along(volume: highdicom.Volume, positions: NDArray[np.float64]) -> list[int]:
    """For each slice of ``volume`` the index of its plane, from the planes' positions."""
    homogeneous = np.c_[positions, np.ones(len(positions))]
    index = (np.linalg.inv(volume.affine) @ homogeneous.T)[0]
    return [int(i) for i in np.argsort(index)]


def _frames_in_order(image: highdicom.Image, volume: highdicom.Volume) -> list[int]:
    groups = image.PerFrameFunctionalGroupsSequence
    positions = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], dtype=float)
    return [index + 1 for index in _order_along(volume, positions)]


def _converted(series: Series, datasets: list[pydicom.Dataset]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Affine (LPS) and array [z, y, x] as converted by dicom2nifti."""
    # on a refusal dicom2nifti logs values of the header; the exceptions below give a reason without them
    logging.getLogger("dicom2nifti").setLevel(logging.CRITICAL)
    for dataset in datasets:
        for keyword in ("RepetitionTime", "EchoTime"):  # only for NIfTI's header, which is not kept; may be empty
            if keyword in dataset:
                del dataset[keyword]
        for number, group in enumerate(dataset.get("PerFrameFunctionalGroupsSequence", ())):
            # dicom2nifti orders frames by In-Stack Position Number, but computes the affine from their stored order
            for content in group.get("FrameContentSequence", ()):
                content.InStackPositionNumber = number + 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nifti = dicom2nifti.convert_dicom.dicom_array_to_nifti(datasets, None, reorient_nifti=False)["NII"]
    except (ConversionValidationError, ConversionError) as error:
        raise GeometryRefused(f"{series.label}: dicom2nifti refuses it: {error}") from None
    except _MALFORMED as error:
        raise GeometryRefused(f"{series.label}: dicom2nifti cannot convert it ({type(error).__name__})") from None
    if nifti.ndim != 3:
        raise GeometryRefused(f"{series.label}: holds {nifti.shape[-1]} volumes, not one")
    return _RAS_TO_LPS @ nifti.affine, np.asanyarray(nifti.dataobj).transpose(2, 1, 0)


def _right_handed(affine: NDArray[np.float64], array_zyx: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    if np.linalg.det(affine[:3, :3]) > 0:
        return affine, array_zyx
    affine, array_zyx, _ = _reversed(affine, array_zyx, [])
    return affine, array_zyx


def _reversed(
    affine: NDArray[np.float64], array_zyx: NDArray[Any], sources: list[tuple[Path, int]]
) -> tuple[NDArray[np.float64], NDArray[Any], list[tuple[Path, int]]]:
    """The same volume with its slices in reverse order."""
    turned = affine.copy()
    turned[:3, 3] += (array_zyx.shape[0] - 1) * affine[:3, 2]
    turned[:3, 2] *= -1
    return turned, array_zyx[::-1], sources[::-1]


def _check_agreement(
    series: Series,
    converted: tuple[NDArray[np.float64], NDArray[Any]],
    planes: tuple[NDArray[np.float64], NDArray[Any]],
) -> None:
    """Check that shape, the eight corners in mm, and each slice's content (up to intensity scaling) are the same."""
    (affine, array_zyx), (expected, plane_zyx) = converted, planes
    if array_zyx.shape != plane_zyx.shape:
        raise GeometryRefused(f"{series.label}: converted to {array_zyx.shape} voxels, planes say {plane_zyx.shape}")
    size_xyz = np.array(array_zyx.shape[::-1]) - 1
    corners = np.array([[*(size_xyz * corner), 1] for corner in np.ndindex(2, 2, 2)])
    difference_mm = float(np.abs(corners @ (affine - expected).T).max())
    if difference_mm > POSITION_TOLERANCE_MM:
        raise GeometryRefused(f"{series.label}: affine and plane positions disagree by {difference_mm:.2f} mm")
    for z in range(array_zyx.shape[0]):
        ours, theirs = array_zyx[z].ravel().astype(np.float64), plane_zyx[z].ravel().astype(np.float64)
        if theirs.std() == 0 and ours.std() == 0:
            continue
        is_flat = ours.std() == 0 or theirs.std() == 0  # only one of them is constant: they cannot agree
        if is_flat or np.corrcoef(ours, theirs)[0, 1] < _LEAST_CORRELATION:
            raise GeometryRefused(f"{series.label}: slice {z + 1} differs in content between two readers")
