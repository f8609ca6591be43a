"""MSNet in its plain form: whole volumes, 3-D convolutions, library batch norm and PReLU.

It is the baseline for the speed of ``methods.network`` and an independent check of its results: the two share only
the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

_DILATIONS = {"block3_2": 2, "block3_3": 3, "block4_1": 3, "block4_2": 2}


class PlainMSNet:
    """One network; same weights, input and output as ``methods.network.MSNet``."""

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._weights = {name: tensor.to(self.device) for name, tensor in weights.items()}
        self._halves_twice = "downsample1.weight" in weights

    def _active(self, x: Tensor, layer: str) -> Tensor:
        gamma, beta, alpha = (self._weights[f"{layer}.{part}"] for part in ("gamma", "beta", "alpha"))
        normal = functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)
        return functional.prelu(normal, alpha)

    def _residual(self, x: Tensor, name: str) -> Tensor:
        dilation = _DILATIONS.get(name, 1)
        out = x
        for number in (0, 1):
            weight = self._weights[f"{name}.conv_{number}.weight"]
            out = self._active(out, f"{name}.bn_{number}")
            out = functional.conv3d(out, weight, padding=(0, dilation, dilation), dilation=(1, dilation, dilation))
        surplus = (out.shape[1] - x.shape[1]) // 2
        return out + functional.pad(x, (0, 0, 0, 0, 0, 0, surplus, surplus))

    def _fuse(self, x: Tensor, layer: str) -> Tensor:
        return self._active(functional.conv3d(x, self._weights[f"{layer}.weight"]), layer)

    def _down(self, x: Tensor, layer: str) -> Tensor:
        padded = functional.pad(x, (0, 1, 0, 1))
        return self._active(functional.conv3d(padded, self._weights[f"{layer}.weight"], stride=(1, 2, 2)), layer)

    def _up(self, x: Tensor, layer: str) -> Tensor:
        out = functional.conv_transpose3d(x, self._weights[f"{layer}.weight"], stride=(1, 2, 2))
        return self._active(out[..., : 2 * x.shape[3], : 2 * x.shape[4]], layer)

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Logits of ``x``: [N, D, H, W, 4] to [N, D-8, H, W, 2]."""
        y = x.to(self.device).permute(0, 4, 1, 2, 3)
        for name in ("block1_1", "block1_2"):
            y = self._residual(y, name)
        y = self._fuse(y, "fuse1")
        if self._halves_twice:
            y = self._down(y, "downsample1")
        for name in ("block2_1", "block2_2"):
            y = self._residual(y, name)
        f1 = self._fuse(y, "fuse2")
        y = self._down(f1, "downsample2")
        for name in ("block3_1", "block3_2", "block3_3"):
            y = self._residual(y, name)
        f2 = self._fuse(y, "fuse3")
        y = f2
        for name in ("block4_1", "block4_2", "block4_3"):
            y = self._residual(y, name)
        f3 = self._fuse(y, "fuse4")
        return self._predicted(f1[:, :, 2:-2], f2[:, :, 1:-1], f3).permute(0, 2, 3, 4, 1)

    def _predicted(self, f1: Tensor, f2: Tensor, f3: Tensor) -> Tensor:
        if self._halves_twice:
            p1 = self._up(f1, "pred_up1")
            p2 = self._up(self._up(f2, "pred_up2_1"), "pred_up2_2")
            p3 = self._up(self._up(f3, "pred_up3_1"), "pred_up3_2")
        else:
            p1 = functional.conv3d(f1, self._weights["pred1.weight"], padding=(0, 1, 1))
            p2, p3 = self._up(f2, "pred_up2_1"), self._up(f3, "pred_up3_1")
        joined = torch.cat([p1, p2, p3], dim=1)
        return functional.conv3d(joined, self._weights["final_pred.weight"], padding=(0, 1, 1))


def flops(shape: tuple[int, ...], halves_twice: bool) -> int:
    """Floating-point operations (two per multiply-add) of the convolutions for an input [N, D, H, W, 4]."""
    chunks, depth, height, width, _ = shape
    per_pixel = dict.fromkeys(range(3), 0.0)
    halved, quartered = (1, 2) if halves_twice else (0, 1)
    full, conv3x3, mix = depth * 1.0, 9 * 32 * 32, 3 * 32 * 32
    per_pixel[0] += full * (9 * 4 * 32 + 3 * conv3x3) + (depth - 2) * mix
    if halves_twice:
        per_pixel[halved] += (depth - 2) * conv3x3
    per_pixel[halved] += (depth - 2) * 4 * conv3x3 + (depth - 4) * mix
    per_pixel[quartered] += (depth - 4) * conv3x3 + (depth - 4) * 6 * conv3x3 + (depth - 6) * mix
    per_pixel[quartered] += (depth - 6) * 6 * conv3x3 + (depth - 8) * mix
    ups = 9 * 32 * (4 + 8)
    per_pixel[quartered] += (depth - 8) * ups
    per_pixel[halved] += (depth - 8) * 9 * ((32 * 2 + 4 * 4 + 8 * 8) if halves_twice else 32 * 2)
    per_pixel[0] += (depth - 8) * 9 * 14 * 2
    return int(2 * chunks * height * width * sum(count / 4**level for level, count in per_pixel.items()))
