"""From the cascade's answer on the common grid to regions on the source grid: nested, and nothing worn away."""

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk
from cards import Threshold, make_card

from node.errors import GeometryRefused
from node.methods.agreement import dice
from node.methods.contract import REGIONS, MethodResult
from node.segmentation import method
from node.segmentation.grid import common_grid
from node.segmentation.regions_file import label_map, read_masks, write_regions
from node.segmentation.volume import SourceVolume, image_from_affine
from node.study import Contrast, Series

OBLIQUE = phantoms.Geometry(
    phantoms.turned(phantoms.AXIAL, 9.0, 4.0),
    pixel_spacing=(0.94, 0.94),
    size=(80, 80, 50),
    spacing_between_slices_mm=1.5,
    centre_mm=(0.4, 0.3, 0.2),
)
SERIES = Series("1.2", "1.1", "MR", "T1 KM", 5, "1.3", ())


@pytest.fixture
def source():
    image = image_from_affine(np.zeros(OBLIQUE.size[::-1], np.float32), OBLIQUE.affine_lps)
    return SourceVolume(image, SERIES, ())


def prepared(grid):
    shape = grid.GetSize()[::-1]
    return method._Prepared(grid, {}, np.ones(shape, bool), ())


def ball(grid, radius_mm):
    """1 inside, 0 outside, with a border as soft as a network's."""
    z, y, x = np.indices(grid.GetSize()[::-1], dtype=float)
    ox, oy, oz = grid.GetOrigin()
    distance = np.sqrt((x + ox) ** 2 + (y + oy) ** 2 + (z + oz) ** 2)
    return np.clip(0.5 + (radius_mm - distance) / 2, 0, 1).astype(np.float32)


def result(label_zyx, probability_zyx):
    return MethodResult(label_zyx, probability_zyx, np.zeros(label_zyx.shape, np.float32), {}, 0)


def volumes_ml(masks_zyx):
    voxel_ml = np.abs(np.linalg.det(OBLIQUE.affine_lps[:3, :3])) / 1000
    return {region: float(mask.sum() * voxel_ml) for region, mask in masks_zyx.items()}


def answer(grid, radii_mm):
    """The cascade's answer for three concentric balls, each sure of itself."""
    probabilities = {region: ball(grid, radius) for region, radius in zip(REGIONS, radii_mm, strict=True)}
    label = np.zeros(grid.GetSize()[::-1], np.uint8)
    for region, value in zip(REGIONS, (2, 1, 4), strict=True):
        label[probabilities[region] > 0.5] = value
    return result(label, probabilities)


def test_volumes_survive_the_way_to_the_source_grid(source):
    """Each region keeps its volume to a few per cent on an oblique source grid."""
    grid = common_grid(source.image)
    on_grid = answer(grid, (25.0, 15.0, 8.0))
    found = volumes_ml(method._on_source(on_grid, prepared(grid), source))
    for region in REGIONS:
        assert found[region] == pytest.approx(on_grid.region_zyx(region).sum() / 1000, rel=0.02)


def test_rim_that_only_the_innermost_network_sees_is_not_worn_away(source):
    """Enhancement where the core's network says no is core all the same, and keeps its volume on the source grid."""
    grid = common_grid(source.image)
    sure = answer(grid, (25.0, 10.0, 10.0))
    sure.probability_zyx["tumour_core"][...] = 0.1 * ball(grid, 10.0)
    found = volumes_ml(method._on_source(sure, prepared(grid), source))
    expected = sure.region_zyx("enhancing_tumour").sum() / 1000
    assert found["enhancing_tumour"] == pytest.approx(expected, rel=0.02)
    assert found["tumour_core"] == pytest.approx(expected, rel=0.02)


def test_regions_are_nested_on_the_source_grid(source):
    """Whatever the probabilities say, enhancing tumour lies in the core, and the core in the whole tumour."""
    grid = common_grid(source.image)
    rng = np.random.default_rng(1)
    shape = grid.GetSize()[::-1]
    probabilities = {region: rng.random(shape, dtype=np.float32) for region in REGIONS}
    label = rng.choice(np.array([0, 1, 2, 4], np.uint8), size=shape)
    masks = method._on_source(result(label, probabilities), prepared(grid), source)
    assert list(masks) == list(REGIONS)
    assert masks["enhancing_tumour"].any()
    assert not (masks["enhancing_tumour"] & ~masks["tumour_core"]).any()
    assert not (masks["tumour_core"] & ~masks["whole_tumour"]).any()


