"""A phantom's way through the node, shared by the tests of grid and SEG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import Dataset

from node.segmentation import grid as grids
from node.segmentation.volume import SourceVolume, read_volume


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Sequence[Dataset]], SourceVolume]:
    """Writes instances and reads them as a volume."""

    def from_instances(instances: Sequence[Dataset]) -> SourceVolume:
        return read_volume(phantoms.write_series(tmp_path / "source", instances))

    return from_instances


@pytest.fixture(scope="session")
def segmented() -> Callable[[SourceVolume], dict[str, NDArray[np.bool_]]]:
    """A perfect method: onto the common grid, probabilities there, back to the source, decided."""

    def on_source(source: SourceVolume) -> dict[str, NDArray[np.bool_]]:
        grid = grids.common_grid(source.image)
        array_zyx = sitk.GetArrayFromImage(grids.to_grid(source.image, grid))
        return {
            region: grids.to_source(phantoms.probability(region, array_zyx), grid, source.image) > 0.5
            for region in phantoms.REGIONS
        }

    return on_source
