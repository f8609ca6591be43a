"""Time of acquisition and of contrast agent injection, from the headers of a series."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta

from node.dicom.frames import Lookup
from node.series.values import date_time, earliest

_OTHER_DATES = ("SeriesDate", "ContentDate", "StudyDate")  # used if de-identification removed Acquisition Date
_NEAR_MIDNIGHT = timedelta(hours=2)


def acquired(instance: Lookup, planes: Sequence[Lookup]) -> datetime | None:
    """The earliest acquisition time of ``planes``; if they have none, the start of the series.

    ``instance``: attribute by keyword of the first instance.
    """
    exact = [
        date_time(plane("AcquisitionDateTime"), plane("AcquisitionDate"), plane("AcquisitionTime")) for plane in planes
    ]
    if any(exact):
        return earliest(exact)
    for keyword in _OTHER_DATES:
        moments = [date_time(None, instance(keyword), plane("AcquisitionTime")) for plane in planes]
        if any(moments):
            return earliest(moments)
    return date_time(None, instance("SeriesDate") or instance("StudyDate"), instance("SeriesTime"))


def bolus_start(instance: Lookup, moment: datetime | None) -> datetime | None:
    """Contrast/Bolus Start Time (0018,1042), with the date that puts it nearest to the acquisition at ``moment``.

    Some scanners write exactly midnight for "none", so midnight counts only if the acquisition was near it.
    """
    if moment is None:
        return None
    days = (moment + timedelta(days=shift) for shift in (-1, 0, 1))
    found = [date_time(None, day.strftime("%Y%m%d"), instance("ContrastBolusStartTime")) for day in days]
    nearest = min((start for start in found if start), key=lambda start: abs(start - moment), default=None)
    if nearest and nearest.time() == time(0) and abs(nearest - moment) > _NEAR_MIDNIGHT:
        return None
    return nearest
