"""What the headers say of whom or what was examined: an animal, a phantom, a child, a patient after surgery.

The method is made for adults before surgery. What it would answer for anything else looks as sure as any answer, so the
study is refused, or its report bears a caution. Reasons name attributes and words of this file, never a value.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

from pydicom import Dataset
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.filereader import dcmread
from pydicom.tag import Tag

from node.dicom.character_sets import use_own_table
from node.errors import InstanceRefused, SelectionRefused
from node.series.subject_words import phantom_word, surgery_word
from node.series.values import DICOM_UNREADABLE, text
from node.series.vocabulary import tokens
from node.study import Selection, Series

INFANT_YEARS = 2.0
"""Below it grey and white matter look the other way round, as myelin is still forming: the study is refused."""

ADULT_YEARS = 18.0
"""Below it a caution: all cases that the published networks were trained on are adults."""

_OLDEST_YEARS = 120.0
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}
_DESCRIPTIONS = (
    "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription", "BodyPartExamined",
    "PerformedProcedureStepDescription",
)  # fmt: skip
_REASONS = (
    "ReasonForTheRequestedProcedure", "ReasonForVisit", "AdmittingDiagnosesDescription", "AdditionalPatientHistory",
    "ImageComments", "StudyComments", "PatientComments", "ReasonForStudy",
)  # fmt: skip
_CODES = (
    "ProcedureCodeSequence", "RequestedProcedureCodeSequence", "ReasonForRequestedProcedureCodeSequence",
    "AdmittingDiagnosesCodeSequence",
)  # fmt: skip
_OTHERS = (
    "PatientAge", "PatientBirthDate", "StudyDate", "AcquisitionDate", "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence", "PatientBreedDescription", "ResponsiblePersonRole", "QualityControlImage",
    "PatientName", "PatientID",
)  # fmt: skip
_TAGS = [Tag(keyword) for keyword in (*_DESCRIPTIONS, *_REASONS, *_CODES, *_OTHERS)]
_HUMAN_CODES = frozenset({"337915000", "L-85B00"})  # homo sapiens: SNOMED CT, and SNOMED RT as old objects have it
_HUMAN_WORDS = frozenset({"homo", "human", "sapiens", "humain", "humano", "umano", "mensch", "person"})


@dataclass(frozen=True, slots=True)
class Remark:
    """What one attribute says against the method; ``is_refusal``: it rules an answer out."""

    is_refusal: bool
    text: str


def with_subject(selection: Selection) -> Selection:
    """``selection`` with a caution for each doubt about whom or what its series show.

    Raises:
        SelectionRefused: it is no human adult or child that they show.
        InstanceRefused: an instance can no longer be read.
    """
    found = list(dict.fromkeys(each for series in selection.chosen.values() for each in remarks(_header(series))))
    refusals = [each.text for each in found if each.is_refusal]
    if refusals:
        verdicts = tuple(replace(each, chosen=False) for each in selection.verdicts)
        raise SelectionRefused("; ".join(refusals), Selection(selection.study_instance_uid, {}, verdicts))
    cautions = (each.text for each in found if each.text not in selection.cautions)
    return replace(selection, cautions=(*selection.cautions, *cautions))


def surgery_told(selection: Selection) -> tuple[str, ...]:
    """What the headers of the selection's series say of surgery that has taken place, one sentence each.

    Raises:
        InstanceRefused: an instance can no longer be read.
    """
    found = (each for series in selection.chosen.values() for each in _told_of_surgery(_header(series)))
    return tuple(dict.fromkeys(found))


def remarks(header: Dataset) -> Iterator[Remark]:
    """The remarks on one header; a value that cannot be read says nothing."""
    yield from _of_species(header)
    yield from _of_phantom(header)
    yield from _of_age(header)
    yield from _of_surgery(header)


def _of_species(header: Dataset) -> Iterator[Remark]:
    codes = [_value(item, "CodeValue") for item in _items(header, "PatientSpeciesCodeSequence")]
    if any(code and code not in _HUMAN_CODES for code in codes):
        yield Remark(True, f"{_name('PatientSpeciesCodeSequence')} names another species than homo sapiens")
    species = tokens(_value(header, "PatientSpeciesDescription"))
    if species and _HUMAN_WORDS.isdisjoint(species) and not any(code in _HUMAN_CODES for code in codes):
        yield Remark(True, f"{_name('PatientSpeciesDescription')} names another species than homo sapiens")
    if _value(header, "ResponsiblePersonRole").upper() == "OWNER":
        yield Remark(True, f"{_name('ResponsiblePersonRole')} is OWNER: the patient is an animal")
    if not species and not codes and tokens(_value(header, "PatientBreedDescription")):
        yield Remark(False, f"{_name('PatientBreedDescription')} is filled: the patient may be an animal")


def _of_phantom(header: Dataset) -> Iterator[Remark]:
    if _value(header, "QualityControlImage").upper() in ("YES", "BOTH"):
        yield Remark(
            True, f"{_name('QualityControlImage')} says that the images are of a phantom or for quality control"
        )
    for keyword in _DESCRIPTIONS:
        word = phantom_word(_value(header, keyword))
        if word:
            yield Remark(True, f"{_name(keyword)} says '{word}': the series show a phantom, not a patient")
    for keyword in ("PatientName", "PatientID"):
        if phantom_word(_value(header, keyword)):
            yield Remark(False, f"by {_name(keyword)} the series may show a phantom, not a patient")


def _of_age(header: Dataset) -> Iterator[Remark]:
    ages = {keyword: years for keyword, years in _ages(header) if years is not None}
    young = [keyword for keyword, years in ages.items() if years < ADULT_YEARS]
    if not young:
        return
    where = " and ".join(map(_name, young))
    if all(years < INFANT_YEARS for years in ages.values()):
        yield Remark(True, f"by {where} the patient is younger than {INFANT_YEARS:.0f} years; the method is for adults")
    else:
        yield Remark(False, f"by {where} the patient is younger than {ADULT_YEARS:.0f} years; the method is for adults")


def _ages(header: Dataset) -> Iterator[tuple[str, float | None]]:
    """Age in years by each attribute that tells it; None for a value that de-identification leaves.

    Such are an age of 0 (two of seven real exams with an age have "000Y", of adults) and a birth after the study.
    """
    match = re.fullmatch(r"(\d{3})([DWMY])", _value(header, "PatientAge"))
    if match:
        yield "PatientAge", int(match[1]) * _DAYS[match[2]] / _DAYS["Y"] or None
    born, seen = _day(header, "PatientBirthDate"), _day(header, "StudyDate") or _day(header, "AcquisitionDate")
    if born and seen:
        years = (seen - born).days / _DAYS["Y"]
        yield "PatientBirthDate", years if 0 < years <= _OLDEST_YEARS else None


def _of_surgery(header: Dataset) -> Iterator[Remark]:
    for told in _told_of_surgery(header):
        yield Remark(
            False,
            f"{told}: after surgery, a cavity, blood and scar may be taken for tumour, "
            "for the method was made for exams before surgery",
        )


def _told_of_surgery(header: Dataset) -> Iterator[str]:
    for keyword in (*_DESCRIPTIONS, *_REASONS):
        word = surgery_word(_value(header, keyword))
        if word:
            yield f"{_name(keyword)} says '{word}'"
    for keyword in _CODES:
        for word in filter(None, (surgery_word(_value(item, "CodeMeaning")) for item in _items(header, keyword))):
            yield f"{_name(keyword)} says '{word}'"


def _header(series: Series) -> Dataset:
    first = series.instances[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = dcmread(first.path, stop_before_pixels=True, specific_tags=_TAGS)
            use_own_table(header)
            return header
    except DICOM_UNREADABLE as error:
        raise InstanceRefused(f"{first.path.name} of {series.label} cannot be read: {type(error).__name__}") from None


def _value(header: Dataset, keyword: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = header.get(keyword)
            return (str(value) if keyword == "PatientName" else text(value)) or ""
        except DICOM_UNREADABLE:
            return ""


def _items(header: Dataset, keyword: str) -> Sequence[Dataset]:
    try:
        found: Sequence[Dataset] = header.get(keyword) or ()
        return found
    except DICOM_UNREADABLE:
        return ()


def _day(header: Dataset, keyword: str) -> date | None:
    match = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", _value(header, keyword))
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def _name(keyword: str) -> str:
    tag = Tag(tag_for_keyword(keyword) or 0)
    return f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"
