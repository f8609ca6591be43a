"""Reads the Patient ID of a file, for the audit trail alone."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

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
)


def read_patient_id(path: Path) -> str:
    """(0010,0020) of the file; empty if it has none, or cannot be read now."""
    try:
        head = dcmread(path, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", "PatientID"])
        return str(head.get("PatientID") or "")
    except (OSError, *_PARSE_ERRORS):
        return ""
