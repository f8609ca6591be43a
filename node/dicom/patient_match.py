"""Whether instances name one patient (PS3.3 C.7.1.1), whatever scanner and worklist made of case, blanks and groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pydicom

from node.dicom.copied_modules import ENUMERATED
from node.dicom.value_rules import InvalidValue, valid_value

_NAMES = {
    "PatientID": "(0010,0020) Patient ID",
    "IssuerOfPatientID": "(0010,0021) Issuer of Patient ID",
    "PatientName": "(0010,0010) Patient's Name",
    "PatientBirthDate": "(0010,0030) Patient's Birth Date",
    "PatientSex": "(0010,0040) Patient's Sex",
}
_VALID = {"PatientBirthDate": ("DA", ()), "PatientSex": ("CS", ENUMERATED["PatientSex"])}
_GROUPS = 3  # alphabetic, ideographic, phonetic (PS3.5 6.2.1.2)

Identity = dict[str, tuple[str, ...]]
"""For each attribute its plain forms, one for each component group of a name; an empty one says nothing."""


def identity_of_patient(header: pydicom.Dataset) -> Identity:
    """What ``header`` says of its patient, in forms that can be compared; for comparison only, never to be shown.

    Its texts are decoded as the data set is set up (`node.dicom.character_sets.use_own_table`).
    """
    found: Identity = {}
    for keyword in _NAMES:
        value = str(header.get(keyword) or "")
        if keyword == "PatientName":
            groups = [_plain_name(group) for group in value.split("=")][:_GROUPS]
            found[keyword] = tuple(groups + [""] * (_GROUPS - len(groups)))
        elif keyword in _VALID:
            found[keyword] = (_valid(keyword, value),)
        else:
            found[keyword] = (_plain(value),)
    return found


def _valid(keyword: str, value: str) -> str:
    """The value in the form of the standard; empty, which says nothing, if it is none."""
    vr, allowed = _VALID[keyword]
    try:
        found = valid_value(keyword, vr, value.strip(" \0"))
    except InvalidValue:
        return ""
    return found if not allowed or found in allowed else ""


def _plain(text: str) -> str:
    return " ".join(text.strip("\0").split()).casefold()


def _plain_name(group: str) -> str:
    """One component group without case, without blanks beside its components, and without empty ones at its end."""
    return "^".join(_plain(component) for component in group.split("^")).rstrip("^")


def differing_attributes(identities: Iterable[Identity]) -> Sequence[str]:
    """Names and tags of the attributes by which ``identities`` are not those of one patient; empty if there is none.

    An empty value beside a filled one is no difference, and neither is a name in one representation (alphabetic,
    ideographic, phonetic) beside the same name in another: only like forms are compared.
    """
    known: dict[tuple[str, int], set[str]] = {}
    for identity in identities:
        for keyword, forms in identity.items():
            for number, form in enumerate(forms):
                if form:
                    known.setdefault((keyword, number), set()).add(form)
    return [
        name for keyword, name in _NAMES.items() if any(len(known.get((keyword, n), ())) > 1 for n in range(_GROUPS))
    ]
