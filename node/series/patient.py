"""Header values that identify a person, so that they can be kept out of stored, logged and displayed text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.filereader import dcmread
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from node.dicom.character_sets import use_own_table
from node.errors import InstanceRefused
from node.series.values import DICOM_UNREADABLE, require_disk
from node.series.vocabulary import load_vocabulary, plain, tokens
from node.study import Instance

IDENTITY_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in (
    "PatientName", "PatientID", "PatientBirthDate", "PatientBirthName", "OtherPatientNames", "OtherPatientIDs",
    "AccessionNumber", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
)]  # fmt: skip
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_DATE_LIKE = re.compile(r"(?<!\d)(?:\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d{2})|\d{4}-\d{2}-\d{2})(?!\d)")
_RUN = re.compile(r"[^\W_]+")
_SHORTEST_INSIDE = 4  # a shorter part of a name matches whole words only: "Lee" must not match "sleeve"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "å": "aa", "ø": "oe"})
MASK = "***"
"""Replaces text that identifies a person."""


def read_patient_values(instance: Instance) -> tuple[str, ...]:
    """Values of the attributes that identify a person. Use them for comparison only: never store or show them.

    Raises:
        InstanceRefused: the instance or one of these values cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(instance.path, stop_before_pixels=True, specific_tags=IDENTITY_TAGS)
            use_own_table(dataset)
            return _values(dataset)
    except DICOM_UNREADABLE as error:
        require_disk(error, instance.path.name)
        raise InstanceRefused(f"{instance.path.name} cannot be read: {type(error).__name__}") from None


def identity_of(dataset: Dataset) -> tuple[str, ...]:
    """As `read_patient_values`, from a data set that was read with `IDENTITY_TAGS`; empty if a value is unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _values(dataset)
    except DICOM_UNREADABLE:
        return ()


def _values(dataset: Dataset) -> tuple[str, ...]:
    found: list[str] = []
    for tag in IDENTITY_TAGS:
        value = dataset[tag].value if tag in dataset else None
        if value is not None:
            found += [str(each) for each in (value if isinstance(value, MultiValue) else [value])]
    return tuple(found)


def masked(description: str | None, identity: Sequence[str]) -> str | None:
    """``description`` with ``***`` for dates and words of ``identity``, fit for reasons, logs and reports.

    Words of the vocabulary are kept, since a phantom may be named T1.
    """
    if description is None:
        return None
    text = _DATE_LIKE.sub(MASK, description)
    words = _identity_words(identity)
    if not any(_is_named(run, words) for run in _RUN.findall(text)):
        return text
    vocabulary = load_vocabulary()

    def mask(match: re.Match[str]) -> str:
        run = match.group()
        is_known = any(word.group for word in vocabulary.words(run))
        return MASK if _is_named(run, words) and not is_known else run

    return _RUN.sub(mask, text)


def _is_named(run: str, words: set[str]) -> bool:
    return len(run) > 1 and not words.isdisjoint((plain(run), plain(run.translate(_UMLAUTS))))


def holds_patient_data(description: str, identity: Sequence[str]) -> bool:
    """True if ``description`` holds a word or date of ``identity`` (values of attributes that identify the patient).

    Any other date counts as well, since it may be a date of birth, and so does masked text.
    """
    if MASK in description or _DATE_LIKE.search(description):
        return True
    for spelling in (description, description.translate(_UMLAUTS)):
        words, squeezed = set(tokens(spelling)), "".join(tokens(spelling))
        if any(word in words or (_is_distinctive(word) and word in squeezed) for word in _identity_words(identity)):
            return True
    return False


def _identity_words(identity: Sequence[str]) -> set[str]:
    words: set[str] = set()
    for value in identity:
        for spelling in (value, value.translate(_UMLAUTS)):
            parts = tokens(spelling)
            words.update(part for part in parts if len(part) > 1 or not part.isascii())
            words.add("".join(parts))
        day = _DATE.fullmatch(value.replace(".", "").replace("-", "").strip())
        if day:
            year, month, of_month = day.groups()
            orders = ((year, month, of_month), (of_month, month, year), (month, of_month, year))
            words.update("".join(order) for order in orders)
            words.update("".join(part[-2:] for part in order) for order in orders)
            words.add(year)
    return words - {""}


def _is_distinctive(word: str) -> bool:
    return len(word) >= _SHORTEST_INSIDE or (len(word) > 1 and not word.isascii())
