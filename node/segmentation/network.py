"""MSNet, the anisotropic network of Wang et al. 2017 (section 2.2), in the form that is fastest and exact.

Every layer is local to a slice, but for four 3x1x1 convolutions without padding. So slices are a batch of 2-D images,
channels last, and each layer runs over small blocks of slices that stay in the cache: activation, convolution, and the
batch statistics of the result while it is still hot. Batch normalisation uses the statistics of the current batch at
test time, too (the published checkpoints hold no usable moving averages), hence a layer must be finished before the
next begins. Block statistics are merged in float64 (Chan et al. 1979), which keeps the logits within 1e-3 of a float64
evaluation; a plain float32 sum over millions of voxels does not.

PReLU is written max(y, alpha*y), which is equal for alpha <= 1; larger alphas are refused when weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from node.errors import ModelPackError

EPSILON = 1e-5
"""Batch normalisation's epsilon, as in the authors' graphs."""

LOST_SLICES = 8
"""An output has this many slices fewer than its input, half at each end: four 3x1x1 convolutions without padding."""

_CPU_BLOCK_PIXELS = 32_768
_CUDA_BLOCK_PIXELS = 4_194_304

DILATIONS = {"block3_1": 1, "block3_2": 2, "block3_3": 3, "block4_1": 3, "block4_2": 2, "block4_3": 1}


@dataclass(frozen=True, slots=True)
class _Norm:
    """Batch normalisation and the PReLU after it: gamma, beta, alpha, each of shape [C]."""

    gamma: Tensor
    beta: Tensor
    alpha: Tensor


class _Moments:
    """Mean and biased variance per channel, gathered block by block and merged in float64."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, Tensor, Tensor]] = []

    def add(self, block: Tensor) -> None:
        """``block``: [..., C]."""
        flat = block.reshape(-1, block.shape[-1])
        mean = flat.mean(0)
        squares = (flat - mean).square_().sum(0)
        self._parts.append((flat.shape[0], mean.double(), squares.double()))

    def scale_and_shift(self, norm: _Norm) -> tuple[Tensor, Tensor]:
        """The affine form of the normalisation: y = x * scale + shift."""
        counts = torch.tensor([n for n, _, _ in self._parts], dtype=torch.float64, device=norm.gamma.device)[:, None]
        means = torch.stack([mean for _, mean, _ in self._parts])
        mean = (counts * means).sum(0) / counts.sum()
        squares = torch.stack([part for _, _, part in self._parts]).sum(0) + (counts * (means - mean).square()).sum(0)
        scale = norm.gamma.double() / torch.sqrt(squares / counts.sum() + EPSILON)
        shift = norm.beta.double() - mean * scale
        return scale.to(norm.gamma.dtype), shift.to(norm.gamma.dtype)


def _activate(block: Tensor, scale: Tensor, shift: Tensor, alpha: Tensor) -> Tensor:
    """PReLU(batch norm(block)), a new tensor."""
    out = torch.addcmul(shift, block, scale)
    return torch.maximum(out, out * alpha, out=out)