def test_label_map_decides_on_its_own_grid():
    """Voxel for voxel, a source on the common grid gets the label map, whatever the probabilities said before."""
    geometry = phantoms.Geometry(size=(20, 22, 24), spacing_between_slices_mm=1.0)
    source = SourceVolume(image_from_affine(np.zeros(geometry.size[::-1], np.float32), geometry.affine_lps), SERIES, ())
    grid = common_grid(source.image)
    rng = np.random.default_rng(2)
    shape = grid.GetSize()[::-1]
    label = rng.choice(np.array([0, 1, 2, 4], np.uint8), size=shape)
    decided = result(label, {region: rng.random(shape, dtype=np.float32) for region in REGIONS})
    masks = method._on_source(decided, prepared(grid), source)
    for region in REGIONS:
        np.testing.assert_array_equal(masks[region], decided.region_zyx(region))


def test_no_tumour_stays_none(source):
    """An empty label map gives empty masks, even where a probability was high."""
    grid = common_grid(source.image)
    shape = grid.GetSize()[::-1]
    nothing = result(np.zeros(shape, np.uint8), {region: np.full(shape, 0.9, np.float32) for region in REGIONS})
    assert not any(mask.any() for mask in method._on_source(nothing, prepared(grid), source).values())


@pytest.mark.parametrize(("seen", "outcome"), [(1.0, "silent"), (0.9, "caution"), (0.7, "refused")])
def test_contrast_that_has_not_seen_the_brain_is_refused(source, seen, outcome):
    """Less than 80 % of the brain in the field of view refuses, less than 97 % is told, naming the series."""
    brain = np.zeros((100, 10, 10), bool)
    brain[:, 2:8, 2:8] = True
    mask = np.zeros_like(brain)
    mask[: int(100 * seen)] = True
    arguments = ({Contrast.T2: source}, {Contrast.T2: mask}, brain)
    if outcome == "refused":
        with pytest.raises(GeometryRefused, match=r"series 5 'T1 KM' \(T2\) covers only 70%"):
            method._coverage(*arguments)
    else:
        assert bool(method._coverage(*arguments)) == (outcome == "caution")


def test_skull_stripping_keeps_the_brain_positive_and_all_else_zero():
    """Even voxels of zero or negative signal inside the brain are told from the background."""
    array_zyx = np.linspace(-5, 20, 1000, dtype=np.float32).reshape(10, 10, 10)
    brain = np.zeros((10, 10, 10), bool)
    brain[2:8, 2:8, 2:8] = True
    image = image_from_affine(array_zyx, np.eye(4))
    stripped = method._stripped(image, brain)
    assert (stripped[brain] > 0).all()
    assert (stripped[~brain] == 0).all()
    np.testing.assert_allclose(np.diff(stripped[brain]), np.diff(array_zyx[brain]), atol=1e-4)


def test_exam_of_t1c_alone_gives_the_regions_of_its_method(source, monkeypatch, tmp_path):
    """One contrast and a method for the core alone: that region, at its own place, survives to the disk and back."""
    off_centre = np.zeros(source.image.GetSize()[::-1], np.float32)
    off_centre[10:40, 15:65, 12:70] = 100.0
    off_centre[16:24, 22:40, 45:60] = 1000.0
    t1c = SourceVolume(image_from_affine(off_centre, OBLIQUE.affine_lps), SERIES, ())
    monkeypatch.setattr(method, "brain_mask", lambda image, *_: sitk.GetArrayFromImage(image) > 50)
    core = Threshold(make_card("core", outputs=("tumour_core",)))
    exam = method.segment_exam({Contrast.T1C: t1c}, core, seed=1)
    assert core.ran_on == [(Contrast.T1C,)]
    assert list(exam.masks_zyx) == ["tumour_core"]
    assert dice(exam.masks_zyx["tumour_core"], off_centre > 500) > 0.9
    assert any("less than an adult's" in caution for caution in exam.facts.cautions)
    write_regions(exam, tmp_path)
    stored = read_masks(tmp_path)
    assert list(stored) == ["tumour_core"]
    assert (stored["tumour_core"] == exam.masks_zyx["tumour_core"]).all()
    assert set(np.unique(label_map(exam))) == {0, 1}
