"""The layers of MSNet on blocks of slices [S, H, W, C] (channels last), and its batch statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5
"""Batch normalisation's epsilon, as in the authors' graphs."""


@dataclass(frozen=True, slots=True)
class Norm:
    """Parameters of batch normalisation and the PReLU after it: gamma, beta, alpha, each of shape [C]."""

    gamma: Tensor
    beta: Tensor
    alpha: Tensor


class Scratch:
    """Reused buffers, since allocating memory takes longer than the arithmetic in it."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Tensor] = {}

    def like(self, block: Tensor, use: str) -> Tensor:
        """A buffer of ``block``'s shape; equal ``use`` and shape give the same buffer."""
        key = (use, *block.shape)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(block.shape, dtype=block.dtype, device=block.device)
        return self._buffers[key]

    def stack(self, one: Tensor, count: int) -> Tensor:
        """A buffer for ``count`` slices like ``one``."""
        key = ("stack", count, *one.shape)
        if key not in self._buffers:
            self._buffers[key] = one.new_empty(count, *one.shape[1:])
        return self._buffers[key]


class Moments:
    """Mean and biased variance per channel, accumulated block by block and merged in float64."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._parts: list[tuple[int, Tensor, Tensor]] = []

    def add(self, block: Tensor) -> None:
        """Add the statistics of ``block``, [..., C]."""
        flat = block.reshape(-1, block.shape[-1])
        mean = flat.mean(0)
        centred = torch.sub(flat, mean, out=self._scratch.like(flat, "centred"))
        self._parts.append((flat.shape[0], mean, centred.square_().sum(0)))

    def scale_and_shift(self, norm: Norm) -> tuple[Tensor, Tensor]:
        """Scale and shift of the normalisation in affine form: y = x * scale + shift."""
        counts = torch.tensor([n for n, _, _ in self._parts], dtype=torch.float64, device=norm.gamma.device)[:, None]
        means = torch.stack([mean for _, mean, _ in self._parts]).double()
        mean = (counts * means).sum(0) / counts.sum()
        within = torch.stack([part for _, _, part in self._parts]).double().sum(0)
        variance = (within + (counts * (means - mean).square()).sum(0)) / counts.sum()
        scale = norm.gamma.double() / torch.sqrt(variance + EPSILON)
        shift = norm.beta.double() - mean * scale
        return scale.to(norm.gamma.dtype), shift.to(norm.gamma.dtype)


class Activation:
    """PReLU(batch norm(x)) with the statistics of ``moments``."""

    def __init__(self, norm: Norm, moments: Moments, scratch: Scratch) -> None:
        self._scale, self._shift = moments.scale_and_shift(norm)
        self._alpha = norm.alpha
        self._scratch = scratch

    def __call__(self, block: Tensor, out: Tensor | None = None) -> Tensor:
        """Activate ``block`` into ``out`` (may be ``block`` itself), or into a buffer that the next call overwrites."""
        out = self._scratch.like(block, "active") if out is None else out
        torch.addcmul(self._shift, block, self._scale, out=out)
        negative = torch.mul(out, self._alpha, out=self._scratch.like(block, "centred"))
        return torch.maximum(out, negative, out=out)


def _cast(block: Tensor, weight: Tensor) -> Tensor:
    """[S, H, W, C] as input of a convolution: channels second, in the precision of the weights."""
    return block.permute(0, 3, 1, 2).to(weight.dtype)


def conv(block: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """1x3x3 convolution, zero padding "same", of [S, H, W, C]."""
    out = torch.conv2d(_cast(block, weight), weight, padding=dilation, dilation=dilation)
    return out.permute(0, 2, 3, 1).float()


def conv_stride2(block: Tensor, weight: Tensor) -> Tensor:
    """1x3x3 convolution of stride 2; TensorFlow's "same" pads even sizes with 0 before and 1 after."""
    padded = functional.pad(block, (0, 0, 0, 1, 0, 1))
    return torch.conv2d(_cast(padded, weight), weight, stride=2).permute(0, 2, 3, 1).float()


def deconv(block: Tensor, weight: Tensor) -> Tensor:
    """Transposed 1x3x3 convolution of stride 2; the last row and column of the full result are dropped."""
    height, width = block.shape[1:3]
    out = functional.conv_transpose2d(_cast(block, weight), weight, stride=2)
    return out.permute(0, 2, 3, 1)[:, : 2 * height, : 2 * width].float().contiguous()


def conv_slices(slices: Tensor, weight: Tensor) -> Tensor:
    """3x1x1 convolution without padding, [D, H, W, C] to [D-2, H, W, C].

    It runs as a 2-D convolution over one image of D rows, without a copy.
    """
    depth, height, width, channels = slices.shape
    image = slices.reshape(1, depth, height * width, channels)
    out = torch.conv2d(_cast(image, weight), weight).permute(0, 2, 3, 1).float()
    return out.reshape(depth - 2, height, width, -1)
