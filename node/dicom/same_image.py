"""Whether two files under one SOP Instance UID hold the same image, and by which attributes they differ.

An archive that corrects an identity sends the image again with other patient, study or request attributes, other words
for its series, and its own bookkeeping. All of these may differ in one image. Pixel data, geometry, acquisition and
whatever else describes the image may not: then nobody can tell here which of the two is the right one.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from node.dicom.character_sets import use_own_table
from node.dicom.copied_modules import (
    CLINICAL_TRIAL_STUDY,
    CLINICAL_TRIAL_SUBJECT,
    GENERAL_STUDY,
    PATIENT,
    PATIENT_STUDY,
)
from node.dicom.original_attributes import newer_of
from node.dicom.parse_errors import PARSE_ERRORS

IDENTITY = frozenset([
    *PATIENT, *CLINICAL_TRIAL_SUBJECT, *GENERAL_STUDY, *PATIENT_STUDY, *CLINICAL_TRIAL_STUDY,
    "OtherPatientIDs", "IssuerOfAdmissionID", "IssuerOfServiceEpisodeID", "SeriesInstanceUID",
])  # fmt: skip
"""Attributes of patient, study and visit (PS3.3 C.7.1, C.7.2).

The Series Instance UID counts here, because an instance that moves to another study may get a series there.
"""

REQUEST = frozenset([
    "RequestAttributesSequence", "RequestedProcedureID", "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence", "RequestedProcedureComments", "RequestedProcedurePriority",
    "RequestingPhysician", "ReasonForTheRequestedProcedure", "ReasonForRequestedProcedureCodeSequence",
    "ScheduledProcedureStepID", "ScheduledProcedureStepDescription", "ScheduledStudyStartDate",
    "ScheduledStudyStartTime", "PerformedProcedureStepID", "PerformedProcedureStepDescription",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepEndDate",
    "PerformedProcedureStepEndTime", "PerformedProtocolCodeSequence", "ReferencedPerformedProcedureStepSequence",
    "CommentsOnThePerformedProcedureStep", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "ConfidentialityCode", "CurrentPatientLocation",
    "PatientInstitutionResidence", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
    "PerformingPhysicianName", "PerformingPhysicianIdentificationSequence", "OperatorsName",
    "OperatorIdentificationSequence", "StudyStatusID", "StudyPriorityID", "StudyComments",
])  # fmt: skip
"""Attributes that say for which order and by whom an image was made (PS3.3 C.7.3.1, C.4.13)."""

SERIES_WORDS = frozenset(["SeriesDescription", "SeriesDescriptionCodeSequence", "SeriesNumber", "ProtocolName"])
"""What humans call the series (PS3.3 C.7.3.1): the selection is made again from them."""

BOOKKEEPING = frozenset([
    "OriginalAttributesSequence", "InstanceCoercionDateTime", "InstanceCreationDate", "InstanceCreationTime",
    "InstanceCreatorUID", "TimezoneOffsetFromUTC", "ContributingEquipmentSequence", "StorageMediaFileSetUID",
    "StorageMediaFileSetID", "RetrieveAETitle", "RetrieveURL", "InstanceAvailability", "SOPAuthorizationDateTime",
    "SOPAuthorizationComment", "AuthorizationEquipmentCertificationNumber", "InstanceOriginStatus",
    "HL7StructuredDocumentReferenceSequence", "DataSetTrailingPadding", "DigitalSignaturesSequence",
    "MACParametersSequence", "BarcodeValue", "SpecificCharacterSet",
])  # fmt: skip
"""What archives write beside an image (PS3.3 C.12.1); texts are compared decoded, whatever their character set."""

_MAY_DIFFER = IDENTITY | REQUEST | SERIES_WORDS | BOOKKEEPING
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_FIRST_PIXEL_TAG = 0x7FE00001
_CHARACTER_SET = "SpecificCharacterSet"
_NO_LENGTH = 0xFFFFFFFF
_CHUNK_BYTES = 1 << 20
_MOST_HEADER_BYTES = 16 << 20  # per file: any peer may send a pair to be compared, and memory is bounded
_GROUP_LENGTH_END = 144  # preamble 128, "DICM" 4, (0002,0000) UL 12 bytes (PS3.10 7.1)
_LONG_VALUES = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


class Likeness(StrEnum):
    """How two files under one SOP Instance UID compare."""

    SAME = "same"
    """The same image and identity, encoded otherwise or with other bookkeeping of an archive."""
    CORRECTED = "corrected"
    """The same image with another identity, another order, or other words for its series."""
    OTHER = "other"
    """Another image, or one of them cannot be compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of `compare`. ``differs``: keywords and the words *pixel data*, *transfer syntax*; never a value.

    ``newer``: of one image with two identities the file whose header shows that it corrects the other; None: neither.
    """

    likeness: Likeness
    differs: tuple[str, ...]
    newer: Path | None = None


def compare(one: Path, other: Path) -> Comparison:
    """Compare two DICOM files of one SOP instance; the files' meta information does not count.

    Pixel data are compared as encoded: under another transfer syntax they count as other pixels, unless both are native
    and little endian.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        first, second = _Content(one), _Content(other)
        differs = sorted(_differing(first.header, second.header))
    except PARSE_ERRORS as error:  # pydicom raises OSError without a number, too
        return Comparison(Likeness.OTHER, (f"cannot be compared ({type(error).__name__})",))
    except OSError as error:
        if error.errno is not None:
            raise
        return Comparison(Likeness.OTHER, ("cannot be compared",))
    if first.pixels != second.pixels:
        differs.append("pixel data" if first.syntax_class == second.syntax_class else "transfer syntax")
    if set(differs) - _MAY_DIFFER:
        return Comparison(Likeness.OTHER, tuple(differs))
    if set(differs) <= BOOKKEEPING:
        return Comparison(Likeness.SAME, tuple(differs))
    header = newer_of(first.header, second.header, set(differs) - BOOKKEEPING)
    newer = None if header is None else one if header is first.header else other
    return Comparison(Likeness.CORRECTED, tuple(differs), newer)


