"""The U-Nets of nnU-Net v2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), for weights that nnU-Net wrote.

Parameters have the names of ``dynamic_network_architectures`` 0.4 (``PlainConvUNet``, ``ResidualEncoderUNet`` with its
basic block), so that a state dict loads strictly; it names each layer of a block twice. Three dimensions, instance
norm, leaky ReLU, no dropout: what nnU-Net's planners write.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UNetShape:
    """What a plan says of a network; one entry per stage, from the full resolution down.

    Attributes:
        convolutions: per stage of the encoder, or residual blocks if ``is_residual``.
        decoder_convolutions: per stage of the decoder, from the lowest resolution up.
    """

    features: Sizes
    kernels: tuple[Sizes, ...]
    strides: tuple[Sizes, ...]
    convolutions: Sizes
    decoder_convolutions: Sizes
    is_residual: bool
    conv_bias: bool = True
    epsilon: float = 1e-5


class _Conv(nn.Module):
    """Convolution, instance norm, leaky ReLU if ``acts``."""

    def __init__(self, channels: Sizes, kernel: Sizes, stride: Sizes, norm: tuple[bool, float], *, acts: bool) -> None:
        super().__init__()
        bias, epsilon = norm
        padding = tuple((size - 1) // 2 for size in kernel)
        self.conv = nn.Conv3d(channels[0], channels[1], kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
        self.norm = nn.InstanceNorm3d(channels[1], eps=epsilon, affine=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, *([nn.LeakyReLU(0.01)] if acts else []))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.all_modules(x)
        return out


class _Stack(nn.Module):
    """Convolutions one after the other; the first has the stride."""

    def __init__(self, shape: UNetShape, channels: Sizes, count: int, kernel: Sizes, stride: Sizes) -> None:
        super().__init__()
        norm = (shape.conv_bias, shape.epsilon)
        first = _Conv(channels, kernel, stride, norm, acts=True)
        rest = [_Conv((channels[1], channels[1]), kernel, (1, 1, 1), norm, acts=True) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)
        return out


class _ResidualBlock(nn.Module):
    """Two convolutions beside a path that pools and projects where size or channels change."""

    def __init__(self, shape: UNetShape, channels: Sizes, kernel: Sizes, stride: Sizes) -> None:
        super().__init__()
        norm = (shape.conv_bias, shape.epsilon)
        self.conv1 = _Conv(channels, kernel, stride, norm, acts=True)
        self.conv2 = _Conv((channels[1], channels[1]), kernel, (1, 1, 1), norm, acts=False)
        path: list[nn.Module] = []
        if any(each != 1 for each in stride):
            path.append(nn.AvgPool3d(stride, stride))  # type: ignore[arg-type]
        if channels[0] != channels[1]:
            path.append(_Conv(channels, (1, 1, 1), (1, 1, 1), (False, shape.epsilon), acts=False))
        self.skip = nn.Sequential(*path)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), 0.01)


class _Blocks(nn.Module):
    """Residual blocks one after the other."""

    def __init__(self, blocks: list[_ResidualBlock]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class _Encoder(nn.Module):
    def __init__(self, shape: UNetShape, inputs: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        self.stem: nn.Module | None = None
        if shape.is_residual:
            self.stem = _Stack(shape, (inputs, shape.features[0]), 1, shape.kernels[0], (1, 1, 1))
            inputs = shape.features[0]
        for features, count, kernel, stride in zip(
            shape.features, shape.convolutions, shape.kernels, shape.strides, strict=True
        ):
            if shape.is_residual:
                first = _ResidualBlock(shape, (inputs, features), kernel, stride)
                rest = [_ResidualBlock(shape, (features, features), kernel, (1, 1, 1)) for _ in range(count - 1)]
                stages.append(_Blocks([first, *rest]))
            else:
                stages.append(nn.Sequential(_Stack(shape, (inputs, features), count, kernel, stride)))
            inputs = features
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x if self.stem is None else self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class _Decoder(nn.Module):
    def __init__(self, encoder: _Encoder, shape: UNetShape, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder  # the library's decoder holds it, too, so its tensors are in the state dict twice
        self.stages, self.transpconvs, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number, count in enumerate(shape.decoder_convolutions, 1):
            below, here, stride = shape.features[-number], shape.features[-number - 1], shape.strides[-number]
            self.transpconvs.append(
                nn.ConvTranspose3d(below, here, stride, stride, bias=shape.conv_bias)  # type: ignore[arg-type]
            )
            self.stages.append(_Stack(shape, (2 * here, here), count, shape.kernels[-number - 1], (1, 1, 1)))
            self.seg_layers.append(nn.Conv3d(here, outputs, 1))

    def forward(self, skips: list[Tensor]) -> Tensor:
        x = skips[-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, reversed(skips[:-1]), strict=True):
            x = stage(torch.cat((up(x), skip), 1))
        out: Tensor = self.seg_layers[-1](x)
        return out


class UNet(nn.Module):
    """From ``[N, inputs, z, y, x]`` to logits ``[N, outputs, z, y, x]``; without the outputs of deep supervision."""

    def __init__(self, shape: UNetShape, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encoder = _Encoder(shape, inputs)
        self.decoder = _Decoder(self.encoder, shape, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        out: Tensor = self.decoder(self.encoder(x))
        return out
