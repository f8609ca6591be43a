"""Which of two versions of one image is the correction of the other, as their headers tell.

Who corrects an instance may record the earlier values in Original Attributes Sequence (PS3.3 C.12.1.1.9), with the
moment and the system of each change. Nothing else in a header tells it: Instance Creation Date and Time are those of
the image, which a correction keeps and a copy may not, and Instance Coercion DateTime is that of each reception.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.valuerep import DT

from node.dicom.parse_errors import PARSE_ERRORS


def newer_of(one: Dataset, other: Dataset, keywords: Iterable[str]) -> Dataset | None:
    """The one of two headers that corrects the other; None if neither tells, or both do.

    A header tells it if the earlier values that it records lead to the other in all of ``keywords``, by which the two
    differ. Of two that were changed by one system the one that was changed last is the newer.
    """
    differing = frozenset(keywords)
    try:
        is_one, is_other = _leads_to(one, other, differing), _leads_to(other, one, differing)
        if is_one != is_other:
            return one if is_one else other
        return _changed_last(one, other)
    except PARSE_ERRORS:  # what cannot be read tells nothing
        return None


def _leads_to(header: Dataset, earlier: Dataset, keywords: frozenset[str]) -> bool:
    """True if ``earlier`` is what ``header`` was before some of the changes that it records.

    Attributes that a change added are not recorded (only what it modified or removed is): they may be absent before.
    """
    values = {keyword: _value(header, keyword) for keyword in keywords}
    before = {keyword: _value(earlier, keyword) for keyword in keywords}
    recorded: set[str] = set()
    for change in sorted(_changes(header), key=_text_of_moment)[::-1]:
        for item in change.get("ModifiedAttributesSequence") or ():
            found = {keyword: _value(item, keyword) for keyword in keywords if keyword in item}
            values |= found
            recorded |= found.keys()
        added = {keyword for keyword in keywords - recorded if before[keyword] is None}
        if recorded and all(values[keyword] == before[keyword] for keyword in keywords - added):
            return True
    return False


def _changed_last(one: Dataset, other: Dataset) -> Dataset | None:
    """The header with the later last change; None if other systems, with other clocks, made these changes."""
    last = [_last_change(each) for each in (one, other)]
    if last[0] is None or last[1] is None:
        return None
    (first_moment, first_system), (second_moment, second_system) = last[0], last[1]
    is_one_zone = one.get("TimezoneOffsetFromUTC") == other.get("TimezoneOffsetFromUTC")
    is_comparable = is_one_zone and (first_moment.tzinfo is None) == (second_moment.tzinfo is None)
    if first_system != second_system or not is_comparable or first_moment == second_moment:
        return None
    return one if first_moment > second_moment else other


def _last_change(header: Dataset) -> tuple[datetime, str] | None:
    """When and by which system the header was changed last; None if it does not tell both."""
    changes = sorted(_changes(header), key=_text_of_moment)
    if not changes:
        return None
    system, text = str(changes[-1].get("ModifyingSystem") or "").strip(), _text_of_moment(changes[-1])
    moment = DT(text) if text else None
    return (moment, system) if moment is not None and system else None


def _changes(header: Dataset) -> list[Dataset]:
    return list(header.get("OriginalAttributesSequence") or ())


def _text_of_moment(change: Dataset) -> str:
    return str(change.get("AttributeModificationDateTime") or "").strip(" \0")


def _value(header: Dataset, keyword: str) -> str | None:
    """The value in a form that can be compared; None: it is absent or empty."""
    value = header.get(keyword)
    return (str(value).strip(" \0") or None) if isinstance(value, int | float) or value else None
