"""The patient and study modules that results copy from their source, and the dates and times of the results."""

from __future__ import annotations

import re
from datetime import date, datetime

import pydicom
from pydicom.multival import MultiValue

_SEXES = ("M", "F", "O", "")
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
# PS3.5 Table 6.2-1, with the form of ACR-NEMA that it names: YYYY.MM.DD for DA, HH:MM:SS.frac for TM
_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")
_TIME = re.compile(r"([01][0-9]|2[0-3])((:?)[0-5][0-9](\3([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?")
_DATES = ("PatientBirthDate", "StudyDate", "LastMenstrualDate")
_TIMES = ("PatientBirthTime", "StudyTime")
_REGISTERED = (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166)
_CHARACTER_SETS = {*(f"ISO_IR {number}" for number in (*_REGISTERED, 192)), "GB18030", "GBK"}
_FIRST_EXTENDED = {f"ISO 2022 IR {number}" for number in (6, *_REGISTERED)}
_EXTENDED = _FIRST_EXTENDED | {f"ISO 2022 IR {number}" for number in (58, 87, 159)}


def with_valid_identity(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """``dataset`` without values in its patient and study modules that the standard forbids, in place.

    Scanners and anonymisers write values that a result must not repeat, and no value is guessed: an absent attribute
    of type 2 becomes empty; so do a date or time in no valid form (PS3.5 Table 6.2-1) and a Patient's Sex other than
    M, F, O (PS3.3 C.2.3); an optional Context Group Extension Flag other than Y, N (PS3.3 8.8) is removed. A date or
    time in the form of ACR-NEMA is rewritten in that of DICOM. Text in a character set that is not named in full
    (PS3.3 C.12.1.1.2) is converted to UTF-8. Name, ID and UIDs stay as they are otherwise.
    """
    _give_known_character_set(dataset)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    for keywords, valid in ((_DATES, _valid_date), (_TIMES, _valid_time)):
        for keyword in keywords:
            if keyword in dataset:
                setattr(dataset, keyword, valid(str(dataset[keyword].value or "").rstrip(" ")))
    if dataset.get("PatientSex", "") not in _SEXES:
        dataset.PatientSex = ""
    for keyword in ("ProcedureCodeSequence", "PatientSpeciesCodeSequence", "ReasonForPerformedProcedureCodeSequence"):
        for code in dataset.get(keyword) or ():
            if code.get("ContextGroupExtensionFlag", "Y") not in ("Y", "N"):
                del code.ContextGroupExtensionFlag
    return dataset


def _valid_date(value: str) -> str:
    """``value`` as YYYYMMDD; empty if it is not one day of the calendar."""
    found = _DATE.fullmatch(value)
    if not found:
        return ""
    year, _, month, day = found.groups()
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return ""
    return f"{year}{month}{day}"


def _valid_time(value: str) -> str:
    """``value`` as HHMMSS.FFFFFF or a shorter form of it; empty if it is not one time of day."""
    return value.replace(":", "") if _TIME.fullmatch(value) else ""


def _give_known_character_set(dataset: pydicom.Dataset) -> None:
    """Keep a Specific Character Set that highdicom can write; with any other, decode all text and write it in UTF-8."""
    value = dataset.get("SpecificCharacterSet")
    if value is None:
        return
    first, *others = list(value) if isinstance(value, MultiValue) else [value]
    if first in (_FIRST_EXTENDED if others else _CHARACTER_SETS) and _EXTENDED.issuperset(others):
        return
    dataset.decode()
    dataset.SpecificCharacterSet = "ISO_IR 192"


def stamp(dataset: pydicom.Dataset, created: datetime) -> None:
    """Set each creation date and time in ``dataset`` to ``created``, so that the same result has the same bytes."""
    for moment in ("InstanceCreation", "Content"):
        setattr(dataset, f"{moment}Date", created.strftime("%Y%m%d"))
        setattr(dataset, f"{moment}Time", created.strftime("%H%M%S.%f"))
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f%z")
