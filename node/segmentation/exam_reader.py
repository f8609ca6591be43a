"""Reads the series of an exam as volumes before the networks run, and says which series cannot become one."""

from __future__ import annotations

import pydicom

from node.dicom.identity import checked_identities
from node.errors import ContentRefused, GeometryRefused, InstanceRefused
from node.segmentation.volume import SourceVolume, read_volume
from node.study import Contrast, Selection, Series


class ExamReader:
    """Reads each series once; a volume is kept until its exam is taken."""

    def __init__(self) -> None:
        self._volumes: dict[Series, SourceVolume] = {}

    def why_unusable(self, series: Series) -> str | None:
        """Why ``series`` cannot become a volume, without its name; None if it can."""
        if series in self._volumes:
            return None
        try:
            self._volumes[series] = read_volume(series)
        except (ContentRefused, GeometryRefused, InstanceRefused) as error:
            return str(error).removeprefix(f"{series.label}: ")
        return None

    def take(self, selection: Selection) -> dict[Contrast, SourceVolume]:
        """The volumes of the chosen series, which are no longer kept here.

        Raises:
            RefusedError: a series cannot become a volume, or the T1c's instances do not say for certain whose images
                they are, or of which frame of reference: results would name another patient, or none.
        """
        source = selection.chosen[Contrast.T1C]
        try:
            checked_identities(pydicom.dcmread(one.path, stop_before_pixels=True) for one in source.instances)
        except InstanceRefused as error:
            raise InstanceRefused(f"{source.label}: {error}") from None
        kept, self._volumes = self._volumes, {}
        return {contrast: kept.get(series) or read_volume(series) for contrast, series in selection.chosen.items()}
