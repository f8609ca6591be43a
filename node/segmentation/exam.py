"""The segmentation of one exam: its regions and what the report says of them. torch is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from node.segmentation.surgery import ExamState

if TYPE_CHECKING:
    from node.methods.agreement import Agreement
    from node.segmentation.volume import SourceVolume


@dataclass(frozen=True, slots=True)
class ExamFacts:
    """Measurements and cautions reported with the regions.

    Attributes:
        brain_ml: volume of the brain mask.
        agreement: per region, how well the three views agree.
        cautions: cautions about the result, in sentences for its reader.
        state: before or after surgery, with the evidence.
    """

    brain_ml: float
    agreement: dict[str, Agreement]
    cautions: tuple[str, ...]
    state: ExamState = field(default_factory=ExamState)


@dataclass(frozen=True, slots=True)
class ExamSegmentation:
    """Regions on the grid of the T1c series.

    Attributes:
        source: the T1c series as an image; its grid is that of all arrays here.
        masks_zyx: name of each region that the method gives to its mask, ``[z, y, x]``, nested.
        spread_zyx: disagreement of the views, voxel by voxel (see ``contract.MethodResult``), on the source grid.
        facts: measurements and cautions.
    """

    source: SourceVolume
    masks_zyx: Mapping[str, NDArray[np.bool_]]
    spread_zyx: NDArray[np.float32]
    facts: ExamFacts

    def volume_ml(self, region: str) -> float:
        """Volume of a region: voxels times voxel size on the source grid."""
        voxel_mm3 = float(np.prod(self.source.image.GetSpacing()))
        return float(self.masks_zyx[region].sum()) * voxel_mm3 / 1000
