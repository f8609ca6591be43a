"""Reads the Patient ID of a file, for the audit trail alone."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from node.dicom.parse_errors import PARSE_ERRORS


def read_patient_id(path: Path) -> str:
    """(0010,0020) of the file; empty if it has none, or cannot be read now."""
    try:
        head = dcmread(path, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", "PatientID"])
        return str(head.get("PatientID") or "")
    except (OSError, *PARSE_ERRORS):
        return ""
