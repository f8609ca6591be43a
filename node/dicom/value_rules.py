"""What each value representation allows (PS3.5 Table 6.2-1), and the repair of values whose meaning is certain.

Certain are: blanks and NULs around a value, the forms of ACR-NEMA, the case of a code string or age, several equal
values where one is allowed, a decimal number with too many digits. A free text that is too long is cut; one that holds
the delimiter of values or a line break keeps its words. No other value is guessed: `InvalidValue` says what is wrong.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date

from pydicom.valuerep import format_number_as_ds

from node.dicom.uids import is_usable_uid, is_valid_uid

LONGEST = {"CS": 16, "SH": 16, "LO": 64, "ST": 1024, "LT": 10240, "AE": 16}
"""Most characters of a value (PS3.5 Table 6.2-1)."""

LONGEST_NAME_GROUP = 64  # PS3.5 Table 6.2-1, PN: characters of each component group
_COMPONENTS = 5  # PS3.5 6.2.1.1: family name, given name, middle name, prefix, suffix

UNSPLIT = ("LT", "ST", "UT", "UR")
"""Value representations in which a backslash is no delimiter."""

TEXTS = ("LO", "SH", "UC", "LT", "ST", "UT")

_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")
_TIME = re.compile(r"([01][0-9]|2[0-3])((:?)[0-5][0-9](\3([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?")
_DATE_TIME = re.compile(r"([0-9]{4})([0-9]{2}([0-9]{2}([0-9]{2,6}(\.[0-9]{1,6})?)?)?)?([+-][0-9]{4})?")
_AGE = re.compile(r"([0-9]{1,3})([DWMY])")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,11}")
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}")
_IDENTIFIER = re.compile(r"(ID|IDs|UID|Number|Identifier|CodeValue|Designator)$|^Issuer|^UniversalEntity")
_LINE_BREAKS = re.compile(r"[\t\n\v\f\r ]*[\t\n\v\f\r][\t\n\v\f\r ]*")
# leading zeros of old archives stay: results must name what the archive holds; the receiver decides on taking them
_NAMED_BY_THE_ARCHIVE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_ALLOWED_CONTROLS = {"LT": "\t\n\f\r", "ST": "\t\n\f\r", "UT": "\t\n\f\r"}  # PS3.5 6.1.3


class InvalidValue(Exception):  # noqa: N818 - the name says what the value is
    """A value that the standard forbids and whose right form is not certain; the text never repeats it."""


def is_identifier(keyword: str) -> bool:
    """True if a part of the attribute's value would identify something else."""
    return _IDENTIFIER.search(keyword) is not None


def valid_values(keyword: str, vr: str, multiplicity: int, values: Sequence[str]) -> list[str]:
    """``values`` in a form that the standard allows; equal to them without their padding if they have it already.

    Args:
        multiplicity: the number of values; 0 if any is allowed: then invalid values are left out, unless all are.

    Raises:
        InvalidValue: the right value is not certain.
    """
    plain = [value.rstrip(" \0") for value in values]
    if plain in ([], [""]):
        return plain
    if multiplicity == 1 and len(plain) > 1:
        return [_single(keyword, vr, plain)]
    if multiplicity:
        if len(plain) != multiplicity:
            raise InvalidValue(f"has {len(plain)} values, where {multiplicity} are required")
        return [valid_value(keyword, vr, value) for value in plain]
    kept, problem = [], None
    for value in plain:
        try:
            kept.append(valid_value(keyword, vr, value))
        except InvalidValue as error:
            problem = error
    if problem is not None and not any(kept):
        raise problem
    return kept


def _single(keyword: str, vr: str, values: Sequence[str]) -> str:
    """One value for an attribute that allows no more."""
    if len(set(values)) == 1:
        return valid_value(keyword, vr, values[0])
    if vr in TEXTS and not is_identifier(keyword):
        return valid_value(keyword, vr, "/".join(value.strip() for value in values))
    raise InvalidValue("has several values, where one is allowed")


def valid_value(keyword: str, vr: str, value: str) -> str:
    """One value, without padding at its end, in a form that the standard allows.

    Raises:
        InvalidValue: the right value is not certain.
    """
    if vr in TEXTS:
        return _text(keyword, vr, value)
    if keyword in _NAMED_BY_THE_ARCHIVE and is_usable_uid(value):
        return value
    rule = _RULES.get(vr)
    return rule(value) if rule else value


