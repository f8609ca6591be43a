"""Rejection notes of IHE Imaging Object Change Management (IOCM): Key Object Selections that withdraw instances.

A Key Object Selection Document (PS3.3 A.35.4) is a rejection note if its title is a code of PS3.16 CID 7010 that
rejects. It references the instances in Current Requested Procedure Evidence Sequence (PS3.3 C.17.6.2).
"""

from __future__ import annotations

import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.dicom.parse_errors import PARSE_ERRORS
from node.dicom.uids import is_usable_uid
from node.errors import InstanceRefused
from node.scp.incoming import length_of_head
from node.scp.limits import DOCUMENT_ITEMS

QUALITY, PATIENT_SAFETY, WRONG_WORKLIST_ENTRY, EXPIRED = "113001", "113037", "113038", "113039"
REJECTIONS = {
    QUALITY: "Rejected for Quality Reasons",
    PATIENT_SAFETY: "Rejected for Patient Safety Reasons",
    WRONG_WORKLIST_ENTRY: "Incorrect Modality Worklist Entry",
    EXPIRED: "Data Retention Policy Expired",
}
"""Titles of rejection notes: code value of the scheme DCM to code meaning (PS3.16 CID 7010, annex D)."""

_TAGS: list[BaseTag | int] = [Tag("ConceptNameCodeSequence"), Tag("CurrentRequestedProcedureEvidenceSequence")]
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000), little and big endian
_one_at_a_time = threading.Lock()  # the objects of a document take many times the memory of its bytes


@dataclass(frozen=True, slots=True)
class RejectionNote:
    """What a note rejects. ``instances``: Study Instance UID to SOP Instance UID to Series Instance UID."""

    code: str
    instances: dict[str, dict[str, str]]


def read_rejection_note(path: Path) -> RejectionNote | None:
    """The rejection note in a file that holds a Key Object Selection Document; None: its title rejects nothing.

    Raises:
        InstanceRefused: it cannot be parsed, or rejects no instance; the text names the tag.
        OSError: the disk cannot read it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _one_at_a_time:
                _check_items(path)
                document = pydicom.dcmread(path, specific_tags=_TAGS)
            code = _title(document)
            if code not in REJECTIONS:
                return None
            instances: dict[str, dict[str, str]] = {}
            for study, series, sop in _references(document):
                instances.setdefault(study, {})[sop] = series
    except PARSE_ERRORS as error:
        raise InstanceRefused(f"the document cannot be parsed ({type(error).__name__})") from None
    if not instances:
        raise InstanceRefused("(0040,A375) Current Requested Procedure Evidence Sequence names no instance")
    return RejectionNote(code, instances)


def _check_items(path: Path) -> None:
    """Count the items of a document before they become objects.

    Raises:
        InstanceRefused: there are too many.
        zlib.error: the document is deflated and damaged.
    """
    encoded = path.read_bytes()
    if pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        encoded = zlib.decompress(encoded[length_of_head(encoded) :], -zlib.MAX_WBITS)
    if sum(encoded.count(tag) for tag in _ITEM_TAGS) > DOCUMENT_ITEMS:
        raise InstanceRefused(f"a Key Object Selection with more than {DOCUMENT_ITEMS} items")


def _title(document: Dataset) -> str:
    (code,) = document.get("ConceptNameCodeSequence") or (Dataset(),)
    return str(code.get("CodeValue") or "").strip() if code.get("CodingSchemeDesignator") == "DCM" else ""


def _references(document: Dataset) -> Iterator[tuple[str, str, str]]:
    for study in document.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                uids = study.StudyInstanceUID, series.SeriesInstanceUID, item.ReferencedSOPInstanceUID
                if not all(is_usable_uid(str(uid)) for uid in uids):
                    raise InstanceRefused("(0040,A375) Current Requested Procedure Evidence Sequence: no valid UID")
                yield str(uids[0]), str(uids[1]), str(uids[2])
