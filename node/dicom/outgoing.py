"""A file that is to be sent: its UIDs, and its data set in Implicit VR Little Endian."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.filereader import dcmread, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.dicom.parse_errors import PARSE_ERRORS
from node.errors import InstanceRefused

_SERIES_INSTANCE_UID = Tag("SeriesInstanceUID")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One file to be sent (PS3.10 7.1). The study and series UIDs are empty if the data set has none."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str

    @property
    def transfer_syntaxes(self) -> tuple[str, ...]:
        """The transfer syntaxes in which the file can be sent, the file's own first.

        The default transfer syntax, Implicit VR Little Endian, is among them unless its pixel data are compressed or
        in another byte order (PS3.5 10.1).
        """
        if self.transfer_syntax_uid in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
            return self.transfer_syntax_uid, ImplicitVRLittleEndian
        return (self.transfer_syntax_uid,)


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
    except PARSE_ERRORS as error:
        raise InstanceRefused(f"{path.name} has no complete file meta ({type(error).__name__})") from None


def read_in_implicit_vr(path: Path) -> Dataset:
    """The data set of ``path``, an Explicit VR Little Endian file, that is encoded in Implicit VR Little Endian.

    Values are the file's bytes: no text is decoded, no number is formatted anew. Group lengths are left out.

    Raises:
        InstanceRefused: the data set cannot be parsed.
        OSError: the file cannot be read.
    """
    try:
        data_set = dcmread(path)
        _declare_implicit(data_set)
    except PARSE_ERRORS as error:
        raise InstanceRefused(f"{path.name} cannot be encoded in Implicit VR ({type(error).__name__})") from None
    data_set.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return data_set


def _declare_implicit(data_set: Dataset) -> None:
    """Let pydicom write all values of ``data_set`` as they were read; only sequences hold VRs, and are parsed."""
    for element in list(data_set.values()):
        if element.VR == "SQ":
            for item in data_set[element.tag].value:
                _declare_implicit(item)
    data_set.set_original_encoding(is_implicit_vr=True, is_little_endian=True)
