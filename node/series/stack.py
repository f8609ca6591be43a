"""How the planes of one series are stacked: steps, coverage, and why they form no regular volume.

``segmentation/volume.py`` applies the same rules before it reads pixels, so that the selection passes over a series
that it would refuse, and takes a usable runner-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import median

from node.dicom.frames import Lookup
from node.series.values import coordinates, integer, text

Vector = tuple[float, ...]

POSITION_TOLERANCE_MM = 0.1
"""Planes nearer than this share a position; the last plane may deviate this far from the normal through the first."""

FEWEST_SLICES = 4
"""Fewer planes are no volume."""

SPACING_TOLERANCE = 0.01
"""Slice gaps may differ from their mean by this fraction."""

PERPENDICULAR_TOLERANCE = 1e-3
"""The cosine between the slice normal and the vector from the first plane to any other may differ from 1 by this."""

_SAME_PLACE_MM = 0.01
_MISSING_SLICE = 1.5  # a gap of more than this many median gaps means that a slice is missing
_LEAST_GAP_DIFFERENCE_MM = 0.01  # smaller differences are rounding: positions are written with few digits
_UNIT = 1e-3
_ROUNDING = 1e-4  # of cosines and spacings between instances
_ATTRIBUTES = (
    ("ImagePositionPatient", 3, "Image Position (Patient) (0020,0032)"),
    ("ImageOrientationPatient", 6, "Image Orientation (Patient) (0020,0037)"),
    ("PixelSpacing", 2, "Pixel Spacing (0028,0030)"),
)
_SAME = (
    ("Rows", "Rows (0028,0010)"),
    ("Columns", "Columns (0028,0011)"),
    ("FrameOfReferenceUID", "Frame of Reference UID (0020,0052)"),
)


@dataclass(frozen=True, slots=True)
class Stack:
    """Positions along the slice normal (PS3.3 C.7.6.2.1.1); ``irregularity``: why they form no volume, or None.

    ``box_mm``: least and greatest LPS coordinates of the planes' corners.
    """

    slice_count: int | None = None
    slice_step_mm: float | None = None
    coverage_mm: float | None = None
    images_per_position: float | None = None
    irregularity: str | None = None
    box_mm: tuple[Vector, Vector] | None = None


def describe_stack(orientation: Vector | None, planes: Sequence[Lookup]) -> Stack:
    """The stack that ``planes`` (attribute by keyword, one per image) make along the normal of ``orientation``."""
    points = [coordinates(plane("ImagePositionPatient"), 3) for plane in planes]
    known = [point for point in points if point]
    if orientation is None or not known:
        return Stack(len(planes) or None, irregularity=irregularity(planes))
    normal = _normal(orientation)
    distances = sorted(_dot(normal, point) for point in known)
    gaps = [upper - lower for lower, upper in pairwise(distances) if upper - lower > _SAME_PLACE_MM]
    step = round(median(gaps), 3) if gaps else None
    coverage = round(distances[-1] - distances[0] + step, 1) if step else None
    count = len(gaps) + 1
    box = _box(orientation, known, planes[0])
    return Stack(count, step, coverage, len(distances) / count, irregularity(planes), box)


def _box(orientation: Vector, points: Sequence[Vector], plane: Lookup) -> tuple[Vector, Vector] | None:
    spacing, sides = coordinates(plane("PixelSpacing"), 2), (integer(plane("Columns")), integer(plane("Rows")))
    if not spacing or not sides[0] or not sides[1]:
        return None
    # Pixel Spacing is (between rows, between columns); the first three cosines point along a row, across the columns
    along_row = [cosine * spacing[1] * sides[0] for cosine in orientation[:3]]
    along_column = [cosine * spacing[0] * sides[1] for cosine in orientation[3:]]
    ranges = []
    for axis in range(3):
        corners = (0.0, along_row[axis], along_column[axis], along_row[axis] + along_column[axis])
        places = [point[axis] for point in points]
        ranges.append((min(places) + min(corners), max(places) + max(corners)))
    return tuple(low for low, _ in ranges), tuple(high for _, high in ranges)


def irregularity(planes: Sequence[Lookup]) -> str | None:
    """The first reason found why ``planes`` are not a regular volume, or None."""
    if not planes:
        return "holds no frame: Per-frame Functional Groups Sequence (5200,9230) is missing or empty"
    rows: dict[str, list[Vector]] = {}
    for keyword, count, name in _ATTRIBUTES:
        values = [coordinates(plane(keyword), count) for plane in planes]
        missing = values.count(None)
        if missing:
            return f"{name} is missing or malformed in {missing} of {len(planes)} images"
        rows[keyword] = values
    for keyword, _, name in _ATTRIBUTES[1:]:
        if any(abs(a - b) > _ROUNDING for row in rows[keyword] for a, b in zip(row, rows[keyword][0], strict=True)):
            return f"{name} differs between its images"
    for keyword, name in _SAME:
        values = [text(plane(keyword)) for plane in planes]
        missing = values.count(None)
        if 0 < missing < len(planes) or (missing and keyword != "FrameOfReferenceUID"):  # optional, but for all alike
            return f"{name} is missing in {missing} of {len(planes)} images"
        if len(set(values)) > 1:
            return f"{name} differs between its images"
        if keyword != "FrameOfReferenceUID" and not (integer(values[0]) or 0) > 0:
            return f"{name} is not a positive number"
    if min(rows["PixelSpacing"][0]) <= 0:
        return "Pixel Spacing (0028,0030) is not positive"
    if not _is_orthonormal(rows["ImageOrientationPatient"][0]):
        return "Image Orientation (Patient) is not a pair of orthogonal unit vectors"
    normal = _normal(rows["ImageOrientationPatient"][0])
    ordered = sorted(rows["ImagePositionPatient"], key=lambda point: _dot(normal, point))
    return _uneven(ordered, normal) or _sheared(ordered, normal)


def _uneven(ordered: Sequence[Vector], normal: Vector) -> str | None:
    gaps = [_dot(normal, upper) - _dot(normal, lower) for lower, upper in pairwise(ordered)]
    if not gaps:
        return None
    typical, mean = median(gaps), sum(gaps) / len(gaps)
    span = f"{min(gaps):.2f} to {max(gaps):.2f} mm"
    if min(gaps) < POSITION_TOLERANCE_MM:
        return "two of its images share one position"
    if max(gaps) > _MISSING_SLICE * typical:
        return f"a slice is missing: gaps of {span}"
    if max(abs(gap - mean) for gap in gaps) > max(SPACING_TOLERANCE * typical, _LEAST_GAP_DIFFERENCE_MM):
        return f"slice gaps differ: {span}"
    return None


def _sheared(ordered: Sequence[Vector], normal: Vector) -> str | None:
    """Why the stack is tilted, or None: the planes are parallel, but their positions do not follow their normal."""
    first = ordered[0]
    worst = 0.0
    for point in ordered[1:]:
        way = tuple(b - a for a, b in zip(first, point, strict=True))
        worst = max(worst, 1 - abs(_dot(normal, way)) / sqrt(_dot(way, way)))
    way = tuple(b - a for a, b in zip(first, ordered[-1], strict=True))
    beside = sqrt(max(0.0, _dot(way, way) - _dot(normal, way) ** 2))
    if beside > POSITION_TOLERANCE_MM or worst > PERPENDICULAR_TOLERANCE:
        return f"its planes are tilted: over the stack they shift {beside:.1f} mm beside their normal"
    return None


def _is_orthonormal(orientation: Vector) -> bool:
    row, column = orientation[:3], orientation[3:]
    lengths = (sqrt(_dot(row, row)), sqrt(_dot(column, column)))
    return all(abs(length - 1) <= _UNIT for length in lengths) and abs(_dot(row, column)) <= _UNIT


def _normal(orientation: Vector) -> Vector:
    """The unit normal: cosines are written with few digits, and over a head their error would look like a tilt."""
    ax, ay, az, bx, by, bz = orientation
    normal = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    length = sqrt(_dot(normal, normal)) or 1.0
    return tuple(each / length for each in normal)


def _dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
