"""The synthetic patient's anatomy: the fraction of each tissue in every voxel.

The brain is the ICBM152 2009a template that ships inside the nilearn wheel (skull-stripped T1, grey and white matter
maps), with a small random pose and deformation. Head, skull, fluid and eyes are built around it from simple shapes.

Arrays are ``zyx``, fractions are 0..1; points and centres are millimetres in the template's frame (x to the right,
y anterior, z superior).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

Field = NDArray[np.floating[Any]]  # float32 throughout, to halve the memory
Layer = tuple[str, Field]  # a tissue's name and its fraction in every voxel

GRID_SHAPE_ZYX = (237, 241, 177)  # odd, so that every second voxel spans the same extent
GRID_ORIGIN_LPS_MM = (-88.0, -118.0, -132.0)
HEAD_SCALE = 0.95  # the template is larger than most heads
TEMPLATE_ORIGIN_ZYX_MM = (-72.0, -134.0, -98.0)
TUMOUR_CENTRE_MM = (-31.0, -6.0, 30.0)  # x < 0 is the patient's left; fronto-parietal white matter


def pose(rng: np.random.Generator) -> Field:
    """Template coordinates (x, y, z mm) of every voxel, shape (3, z, y, x): a turned and scaled head."""
    z, y, x = (np.arange(n, dtype=np.float32) for n in GRID_SHAPE_ZYX)
    left, posterior, superior = GRID_ORIGIN_LPS_MM
    axes = (-(x + left)[None, None, :], -(y + posterior)[None, :, None], (z + superior)[:, None, None])
    turn = Rotation.from_euler("xyz", rng.uniform(-4, 4, 3), degrees=True).as_matrix().astype(np.float32) / HEAD_SCALE
    points = np.empty((3, *GRID_SHAPE_ZYX), dtype=np.float32)
    for row, point in zip(turn, points, strict=True):
        point[...] = row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2]
    return points


def warped(points_mm: Field, rng: np.random.Generator) -> Field:
    """The template coordinates each voxel samples, deformed by individual anatomy and by the tumour's mass effect."""
    seen = points_mm + np.stack([2.0 * smooth_noise(rng, GRID_SHAPE_ZYX, 24) for _ in range(3)])
    away = points_mm - np.asarray(TUMOUR_CENTRE_MM, dtype=np.float32)[:, None, None, None]
    distance = np.sqrt((away**2).sum(axis=0)) + 1
    seen -= away * (5.0 / distance * np.exp(-((distance / 45) ** 2)))
    return seen


def template(points_mm: Field) -> tuple[Field, Field, Field]:
    """The template's T1, and grey and white matter fractions (0..1, sharpened), at ``points_mm``."""
    index = points_mm[::-1] - np.asarray(TEMPLATE_ORIGIN_ZYX_MM, dtype=np.float32)[:, None, None, None]
    maps = []
    for name in ("t1", "gm", "wm"):
        resource = files("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        with as_file(resource) as path:
            array_zyx = np.asarray(nib.load(path).dataobj, dtype=np.float32).transpose(2, 1, 0)
        maps.append(ndimage.map_coordinates(array_zyx, index, output=np.float32, order=1, prefilter=False))
    t1, grey, white = maps
    # The template is a mean of 152 brains: steeper fractions restore the sulci that averaging filled.
    tissue = inside(115 - (grey + white), 70)
    share = inside(grey - white, 130)
    return t1, tissue * (1 - share), tissue * share


def intracranial_surface(brain: NDArray[np.bool_]) -> Field:
    """Signed distance in mm (negative inside) to the brain's surface with its folds closed."""
    outside = ndimage.distance_transform_edt(~brain[::2, ::2, ::2]) * 2
    closed = ndimage.distance_transform_edt(outside < 10) * 2 > 10
    distance = (ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)) * 2
    return _whole(ndimage.gaussian_filter(distance.astype(np.float32), 1.2))


