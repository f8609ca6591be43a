"""The UIDs of an instance, read from the first bytes of its encoded data set."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.errors import InstanceRefused

_SERIES_INSTANCE_UID = Tag("SeriesInstanceUID")
# in the order of Identity's fields
_TAGS: list[BaseTag | int] = [Tag("SOPClassUID"), Tag("SOPInstanceUID"), Tag("StudyInstanceUID"), _SERIES_INSTANCE_UID]
_HEADS_BYTES = (1 << 16, 16 << 20)  # nearly always the first is enough; no Series Instance UID lies behind the second
_CHUNK_BYTES = 1 << 16

PARSE_ERRORS = (
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and pynetdicom are seen to raise on bytes that are no data set, and no command set."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs of one instance, as its data set says; empty where it says nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str

    @property
    def is_whole(self) -> bool:
        """True if each of them is there."""
        return all((self.sop_class_uid, self.sop_instance_uid, self.study_instance_uid, self.series_instance_uid))


def read_identity(data_set: BinaryIO, transfer_syntax: str) -> Identity:
    """The identity of an encoded data set, which is read up to its Series Instance UID, inflated if need be.

    Private transfer syntaxes are taken as explicit VR little endian unless they look implicit, as pydicom does. Of the
    data set at most 16 MiB are read, however large it is.

    Raises:
        InstanceRefused: the data set cannot be parsed.
    """
    begin = data_set.tell()
    for limit_bytes in _HEADS_BYTES:
        data_set.seek(begin)
        is_last = limit_bytes == _HEADS_BYTES[-1]
        try:
            is_deflated = transfer_syntax == DeflatedExplicitVRLittleEndian
            head = _inflated(data_set, limit_bytes) if is_deflated else data_set.read(limit_bytes)
            is_last |= len(head) < limit_bytes
            identity = _parse(head, transfer_syntax)
        except PARSE_ERRORS as error:
            if is_last:
                raise InstanceRefused(f"the data set cannot be parsed ({type(error).__name__})") from None
            continue
        if is_last or identity.is_whole:
            break
    return identity


def _inflated(data_set: BinaryIO, limit_bytes: int) -> bytes:
    """The beginning of a deflated data set (PS3.5 A.5), however far the rest would inflate."""
    inflater, head = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while len(head) < limit_bytes and not inflater.eof:
        chunk = inflater.unconsumed_tail or data_set.read(_CHUNK_BYTES)
        if not chunk:
            break
        head += inflater.decompress(chunk, limit_bytes - len(head))
    return bytes(head)


def inflates_beyond(data_set: BinaryIO, limit_bytes: int) -> bool:
    """True if a deflated data set holds more than ``limit_bytes``; they pass by in pieces."""
    inflater, count, chunk = zlib.decompressobj(-zlib.MAX_WBITS), 0, data_set.read(_CHUNK_BYTES)
    try:
        while chunk and count <= limit_bytes and not inflater.eof:
            count += len(inflater.decompress(chunk, _HEADS_BYTES[-1]))
            chunk = inflater.unconsumed_tail or data_set.read(_CHUNK_BYTES)
    except zlib.error:
        return False  # broken further on: that shows when the study is read
    return count > limit_bytes


def _parse(head: bytes, transfer_syntax: str) -> Identity:
    def is_past_identity(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > int(_SERIES_INSTANCE_UID)

    try:
        elements = read_dataset(
            io.BytesIO(head),
            transfer_syntax == ImplicitVRLittleEndian,
            transfer_syntax != ExplicitVRBigEndian,
            stop_when=is_past_identity,
            specific_tags=_TAGS,
        )
    except OSError as error:  # pydicom's word for a sequence without its end; no disk is read here
        raise ValueError(str(error)) from None
    # raw values: pydicom's own conversion repairs, and repeats in warnings, what is to be refused here
    raw = [elements.get_item(tag) if tag in elements else None for tag in _TAGS]
    values = [(element.value or b"").rstrip(b"\0 ").decode("ascii") if element else "" for element in raw]
    return Identity(*values)
