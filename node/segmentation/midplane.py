"""The plane of symmetry of a head, from its brain mask: what a point of the head has for its mirror on the other side.

Arrays are ``[z, y, x]`` on the common grid (LPS, 1 mm), points in voxels of it, in the order x, y, z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

_STEP = 4  # voxels of the grid per voxel of the search
_SOFTNESS = 1.5  # voxels of the search; a soft border makes the overlap a smooth function of the plane
_SHIFT, _TILT = 8.0, 0.15  # first steps of the search: voxels of the grid, radians


@dataclass(frozen=True, slots=True)
class MidPlane:
    """The plane through ``centre_xyz`` with the unit normal ``normal_xyz``, which points to the patient's left."""

    centre_xyz: Points
    normal_xyz: Points

    def axes(self) -> tuple[Points, Points, Points]:
        """Unit vectors to the left (the normal), to posterior and to superior; the latter two lie in the plane."""
        up = np.array([0.0, 0.0, 1.0])
        up -= (up @ self.normal_xyz) * self.normal_xyz
        up /= np.linalg.norm(up)
        return self.normal_xyz, np.cross(up, self.normal_xyz), up


def mid_plane(brain_zyx: Mask) -> MidPlane:
    """The plane in which the mask and its mirror image overlap most.

    The mask's outline decides, not its inside: a tumour that shifts the ventricles does not shift the skull. The plane
    is searched from the middle of the mask, upright, so the grid's axes must be the patient's to some 25 degrees.
    """
    points = np.argwhere(brain_zyx)[:, ::-1].astype(float)
    centre = points.mean(axis=0)
    blocks = tuple(n // _STEP for n in brain_zyx.shape)
    z, y, x = (n * _STEP for n in blocks)
    coarse = brain_zyx[:z, :y, :x].reshape(blocks[0], _STEP, blocks[1], _STEP, blocks[2], _STEP).mean((1, 3, 5))
    soft = ndimage.gaussian_filter(coarse.astype(np.float32), _SOFTNESS, mode="constant")
    where = np.argwhere(soft > 0.02)
    values = soft[tuple(where.T)]
    inside: Points = where[:, ::-1].astype(np.float64) * _STEP + (_STEP - 1) / 2

    def difference(parameters: NDArray[np.float64]) -> float:
        mirrored = _mirror(inside, _plane(centre, parameters))
        at = ((mirrored - (_STEP - 1) / 2) / _STEP)[:, ::-1].T
        return float(np.square(values - ndimage.map_coordinates(soft, at, order=1)).mean())

    start = np.array([[0, 0, 0], [_SHIFT, 0, 0], [0, _TILT, 0], [0, 0, _TILT]], float)
    found = optimize.minimize(
        difference, start[0], method="Nelder-Mead",
        options={"initial_simplex": start, "xatol": 0.01, "fatol": 1e-7, "maxfev": 200},
    )  # fmt: skip
    return _plane(centre, found.x)


def _plane(centre: Points, parameters: NDArray[np.float64]) -> MidPlane:
    """The plane shifted to the left by the first parameter, and tilted to posterior and superior by the others."""
    shift, to_posterior, to_superior = parameters
    normal = np.array([1.0, to_posterior, to_superior])
    normal /= np.linalg.norm(normal)
    return MidPlane(centre + shift * normal, normal)


def _mirror(points: Points, plane: MidPlane) -> Points:
    distance = (points - plane.centre_xyz) @ plane.normal_xyz
    return points - 2 * distance[:, None] * plane.normal_xyz
