"""The patient and study modules that results copy from their source, and the dates and times of the results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import pydicom
from pydicom.datadict import dictionary_description
from pydicom.tag import Tag

from node.dicom.character_sets import UNICODE, is_defined, terms_of
from node.dicom.cleaning import Cleaner
from node.dicom.copied_modules import COPIED, DEIDENTIFICATION, IDENTIFYING, MEASURES, PARTNERS, TYPE_2, WHOLE_MODULES
from node.dicom.patient_match import Identity, differing_attributes, identity_of_patient
from node.errors import InstanceRefused

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_OF_PLANES = ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
_NAMING_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_EMPTIED = ("PatientBirthTime", "LastMenstrualDate")
_NAMES = {"UTF8": "UTF-8", "latin_1": "Latin-1", "euc_kr": "ISO 2022 IR 149", "iso_ir_58": "ISO 2022 IR 58"}


@dataclass(frozen=True, slots=True)
class CheckedIdentity:
    """A header without values that the standard forbids.

    Attributes:
        header: the data set that was given.
        changed: keywords of the attributes whose values were repaired, emptied or removed. Decimal strings of the plane
            that were only rounded to the 16 characters allowed are left out: scanners write them, and nothing is lost.
        read_as: the character set that was assumed for its texts; empty if the header names it.
    """

    header: pydicom.Dataset
    changed: tuple[str, ...]
    read_as: str

    @property
    def cautions(self) -> list[str]:
        """What a reader of the results should know, in sentences without values of the header."""
        texts = []
        if self.changed:
            texts.append(f"values that the standard forbids were repaired or left out: {', '.join(self.changed)}")
        if self.read_as:
            texts.append(f"the source does not name the character set of its texts, which were read as {self.read_as}")
        return texts


def checked_identity(dataset: pydicom.Dataset) -> CheckedIdentity:
    """Clean, in place, what a result copies from ``dataset``; the same data set may be given again.

    Scanners and anonymisers write values that a result must not repeat. A value whose meaning is certain is repaired
    (`node.dicom.value_rules`); any other is emptied if its attribute is of type 2, else removed. An absent attribute of
    type 2 becomes empty. Texts are decoded by the character set that the header names, and are written in UTF-8 if
    results cannot be written in it.

    Name, ID and UIDs are not emptied, and of two values none is chosen: the result would name another patient or image,
    or none, and would be filed without anybody noticing.

    Raises:
        InstanceRefused: a value of `IDENTIFYING` is one that the standard forbids; the text names the tag.
    """
    return _checked(dataset, is_strict=True)


def checked_identities(headers: Iterable[pydicom.Dataset]) -> CheckedIdentity:
    """`checked_identity` of each instance of a series; the header is that of the first, ``changed`` that of all.

    Raises:
        InstanceRefused: as `checked_identity`, or two instances name different patients or studies.
    """
    first: CheckedIdentity | None = None
    changed: dict[str, None] = {}
    identities: list[Identity] = []
    for header in headers:
        checked = checked_identity(header)
        first = first or checked
        changed |= dict.fromkeys(checked.changed)
        if header.StudyInstanceUID != first.header.StudyInstanceUID:
            raise InstanceRefused(f"{_named('StudyInstanceUID')} differs between its instances")
        identities.append(identity_of_patient(header))
    if first is None:
        raise InstanceRefused("the series has no instances")
    differing = differing_attributes(identities)
    if differing:
        verb = "differs" if len(differing) == 1 else "differ"
        raise InstanceRefused(f"{' and '.join(differing)} {verb} between its instances")
    return replace(first, changed=tuple(changed))


def with_valid_identity(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The header of `checked_identity`."""
    return checked_identity(dataset).header