def _text(keyword: str, vr: str, value: str) -> str:
    if vr not in _ALLOWED_CONTROLS:
        value = value.strip("\0\t\n\v\f\r") if value.strip("\0\t\n\v\f\r") != value else value
        if not is_identifier(keyword):
            value = _LINE_BREAKS.sub(" ", value)
    _check_characters(value, _ALLOWED_CONTROLS.get(vr, ""))
    longest = LONGEST.get(vr)
    if longest is None or len(value) <= longest:
        return value
    if is_identifier(keyword):
        raise InvalidValue(f"has more than {longest} characters")
    return value[:longest].rstrip()


def _check_characters(value: str, allowed: str = "") -> None:
    if "\ufffd" in value:
        raise InvalidValue("holds bytes that its Specific Character Set does not define")
    if any(unicodedata.category(character) == "Cc" and character not in allowed for character in value):
        raise InvalidValue("holds control characters or escape sequences")


def _person_name(value: str) -> str:
    value = value.strip("\0\t\n\v\f\r")
    _check_characters(value)
    groups = value.split("=")
    if len(groups) > 3:
        raise InvalidValue("has more than three component groups")
    return value if all(_is_group(group) for group in groups) else "=".join(map(_repaired_group, groups))


def _is_group(group: str) -> bool:
    return len(group) <= LONGEST_NAME_GROUP and group.count("^") < _COMPONENTS


def _repaired_group(group: str) -> str:
    """A component group with what follows its fifth component in that one, and cut to the length that is allowed.

    It is cut, since the patient is told from all others by the ID and the study, which stay as they are.
    """
    components = group.split("^")
    suffix = " ".join(component for component in components[_COMPONENTS - 1 :] if component)
    return "^".join([*components[: _COMPONENTS - 1], suffix])[:LONGEST_NAME_GROUP].rstrip("^ ")


def _date(value: str) -> str:
    """``value`` as YYYYMMDD; empty stays empty."""
    found = _DATE.fullmatch(value)
    if not value:
        return value
    try:
        if found:
            date(int(found[1]), int(found[3]), int(found[4]))
            return f"{found[1]}{found[3]}{found[4]}"
    except ValueError:
        pass
    raise InvalidValue("is not one day of the calendar as YYYYMMDD")


def _time(value: str) -> str:
    """``value`` as HHMMSS.FFFFFF or a shorter form of it."""
    if value and not _TIME.fullmatch(value):
        raise InvalidValue("is not one time of day as HHMMSS")
    return value.replace(":", "")


def _date_time(value: str) -> str:
    found = _DATE_TIME.fullmatch(value)
    if value and not found:
        raise InvalidValue("is not a date and time as YYYYMMDDHHMMSS")
    if found and len(digits := value.split(".")[0].split("+")[0].split("-")[0]) >= 8:
        _date(digits[:8])
        _time(digits[8:])
    return value


def _age(value: str) -> str:
    found = _AGE.fullmatch(value.strip(" ").upper())
    if value and not found:
        raise InvalidValue("is not an age as nnnD, nnnW, nnnM or nnnY")
    return f"{int(found[1]):03d}{found[2]}" if found else value


def _decimal(value: str) -> str:
    stripped = value.strip(" ")
    if not stripped:
        return ""
    if not _DECIMAL.fullmatch(stripped) or not math.isfinite(float(stripped)):
        raise InvalidValue("is not a decimal number")
    return value if len(value) <= 16 else stripped if len(stripped) <= 16 else format_number_as_ds(float(stripped))


def finite_number(value: object) -> float | None:
    """``value`` of a DS, IS, FL or FD as a number; None if it is none by PS3.5 6.2 (``float`` takes ``1_0``)."""
    found = str(value).strip(" \0")
    number = float(found) if _DECIMAL.fullmatch(found) else math.nan
    return number if math.isfinite(number) else None


def _integer(value: str) -> str:
    stripped = value.strip(" ")
    if stripped and not (_INTEGER.fullmatch(stripped) and -(2**31) <= int(stripped) < 2**31):
        raise InvalidValue("is not an integer")
    return value if len(value) <= 12 else stripped


def _code_string(value: str) -> str:
    code = value.strip(" \t\n\r").upper() if not _CODE.fullmatch(value) else value
    if not _CODE.fullmatch(code):
        raise InvalidValue("is not a code of at most 16 capital letters, digits, blanks and underscores")
    return code


def _uid(value: str) -> str:
    if value and not is_valid_uid(value.strip(" ")):
        raise InvalidValue("is not a valid UID")
    return value.strip(" ")


def _uri(value: str) -> str:
    _check_characters(value)
    if " " in value:
        raise InvalidValue("is not a URI")
    return value


_RULES: dict[str, Callable[[str], str]] = {
    "PN": _person_name, "DA": _date, "TM": _time, "DT": _date_time, "AS": _age, "DS": _decimal, "IS": _integer,
    "CS": _code_string, "UI": _uid, "UR": _uri,
}  # fmt: skip
