"""Traces of surgery in bone and scalp: each place over the brain is compared with its mirror on the other side.

Rays run from the middle of the brain through the upper half of the head. On each, two things are read beyond the brain
mask: how far out the head has signal (metal of clips, staples and plates makes bone and scalp dark to the brain), and
how dark the darkest layer between brain and skin is (bone is; where it is missing, nothing is). What differs from the
mirror over a contiguous area of several square centimetres, in one side only, is a trace. Noses, sinuses, thick slices
and a head in profile differ from one person to the next, but little between the two sides of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.segmentation.midplane import MidPlane, mid_plane

Side = Literal["left", "right"]
Mask = NDArray[np.bool_]
Map = NDArray[np.float64]

LEAST_VOID_CM2 = 3.0
"""Least contiguous area of a signal void, on the brain's surface. The craniotomy of BRAINIX has 5.7 to 6.7, however
noisy, biased, turned or badly masked; four heads without one had nothing of 0.8."""

LEAST_OPEN_CM2 = 6.0
"""The same of missing bone. Flaps have 20 and more; heads with whole bone had nothing of 0.8, but up to 5.2 where thick
slices hide a thin bone, and 8.7 where the brain mask is 2 mm too large."""

_STEP_DEGREES = 2.5
_ELEVATIONS, _AZIMUTHS = (0.0, 85.0), (-85.0, 85.0)  # degrees; above the skull base, from anterior (-) to posterior
_RADII_MM = np.arange(20.0, 130.0)
_DEPTHS_MM = np.arange(-12.0, 31.0)
_UNDER = _DEPTHS_MM <= -4  # brain under the ray's end, the unit of its signal
_SIGNAL, _LEAST_REFERENCE = 0.5, 0.3
_LEAST_SHELL_MM, _THIN = 8.0, 0.4
_BONE, _NO_BONE = 0.5, 0.65
_FLUID_MM, _SKIN_MM = 1.0, 3.0  # fluid at the border of the mask, and the blurred border of the skin, are dark as bone
_LEAST_SHELL_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class SkullTrace:
    """One trace of surgery: the side of the patient, what was seen, and over what area of the brain's surface."""

    side: Side
    kind: Literal["signal void", "missing bone"]
    area_cm2: float


@dataclass(frozen=True, slots=True)
class _Shell:
    """What lies over one side of the brain, by elevation and azimuth.

    Attributes:
        thickness_mm: from the brain mask to the outermost signal.
        darkest: least signal between brain and skin, relative to the brain under it.
        area_cm2: area of the brain's surface that one ray stands for.
        is_seen: the field of view reaches to the end of the ray.
    """

    thickness_mm: Map
    darkest: Map
    area_cm2: Map
    is_seen: Mask


def skull_traces(t1c_zyx: NDArray[np.floating], brain_zyx: Mask) -> tuple[SkullTrace, ...] | None:
    """The traces in one head; None if it cannot be judged, for no skull or scalp is in the image.

    Args:
        t1c_zyx: a T1-weighted head on the common grid (LPS axes, 1 mm), not skull-stripped.
        brain_zyx: its brain mask.
    """
    plane = mid_plane(brain_zyx)
    scale = float(np.median(t1c_zyx[brain_zyx]))
    left, right = (_shell(t1c_zyx / scale, brain_zyx, plane, sign) for sign in (1, -1))
    both = left.is_seen & right.is_seen
    is_shell = np.maximum(left.thickness_mm, right.thickness_mm) >= _LEAST_SHELL_MM
    if not both.any() or is_shell[both].mean() < _LEAST_SHELL_SHARE:
        return None
    found = []
    sides: tuple[tuple[Side, _Shell, _Shell], ...] = (("left", left, right), ("right", right, left))
    for side, here, there in sides:
        is_void = (there.thickness_mm >= _LEAST_SHELL_MM) & (here.thickness_mm < _THIN * there.thickness_mm)
        # a thin table of bone is missed by some rays; where bone is missing, no neighbouring ray meets any
        is_open = (ndimage.minimum_filter(here.darkest, 3) > _NO_BONE) & (_smooth(there.darkest) < _BONE)
        found += [SkullTrace(side, "signal void", area) for area in _areas(is_void & both, here, LEAST_VOID_CM2)]
        found += [
            SkullTrace(side, "missing bone", area) for area in _areas(is_open & ~is_void & both, here, LEAST_OPEN_CM2)
        ]
    return tuple(found)


def _areas(mask: Mask, shell: _Shell, least_cm2: float) -> list[float]:
    """Areas in square centimetres of the contiguous parts that are large enough."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = ndimage.sum_labels(shell.area_cm2, labels, range(1, count + 1)) if count else []
    return [float(area) for area in areas if area >= least_cm2]


def _shell(relative_zyx: NDArray[np.floating], brain_zyx: Mask, plane: MidPlane, sign: int) -> _Shell:
    """The shell of the left (``sign`` 1) or right (-1) side; ``relative_zyx``: signal over the brain's median."""
    elevation, azimuth = (
        np.deg2rad(np.arange(low, high + 0.1, _STEP_DEGREES)) for low, high in (_ELEVATIONS, _AZIMUTHS)
    )
    up, back = np.meshgrid(elevation, azimuth, indexing="ij")
    to_left, to_posterior, to_superior = plane.axes()
    direction = (
        (np.cos(up) * np.cos(back) * sign)[..., None] * to_left
        + (np.cos(up) * np.sin(back))[..., None] * to_posterior
        + np.sin(up)[..., None] * to_superior
    )
    radii_mm = np.broadcast_to(_RADII_MM, (*up.shape, len(_RADII_MM)))
    inside = _sampled(brain_zyx.astype(np.float32), plane, direction, radii_mm) > 0.5
    border_mm = _RADII_MM[len(_RADII_MM) - 1 - np.argmax(inside[..., ::-1], axis=-1)]
    profile = _sampled(relative_zyx, plane, direction, border_mm[..., None] + _DEPTHS_MM)
    is_seen = ~np.isnan(profile[..., -1]) & inside.any(axis=-1)
    profile = np.nan_to_num(profile)
    reference = ndimage.median_filter(np.median(profile[..., _UNDER], axis=-1), 9)
    profile /= np.maximum(reference, _LEAST_REFERENCE)[..., None]
    thickness = np.max(np.where(profile > _SIGNAL, _DEPTHS_MM, 0), axis=-1)
    is_between = (_DEPTHS_MM >= _FLUID_MM) & (thickness[..., None] - _SKIN_MM >= _DEPTHS_MM)
    darkest = np.min(np.where(is_between, profile, np.inf), axis=-1)
    step = np.deg2rad(_STEP_DEGREES)
    area = np.square(border_mm * step) * np.cos(up) / 100
    return _Shell(_smooth(thickness), np.where(np.isinf(darkest), _SIGNAL, darkest), area, is_seen)


def _sampled(array_zyx: NDArray[np.floating], plane: MidPlane, direction: Map, radii_mm: Map) -> Map:
    """Values along rays, ``[elevation, azimuth, radius]``; NaN outside the array."""
    points = plane.centre_xyz + direction[..., None, :] * radii_mm[..., None]
    at = points[..., ::-1].reshape(-1, 3).T
    values: Map = ndimage.map_coordinates(array_zyx, at, order=1, mode="constant", cval=np.nan, output=np.float64)
    return values.reshape(radii_mm.shape)


def _smooth(values: Map) -> Map:
    smooth: Map = ndimage.median_filter(values, 3)
    return smooth