def with_emptied_identity(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """``dataset``, in place, as by `checked_identity`, but with an empty name or ID if it has no valid one.

    For a refusal, which belongs to the study by its Study Instance UID. UIDs other than that of the frame of reference
    stay as they are, since nothing else names the study.
    """
    uids = {keyword: dataset.get_item(keyword) for keyword in _NAMING_UIDS if keyword in dataset}
    _checked(dataset, is_strict=False)
    for keyword, element in uids.items():
        if keyword not in dataset:
            dataset[keyword] = element
    return dataset


def _checked(dataset: pydicom.Dataset, is_strict: bool) -> CheckedIdentity:
    cleaner = Cleaner(dataset, COPIED)
    changed = [] if is_defined(terms_of(dataset)) else ["SpecificCharacterSet"]
    for keyword, problem in cleaner.clean():
        if problem and is_strict and keyword in IDENTIFYING:
            raise InstanceRefused(f"{_named(keyword)} {problem}")
        if problem or keyword not in MEASURES:
            changed.append(keyword)
        if problem and (keyword in TYPE_2 or keyword in _EMPTIED):
            setattr(dataset, keyword, "")
    changed += [*_clean_planes(dataset, cleaner), *_complete_modules(dataset)]
    for keyword in TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    if cleaner.is_rewritten:
        dataset.SpecificCharacterSet = UNICODE
    elif "SpecificCharacterSet" in dataset and not terms_of(dataset):
        del dataset.SpecificCharacterSet  # an empty one names no other than the default repertoire
    return CheckedIdentity(dataset, tuple(dict.fromkeys(changed)), _NAMES.get(cleaner.read_as, ""))


def _named(keyword: str) -> str:
    """Tag and name of an attribute."""
    return f"{Tag(keyword)} {dictionary_description(Tag(keyword))}"


def _clean_planes(dataset: pydicom.Dataset, parent: Cleaner) -> Iterator[str]:
    """Clean the decimal strings in the functional groups of a multi-frame image; the keywords of those changed."""
    for groups in _GROUPS:
        for group in dataset.get(groups) or ():
            for sequence in _OF_PLANES:
                for item in group.get(sequence) or ():
                    yield from (keyword for keyword, problem in Cleaner(item, MEASURES, parent).clean() if problem)


def _complete_modules(dataset: pydicom.Dataset) -> Iterator[str]:
    """Remove attributes that must not stand without others, and modules that lack a required one; their keywords."""
    partners: list[tuple[str, tuple[str, ...]]] = [*PARTNERS]
    if dataset.get("PatientIdentityRemoved") == "YES":
        partners.append(("PatientIdentityRemoved", DEIDENTIFICATION))
    for keyword, required in partners:
        if dataset.get(keyword) and not any(dataset.get(each) for each in required):
            del dataset[keyword]
            yield keyword
    for module, needed, type_2 in WHOLE_MODULES:
        present = [keyword for keyword in module if keyword in dataset]
        if present and not all(any(dataset.get(keyword) for keyword in one_of) for one_of in needed):
            for keyword in present:
                del dataset[keyword]
            yield from present
        elif present:
            for keyword in type_2:
                if keyword not in dataset:
                    setattr(dataset, keyword, [] if keyword.endswith("Sequence") else "")


def stamp(dataset: pydicom.Dataset, created: datetime) -> None:
    """Set each creation date and time in ``dataset`` to ``created``, so that the same result has the same bytes."""
    for moment in ("InstanceCreation", "Content"):
        setattr(dataset, f"{moment}Date", created.strftime("%Y%m%d"))
        setattr(dataset, f"{moment}Time", created.strftime("%H%M%S.%f"))
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f%z")


def differing_identity(result: pydicom.Dataset, source: pydicom.Dataset, keywords: tuple[str, ...]) -> str:
    """The first of ``keywords`` whose value differs, after decoding, between a result and its source; empty if none.

    Both data sets are cleaned in place, the source by `with_emptied_identity`.

    Raises:
        InstanceRefused: the result's name, ID or a UID is one that the standard forbids, escape sequences left in a
            name, say; the text names the tag.
    """
    checked_identity(result)
    with_emptied_identity(source)
    found = (keyword for keyword in keywords if str(result.get(keyword) or "") != str(source.get(keyword) or ""))
    return next(found, "")
