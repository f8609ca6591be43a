"""Reads the UIDs of an instance from its encoded data set, with a small part of it in memory."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.dicom.character_sets import use_own_table
from node.dicom.parse_errors import PARSE_ERRORS
from node.errors import InstanceRefused

_SERIES_INSTANCE_UID = Tag("SeriesInstanceUID")
# in the order of the fields of Identity
_TAGS: list[BaseTag | int] = [Tag("SOPClassUID"), Tag("SOPInstanceUID"), Tag("StudyInstanceUID"), _SERIES_INSTANCE_UID]
_PATIENT_TAGS: list[BaseTag | int] = [Tag("SpecificCharacterSet"), Tag("PatientID")]  # for the audit trail alone
_MOST_BYTES = 16 << 20  # limit for reading up to the Series Instance UID; values that are skipped do not count
_HEADS_BYTES = (1 << 16, _MOST_BYTES)  # first and second try with a deflated data set, whose values cannot be skipped
_CHUNK_BYTES = 1 << 16
_NO_END = 0xFFFFFFFF  # the length of a value that a delimiter ends


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs in the data set of one instance; empty where the data set has none. ``elements``: what was read."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    elements: Dataset = field(default_factory=Dataset, compare=False, repr=False)

    @property
    def patient_id(self) -> str:
        """(0010,0020) of the instance, for the audit trail alone; empty if it has none, or one that cannot be read."""
        try:
            use_own_table(self.elements)
            return str(self.elements.get("PatientID") or "")
        except PARSE_ERRORS:
            return ""

    @property
    def is_complete(self) -> bool:
        """True if the data set has all four UIDs."""
        return all((self.sop_class_uid, self.sop_instance_uid, self.study_instance_uid, self.series_instance_uid))


class _Encoded:
    """A file object for pydicom that begins at the position of ``file``, limits reading, and never seeks past the end.

    pydicom itself accepts a value that is cut short, and an element that ends behind the end of the data set.
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
        """Position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position within the data set; ValueError if it is behind the end."""
        position = offset + self._position if whence == io.SEEK_CUR else offset
        if position > self._end:
            raise ValueError("a value is longer than the data set")
        self._position = self._file.seek(position)
        return position


def read_identity(data_set: BinaryIO, transfer_syntax: str) -> Identity:
    """The UIDs of an encoded data set, which is read up to its Series Instance UID, and inflated if it is deflated.

    A private transfer syntax is read as explicit VR little endian unless the data set looks implicit, as in pydicom. At
    most 16 MiB of the data set are read, however large it is.

    Raises:
        InstanceRefused: the data set cannot be parsed, or ends within a value.
        OSError: the file cannot be read.
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
        except PARSE_ERRORS:  # perhaps only because the head ends within an element
            if is_last:
                raise
            continue
        if is_last or identity.is_complete:
            break
    return identity


def _inflated(data_set: BinaryIO, limit_bytes: int) -> bytes:
    """The first ``limit_bytes`` of a deflated data set (PS3.5 A.5), inflated; the rest is not inflated."""
    inflater, head = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while len(head) < limit_bytes and not inflater.eof:
        chunk = inflater.unconsumed_tail or data_set.read(_CHUNK_BYTES)
        if not chunk:
            break
        head += inflater.decompress(chunk, limit_bytes - len(head))
    return bytes(head)


def inflates_beyond(data_set: BinaryIO, limit_bytes: int) -> bool:
    """True if a deflated data set inflates to more than ``limit_bytes``; it is inflated in pieces."""
    inflater, count, chunk = zlib.decompressobj(-zlib.MAX_WBITS), 0, data_set.read(_CHUNK_BYTES)
    try:
        while chunk and count <= limit_bytes and not inflater.eof:
            count += len(inflater.decompress(chunk, _MOST_BYTES))
            chunk = inflater.unconsumed_tail or data_set.read(_CHUNK_BYTES)
    except zlib.error:
        return False  # damaged further on: found when the study is read
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
            specific_tags=[*_TAGS, *_PATIENT_TAGS],
        )
    except OSError as error:
        if error.errno is not None:  # the disk
            raise
        raise ValueError(str(error)) from None  # pydicom raises it for a sequence without its end
    # raw values: pydicom's conversion repairs invalid values, which are to be refused, and repeats them in warnings
    raw = [elements.get_item(tag) if tag in elements else None for tag in _TAGS]
    sop_class, sop, study, series = (_uid(element) if element else "" for element in raw)
    return Identity(sop_class, sop, study, series, elements)


def _uid(element: RawDataElement | DataElement) -> str:
    if not isinstance(element, RawDataElement) or element.length == _NO_END:
        raise ValueError("a UID is encoded as something else")
    value = element.value or b""
    if len(value) != element.length:
        raise ValueError("the data set ends within a UID")
    return value.rstrip(b"\0 ").decode("ascii")
