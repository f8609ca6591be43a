"""What identifies a person in a header, so that it can be kept out of what is stored."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from pydicom.filereader import dcmread
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from node.errors import InstanceRefused
from node.series.headers import DICOM_UNREADABLE
from node.series.vocabulary import tokens
from node.study import Instance

_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in (
    "PatientName", "PatientID", "PatientBirthDate", "PatientBirthName", "OtherPatientNames", "OtherPatientIDs",
    "AccessionNumber", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
)]  # fmt: skip
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_SHORTEST_INSIDE = 4  # a shorter word of a name is found as a word only: "Lee" is no reason against "sleeve"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "å": "aa", "ø": "oe"})


def read_patient_values(instance: Instance) -> tuple[str, ...]:
    """Values of the attributes that identify a person. For comparing only: never store or show them.

    Raises:
        InstanceRefused: the instance can no longer be read, or such a value cannot.
    """
    found: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for element in dcmread(instance.path, stop_before_pixels=True, specific_tags=_TAGS):
                if element.tag in _TAGS and element.value is not None:
                    values = element.value if isinstance(element.value, MultiValue) else [element.value]
                    found += [str(value) for value in values]
    except DICOM_UNREADABLE as error:
        raise InstanceRefused(f"{instance.path.name} cannot be read: {type(error).__name__}") from None
    return tuple(found)


def holds_patient_data(description: str, identity: Sequence[str]) -> bool:
    """True if a word or date of ``identity`` (values of attributes that identify the patient) is in ``description``."""
    words, squeezed = set(tokens(description)), "".join(tokens(description))
    return any(word in words or (_is_telling(word) and word in squeezed) for word in _identity_words(identity))


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


def _is_telling(word: str) -> bool:
    return len(word) >= _SHORTEST_INSIDE or (len(word) > 1 and not word.isascii())
