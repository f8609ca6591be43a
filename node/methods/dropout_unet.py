"""The network of our own: a small 3-D residual U-Net that answers from T1c and whatever other contrasts are there.

Its first layer takes blocks of 2 x 2 x 2 voxels as channels (space to depth; Shi et al. 2016 the other way round), so
that it computes at half the resolution and loses no detail: 1 mm in, 1 mm out, an eighth of the positions. Contrasts
that are missing are zeros, and every block is told which ones are there, because zero is also the mean of a contrast
that is there (features that are missing by design: Havaei et al. 2016, "HeMIS").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from node.methods.contract import REGIONS
from node.study import Contrast

CHANNELS = (Contrast.FLAIR, Contrast.T1, Contrast.T1C, Contrast.T2)
"""Order of the input's channels; T1c must be there, the others may be zeros."""

OUTPUTS = REGIONS
"""Order of the output's channels: the regions, each on its own (they are nested)."""

_BLOCK = 2
"""Voxels of an edge of the block that becomes channels."""

_SLOPE = 0.01


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 x 3 around a shortcut, each normalised by instance (Ulyanov et al. 2016).

    The presence of the contrasts is added after the first normalisation, which would remove it before.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(width, width)
        self.presence = nn.Linear(len(CHANNELS), width)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(width, width)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """``x``: [N, C, D, H, W]; ``present``: [N, 4], 1 for each contrast that is there."""
        told = self.presence(present)[:, :, None, None, None]
        y = functional.leaky_relu(self.norm1(self.conv1(x)) + told, _SLOPE)
        return functional.leaky_relu(self.norm2(self.conv2(y)) + x, _SLOPE)


class DropoutUNet(nn.Module):
    """The network; see the module's docstring.

    Args:
        widths: channels of each level; level i works on voxels of 2**(i+1) mm.
        blocks: residual blocks of each level on the way down; on the way up there is one.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"{len(widths)} widths, but {len(blocks)} numbers of blocks")
        self.multiple = _BLOCK * 2 ** (len(widths) - 1)
        pairs = list(itertools.pairwise(widths))
        self.stem = nn.Conv3d(len(CHANNELS) * _BLOCK**3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width) for _ in range(number))
            for width, number in zip(widths, blocks, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv3d(upper, lower, 2, stride=2) for upper, lower in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose3d(lower, upper, 2, stride=2) for upper, lower in pairs)
        self.decoder = nn.ModuleList(ResidualBlock(upper) for upper, _ in pairs)
        self.head = nn.Conv3d(widths[0], len(OUTPUTS) * _BLOCK**3, 1)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Logits of the three regions.

        Args:
            x: [N, 4, D, H, W], contrasts in the order of `CHANNELS`, each with mean 0 and standard deviation 1 inside
                the brain, and 0 outside it and where the contrast is missing; D, H, W multiples of ``multiple``.
            present: [N, 4], 1 for each contrast that is there, else 0.

        Returns:
            [N, 3, D, H, W], regions in the order of `OUTPUTS`.
        """
        x = self.stem(_space_to_depth(x))
        skipped: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            if level:
                x = self.down[level - 1](x)
            for block in cast("nn.ModuleList", blocks):
                x = block(x, present)
            skipped.append(x)
        for level in reversed(range(len(self.up))):
            x = self.decoder[level](self.up[level](x) + skipped[level], present)
        return _depth_to_space(self.head(x))


def _space_to_depth(x: Tensor) -> Tensor:
    """[N, C, D, H, W] to [N, 8 C, D/2, H/2, W/2]."""
    number, channels, depth, height, width = x.shape
    b = _BLOCK
    x = x.reshape(number, channels, depth // b, b, height // b, b, width // b, b).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(number, channels * b**3, depth // b, height // b, width // b)


def _depth_to_space(x: Tensor) -> Tensor:
    """[N, 8 C, D, H, W] to [N, C, 2 D, 2 H, 2 W]."""
    number, channels, depth, height, width = x.shape
    b = _BLOCK
    x = x.reshape(number, channels // b**3, b, b, b, depth, height, width).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(number, channels // b**3, depth * b, height * b, width * b)


def half_precision(network: nn.Module) -> dict[str, Tensor]:
    """The weights as float16, contiguous, as they are shipped."""
    return {
        name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in network.state_dict().items()
    }
