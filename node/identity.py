"""What results take over from their source (patient and study identity), and when they were made."""

from __future__ import annotations

from datetime import datetime

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


def stamp(dataset: pydicom.Dataset, created: datetime) -> None:
    """Set every date and time that says when ``dataset`` was made, so that making it again gives equal bytes."""
    for moment in ("InstanceCreation", "Content"):
        setattr(dataset, f"{moment}Date", created.strftime("%Y%m%d"))
        setattr(dataset, f"{moment}Time", created.strftime("%H%M%S.%f"))
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f")
