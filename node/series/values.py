"""Values of DICOM elements as plain Python values; a missing, empty or malformed value becomes None.

Headers in clinical use are often malformed: a malformed value counts as missing and is never replaced by a default.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydicom.errors import BytesLengthException, InvalidDicomError

from node.dicom.value_rules import finite_number
from node.errors import StorageError

DICOM_UNREADABLE = (
    InvalidDicomError, EOFError, OSError, ValueError, TypeError, KeyError, LookupError, AttributeError,
    NotImplementedError, OverflowError, RecursionError, BytesLengthException, struct.error, zlib.error,
)  # errors that pydicom raises on malformed DICOM data  # fmt: skip


def require_disk(error: BaseException, name: str) -> None:
    """Pass, unless the disk raised ``error``: then the file ``name`` is not malformed, it cannot be read now.

    Raises:
        StorageError: the disk did not read the file. A file that is gone is no such error: it does not come back.
    """
    # pydicom's own OSError has no number
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
        raise StorageError(f"{name} cannot be read now: {error.strerror or type(error).__name__}") from None


_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(?:\.(\d{1,6}))?")
_DATE_TIME = re.compile(r"(\d{8})(\d{2,6}(?:\.\d{1,6})?)?")


def _members(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def text(value: Any) -> str | None:
    """The value as a string without outer blanks; several values are joined by the backslash that separated them."""
    joined = "\\".join(str(member) for member in _members(value)).strip(" \0")
    return joined or None


def texts(value: Any) -> tuple[str, ...]:
    """The values of a multi-valued code string."""
    return tuple(member for member in (str(each).strip() for each in _members(value)) if member)


def number(value: Any) -> float | None:
    """The first value as a finite float."""
    members = _members(value)
    return finite_number(members[0]) if members else None


def integer(value: Any) -> int | None:
    """The first value as an integer."""
    found = number(value)
    return None if found is None else int(found)


def coordinates(value: Any, count: int) -> Any:
    """Exactly ``count`` finite floats, as a tuple."""
    found = tuple(finite_number(member) for member in _members(value))
    return None if len(found) != count or None in found else found


def date_time(both: Any, date: Any, time: Any) -> datetime | None:
    """Date and time from a DT value, else from a DA and a TM value.

    The UTC offset of a DT is ignored, since only times of one scanner's clock are compared.
    """
    match = _DATE_TIME.match(text(both) or "")
    if match and match[2]:
        return _moment(match[1], match[2])
    return _moment(text(date) or "", text(time) or "")


def _moment(date: str, time: str) -> datetime | None:
    day, clock = _DATE.match(date), _TIME.match(time)
    if not day or not clock:
        return None
    hour, minute, second = (int(part or 0) for part in clock.groups()[:3])
    microsecond = int((clock[4] or "0").ljust(6, "0"))
    try:
        return datetime(int(day[1]), int(day[2]), int(day[3]), hour, minute, second, microsecond)
    except ValueError:
        return None


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    """The earliest known moment."""
    return min((moment for moment in moments if moment), default=None)
