"""The common grid: it covers the reference, keeps places, and a map comes back from it where it belongs."""

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk
from phantoms import GEOMETRIES, Geometry

from node.segmentation.grid import common_grid, field_of_view, to_grid, to_source
from node.segmentation.volume import affine_of, image_from_affine

BY_NAME = [pytest.param(geometry, id=name) for name, geometry in GEOMETRIES.items()]


def image_of(geometry, array_zyx=None):
    if array_zyx is None:
        array_zyx = phantoms.signal(geometry)
    return image_from_affine(array_zyx.astype(np.float32), geometry.affine_lps)


def corners_mm(image):
    size = np.array(image.GetSize())
    outermost = [size * corner - 0.5 for corner in np.ndindex(2, 2, 2)]
    return np.array([image.TransformContinuousIndexToPhysicalPoint(corner.tolist()) for corner in outermost])


@pytest.mark.parametrize("geometry", BY_NAME)
def test_common_grid_covers_all_voxels_and_no_more(geometry):
    """Its 1 mm voxels, axes along the patient's, reach all corners of the reference, and exceed them by under 1 mm."""
    reference = image_of(geometry)
    grid = common_grid(reference)
    np.testing.assert_array_equal(affine_of(grid)[:3, :3], np.eye(3))
    low, high = corners_mm(reference).min(axis=0), corners_mm(reference).max(axis=0)
    grid_low, grid_high = corners_mm(grid).min(axis=0), corners_mm(grid).max(axis=0)
    np.testing.assert_allclose(grid_low, low, atol=1e-6)
    assert (grid_high >= high - 1e-5).all()
    assert (grid_high < high + 1).all()


def test_common_grid_of_an_axial_one_millimetre_series_is_its_own_grid():
    """Nothing is interpolated when there is nothing to change: no half voxel is lost on the way."""
    geometry = Geometry(spacing_between_slices_mm=1.0, size=(40, 44, 30))
    reference = image_of(geometry)
    grid = common_grid(reference)
    assert grid.GetSize() == reference.GetSize()
    np.testing.assert_allclose(affine_of(grid), geometry.affine_lps, atol=1e-9)
    there = to_grid(reference, grid)
    np.testing.assert_allclose(sitk.GetArrayFromImage(there), sitk.GetArrayFromImage(reference), rtol=1e-5)
    back = to_source(sitk.GetArrayFromImage(there), grid, reference)
    np.testing.assert_allclose(back, sitk.GetArrayFromImage(reference), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", BY_NAME)
def test_regions_come_back_where_they_are(read, segmented, geometry):
    """Centroid within 0.5 mm, volume within a few per cent, left is left: on the source grid in any orientation."""
    source = read(phantoms.classic(geometry))
    voxel_ml = np.prod(source.image.GetSpacing()) / 1000
    tolerance = {"whole_tumour": 0.02, "tumour_core": 0.04, "enhancing_tumour": 0.1}
    for region, mask in segmented(source).items():
        index_xyz = np.argwhere(mask)[:, ::-1]
        points = index_xyz @ source.affine_lps[:3, :3].T + source.affine_lps[:3, 3]
        truth = phantoms.REGIONS[region]
        assert np.linalg.norm(points.mean(axis=0) - truth.centre_mm) < 0.5
        assert points[:, 0].mean() > 0
        assert mask.sum() * voxel_ml == pytest.approx(truth.volume_ml, rel=tolerance[region])


@pytest.mark.parametrize("geometry", BY_NAME)
def test_map_of_ones_reaches_every_voxel_of_the_source(geometry):
    """The grid covers the source, so nothing is cut off at its borders, not even half a voxel."""
    source = image_of(geometry)
    grid = common_grid(source)
    ones = np.ones(grid.GetSize()[::-1], np.float32)
    np.testing.assert_allclose(to_source(ones, grid, source), 1.0, atol=1e-5)


@pytest.mark.parametrize("geometry", BY_NAME)
def test_linear_ramp_survives_both_ways(geometry):
    """A signal that is linear in LPS keeps its value at each place, there and (away from the edges) back."""
    x, y, z = geometry.points_mm
    reference = image_of(geometry, 3 * x - 2 * y + z)
    grid = common_grid(reference)
    there = sitk.GetArrayFromImage(to_grid(reference, grid))
    seen = field_of_view(reference, grid)
    indices = np.argwhere(seen)[::97]
    points = indices[:, ::-1] + np.array(grid.GetOrigin())
    inner = (np.abs(np.linalg.solve(geometry.affine_lps, np.c_[points, np.ones(len(points))].T)[:3].T
                    - (np.array(geometry.size) - 1) / 2) < (np.array(geometry.size) - 1) / 2).all(axis=1)  # fmt: skip
    expected = points @ [3, -2, 1]
    np.testing.assert_allclose(there[tuple(indices[inner].T)], expected[inner], atol=1e-3)
    back = to_source(there, grid, reference)
    middle = (slice(2, -2), slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(back[middle], (3 * x - 2 * y + z)[middle], atol=1e-2)


def test_field_of_view_ends_at_the_edges_of_the_outermost_voxels():
    """A slab of 10 slices of 3 mm has been seen over 30 mm, not over the 27 mm between its outermost planes."""
    slab = Geometry(size=(40, 44, 10), spacing_between_slices_mm=3.0, centre_mm=(0, 0, 0))
    wide = common_grid(image_of(Geometry(size=(60, 60, 60), spacing_between_slices_mm=1.0, centre_mm=(0, 0, 0))))
    seen = field_of_view(image_of(slab), wide)
    assert seen.sum() == 40 * 44 * 30
    assert seen[15:45, 8:52, 10:50].all()


def test_field_of_view_follows_the_transform():
    """A patient who moved 7 mm to the left between the series has been seen 7 mm elsewhere."""
    slab = Geometry(size=(20, 20, 10), spacing_between_slices_mm=2.0, centre_mm=(0, 0, 0))
    wide = common_grid(image_of(Geometry(size=(60, 60, 60), spacing_between_slices_mm=1.0, centre_mm=(0, 0, 0))))
    moved = sitk.TranslationTransform(3, (7.0, 0.0, 0.0))  # points of the grid to points of the image
    seen = field_of_view(image_of(slab), wide, moved)
    np.testing.assert_array_equal(np.roll(field_of_view(image_of(slab), wide), -7, axis=2), seen)


def test_image_outside_its_field_of_view_is_zero():
    """What has not been seen is 0 on the grid, exactly."""
    slab = Geometry(size=(20, 20, 10), spacing_between_slices_mm=2.0, centre_mm=(0, 0, 0))
    wide = common_grid(image_of(Geometry(size=(60, 60, 60), spacing_between_slices_mm=1.0, centre_mm=(0, 0, 0))))
    there = sitk.GetArrayFromImage(to_grid(image_of(slab), wide))
    seen = field_of_view(image_of(slab), wide)
    assert (there[~seen] == 0).all()
    assert (there[seen] > 0).all()


def test_transform_maps_points_of_the_grid_to_points_of_the_image():
    """The direction of the transform is that of a registration with the grid fixed."""
    geometry = Geometry(size=(60, 60, 60), spacing_between_slices_mm=1.0, centre_mm=(0, 0, 0))
    image, grid = image_of(geometry), common_grid(image_of(geometry))
    shifted = to_grid(image, grid, sitk.TranslationTransform(3, (0.0, 5.0, 0.0)))
    plain, moved = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(shifted)
    np.testing.assert_allclose(moved[:, :-5], plain[:, 5:], rtol=1e-5)
