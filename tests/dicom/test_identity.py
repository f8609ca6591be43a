"""Dates and times of the source's patient and study modules, as results take them over (PS3.5 Table 6.2-1)."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset

from node.dicom.identity import with_valid_identity

DATES = ("PatientBirthDate", "StudyDate", "LastMenstrualDate")
TIMES = ("StudyTime", "PatientBirthTime")
VALID_DATES = ("19970704", "20000229", "00010101", "99991231", "")
VALID_TIMES = (
    "00", "23", "0000", "2359", "000000", "123456", "235959", "235960", "052960", "123456.7", "123456.123456", "",
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:A value of type 'list' cannot")


def header(**values: str | list[str]) -> Dataset:
    """A header with all attributes of type 2 and ``values``."""
    data_set = Dataset()
    data_set.PatientName, data_set.PatientID, data_set.PatientSex = "Phantom^One", "P-1", "F"
    data_set.PatientBirthDate, data_set.StudyDate, data_set.StudyTime = "19600101", "20240102", "030405"
    data_set.StudyID = data_set.AccessionNumber = data_set.ReferringPhysicianName = ""
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


def encoded(data_set: Dataset) -> bytes:
    """``data_set`` in Explicit VR Little Endian."""
    buffer = io.BytesIO()
    data_set.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, value) for value in VALID_DATES),
        ("1997.07.04", "19970704"),
        ("2000.02.29", "20000229"),
        ("19970704 ", "19970704"),
        ("1997.07.04  ", "19970704"),
        ("1970:01:02", ""),
        ("197:0:0102", ""),
        ("1970-01-02", ""),
        ("1970/01/02", ""),
        ("1997.0704", ""),
        ("199707.04", ""),
        ("1997.7.4", ""),
        ("04.07.1997", ""),
        ("1997 7 4", ""),
        (" 9970704", ""),
        ("+9970704", ""),
        ("1_970704", ""),
        ("１９９７０７０４", ""),
        ("19970704\n", ""),
        ("1997", ""),
        ("199707", ""),
        ("19970700", ""),
        ("19971301", ""),
        ("19970231", ""),
        ("1997.02.31", ""),
        ("19000229", ""),
        ("00000101", ""),
        ("19970101-19980101", ""),
        ("19970101-", ""),
        (["19970704", "19980101"], ""),
        ("19970704120000", ""),
        ("unknown", ""),
    ],
    ids=str,
)
def test_a_date_is_a_calendar_day_as_yyyymmdd_or_empty(value: str | list[str], expected: str) -> None:
    """YYYYMMDD is kept, YYYY.MM.DD of ACR-NEMA is rewritten, and a value in any other form becomes empty."""
    data_set = with_valid_identity(header(**dict.fromkeys(DATES, value)))
    assert {keyword: data_set[keyword].value for keyword in DATES} == dict.fromkeys(DATES, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, value) for value in VALID_TIMES),
        ("12:34:56", "123456"),
        ("12:34:56.789", "123456.789"),
        ("23:59:60", "235960"),
        ("12:34", "1234"),
        ("123456 ", "123456"),
        ("123456.7 ", "123456.7"),
        (" 123456", ""),
        ("1:2:3:456", ""),
        ("1:23:456", ""),
        ("12:3456", ""),
        ("1234:56", ""),
        ("12:34:", ""),
        ("12:34:56:78", ""),
        ("12.34", ""),
        ("12.34.56", ""),
        ("1234.5", ""),
        ("123456.", ""),
        ("123456.1234567", ""),
        ("12345", ""),
        ("1", ""),
        ("240000", ""),
        ("24:00:00", ""),
        ("126000", ""),
        ("123461", ""),
        ("１２３４５６", ""),
        ("123456\n", ""),
        ("123456+0100", ""),
        ("120000-130000", ""),
        (["123456", "123457"], ""),
        ("25h", ""),
    ],
    ids=str,
)
def test_a_time_is_a_time_of_day_as_hhmmss_or_empty(value: str | list[str], expected: str) -> None:
    """HHMMSS.FFFFFF and its shorter forms are kept, ACR-NEMA's colons are removed, any other form becomes empty."""
    data_set = with_valid_identity(header(**dict.fromkeys(TIMES, value)))
    assert {keyword: data_set[keyword].value for keyword in TIMES} == dict.fromkeys(TIMES, expected)


@pytest.mark.parametrize(
    ("keywords", "value"), [*((DATES, value) for value in VALID_DATES), *((TIMES, value) for value in VALID_TIMES)]
)
def test_a_header_with_valid_dates_and_times_keeps_its_bytes(keywords: tuple[str, ...], value: str) -> None:
    """A header that the standard allows is encoded to the same bytes before and after."""
    data_set = header(**dict.fromkeys(keywords, value))
    before = encoded(data_set)
    assert encoded(with_valid_identity(data_set)) == before


def test_an_optional_date_or_time_is_not_added() -> None:
    """Of the dates and times, an absent one of type 2 becomes empty and an absent one of type 3 stays absent."""
    data_set = header()
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime"):
        del data_set[keyword]
    with_valid_identity(data_set)
    assert [data_set[keyword].value for keyword in ("PatientBirthDate", "StudyDate", "StudyTime")] == ["", "", ""]
    assert not {"LastMenstrualDate", "PatientBirthTime"} & set(data_set.dir())