def _conv(block: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """1x3x3 convolution, zero padding "same", of [S, H, W, C]."""
    out = torch.conv2d(block.permute(0, 3, 1, 2), weight, padding=dilation, dilation=dilation)
    return out.permute(0, 2, 3, 1)


def _conv_stride2(block: Tensor, weight: Tensor) -> Tensor:
    """1x3x3 convolution of stride 2; TensorFlow's "same" pads even sizes with 0 before and 1 after."""
    padded = functional.pad(block, (0, 0, 0, 1, 0, 1))
    return torch.conv2d(padded.permute(0, 3, 1, 2), weight, stride=2).permute(0, 2, 3, 1)


def _deconv(block: Tensor, weight: Tensor) -> Tensor:
    """Transposed 1x3x3 convolution of stride 2; the last row and column of the full result are dropped."""
    height, width = block.shape[1:3]
    out = functional.conv_transpose2d(block.permute(0, 3, 1, 2), weight, stride=2)
    return out.permute(0, 2, 3, 1)[:, : 2 * height, : 2 * width]


def _mix(slices: Tensor, weight: Tensor) -> Tensor:
    """3x1x1 convolution without padding: [D, H, W, C] to [D-2, H, W, C]; as one 2-D image of D rows, without a copy."""
    depth, height, width, channels = slices.shape
    image = slices.reshape(1, depth, height * width, channels).permute(0, 3, 1, 2)
    out = torch.conv2d(image, weight).permute(0, 2, 3, 1)
    return out.reshape(depth - 2, height, width, -1)


class MSNet:
    """One of the nine networks, ready to run on a device.

    ``weights`` is named as in the model pack: ``<layer>.weight`` of shape [out, in, kd, kh, kw] ([in, out, ...] for the
    transposed ones), ``<layer>.gamma``, ``.beta`` and ``.alpha``. The variant of the enhancing-tumour stage, which
    halves the size once instead of twice, is recognised by its missing ``downsample1``.

    Raises:
        ModelPackError: a tensor is missing, superfluous or of another shape.
    """

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.is_twice = "downsample1.weight" in weights
        self._weights = {name: self._prepared(name, tensor) for name, tensor in weights.items()}
        self._check_names()

    def _prepared(self, name: str, tensor: Tensor) -> Tensor:
        if name.endswith(".alpha") and bool((tensor > 1).any()):
            raise ModelPackError(f"{name}: a PReLU slope above 1 is not supported")
        if tensor.ndim != 5:
            return tensor.to(self.device)
        # 3x1x1 kernels become 3x1 over (slice, pixel); 1x3x3 kernels lose their first axis
        flat = tensor.squeeze(-1) if tensor.shape[2] == 3 else tensor.squeeze(2)
        return flat.to(self.device).contiguous(memory_format=torch.channels_last)

    def _check_names(self) -> None:
        expected = set(layer_names(self.is_twice))
        if expected != set(self._weights):
            wrong = sorted(expected ^ set(self._weights))[:3]
            raise ModelPackError(f"weights do not fit the network: {', '.join(wrong)}")

    def _norm(self, layer: str) -> _Norm:
        return _Norm(*(self._weights[f"{layer}.{part}"] for part in ("gamma", "beta", "alpha")))

    def _blocks(self, slices: int, pixels: int) -> Iterator[slice]:
        most = _CPU_BLOCK_PIXELS if self.device.type == "cpu" else _CUDA_BLOCK_PIXELS
        step = max(1, most // pixels)
        for start in range(0, slices, step):
            yield slice(start, min(start + step, slices))

    def _residual(self, x: Tensor, moments: _Moments, name: str, spare: Tensor) -> tuple[Tensor, _Moments, Tensor]:
        """Pre-activation residual block. The result is written into ``spare``; ``x`` becomes the next spare one."""
        dilation = DILATIONS.get(name, 1)
        blocks = list(self._blocks(x.shape[0], x.shape[1] * x.shape[2]))
        norm, inner, outer = self._norm(f"{name}.bn_0"), _Moments(), _Moments()
        scale, shift = moments.scale_and_shift(norm)
        for block in blocks:
            out = _conv(_activate(x[block], scale, shift, norm.alpha), self._weights[f"{name}.conv_0.weight"], dilation)
            inner.add(out)
            spare[block] = out
        norm = self._norm(f"{name}.bn_1")
        scale, shift = inner.scale_and_shift(norm)
        for block in blocks:
            active = _activate(spare[block], scale, shift, norm.alpha)
            out = _conv(active, self._weights[f"{name}.conv_1.weight"], dilation)
            surplus = (out.shape[-1] - x.shape[-1]) // 2  # fewer channels are padded with zeros on both sides
            out[..., surplus : surplus + x.shape[-1]] += x[block]
            outer.add(out)
            spare[block] = out
        return spare, outer, x

    def _activated(self, raw: Tensor, moments: _Moments, layer: str) -> _Moments:
        """Batch norm and PReLU in place; the moments of the result."""
        norm, after = self._norm(layer), _Moments()
        scale, shift = moments.scale_and_shift(norm)
        for block in self._blocks(raw.shape[0], raw.shape[1] * raw.shape[2]):
            active = _activate(raw[block], scale, shift, norm.alpha)
            after.add(active)
            raw[block] = active
        return after

    def _mapped(self, x: Tensor, layer: str, form: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, _Moments]:
        """``form`` (a slice-wise convolution) over blocks, then batch norm and PReLU."""
        moments, outs = _Moments(), []
        for block in self._blocks(x.shape[0], x.shape[1] * x.shape[2]):
            outs.append(form(x[block], self._weights[f"{layer}.weight"]))
            moments.add(outs[-1])
        raw = torch.cat(outs)
        return raw, self._activated(raw, moments, layer)

    def _fuse(self, x: Tensor, chunks: int, layer: str) -> tuple[Tensor, _Moments]:
        """Mix three neighbouring slices inside each of ``chunks``; every chunk loses two slices."""
        moments, depth = _Moments(), x.shape[0] // chunks
        raw = x.new_empty(chunks * (depth - 2), *x.shape[1:])
        for chunk in range(chunks):
            for block in self._blocks(depth - 2, x.shape[1] * x.shape[2]):
                first, last = chunk * depth + block.start, chunk * depth + block.stop + 2
                out = _mix(x[first:last], self._weights[f"{layer}.weight"])
                moments.add(out)
                raw[chunk * (depth - 2) + block.start : chunk * (depth - 2) + block.stop] = out
        return raw, self._activated(raw, moments, layer)

    def _level(self, x: Tensor, moments: _Moments, names: tuple[str, ...], spare: Tensor | None = None) -> Tensor:
        spare = torch.empty_like(x) if spare is None else spare
        for name in names:
            x, moments, spare = self._residual(x, moments, name, spare)
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Logits of ``x``.

        Args:
            x: [N, D, H, W, 4], float, channels FLAIR, T1, T1c, T2; D is the slice axis, at least 9; H and W multiples
                of 4. Statistics are taken over all N chunks together.

        Returns:
            [N, D-8, H, W, 2]; index 1 of the last axis is the target.
        """
        chunks, depth, height, width, channels = x.shape
        if channels != 4 or depth <= LOST_SLICES or height % 4 or width % 4:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: need 4 channels, 9 slices or more, H and W multiples of 4"
            )
        flat = x.to(self.device).reshape(chunks * depth, height, width, channels)
        moments = _Moments()
        for block in self._blocks(flat.shape[0], height * width):
            moments.add(flat[block])
        wide = flat.new_empty(*flat.shape[:3], 32)
        first, moments, _ = self._residual(flat, moments, "block1_1", wide)
        y = self._level(first, moments, ("block1_2",))
        y, moments = self._fuse(y, chunks, "fuse1")
        if self.is_twice:
            y, moments = self._mapped(y, "downsample1", _conv_stride2)
        y = self._level(y, moments, ("block2_1", "block2_2"))
        f1, _ = self._fuse(y, chunks, "fuse2")
        y, moments = self._mapped(f1, "downsample2", _conv_stride2)
        y = self._level(y, moments, ("block3_1", "block3_2", "block3_3"))
        f2, moments = self._fuse(y, chunks, "fuse3")
        y = self._level(f2.clone(), moments, ("block4_1", "block4_2", "block4_3"))
        f3, _ = self._fuse(y, chunks, "fuse4")
        out = self._predict(self._trimmed(f1, chunks, 2), self._trimmed(f2, chunks, 1), f3)
        return out.reshape(chunks, depth - LOST_SLICES, height, width, 2)

    @staticmethod
    def _trimmed(x: Tensor, chunks: int, each_end: int) -> Tensor:
        by_chunk = x.reshape(chunks, -1, *x.shape[1:])[:, each_end:-each_end]
        return by_chunk.reshape(-1, *x.shape[1:])

    def _predict(self, f1: Tensor, f2: Tensor, f3: Tensor) -> Tensor:
        """The three scales brought to full size, joined, and convolved to two logits."""
        if self.is_twice:
            p1, _ = self._mapped(f1, "pred_up1", _deconv)
        else:
            weight = self._weights["pred1.weight"]
            p1 = torch.cat([_conv(f1[b], weight) for b in self._blocks(f1.shape[0], f1.shape[1] * f1.shape[2])])
        p2, _ = self._mapped(f2, "pred_up2_1", _deconv)
        p3, _ = self._mapped(f3, "pred_up3_1", _deconv)
        if self.is_twice:
            p2, _ = self._mapped(p2, "pred_up2_2", _deconv)
            p3, _ = self._mapped(p3, "pred_up3_2", _deconv)
        outs = []
        for block in self._blocks(p1.shape[0], p1.shape[1] * p1.shape[2]):
            joined = torch.cat([p1[block], p2[block], p3[block]], dim=-1)
            outs.append(_conv(joined, self._weights["final_pred.weight"]))
        return torch.cat(outs)


def _residual_layers(name: str) -> list[str]:
    parts = [f"{name}.bn_{i}.{part}" for i in (0, 1) for part in ("gamma", "beta", "alpha")]
    return [*parts, f"{name}.conv_0.weight", f"{name}.conv_1.weight"]


def layer_names(is_twice: bool) -> list[str]:
    """Names of all tensors of one network: 125, or 110 for the variant that halves the size once."""
    blocks = ("block1_1", "block1_2", "block2_1", "block2_2", *DILATIONS)
    names = [name for block in blocks for name in _residual_layers(block)]
    post = ["fuse1", "fuse2", "fuse3", "fuse4", "downsample2", "pred_up2_1", "pred_up3_1"]
    if is_twice:
        post += ["downsample1", "pred_up1", "pred_up2_2", "pred_up3_2"]
    names += [f"{layer}.{part}" for layer in post for part in ("weight", "gamma", "beta", "alpha")]
    return names + ["final_pred.weight"] + ([] if is_twice else ["pred1.weight"])
