"""A network over a volume that is larger than its window, as MONAI's ``sliding_window_inference`` does it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Blend = Literal["constant", "gaussian"]

_SIGMA_SCALE = 0.125
"""Standard deviation of the Gaussian blend, as a share of the window's size; MONAI's default."""


@dataclass(frozen=True, slots=True)
class Window:
    """Size of the window in voxels, in the axis order of the volume; overlap of neighbours, 0 to below 1; blend."""

    size: tuple[int, int, int]
    overlap: float = 0.25
    blend: Blend = "constant"


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis; the last window ends with the axis."""
    step = max(int(size * (1 - overlap)), 1) if size != length else size
    count = math.ceil((length - size) / step) + 1
    return [min(number * step, length - size) for number in range(count)]


def _weights(window: Window) -> Tensor:
    if window.blend == "constant":
        return torch.ones(window.size)
    weights = torch.ones(window.size)
    for axis, size in enumerate(window.size):
        offset = torch.arange(-(size - 1) / 2, (size - 1) / 2 + 1, dtype=torch.float32)
        shape = [1, 1, 1]
        shape[axis] = size
        weights = weights * torch.exp(offset**2 / (-2 * (_SIGMA_SCALE * size) ** 2)).reshape(shape)
    return weights.clamp_(min=max(float(weights[weights != 0].min()), 1e-3))


def over_windows(volume: Tensor, predict: Callable[[Tensor], Tensor], window: Window) -> Tensor:
    """Weighted mean of the predictions of all windows.

    Args:
        volume: ``[1, C, ...three axes]``; a volume smaller than the window is padded by zeros on both sides.
        predict: from ``[1, C, *window.size]`` to ``[1, K, *window.size]``.

    Returns:
        ``[1, K, ...]`` of the size of ``volume``.
    """
    lacks = [max(size - length, 0) for size, length in zip(window.size, volume.shape[2:], strict=True)]
    before = [lack // 2 for lack in lacks]
    pads = [(first, lack - first) for first, lack in zip(before, lacks, strict=True)]
    padded = functional.pad(volume, [each for pair in reversed(pads) for each in pair])
    weights = _weights(window).to(volume)
    starts = [_starts(length, size, window.overlap) for length, size in zip(padded.shape[2:], window.size, strict=True)]
    total: Tensor | None = None
    seen = torch.zeros(padded.shape[2:], dtype=volume.dtype, device=volume.device)
    for corner in itertools.product(*starts):
        place = tuple(slice(start, start + size) for start, size in zip(corner, window.size, strict=True))
        output = predict(padded[(slice(None), slice(None), *place)])
        if total is None:
            total = torch.zeros((1, output.shape[1], *padded.shape[2:]), dtype=output.dtype, device=output.device)
        total[(slice(None), slice(None), *place)] += output * weights
        seen[place] += weights
    assert total is not None  # there is at least one window
    kept = tuple(slice(first, first + length) for first, length in zip(before, volume.shape[2:], strict=True))
    return (total / seen)[(slice(None), slice(None), *kept)]
