from __future__ import annotations

from datetime import datetime

import pytest

from node.series.moments import acquired, bolus_start


def lookup(**values):
    return values.get


@pytest.mark.parametrize(
    ("instance", "plane", "expected"),
    [
        ({}, {"AcquisitionDate": "20200101", "AcquisitionTime": "140000"}, datetime(2020, 1, 1, 14)),
        ({"SeriesDate": "20200102"}, {"AcquisitionTime": "140000"}, datetime(2020, 1, 2, 14)),
        ({"StudyDate": "20200103"}, {"AcquisitionTime": "140000"}, datetime(2020, 1, 3, 14)),
        ({"SeriesDate": "20200102", "SeriesTime": "1305"}, {}, datetime(2020, 1, 2, 13, 5)),
        ({"SeriesTime": "1305"}, {}, None),
        ({}, {"AcquisitionTime": "140000"}, None),
    ],
    ids=["whole", "date of the series", "date of the study", "begin of the series", "no date", "no date at all"],
)
def test_a_missing_acquisition_date_is_taken_from_series_or_study(instance, plane, expected):
    """What de-identification left says when a series was acquired; without any date nothing does."""
    assert acquired(lookup(**instance), [lookup(**plane)]) == expected


def test_the_earliest_plane_counts():
    """A series is acquired from its first image on."""
    planes = [lookup(AcquisitionDate="20200101", AcquisitionTime=f"14{minute:02d}00") for minute in (9, 3, 7)]
    assert acquired(lookup(), planes) == datetime(2020, 1, 1, 14, 3)


@pytest.mark.parametrize(
    ("start", "moment", "expected"),
    [
        ("140500", datetime(2020, 1, 1, 14, 0), datetime(2020, 1, 1, 14, 5)),
        ("235500", datetime(2020, 1, 2, 0, 10), datetime(2020, 1, 1, 23, 55)),
        ("000500", datetime(2020, 1, 1, 23, 50), datetime(2020, 1, 2, 0, 5)),
        ("000000.000000", datetime(2020, 1, 1, 14, 0), None),
        ("000000", datetime(2020, 1, 2, 0, 30), datetime(2020, 1, 2)),
        ("", datetime(2020, 1, 1, 14, 0), None),
        ("140500", None, None),
    ],
)
def test_a_bolus_start_is_the_one_nearest_to_the_acquisition(start, moment, expected):
    """It has a time only: over midnight the day is the nearer one, and midnight sharp by day means none."""
    assert bolus_start(lookup(ContrastBolusStartTime=start), moment) == expected
