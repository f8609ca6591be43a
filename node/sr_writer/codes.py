"""Coded concepts of segments and report, in one checked table (read by the SEG writer, too).

Property types are from CID 7159 "Lesion Segmentation Type", the category from CID 7150, sites from CID 4031.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.coding import Code


@dataclass(frozen=True, slots=True)
class SegmentConcept:
    """One of the three nested segments.

    Attributes:
        number: Segment Number.
        region: its name in the code and in ``result.json``.
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
"""In drawing order: a viewer that cannot overlap segments still shows them rightly."""

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
REPORT_TITLE = Code("126001", "DCM", "Oncology Measurement Report")
"""126000 "Imaging Measurement Report" opens as a blank viewport in a common viewer; both are in CID 7021."""

MR_PROCEDURE = Code("25056-3", "LN", "MRI unspecified body region")
"""Of CID 100 "Quantitative Diagnostic Imaging Procedures", which knows no brain; the finding site names that."""

VOLUME = Code("118565006", "SCT", "Volume")
MILLILITRE = Code("mL", "UCUM", "milliliter")
COMMENT = Code("121106", "DCM", "Comment")
FINDING = Code("121071", "DCM", "Finding")
REFUSAL_TITLE = Code("18748-4", "LN", "Diagnostic Imaging Report")
"""CID 7000; nothing is measured, so TID 1500's titles would be wrong."""
