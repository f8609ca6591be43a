"""The measurements of the report, computed from the SEG itself, so that report and SEG cannot differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.pixels.utils import unpack_bits

from node.sr_writer.codes import SegmentConcept, segment_number_of, segments_in


@dataclass(frozen=True, slots=True)
class SegmentMeasurement:
    """The measurement of one segment: its volume in mL (voxels times voxel size)."""

    concept: SegmentConcept
    volume_ml: float


def measure(seg: pydicom.Dataset) -> tuple[SegmentMeasurement, ...]:
    """Measure every segment of a BINARY SEG, in segment order; an empty segment measures 0 mL."""
    shared = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    row_spacing, column_spacing = (float(value) for value in shared.PixelSpacing)
    voxel_ml = row_spacing * column_spacing * float(shared.SpacingBetweenSlices) / 1000
    pixels_per_frame = seg.Rows * seg.Columns
    frames = np.asarray(unpack_bits(seg.PixelData))[: seg.NumberOfFrames * pixels_per_frame]
    counts = frames.reshape(seg.NumberOfFrames, pixels_per_frame).sum(axis=1, dtype=np.int64)
    segments = segments_in(seg)
    voxels = dict.fromkeys((concept.number for concept in segments), 0)
    for count, group in zip(counts, seg.PerFrameFunctionalGroupsSequence, strict=True):
        voxels[segment_number_of(group, seg)] += int(count)
    return tuple(SegmentMeasurement(concept, voxels[concept.number] * voxel_ml) for concept in segments)
