"""The UIDs of an instance, read from its encoded data set, of which only little is ever in memory."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.errors import InstanceRefused

_SERIES_INSTANCE_UID = Tag("SeriesInstanceUID")
# in the order of Identity's fields
_TAGS: list[BaseTag | int] = [Tag("SOPClassUID"), Tag("SOPInstanceUID"), Tag("StudyInstanceUID"), _SERIES_INSTANCE_UID]
_MOST_BYTES = 16 << 20  # what may be read until the Series Instance UID; values that are only passed over do not count
_HEADS_BYTES = (1 << 16, _MOST_BYTES)  # of a deflated data set, in which nothing can be passed over
_CHUNK_BYTES = 1 << 16
_NO_END = 0xFFFFFFFF  # the length of a value that a delimiter ends

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


class _Encoded:
    """What pydicom reads an encoded data set from, from where ``file`` stands: bounded, and never past the end.

    pydicom takes a short value for a whole one, and an element that ends behind the data set for its last.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        self._left_bytes = _MOST_BYTES
        file.seek(self._position)

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes, fewer only at the end."""
        self._left_bytes -= min(count, self._end - self._position)
        if self._left_bytes < 0:
            raise ValueError("too much before the Series Instance UID")
        content = self._file.read(count)
        self._position += len(content)
        return content

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place within the data set."""
        position = offset + self._position if whence == io.SEEK_CUR else offset
        if position > self._end:
            raise ValueError("a value is longer than the data set")
        self._position = self._file.seek(position)
        return position


def read_identity(data_set: BinaryIO, transfer_syntax: str) -> Identity:
    """The identity of an encoded data set, which is read up to its Series Instance UID, inflated if need be.

    Private transfer syntaxes are taken as explicit VR little endian unless they look implicit, as pydicom does. Of the
    data set at most 16 MiB are read, however large it is.

    Raises:
        InstanceRefused: the data set cannot be parsed, or ends within a value.
        OSError: the disk did not give it.
    """
    try:
        if transfer_syntax == DeflatedExplicitVRLittleEndian:
            return _parse_deflated(data_set)
        return _parse(data_set, transfer_syntax)
    except PARSE_ERRORS as error:
        raise InstanceRefused(f"the data set cannot be parsed ({type(error).__name__})") from None


def _parse_deflated(data_set: BinaryIO) -> Identity:
    begin = data_set.tell()
    for limit_bytes in _HEADS_BYTES:
        data_set.seek(begin)
        head = _inflated(data_set, limit_bytes)
        is_last = len(head) < limit_bytes or limit_bytes == _HEADS_BYTES[-1]
        try:
            identity = _parse(io.BytesIO(head), DeflatedExplicitVRLittleEndian)
        except PARSE_ERRORS:  # perhaps only because it is cut
            if is_last:
                raise
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
            count += len(inflater.decompress(chunk, _MOST_BYTES))
            chunk = inflater.unconsumed_tail or data_set.read(_CHUNK_BYTES)
    except zlib.error:
        return False  # broken further on: that shows when the study is read
    return count > limit_bytes


def _parse(data_set: BinaryIO, transfer_syntax: str) -> Identity:
    def is_past_identity(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > int(_SERIES_INSTANCE_UID)

    try:
        elements = read_dataset(
            cast(BinaryIO, _Encoded(data_set)),
            transfer_syntax == ImplicitVRLittleEndian,
            transfer_syntax != ExplicitVRBigEndian,
            stop_when=is_past_identity,
            specific_tags=_TAGS,
        )
    except OSError as error:
        if error.errno is not None:  # the disk
            raise
        raise ValueError(str(error)) from None  # pydicom's word for a sequence without its end
    # raw values: pydicom's own conversion repairs, and repeats in warnings, what is to be refused here
    raw = [elements.get_item(tag) if tag in elements else None for tag in _TAGS]
    return Identity(*(_uid(element) if element else "" for element in raw))


def _uid(element: RawDataElement | DataElement) -> str:
    if not isinstance(element, RawDataElement) or element.length == _NO_END:
        raise ValueError("a UID is encoded as something else")
    value = element.value or b""
    if len(value) != element.length:
        raise ValueError("the data set ends within a UID")
    return value.rstrip(b"\0 ").decode("ascii")
