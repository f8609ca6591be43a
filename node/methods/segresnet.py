"""SegResNet (Myronenko 2018, arXiv:1810.11654) as MONAI 1.x builds it, for weights that MONAI's own class wrote.

Parameters have MONAI's names (``monai.networks.nets.SegResNet``), so that a state dict loads strictly. Dropout does
nothing at inference and has no parameters; it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class SegResNetShape:
    """Arguments of MONAI's class; the defaults are its own. Three dimensions, ReLU, linear upsampling."""

    init_filters: int = 8
    in_channels: int = 1
    out_channels: int = 2
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    blocks_up: tuple[int, ...] = (1, 1, 1)
    num_groups: int = 8

    @property
    def multiple_of(self) -> int:
        """Each axis of the input must be a multiple of this."""
        return int(2 ** (len(self.blocks_down) - 1))


class _Conv(nn.Module):
    """A convolution that keeps the size (halves it with stride 2); MONAI nests it under the name ``conv``."""

    def __init__(self, channels: tuple[int, int], kernel: int = 3, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(*channels, kernel, stride, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _ResBlock(nn.Module):
    """Twice group norm, ReLU, convolution; the input is added."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.conv1 = _Conv((channels, channels))
        self.conv2 = _Conv((channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(torch.relu(self.norm1(x)))
        out: Tensor = self.conv2(torch.relu(self.norm2(inner))) + x
        return out


class SegResNet(nn.Module):
    """From ``[N, in_channels, x, y, z]`` to logits ``[N, out_channels, x, y, z]``; see `SegResNetShape.multiple_of`."""

    def __init__(self, shape: SegResNetShape) -> None:
        super().__init__()
        filters, groups = shape.init_filters, shape.num_groups
        self.convInit = _Conv((shape.in_channels, filters))  # MONAI's name
        self.down_layers = nn.ModuleList()
        for level, count in enumerate(shape.blocks_down):
            channels = filters * 2**level
            first = _Conv((channels // 2, channels), stride=2) if level else nn.Identity()
            self.down_layers.append(nn.Sequential(first, *[_ResBlock(channels, groups) for _ in range(count)]))
        self.up_layers, self.up_samples = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(shape.blocks_up):
            channels = filters * 2 ** (len(shape.blocks_up) - level)
            upsample = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
            self.up_samples.append(nn.Sequential(_Conv((channels, channels // 2), kernel=1), upsample))
            self.up_layers.append(nn.Sequential(*[_ResBlock(channels // 2, groups) for _ in range(count)]))
        final = _Conv((filters, shape.out_channels), kernel=1, bias=True)
        self.conv_final = nn.Sequential(nn.GroupNorm(groups, filters), nn.ReLU(), final)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        skips = []
        x = self.convInit(x)
        for down in self.down_layers:
            x = down(x)
            skips.append(x)
        for up, layer, skip in zip(self.up_samples, self.up_layers, reversed(skips[:-1]), strict=True):
            x = layer(up(x) + skip)
        out: Tensor = self.conv_final(x)
        return out
