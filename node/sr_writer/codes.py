"""Coded concepts of segments and reports, used by the SR writer and the SEG writer.

Property types are from CID 7159 "Lesion Segmentation Type", the category from CID 7150, sites from CID 4031.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from pydicom import Dataset
from pydicom.sr.coding import Code


@dataclass(frozen=True, slots=True)
class SegmentConcept:
    """One of the three nested segments.

    Attributes:
        number: Segment Number.
        region: name of the region in the code and in ``result.json``.
        label: Segment Label, as the radiologist reads it.
        description: Segment Description.
        property_type: Segmented Property Type.
        rgb: recommended display colour.
    """

    number: int
    region: str
    label: str
    description: str
    property_type: Code
    rgb: tuple[int, int, int]


MORPHOLOGICALLY_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
BRAIN = Code("12738006", "SCT", "Brain")
NEOPLASM = Code("108369006", "SCT", "Neoplasm")
MASS = Code("4147007", "SCT", "Mass")
ENHANCING_LESION = Code("C113842", "NCIt", "Enhancing Lesion")

SEGMENTS = (
    SegmentConcept(
        1, "whole_tumour", "Whole tumour", "Oedema, non-enhancing, necrotic and enhancing tumour", NEOPLASM,
        (0, 160, 80),
    ),
    SegmentConcept(
        2, "tumour_core", "Tumour core", "Whole tumour without oedema: enhancing, necrotic, solid", MASS, (230, 60, 50)
    ),
    SegmentConcept(
        3, "enhancing_tumour", "Enhancing tumour", "Part of the core that takes up contrast agent", ENHANCING_LESION,
        (250, 200, 40),
    ),
)  # fmt: skip
"""In drawing order: a viewer that cannot overlap segments still shows the inner ones on top of the outer ones."""


def segments_of(regions: Collection[str]) -> tuple[SegmentConcept, ...]:
    """The segments of a SEG that holds ``regions``, numbered from 1 in drawing order (PS3.3 C.8.20.2)."""
    held = [concept for concept in SEGMENTS if concept.region in regions]
    return tuple(replace(concept, number=number) for number, concept in enumerate(held, 1))


def segments_in(seg: Dataset) -> tuple[SegmentConcept, ...]:
    """The segments that a SEG of ours holds, by their labels, with the numbers that they have there."""
    numbers = {str(item.SegmentLabel): int(item.SegmentNumber) for item in seg.SegmentSequence}
    return tuple(replace(each, number=numbers[each.label]) for each in SEGMENTS if each.label in numbers)


def segment_number_of(frame_group: Dataset, seg: Dataset) -> int:
    """Segment Number of a frame, from its own functional groups or from those that all frames share.

    The macro may be shared if all frames are of one segment (PS3.3 A.51.5, Table A.51-2).
    """
    shared = seg.SharedFunctionalGroupsSequence[0]
    holder = frame_group if "SegmentIdentificationSequence" in frame_group else shared
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
REPORT_TITLE = Code("126001", "DCM", "Oncology Measurement Report")
"""Not 126000 "Imaging Measurement Report", which a common viewer opens as a blank viewport; both are in CID 7021."""

MR_PROCEDURE = Code("25056-3", "LN", "MRI unspecified body region")
"""From CID 100 "Quantitative Diagnostic Imaging Procedures", which has no code for the brain; the finding site has."""

VOLUME = Code("118565006", "SCT", "Volume")
MILLILITRE = Code("mL", "UCUM", "milliliter")
POSTOPERATIVE = Code("262061000", "SCT", "Post-operative")
"""From CID 6146 "Time Point Types"."""

COMMENT = Code("121106", "DCM", "Comment")
FINDING = Code("121071", "DCM", "Finding")
REFUSAL_TITLE = Code("18748-4", "LN", "Diagnostic Imaging Report")
"""From CID 7000: a refusal measures nothing, so the titles of TID 1500 would be wrong."""
