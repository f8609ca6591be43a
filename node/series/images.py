"""The images of one series, each with the attributes that may tell several volumes in it apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.filereader import dcmread
from pydicom.tag import Tag

from node.dicom.frames import Lookup, image_lookups
from node.errors import InstanceRefused
from node.series.headers import STUDY_TAGS
from node.series.values import DICOM_UNREADABLE, coordinates, require_disk
from node.study import Instance, Series

_TAGS = [*STUDY_TAGS, *(Tag(keyword) for keyword in (
    "ImageType", "ComplexImageComponent", "EchoTime", "EchoNumbers", "InversionTime", "DiffusionBValue",
    "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
))]  # fmt: skip
_PLACE_DIGITS = 2  # of millimetres
_MOST_REPEATED = 0.1  # more images than this share of a series are no slip, but another volume


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a series; ``frame`` is its number in a multi-frame instance, ``of_frames`` how many that holds."""

    instance: Instance
    frame: int
    of_frames: int
    lookup: Lookup


def read_images(series: Series) -> tuple[Image, ...]:
    """The images of ``series`` in the order of its instances and frames.

    Raises:
        InstanceRefused: an instance can no longer be read.
    """
    images: list[Image] = []
    for instance in series.instances:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = dcmread(instance.path, stop_before_pixels=True, specific_tags=_TAGS)
                lookups = image_lookups(dataset)
        except DICOM_UNREADABLE as error:
            require_disk(error, instance.path.name)
            reason = f"{instance.path.name} of {series.label} cannot be read: {type(error).__name__}"
            raise InstanceRefused(reason) from None
        images += [
            Image(instance, frame, len(lookups), lenient(lookup)) for frame, lookup in enumerate(lookups, start=1)
        ]
    return tuple(images)


def lenient(lookup: Lookup) -> Lookup:
    """``lookup`` that returns None for a value that does not conform to its value representation."""

    def find(keyword: str) -> Any:
        try:
            return lookup(keyword)
        except DICOM_UNREADABLE:
            return None

    return find


def without_repeats(images: Sequence[Image]) -> tuple[Image, ...]:
    """``images`` without those few that repeat the pixels and the place of another one, under another UID."""
    first: dict[tuple[Any, ...], Image] = {}
    repeated: list[tuple[Image, Image]] = []
    for image in images:
        place = _place(image)
        if place is None or image.of_frames > 1:
            continue
        if place in first:
            repeated.append((first[place], image))
        else:
            first[place] = image
    if len(repeated) > max(1, _MOST_REPEATED * len(images)):
        return tuple(images)
    left_out = {image.instance for other, image in repeated if _pixel_bytes(image) == _pixel_bytes(other)}
    return tuple(image for image in images if image.instance not in left_out)


def _place(image: Image) -> tuple[Any, ...] | None:
    """Position, orientation and spacing; None if one of them is missing."""
    found: list[float] = []
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        values = coordinates(image.lookup(keyword), count)
        if values is None:
            return None
        found += [round(value, _PLACE_DIGITS) for value in values]
    return tuple(found)


def _pixel_bytes(image: Image) -> bytes:
    """The encoded pixels, which are not decoded: images that are encoded differently are not taken for the same."""
    try:
        data: bytes = dcmread(image.instance.path).get("PixelData", b"")
    except DICOM_UNREADABLE as error:
        require_disk(error, image.instance.path.name)
        raise InstanceRefused(f"{image.instance.path.name} cannot be read: {type(error).__name__}") from None
    return data