class _Limited:
    """A file object for pydicom that reads at most `_MOST_HEADER_BYTES`; the position is that of ``file``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left_bytes = _MOST_HEADER_BYTES

    def read(self, count: int = -1) -> bytes:
        """As `io.RawIOBase.read`; ValueError once it is too much."""
        if not 0 <= count <= self._left_bytes:
            raise ValueError("too much before the pixel data")
        content = self._file.read(count)
        self._left_bytes -= len(content)
        return content

    def tell(self) -> int:
        """As `io.IOBase.tell`."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As `io.IOBase.seek`."""
        return self._file.seek(offset, whence)


class _Inflated:
    """The data set of a deflated file (PS3.5 A.5), inflated in pieces. ``head``: its first `_MOST_HEADER_BYTES`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self.head = io.BytesIO(self._more(_MOST_HEADER_BYTES))

    def read(self, count: int) -> bytes:
        """``count`` bytes from the position of ``head`` on, fewer at the end; zlib.error if they are damaged."""
        content = self.head.read(count)
        return content + self._more(count - len(content))

    def _more(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count and not self._inflater.eof:
            chunk = self._inflater.unconsumed_tail or self._file.read(_CHUNK_BYTES)
            piece = self._inflater.decompress(chunk, count - len(content))
            if not chunk and not piece:
                raise zlib.error("truncated")
            content += piece
        return bytes(content)


class _Content:
    """The header of a file, and a digest of its pixel data; of the latter, small pieces are in memory."""

    def __init__(self, path: Path) -> None:
        meta = read_file_meta_info(path)
        self._syntax = UID(meta.TransferSyntaxUID)
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._syntax == DeflatedExplicitVRLittleEndian:
                file.seek(_GROUP_LENGTH_END + int(meta.FileMetaInformationGroupLength))
                inflated = _Inflated(file)
                self.header = read_dataset(inflated.head, False, True, stop_when=_is_pixels)
                self.pixels = _digest_of_pixels(cast(BinaryIO, inflated), ExplicitVRLittleEndian)
            else:
                self.header = pydicom.dcmread(cast(BinaryIO, _Limited(file)), stop_before_pixels=True)
                self.pixels = _digest_of_pixels(file, self._syntax)
        use_own_table(self.header)

    @property
    def syntax_class(self) -> str:
        """Transfer syntaxes in which equal pixels have equal bytes."""
        is_plain = not self._syntax.is_private and not self._syntax.is_encapsulated and self._syntax.is_little_endian
        return "native" if is_plain else str(self._syntax)


def _is_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) in _PIXELS


def _digest_of_pixels(file: BinaryIO, syntax: UID) -> str:
    """The digest of the pixel data that begin at the position of ``file``; of nothing, if there are none."""
    order = ">" if not syntax.is_private and not syntax.is_little_endian else "<"
    head = file.read(8)
    if len(head) < 8:
        return hashlib.sha256().hexdigest()
    group, element = struct.unpack(f"{order}HH", head[:4])
    if (group << 16) | element not in _PIXELS:
        raise ValueError("no pixel data where they should be")
    length = _length(file, head, order, is_implicit=not syntax.is_private and syntax.is_implicit_VR)
    digest, left = hashlib.sha256(), length
    while left:
        chunk = file.read(_CHUNK_BYTES if length == _NO_LENGTH else min(left, _CHUNK_BYTES))
        if not chunk:
            break
        digest.update(chunk)
        left -= 0 if length == _NO_LENGTH else len(chunk)
    if length != _NO_LENGTH and left:
        raise ValueError("the pixel data are truncated")
    return digest.hexdigest()


def _length(file: BinaryIO, head: bytes, order: str, is_implicit: bool) -> int:
    if is_implicit or not head[4:6].isalpha():
        return int(struct.unpack(f"{order}I", head[4:8])[0])
    if head[4:6] in _LONG_VALUES:
        return int(struct.unpack(f"{order}I", file.read(4))[0])
    return int(struct.unpack(f"{order}H", head[6:8])[0])


def _differing(one: Dataset, other: Dataset) -> Iterator[str]:
    """Keywords, else tags, of the attributes that differ; group lengths and private elements do not count."""
    for tag in sorted({*one.keys(), *other.keys()}):
        if tag.element == 0 or tag.is_private or tag >= _FIRST_PIXEL_TAG:
            continue
        if not _is_equal(one, other, tag):
            yield keyword_for_tag(tag) or str(tag)


def _is_equal(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    if tag not in one or tag not in other:
        there = one if tag in one else other
        return not there[tag].value  # an absent attribute beside an empty one
    first, second = (cast(DataElement | RawDataElement, each.get_item(tag)) for each in (one, other))
    is_raw = isinstance(first, RawDataElement) and isinstance(second, RawDataElement)
    if is_raw and first.value == second.value and one.get(_CHARACTER_SET) == other.get(_CHARACTER_SET):
        return True
    return _plain(one, tag) == _plain(other, tag)


def _plain(dataset: Dataset, tag: BaseTag) -> object:
    value = dataset[tag].value
    return value.strip(" \0") if isinstance(value, str) else value or None
