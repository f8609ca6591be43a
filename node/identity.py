"""Patient and study identity that results take over from their source."""

from __future__ import annotations

import pydicom

_SEXES = ("M", "F", "O", "")


def with_valid_identity(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """``dataset`` without values in its patient and study modules that the standard forbids, in place.

    Scanners and anonymisers write what a result must not repeat, and nothing is guessed from it: a Patient's Sex other
    than M, F, O (PS3.3 C.2.3) becomes empty, as its type 2 allows; an optional Context Group Extension Flag other than
    Y, N (PS3.3 8.8) is left out. Name, ID, birth date and UIDs are never touched.
    """
    if dataset.get("PatientSex", "") not in _SEXES:
        dataset.PatientSex = ""
    for keyword in ("ProcedureCodeSequence", "PatientSpeciesCodeSequence", "ReasonForPerformedProcedureCodeSequence"):
        for code in dataset.get(keyword) or ():
            if code.get("ContextGroupExtensionFlag", "Y") not in ("Y", "N"):
                del code.ContextGroupExtensionFlag
    return dataset
