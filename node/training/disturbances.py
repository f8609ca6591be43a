"""What raw exams do to a contrast: smooth fields, noise, other contrast, thick slices, another position.

MONAI has transforms of the same names. These work on a patch that holds only a part of the head, keep the background
exactly 0, and normalise with the whole head's statistics as inference does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from node.training.recipe import AugmentationSection

_LEAST_DEVIATION = 1e-3
_FIELD_POINTS = 3
"""Points of the bias field along each axis: as smooth as those of coils are."""


def normalised(values: Tensor, deviation: float, section: AugmentationSection, random: np.random.Generator) -> Tensor:
    """One contrast, disturbed, with mean 0 and deviation 1 inside the brain, 0 outside.

    Args:
        values: [D, H, W], in means of the contrast inside the whole brain; 0 outside it.
        deviation: standard deviation inside the whole brain. What the disturbance does to mean and deviation is
            measured in the patch and taken to be so in the whole brain.
    """
    inside = values > 0
    if not bool(inside.any()):
        return torch.zeros_like(values)
    before = values[inside]
    disturbed = _disturbed(values, section, random)
    after = disturbed[inside]
    mean = 1 + float(after.mean() - before.mean())
    spread = float(before.std(correction=0)), float(after.std(correction=0))
    scale = deviation * spread[1] / max(spread[0], _LEAST_DEVIATION)
    return torch.where(inside, (disturbed - mean) / max(scale, _LEAST_DEVIATION), 0.0)


def _disturbed(values: Tensor, section: AugmentationSection, random: np.random.Generator) -> Tensor:
    if random.random() < section.bias:
        values = values * _field(values, section.bias_size * random.random(), random)
    if random.random() < section.gamma:
        power = (1 + section.gamma_size * random.random()) ** (1 if random.random() < 0.5 else -1)
        values = values.clamp(min=0) ** float(power)
    if random.random() < section.thick:
        values = _thick(values, int(random.integers(2, max(section.thick_mm, 2) + 1)), int(random.integers(3)))
    if random.random() < section.noise:
        generator = torch.Generator().manual_seed(int(random.integers(2**31)))
        values = values + torch.randn(values.shape, generator=generator) * (section.noise_size * random.random())
    return values


def _field(values: Tensor, size: float, random: np.random.Generator) -> Tensor:
    """A smooth field between 1 - ``size`` and 1 + ``size``, on the shape of ``values``."""
    points = torch.from_numpy(random.uniform(-1, 1, (1, 1, *[_FIELD_POINTS] * 3)).astype(np.float32))
    points = points / points.abs().max() * size
    return 1 + functional.interpolate(points, tuple(values.shape), mode="trilinear", align_corners=True)[0, 0]


def _thick(values: Tensor, mm: int, axis: int) -> Tensor:
    """Means over slices of ``mm`` along ``axis``, interpolated back to 1 mm."""
    kernel = [mm if each == axis else 1 for each in range(3)]
    slices = functional.avg_pool3d(values[None, None], kernel, ceil_mode=True)
    return functional.interpolate(slices, tuple(values.shape), mode="trilinear", align_corners=False)[0, 0]


def turned(
    x: Tensor, regions: Tensor, margin: int, section: AugmentationSection, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Contrasts [4, D, H, W] and regions [3, D, H, W] without ``margin``, by chance rotated and scaled before."""
    chance = random.random()
    angles = np.deg2rad(random.uniform(-section.turn_degrees, section.turn_degrees, 3))
    scale = 1 + random.uniform(-section.scale_size, section.scale_size)
    size = [edge - 2 * margin for edge in x.shape[1:]]
    if chance >= section.turn:
        cut = (slice(None), *(slice(margin, margin + edge) for edge in size))
        return x[cut].contiguous(), regions[cut].contiguous()
    grid = _grid(size, tuple(x.shape[1:]), angles, scale)
    moved = functional.grid_sample(torch.cat([x, regions])[None], grid, mode="bilinear", align_corners=False)[0]
    return moved[: len(x)], (moved[len(x) :] > 0.5).float()


def _grid(size: list[int], window: tuple[int, ...], angles: np.ndarray, scale: float) -> Tensor:
    """Where each voxel of the result lies in the window, in the coordinates of ``grid_sample`` (x, y, z; -1 to 1)."""
    matrix = torch.eye(3) * scale
    for axis, angle in enumerate(angles):
        one, other = [each for each in range(3) if each != axis]
        turn = torch.eye(3)
        turn[one, one] = turn[other, other] = float(np.cos(angle))
        turn[one, other], turn[other, one] = -float(np.sin(angle)), float(np.sin(angle))
        matrix = matrix @ turn
    edges = [torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2 for edge in reversed(size)]
    x, y, z = torch.meshgrid(*edges, indexing="ij")
    places = torch.stack([x, y, z], dim=-1).permute(2, 1, 0, 3) @ matrix.T
    return (places / torch.tensor([edge / 2 for edge in reversed(window)]))[None]
