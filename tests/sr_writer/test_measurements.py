"""The numbers of the report: every voxel of the SEG counted, none twice, times the volume between the planes."""

from __future__ import annotations

import re
from pathlib import Path

import highdicom
import numpy as np
import phantoms
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code

from node.segmentation.seg_writer import write_seg
from node.segmentation.volume import read_volume
from node.sr_writer import codes
from node.sr_writer.codes import SEGMENTS
from node.sr_writer.measurements import measure

CODES = [value for value in vars(codes).values() if isinstance(value, Code)]
ODD = phantoms.Geometry(size=(7, 5, 9), pixel_spacing=(2.0, 0.5), spacing_between_slices_mm=3.3)
"""35 pixels a frame: no frame of a BINARY SEG ends with a byte."""


def random_masks(shape: tuple[int, ...]) -> dict[str, NDArray[np.bool_]]:
    """Nested masks without any order in them."""
    chance = np.random.default_rng(4).random(shape)
    return {concept.region: chance > threshold for concept, threshold in zip(SEGMENTS, (0.3, 0.6, 0.8), strict=True)}


def seg_of(folder: Path, instances: list[Dataset], masks: dict[str, NDArray[np.bool_]]) -> Path:
    """The SEG of the masks, on disk."""
    source = read_volume(phantoms.write_series(folder / "source", instances))
    file = folder / "seg.dcm"
    write_seg(source, masks, phantoms.IDENTITY).save_as(file, enforce_file_format=True)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
@pytest.mark.parametrize("geometry", [ODD, phantoms.GEOMETRIES["double oblique"]], ids=["odd", "double oblique"])
def test_every_voxel_is_counted(tmp_path: Path, kind: str, geometry: phantoms.Geometry) -> None:
    """Voxels of the mask times the voxel's volume from the planes, for frames that end within a byte, too."""
    masks = random_masks(geometry.size[::-1])
    instances = phantoms.classic(geometry) if kind == "classic" else [phantoms.enhanced(geometry)]
    voxel_ml = abs(np.linalg.det(geometry.affine_lps[:3, :3])) / 1000
    measured = measure(pydicom.dcmread(seg_of(tmp_path, instances, masks)))
    assert [each.concept for each in measured] == list(SEGMENTS)
    expected = [float(masks[concept.region].sum() * voxel_ml) for concept in SEGMENTS]
    assert [each.volume_ml for each in measured] == pytest.approx(expected, rel=1e-6)


def test_highdicoms_own_count_is_the_same(tmp_path: Path) -> None:
    """Another reader of the same file comes to the same volumes."""
    file = seg_of(tmp_path, phantoms.classic(ODD), random_masks(ODD.size[::-1]))
    seg = highdicom.seg.segread(file)
    for each in measure(pydicom.dcmread(file)):
        volume = seg.get_volume(segment_numbers=[each.concept.number], combine_segments=True, relabel=True)
        voxel_ml = abs(np.linalg.det(volume.affine[:3, :3])) / 1000
        assert each.volume_ml == pytest.approx(float((volume.array > 0).sum() * voxel_ml), rel=1e-6)


@pytest.mark.parametrize("planes", [[0], [8], [2, 6]], ids=str)
def test_segment_on_single_planes_has_their_volume(tmp_path: Path, planes: list[int]) -> None:
    """One plane, or two that are not neighbours, count with the distance of the source's planes."""
    masks = {concept.region: np.zeros(ODD.size[::-1], bool) for concept in SEGMENTS}
    masks["whole_tumour"][planes] = True
    whole, core, enhancing = measure(pydicom.dcmread(seg_of(tmp_path, phantoms.classic(ODD), masks)))
    assert whole.volume_ml == pytest.approx(len(planes) * 7 * 5 * 2.0 * 0.5 * 3.3 / 1000)
    assert (core.volume_ml, enhancing.volume_ml) == (0.0, 0.0)


@pytest.mark.parametrize("code", [code for code in CODES if code.scheme_designator != "UCUM"], ids=lambda c: c.meaning)
def test_code_and_meaning_belong_together(code: Code) -> None:
    """What the standard's dictionary knows under the meaning is this very code: no validator looks at that."""
    keyword = "".join(word[0].upper() + word[1:] for word in re.split("[ -]", code.meaning))
    found = getattr(getattr(standard, code.scheme_designator), keyword)
    assert (found.value, found.meaning) == (code.value, code.meaning)


def test_segments_are_numbered_in_drawing_order() -> None:
    """Numbers count from 1; labels, regions and colours are each segment's own."""
    assert [concept.number for concept in SEGMENTS] == [1, 2, 3]
    for field in ("region", "label", "description", "rgb"):
        assert len({getattr(concept, field) for concept in SEGMENTS}) == 3
