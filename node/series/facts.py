"""Header attributes of one series as plain values. This module does no input or output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

Box = tuple[tuple[float, ...], tuple[float, ...]]
"""Least and greatest LPS coordinates of the planes' corners, in mm."""


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """Header facts of one series; an attribute that is missing or empty is None (or an empty tuple).

    Names are DICOM keywords in snake case. ``image_component`` and ``calculation_technique`` are Complex
    Image Component and Volume Based Calculation Technique of enhanced MR. ``acquisition_datetime`` is the earliest one.
    ``slice_count`` counts distinct positions along the slice normal; ``images_per_position`` is the mean number of
    images at each. ``slice_step_mm`` is the median distance between positions, ``coverage_mm`` their extent plus one
    step; ``box_mm`` bounds the planes. ``has_overlay`` is True when a graphic overlay plane (60xx,3000) with at least
    one set bit lies over the first, middle or last image. ``irregularity`` says why the planes form no regular volume;
    ``mixture`` says why the images cannot belong to one volume (different SOP Classes, frame types or stacks);
    ``is_phase``: they are one phase of a dynamic series; ``made_by_software`` is (kind, evidence) if the images are not
    as acquired.
    """

    description: str | None = None
    protocol_name: str | None = None
    sequence_name: str | None = None
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    mr_acquisition_type: str | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle: float | None = None
    image_type: tuple[str, ...] = ()
    image_component: str | None = None
    calculation_technique: str | None = None
    contrast_bolus_agent: str | None = None
    contrast_bolus_start: datetime | None = None
    diffusion_b_value: float | None = None
    acquisition_datetime: datetime | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    spacing_between_slices_mm: float | None = None
    slice_count: int | None = None
    slice_step_mm: float | None = None
    coverage_mm: float | None = None
    box_mm: Box | None = None
    images_per_position: float | None = None
    image_orientation_patient: tuple[float, ...] | None = None
    body_part_examined: str | None = None
    manufacturer: str | None = None
    frame_of_reference_uid: str | None = None
    is_phase: bool = False
    is_multiframe: bool = False
    has_overlay: bool = False
    irregularity: str | None = None
    mixture: str | None = None
    made_by_software: tuple[str, str] | None = None

    @property
    def is_derived(self) -> bool:
        """Whether value 1 of Image Type is DERIVED (PS3.3 C.7.6.1.1.2)."""
        return bool(self.image_type) and self.image_type[0] == "DERIVED"

    @property
    def step_mm(self) -> float | None:
        """Distance between slices in mm: from the positions, else Spacing Between Slices (0018,0088)."""
        return self.slice_step_mm if self.slice_step_mm is not None else self.spacing_between_slices_mm


FactsByKey = Mapping[tuple[str, str], SeriesFacts]
"""Facts by `node.study.Series.key`."""
