"""The UIDs of a file that is to be sent, from its file meta and the beginning of its data set."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from node.errors import InstanceRefused

_SERIES_INSTANCE_UID = Tag("SeriesInstanceUID")
# exceptions of pydicom on bytes that are no DICOM file
_PARSE_ERRORS = (
    AttributeError,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One file to be sent (PS3.10 7.1). The study and series UIDs are empty if the data set has none."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str


def read_outgoing(path: Path) -> Outgoing:
    """Read the UIDs of ``path``; its data set is read up to the Series Instance UID.

    Raises:
        InstanceRefused: the file meta lacks the SOP class, the SOP instance or the transfer syntax.
        OSError: the file cannot be read.
    """

    def is_past_series(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > int(_SERIES_INSTANCE_UID)

    try:
        with path.open("rb") as file:
            head = read_partial(file, stop_when=is_past_series)
        meta = head.file_meta
        return Outgoing(
            path,
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            str(meta.TransferSyntaxUID),
            str(head.get("StudyInstanceUID", "")),
            str(head.get("SeriesInstanceUID", "")),
        )
    except _PARSE_ERRORS as error:
        raise InstanceRefused(f"{path.name} has no complete file meta ({type(error).__name__})") from None
