"""Split a series that holds several volumes (echoes, phases, orientations) into parts, each of which may be one volume.

A series that is one volume stays whole, and so does one in which no attribute tells volumes apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom.uid import UID

from node.dicom.frames import Lookup
from node.series.images import Image, read_images, without_repeats
from node.series.stack import FEWEST_SLICES, describe_stack, irregularity
from node.series.values import coordinates, number, text
from node.study import Instance, Series

MOST_PARTS = 64
"""A series with more values of an attribute than this is not split by it."""
_SEVERAL_PER_POSITION = 1.5
_SAME_COSINE = 0.01
_SAME_SPACING_MM = 0.001
_PLANES = ("sagittal", "coronal", "axial")  # by the axis, x, y or z, to which the normal is nearest


Value = tuple[Any, ...]
Read = Callable[[Lookup], Value]
Name = Callable[[Value], str]


@dataclass(frozen=True, slots=True)
class _Attribute:
    """What may tell volumes apart.

    ``is_structural``: images that differ in it are never in one volume; ``is_time``: it numbers the phases of a dynamic
    series; ``tolerance``: numbers that differ by no more are one value, wherever they lie.
    """

    read: Read
    name: Name
    is_structural: bool = False
    is_time: bool = False
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class _Group:
    names: tuple[str, ...]
    images: tuple[Image, ...]
    is_phase: bool = False

    @property
    def is_volume(self) -> bool:
        return len(self.images) >= FEWEST_SLICES and _reason(self.images) is None


@dataclass(frozen=True, slots=True)
class Part:
    """One of the volumes of a series, or its other images; ``is_phase``: one of the phases of a dynamic series."""

    series: Series
    is_phase: bool = False


def parts_of(series: Series) -> tuple[Part, ...]:
    """The volumes that ``series`` holds, in a fixed order, then its other images as one part.

    Empty if it is one volume, or none is found.

    Raises:
        InstanceRefused: an instance can no longer be read.
    """
    images = read_images(series)
    if not images:
        return ()
    groups = _split(_Group((), without_repeats(images)), _ATTRIBUTES)
    volumes = [group for group in groups if group.is_volume]
    if not volumes or len(volumes[0].images) == len(images):
        return ()
    parts = [Part(_series_of(series, group.images, _name(group)), group.is_phase) for group in volumes]
    used = {(image.instance.path, image.frame) for group in volumes for image in group.images}
    others = [image for image in images if (image.instance.path, image.frame) not in used]
    if others:
        name = "the other image" if len(others) == 1 else f"the other {len(others)} images"
        parts.append(Part(_series_of(series, others, name)))
    return tuple(parts)


def _name(group: _Group) -> str:
    return ", ".join(group.names) or "without repeated images"


def _split(group: _Group, attributes: Sequence[_Attribute]) -> list[_Group]:
    """Groups that are volumes where one can be found by splitting; else ``group`` alone."""
    if group.is_volume:
        return [group]
    for place, attribute in enumerate(attributes, start=1):
        if not attribute.is_structural and _images_per_position(group.images) < _SEVERAL_PER_POSITION:
            continue  # it would take every second slice for a volume
        members = _by(attribute, group.images)
        if not 1 < len(members) <= MOST_PARTS:
            continue
        parts = [
            part
            for name, images in members.items()
            for part in _split(
                _Group((*group.names, name), images, group.is_phase or attribute.is_time), attributes[place:]
            )
        ]
        if any(part.is_volume for part in parts):
            return parts
    return [group]


def _by(attribute: _Attribute, images: Sequence[Image]) -> dict[str, tuple[Image, ...]]:
    """The images of each value, in the order of the values, by the name of the value."""
    values: dict[Value, list[Image]] = {}
    for value, image in sorted(
        ((attribute.read(image.lookup), image) for image in images), key=lambda pair: _sortable(pair[0])
    ):
        like = next((each for each in values if _is_like(each, value, attribute.tolerance)), value)
        values.setdefault(like, []).append(image)
    found: dict[str, tuple[Image, ...]] = {}
    for value in sorted(values, key=_sortable):
        name = attribute.name(value)
        taken = sum(1 for other in found if other == name or other.startswith(f"{name} ("))
        found[f"{name} ({taken + 1})" if taken else name] = tuple(values[value])
    return found


def _is_like(one: Value, other: Value, tolerance: float) -> bool:
    if not tolerance or len(one) != len(other) or None in (*one, *other):
        return one == other
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def _sortable(value: Value) -> tuple[tuple[bool, str, Any], ...]:
    """None first; values of one kind in their own order."""
    return tuple((each is not None, type(each).__name__, each if each is not None else 0) for each in value)


def _images_per_position(images: Sequence[Image]) -> float:
    lookups = [image.lookup for image in images]
    stack = describe_stack(coordinates(lookups[0]("ImageOrientationPatient"), 6), lookups)
    return stack.images_per_position or 1.0


def _reason(images: Sequence[Image]) -> str | None:
    return irregularity([image.lookup for image in images])


def _series_of(series: Series, images: Sequence[Image], name: str) -> Series:
    frames: dict[Instance, list[Image]] = {}
    for image in images:
        frames.setdefault(image.instance, []).append(image)
    instances = [
        instance
        if len(members) == members[0].of_frames
        else replace(instance, frames=tuple(image.frame for image in members))
        for instance, members in frames.items()
    ]
    ordered = tuple(sorted(instances, key=lambda instance: instance.sop_instance_uid))
    frame_of_reference = text(images[0].lookup("FrameOfReferenceUID"))
    return replace(series, instances=ordered, part=name, frame_of_reference_uid=frame_of_reference)


# ---- the attributes, in the order in which they are tried ----------------------------------------------------------


def _rounded(*keywords: str, digits: int = 2) -> Read:
    """The first value given under one of ``keywords``, as a number."""

    def read(lookup: Lookup) -> Value:
        for keyword in keywords:
            found = number(lookup(keyword))
            if found is not None:
                return (round(found, digits),)
        return (None,)

    return read


def _texts(*keywords: str) -> Read:
    def read(lookup: Lookup) -> Value:
        return tuple(text(lookup(keyword)) for keyword in keywords)

    return read


def _has_place(lookup: Lookup) -> Value:
    counts = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
    return (all(coordinates(lookup(keyword), count) for keyword, count in counts.items()),)


def _orientation(lookup: Lookup) -> Value:
    cosines = coordinates(lookup("ImageOrientationPatient"), 6)
    return cosines or (None,)


def _plane_name(value: Value) -> str:
    if value[0] is None:
        return "without orientation"
    a, b = value[:3], value[3:]
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return _PLANES[max(range(3), key=lambda axis: abs(normal[axis]))]


def _spacing(lookup: Lookup) -> Value:
    return coordinates(lookup("PixelSpacing"), 2) or (None,)


def _spacing_name(value: Value) -> str:
    return "no pixel spacing" if value[0] is None else "pixels of " + " x ".join(f"{each:g}" for each in value) + " mm"


def _labelled(label: str, unit: str = "") -> Name:
    def name(value: Value) -> str:
        if value[0] is None:
            return f"no {label}"
        shown = f"{value[0]:g}" if isinstance(value[0], float) else str(value[0])
        return f"{label} {shown}{unit}"

    return name


def _image_type(lookup: Lookup) -> Value:
    return text(lookup("FrameType")) or text(lookup("ImageType")), text(lookup("ComplexImageComponent"))


_ATTRIBUTES: tuple[_Attribute, ...] = (
    _Attribute(_texts("SOPClassUID"), lambda value: UID(value[0] or "").name or "no SOP class", is_structural=True),
    _Attribute(_has_place, lambda value: "with position" if value[0] else "without position", is_structural=True),
    _Attribute(_texts("FrameOfReferenceUID"), lambda _value: "frame of reference", is_structural=True),
    _Attribute(_texts("Rows", "Columns"), lambda value: f"{value[1]} x {value[0]} pixels", is_structural=True),
    _Attribute(_orientation, _plane_name, is_structural=True, tolerance=_SAME_COSINE),
    _Attribute(_spacing, _spacing_name, is_structural=True, tolerance=_SAME_SPACING_MM),
    _Attribute(_image_type, lambda value: f"image type {value[0] or 'missing'}", is_structural=True),
    _Attribute(_rounded("EffectiveEchoTime", "EchoTime"), _labelled("echo time", " ms")),
    _Attribute(_rounded("EchoNumbers"), _labelled("echo")),
    _Attribute(_rounded("InversionTimes", "InversionTime"), _labelled("inversion time", " ms")),
    _Attribute(_rounded("DiffusionBValue"), _labelled("b-value")),
    _Attribute(
        _rounded("TemporalPositionIndex", "TemporalPositionIdentifier"), _labelled("temporal position"), is_time=True
    ),
    _Attribute(_rounded("FrameAcquisitionNumber", "AcquisitionNumber"), _labelled("acquisition"), is_time=True),
    _Attribute(_texts("StackID"), _labelled("stack")),
    _Attribute(_rounded("TriggerTime"), _labelled("trigger time", " ms"), is_time=True),
)