def head(points_mm: Field, surface_mm: Field, rng: np.random.Generator) -> Iterator[Layer]:
    """Everything around the brain, as layers (tissue, fraction) from the outside inwards."""
    points, surface = _half(points_mm), _half(surface_mm)
    x, y, z = points
    mirrored = np.stack([np.abs(x), y, z])
    wobble = smooth_noise(rng, surface.shape, 10)
    face = ellipsoid(points, (0, 38, -62), (62, 64, 78))
    nose = ellipsoid(points, (0, 100, -50), (13, 19, 17))
    base = ellipsoid(points, (0, -18, -42), (69, 74, 45))
    neck = ellipsoid(points, (0, -22, 0), (58, 62, np.inf)) + np.maximum(z + 50, 0)
    skin = _whole(np.minimum.reduce([surface - 14 - wobble, face, nose + 2, base, neck]))
    yield "skin", inside(skin, 1.0)
    yield "fat", inside(skin + 2.5, 1.0)
    muscle = np.minimum.reduce([face + 9, base + 9, neck + 8, np.maximum(surface - 11, z + 15)])
    yield "muscle", inside(_whole(muscle + 1.5 * wobble), 1.0)
    eyeball = ellipsoid(mirrored, (33, 65, -38), (13, 13, 13))
    yield "fat", inside(_whole(ellipsoid(mirrored, (31, 56, -38), (17, 24, 17))), 1.0)
    vertebrae = ellipsoid(points, (0, -36, 0), (19, 24, np.inf)) + np.maximum(z + 78, 0)
    jaw = np.maximum(np.abs(ellipsoid(points, (0, 30, -100), (48, 58, 40))) - 5, z + 78)
    bone = np.minimum.reduce([surface - 8.5 - 0.5 * wobble, vertebrae, np.maximum(jaw, -y)])
    yield "bone", inside(_whole(bone), 0.8)
    yield "marrow", inside(_whole(np.minimum(np.abs(surface - 5.5) - 1.2 + 0.6 * wobble, bone + 3)), 0.8)
    cavities = np.minimum.reduce(
        [
            ellipsoid(points, (0, 74, -56), (9, 28, 20)),
            ellipsoid(mirrored, (28, 60, -66), (13, 15, 15)),
            ellipsoid(points, (0, 26, -46), (11, 11, 8)),
            ellipsoid(points, (0, 12, 0), (8, 7, np.inf)) + np.maximum(z + 68, 0),
        ]
    )
    yield "mucosa", inside(_whole(cavities), 1.0)
    yield "air", inside(_whole(cavities + 2.2 + 0.5 * wobble), 1.0)
    yield "vitreous", inside(_whole(eyeball), 0.8)
    canal = np.maximum(ellipsoid(points, (0, -40, 0), (9, 8, np.inf)), z + 60)
    yield "fluid", inside(_whole(canal), 1.0)
    yield "white", inside(_whole(np.maximum(ellipsoid(points, (0, -40, 0), (6, 5, np.inf)), z + 65)), 1.0)
    yield "dura", inside(surface_mm - 3.2, 0.8)
    yield "fluid", inside(surface_mm - 2.2, 0.8)


def vessels(points_mm: Field, surface_mm: Field, fluid: Field, rng: np.random.Generator) -> Iterator[Layer]:
    """Enhancing tissues besides the tumour, as layers: dural sinuses, vessels in the sulci, choroid plexus."""
    x, y, z = points_mm
    sagittal = np.maximum(np.abs(x) - 3.5, np.maximum(np.abs(surface_mm) - 3.5, -10 - z))
    transverse = np.maximum(np.abs(z + 22) - 3, np.maximum(np.abs(surface_mm) - 2.5, y + 45))
    yield "vein", inside(np.minimum(sagittal, transverse), 1.0)
    thread = np.hypot(smooth_noise(rng, GRID_SHAPE_ZYX, 6), smooth_noise(rng, GRID_SHAPE_ZYX, 6))
    yield "vein", inside(thread - 0.12, 0.1) * np.clip(2 * fluid, 0, 1) * inside(surface_mm + 1, 1.0)
    plexus = ellipsoid(np.stack([np.abs(x), y, z]), (24, -38, 12), (3, 7, 6))
    yield "choroid", inside(plexus, 1.5) * fluid


def ellipsoid(points_mm: Field, centre: Sequence[float], radii: Sequence[float]) -> Field:
    """Approximate signed distance in mm to an ellipsoid (negative inside); an infinite radius makes a cylinder."""
    reach, slope = np.zeros_like(points_mm[0]), np.zeros_like(points_mm[0])
    for point, c, r in zip(points_mm, centre, radii, strict=True):
        square = ((point - c) / r) ** 2
        reach += square
        slope += square / r**2
    reach, slope = np.sqrt(reach), np.sqrt(slope) + 1e-3
    return np.asarray(reach * (reach - 1) / slope)


def inside(distance: Field, width: float) -> Field:
    """1 where ``distance`` is well below zero, 0 well above, a ramp of +/- ``width`` between: a partial volume."""
    return np.asarray(np.clip(0.5 - distance / (2 * width), 0, 1))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Field:
    """Gaussian random field of unit variance with the smoothness of a Gaussian of ``sigma`` voxels."""
    step = max(sigma / 2, 1.0)
    coarse = rng.standard_normal([int(n / step) + 6 for n in shape], dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma / step)
    index = np.meshgrid(*(np.arange(n, dtype=np.float32) / step + 2 for n in shape), indexing="ij", sparse=True)
    for axis, position in enumerate(index):
        coarse = _interpolate(coarse, position.ravel(), axis)
    return np.asarray(coarse / coarse.std())


def _interpolate(array: Field, position: Field, axis: int) -> Field:
    """Linear interpolation of ``array`` along one ``axis`` at fractional indices."""
    low = position.astype(int)
    weight = (position - np.floor(position)).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    between = array.take(low, axis)
    between += weight * (array.take(low + 1, axis) - between)
    return between


def _half(array: Field) -> Field:
    return array[..., ::2, ::2, ::2]


def _whole(half: Field) -> Field:
    """Interpolate from every second voxel to the full grid."""
    for axis, size in enumerate(GRID_SHAPE_ZYX):
        padded = np.concatenate([half, np.take(half, [-1], axis)], axis)
        half = _interpolate(padded, np.arange(size, dtype=np.float32) / 2, axis)
    return half
