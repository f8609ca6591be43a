"""The DIMSE statuses the node answers a C-STORE with, and when (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """One DIMSE status: its code, its name in the standard, and when the node answers it."""

    code: int
    name: str
    when_used: str


SUCCESS = Status(0x0000, "Success", "the instance lies in the spool and survives a power cut")
SOP_CLASS_NOT_SUPPORTED = Status(
    0x0122,
    "Refused: SOP class not supported",
    "the request's SOP class is not the presentation context's, or none that is stored here",
)
OUT_OF_RESOURCES = Status(
    0xA700,
    "Refused: out of resources",
    "free space is below the watermark, or the disk did not take the instance, or is not there",
)
DATA_SET_DOES_NOT_MATCH = Status(
    0xA900, "Error: data set does not match SOP class", "SOP class or instance UID differ from those of the request"
)
CANNOT_UNDERSTAND = Status(
    0xC000,
    "Error: cannot understand",
    "the data set cannot be parsed in its transfer syntax, or ends within a value; a rejection note names no instance",
)
MISSING_UID = Status(0xC010, "Error: cannot understand", "a Study, Series, SOP Instance or SOP Class UID is missing")
INVALID_UID = Status(
    0xC011,
    "Error: cannot understand",
    "a UID is none by PS3.5 9.1 (for leading zeros see `scp.uid_repair`); it never becomes a path",
)
INSTANCE_TOO_LARGE = Status(
    0xC020, "Error: cannot understand", "the instance is larger than `scp.max_instance_mebibytes` and never taken"
)
STUDY_TOO_LARGE = Status(
    0xC021, "Error: cannot understand", "the study would be larger than `scp.max_study_mebibytes` with the instance"
)

STATUSES = (
    SUCCESS,
    SOP_CLASS_NOT_SUPPORTED,
    OUT_OF_RESOURCES,
    DATA_SET_DOES_NOT_MATCH,
    CANNOT_UNDERSTAND,
    MISSING_UID,
    INVALID_UID,
    INSTANCE_TOO_LARGE,
    STUDY_TOO_LARGE,
)
