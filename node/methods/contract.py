"""What a method gets and what it gives: from volumes on one grid to regions of a tumour. torch is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from node.methods.agreement import Agreement
from node.study import Contrast

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]

REGIONS = ("whole_tumour", "tumour_core", "enhancing_tumour")
"""The nested regions, from the outermost to the innermost."""

OEDEMA, CORE, ENHANCING = 2, 1, 4
"""BraTS labels of the label map."""


@dataclass(frozen=True, slots=True)
class MethodResult:
    """Result of a method on the grid of its input.

    Attributes:
        label_zyx: uint8, 0 background, 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour; only labels of
            regions that the method can give.
        probability_zyx: per region (of `REGIONS`) that the method can give, its probability, float32; 0 outside the
            brain.
        spread_zyx: disagreement of the method with itself (for the cascade, the largest standard deviation of the three
            views' probabilities over the stages), float32.
        agreement: per region, how well the method agrees with itself; empty if it has one view alone.
        dropped_enhancing_voxels: enhancing voxels that were found, but too few or too doubtful to be reported.
    """

    label_zyx: NDArray[np.uint8]
    probability_zyx: Mapping[str, Volume]
    spread_zyx: Volume
    agreement: Mapping[str, Agreement]
    dropped_enhancing_voxels: int = 0

    def region_zyx(self, region: str) -> Mask:
        """One of the nested regions as a mask."""
        return region_of(self.label_zyx, region)

    def view_dice(self, region: str) -> float | None:
        """How well the method's views agree on a region; None if it has one view alone."""
        return self.agreement[region].view_dice if region in self.agreement else None


class Method(Protocol):
    """One way from volumes on one grid to regions, ready to run on cases."""

    def run(self, volumes_zyx: Mapping[Contrast, Volume], seed: int = 0) -> MethodResult:
        """Segment one case.

        Args:
            volumes_zyx: the contrasts at hand, float32 ``[z, y, x]`` in LPS, 1 mm, skull-stripped, background exactly
                0, equal shapes. T1c is always among them; a subset is allowed where the method's card says so.
            seed: of whatever is random in the method; equal seeds give equal results.

        Raises:
            ContentRefused: a contrast that the method needs is missing; one is empty, constant or not finite; shapes
                differ.
        """


def region_of(label: NDArray[np.uint8], region: str) -> Mask:
    """One of the nested regions of a BraTS label map."""
    if region == "whole_tumour":
        return np.asarray(label > 0)
    if region == "tumour_core":
        return np.asarray((label == CORE) | (label == ENHANCING))
    return np.asarray(label == ENHANCING)
