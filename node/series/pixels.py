"""Whether the pixel data of a file is complete, checked without reading it (PS3.5 7.1, 8.2, A.4)."""

from __future__ import annotations

import struct
from typing import BinaryIO

from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from node.dicom.value_rules import finite_number
from node.errors import InstanceRefused
from node.series.values import DICOM_UNREADABLE

_PIXEL_DATA = (0x7FE0, 0x0010)
_SOP_INSTANCE_UID = Tag("SOPInstanceUID")
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def expected_bytes(dataset: Dataset) -> int | None:
    """Length of native pixel data, computed from the image description, not padded; None if there is no image.

    Raises:
        InstanceRefused: an attribute of the description is no count; the text names it.
    """
    rows, columns, bits = (_count(dataset, keyword) for keyword in ("Rows", "Columns", "BitsAllocated"))
    if not rows or not columns or not bits:
        return None
    frames = _count(dataset, "NumberOfFrames") or 1
    samples = _count(dataset, "SamplesPerPixel") or 1
    return (rows * columns * samples * frames * bits + 7) // 8


def _count(dataset: Dataset, keyword: str) -> int | None:
    """The value of an attribute that counts something; None if it is missing or empty.

    Raises:
        InstanceRefused: it is no count; the text names the attribute.
    """
    try:
        value = dataset.get(keyword)
    except DICOM_UNREADABLE:
        value = ()
    if value is None:
        return None
    if not isinstance(value, int) or value < 0 or finite_number(value) is None:
        tag = Tag(keyword)
        raise InstanceRefused(f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X}) is not one number")
    return int(value)


def truncation(file: BinaryIO, size_bytes: int, dataset: Dataset) -> str | None:
    """Why the pixel data cannot be complete, or None.

    ``dataset`` holds the image description and file meta information; ``file`` is open for reading, and its position
    changes. The common case (pixel data last in the file) costs one small read at its end.
    """
    expected = expected_bytes(dataset)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if expected is None or syntax == DeflatedExplicitVRLittleEndian:
        return None
    if syntax.is_encapsulated:
        file.seek(max(0, size_bytes - len(_SEQUENCE_DELIMITER)))
        if file.read() == _SEQUENCE_DELIMITER:
            return None
    elif _ends_with_pixel_data(file, size_bytes, expected + expected % 2, syntax):
        return None
    return _walk(file, size_bytes, expected, syntax)


def _ends_with_pixel_data(file: BinaryIO, size_bytes: int, expected: int, syntax: UID) -> bool:
    order = "<" if syntax.is_little_endian else ">"
    header_length = 8 if syntax.is_implicit_VR else 12
    start = size_bytes - expected - header_length
    if start < 0:
        return False
    file.seek(start)
    header = file.read(header_length)
    return (
        struct.unpack(order + "HH", header[:4]) == _PIXEL_DATA
        and struct.unpack(order + "I", header[-4:])[0] == expected
    )


def _walk(file: BinaryIO, size_bytes: int, expected: int, syntax: UID) -> str | None:
    """Find the pixel data element by parsing, and compare its end with the end of the file."""
    file.seek(0)
    read_partial(file, lambda tag, vr, length: tag >= 0x7FE00008, specific_tags=[_SOP_INSTANCE_UID])
    order = "<" if syntax.is_little_endian else ">"
    header = file.read(8 if syntax.is_implicit_VR else 12)
    if len(header) < 8 or struct.unpack(order + "H", header[:2])[0] != _PIXEL_DATA[0]:
        return "pixel data (7FE0,0010) is missing"
    length = struct.unpack(order + "I", header[-4:])[0]
    if length == 0xFFFFFFFF:
        return _walk_items(file, size_bytes)
    if file.tell() + length > size_bytes:
        return f"truncated: pixel data says {length} bytes, {max(0, size_bytes - file.tell())} are there"
    if length < expected:
        return (
            f"pixel data holds {length} bytes, but Rows x Columns x Samples per Pixel x Number of Frames of this Bits "
            f"Allocated need {expected}"
        )
    return None


def _walk_items(file: BinaryIO, size_bytes: int) -> str | None:
    """Step over the fragments of encapsulated pixel data to the sequence delimiter."""
    while True:
        header = file.read(8)
        if len(header) < 8:
            return "truncated: the encapsulated pixel data has no end"
        group, element, length = struct.unpack("<HHI", header)
        if (group, element) == (0xFFFE, 0xE0DD):
            return None
        if (group, element) != (0xFFFE, 0xE000) or file.tell() + length > size_bytes:
            return "truncated: a fragment of the encapsulated pixel data is incomplete"
        file.seek(length, 1)
