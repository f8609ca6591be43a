"""What results take over from their source (patient and study identity), and when they were made."""

from __future__ import annotations

from datetime import datetime

import pydicom
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM

_SEXES = ("M", "F", "O", "")
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_MOMENTS: dict[str, type[DA] | type[TM]] = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_REGISTERED = (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166)
_CHARACTER_SETS = {*(f"ISO_IR {number}" for number in (*_REGISTERED, 192)), "GB18030", "GBK"}
_FIRST_EXTENDED = {f"ISO 2022 IR {number}" for number in (6, *_REGISTERED)}
_EXTENDED = _FIRST_EXTENDED | {f"ISO 2022 IR {number}" for number in (58, 87, 159)}


def with_valid_identity(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """``dataset`` without values in its patient and study modules that the standard forbids, in place.

    Scanners and anonymisers write what a result must not repeat, and nothing is guessed from it: an absent attribute of
    type 2 becomes empty; so does a date or time that is none, and a Patient's Sex other than M, F, O (PS3.3 C.2.3); an
    optional Context Group Extension Flag other than Y, N (PS3.3 8.8) is left out. Text in a character set that is not
    named in full (PS3.3 C.12.1.1.2) is given in UTF-8. Name, ID and UIDs are not touched otherwise.
    """
    _give_known_character_set(dataset)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    for keyword, kind in _MOMENTS.items():
        value = str(dataset[keyword].value or "").replace(":", "")  # HH:MM:SS is how ACR-NEMA wrote it (PS3.5 6.2)
        setattr(dataset, keyword, value if _is_valid(value, kind) else "")
    if dataset.get("PatientSex", "") not in _SEXES:
        dataset.PatientSex = ""
    for keyword in ("ProcedureCodeSequence", "PatientSpeciesCodeSequence", "ReasonForPerformedProcedureCodeSequence"):
        for code in dataset.get(keyword) or ():
            if code.get("ContextGroupExtensionFlag", "Y") not in ("Y", "N"):
                del code.ContextGroupExtensionFlag
    return dataset


def _is_valid(value: str, kind: type[DA] | type[TM]) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _give_known_character_set(dataset: pydicom.Dataset) -> None:
    """Leave a Specific Character Set that highdicom writes as it is; else decode all text, to be written in UTF-8."""
    value = dataset.get("SpecificCharacterSet")
    if value is None:
        return
    first, *others = list(value) if isinstance(value, MultiValue) else [value]
    if first in (_FIRST_EXTENDED if others else _CHARACTER_SETS) and _EXTENDED.issuperset(others):
        return
    dataset.decode()
    dataset.SpecificCharacterSet = "ISO_IR 192"


def stamp(dataset: pydicom.Dataset, created: datetime) -> None:
    """Set every date and time that says when ``dataset`` was made, so that making it again gives equal bytes."""
    for moment in ("InstanceCreation", "Content"):
        setattr(dataset, f"{moment}Date", created.strftime("%Y%m%d"))
        setattr(dataset, f"{moment}Time", created.strftime("%H%M%S.%f"))
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f%z")
