"""The images of a series, one for each plane, read and decoded from their files."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import Tag

from node.dicom.frames import ENHANCED_MR, Lookup, image_lookups
from node.dicom.pixel_description import without_unused_bits
from node.errors import InstanceRefused
from node.study import Series

# errors that pydicom, its decoders and the two converters raise on a data set that violates the standard
MALFORMED = (
    ValueError, TypeError, LookupError, AttributeError, NotImplementedError, RuntimeError, ArithmeticError, OSError,
    EOFError, BytesLengthException, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class SourceImage:
    """One plane: its file and frame number (1 for a classic instance), and its attributes by keyword."""

    path: Path
    frame: int
    dataset: pydicom.Dataset
    lookup: Lookup


def read_images(series: Series) -> list[SourceImage]:
    """The images of ``series``, in the order of its instances and frames.

    Raises:
        InstanceRefused: a file cannot be read as DICOM.
    """
    images: list[SourceImage] = []
    for instance in series.instances:
        dataset = _read(instance.path)
        try:
            lookups = image_lookups(dataset, instance.frames)
        except MALFORMED as error:
            raise InstanceRefused(f"{series.label}: an attribute cannot be read ({type(error).__name__})") from None
        numbers = instance.frames or range(1, len(lookups) + 1)
        images += [
            SourceImage(instance.path, number, dataset, _naming(lookup))
            for number, lookup in zip(numbers, lookups, strict=False)
        ]
    return images


def _naming(lookup: Lookup) -> Lookup:
    """``lookup`` that raises InstanceRefused, with the attribute's name, for a value that pydicom cannot read."""

    def find(keyword: str) -> Any:
        try:
            return lookup(keyword)
        except MALFORMED as error:
            tag = Tag(keyword)
            name = f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"
            raise InstanceRefused(f"{name} cannot be read ({type(error).__name__})") from None

    return find


def _read(path: Path) -> pydicom.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # malformed values are checked later; pydicom's warnings add nothing
            return pydicom.dcmread(path)
    except (InvalidDicomError, *MALFORMED) as error:
        raise InstanceRefused(f"{path.name}: cannot be read as DICOM ({type(error).__name__})") from None


def stored_values(series: Series, images: Sequence[SourceImage]) -> list[NDArray[Any]]:
    """The stored values [row, column] of each image, as pydicom decodes them.

    Raises:
        InstanceRefused: the pixel data of an instance cannot be decoded, or has not the frames that its header says.
    """
    return [_image_of(series, image, _decoded(series, image.dataset)) for image in images]


def _decoded(series: Series, dataset: pydicom.Dataset) -> NDArray[Any]:
    """[frame, row, column]; pydicom caches the array of a data set.

    Not GDCM decodes compressed pixels, but another plug-in where there is one: GDCM is the second reader.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
                plugins = get_decoder(dataset.file_meta.TransferSyntaxUID).available_plugins
                dataset.pixel_array_options(decoding_plugin=next((one for one in plugins if one != "gdcm"), ""))
            array = dataset.pixel_array
            return array if array.ndim == 3 else array[np.newaxis]
    except MALFORMED as error:
        raise _undecodable(series, dataset, type(error).__name__) from None


def _image_of(series: Series, image: SourceImage, frames: NDArray[Any]) -> NDArray[Any]:
    is_enhanced = str(image.dataset.SOPClassUID) in ENHANCED_MR
    if len(frames) != (int(image.dataset.get("NumberOfFrames") or 1) if is_enhanced else 1) or image.frame > len(
        frames
    ):
        raise _undecodable(series, image.dataset, f"it holds {len(frames)} frames of Rows x Columns pixels")
    stored: NDArray[Any] = frames[image.frame - 1]
    if image.dataset.file_meta.TransferSyntaxUID.is_encapsulated:  # a decoder fills the unused bits
        return stored
    left_over = len(image.dataset.PixelData) - frames.nbytes
    if left_over >= stored[0].nbytes:  # fewer bytes are padding
        raise _undecodable(series, image.dataset, f"Rows x Columns x Number of Frames leave {left_over} bytes over")
    return without_unused_bits(stored, int(image.dataset.BitsStored))


def _undecodable(series: Series, dataset: pydicom.Dataset, what: str) -> InstanceRefused:
    return InstanceRefused(
        f"{series.label}: pixel data of instance {dataset.SOPInstanceUID} cannot be decoded ({what})"
    )


def files_of(images: Iterable[SourceImage]) -> tuple[tuple[Path, int], ...]:
    """File and frame number of each image."""
    return tuple((image.path, image.frame) for image in images)
