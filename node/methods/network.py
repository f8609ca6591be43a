"""MSNet, the anisotropic network of Wang et al. 2017 (section 2.2), in a form that is fast and exact.

All layers are local to a slice, except four 3x1x1 convolutions without padding. So slices are a batch of 2-D images,
channels last, kept as blocks of a few slices that fit the cache: a block is activated and convolved, and its part of
the batch statistics is computed while it is still in the cache. Batch normalisation uses the statistics of the current
batch at test time as well (the published checkpoints hold no usable moving averages), so a layer must be finished
before the next one begins. Block statistics are merged in float64 (Chan et al. 1979), which keeps the logits within
1e-3 of a float64 evaluation; a plain float32 sum over millions of voxels does not.

PReLU is computed as max(y, alpha*y), which is equal for alpha <= 1; larger alphas are refused when weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from node.errors import ModelPackError
from node.methods.feature_map_offload import FeatureMapOffload, choose_offload
from node.methods.layers import Activation, Moments, Norm, Scratch, conv, conv_slices, conv_stride2, deconv

LOST_SLICES = 8
"""The output has this many slices fewer than the input, half at each end: four 3x1x1 convolutions without padding."""

_CPU_BLOCK_PIXELS = 32_768
_CUDA_BLOCK_PIXELS = 4_194_304
Precision = Literal["float32", "bfloat16"]

_FUSED_SLICES = 4
"""Slices convolved at once by a 3x1x1 convolution: each group is copied together with two more slices."""

DILATIONS = {"block3_1": 1, "block3_2": 2, "block3_3": 3, "block4_1": 3, "block4_2": 2, "block4_3": 1}


Blocks = list[list[Tensor]]
"""The slices of each chunk, as consecutive blocks [S, H, W, C]."""


class MSNet:
    """One of the nine networks, ready to run on a device.

    ``weights`` is named as in the model pack: ``<layer>.weight`` of shape [out, in, kd, kh, kw] ([in, out, ...] for the
    transposed ones), ``<layer>.gamma``, ``.beta`` and ``.alpha``. The variant of the enhancing-tumour stage, which
    halves the in-plane size once instead of twice, is recognised by its missing ``downsample1``.

    Args:
        memory_bytes: memory that feature maps may take before they are offloaded (see ``feature_map_offload``).
        precision: of the convolutions' operands; their results, batch statistics and activations are always float32.

    Raises:
        ModelPackError: a tensor is missing or superfluous, or a PReLU slope is above 1.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
        memory_bytes: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.device = torch.device(device)
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._memory_bytes = memory_bytes
        self.halves_twice = "downsample1.weight" in weights
        self._weights = {name: self._prepared(name, tensor) for name, tensor in weights.items()}
        expected = set(layer_names(self.halves_twice))
        if expected != set(self._weights):
            wrong = sorted(expected ^ set(self._weights))[:3]
            raise ModelPackError(f"weights do not fit the network: {', '.join(wrong)}")

    def _prepared(self, name: str, tensor: Tensor) -> Tensor:
        if name.endswith(".alpha") and bool((tensor > 1).any()):
            raise ModelPackError(f"{name}: a PReLU slope above 1 is not supported")
        if tensor.ndim != 5:
            return tensor.to(self.device)
        # 3x1x1 kernels become 3x1 over (slice, pixel); 1x3x3 kernels lose their first axis
        flat = tensor.squeeze(-1) if tensor.shape[2] == 3 else tensor.squeeze(2)
        return flat.to(self.device, self._dtype).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Logits of ``x``.

        Args:
            x: [N, D, H, W, 4], float32, channels FLAIR, T1, T1c, T2; D is the slice axis, at least 9; H and W
                multiples of 4. Statistics are taken over all N chunks together.

        Returns:
            [N, D-8, H, W, 2]; index 1 of the last axis is the target.
        """
        _, depth, height, width, channels = x.shape
        if channels != 4 or depth <= LOST_SLICES or height % 4 or width % 4:
            raise ValueError(f"input of shape {tuple(x.shape)}: need 4 channels, 9 slices, H and W multiples of 4")
        offload = choose_offload(tuple(x.shape), self.device, self._memory_bytes)
        return _Run(self._weights, self.halves_twice, self.device, offload).logits(x)


class _Run:
    """One evaluation of the network: runs the layers over the blocks and owns the buffers."""

    def __init__(
        self, weights: Mapping[str, Tensor], halves_twice: bool, device: torch.device, offload: FeatureMapOffload
    ) -> None:
        self._weights = weights
        self._halves_twice = halves_twice
        self._device = device
        self._put, self._get = offload.put, offload.get
        self._block_pixels = _CPU_BLOCK_PIXELS if device.type == "cpu" else _CUDA_BLOCK_PIXELS
        self._scratch = Scratch()

    def logits(self, x: Tensor) -> Tensor:
        """See ``MSNet.logits``."""
        chunks = [[self._put(block.to(self._device)) for block in self._cut(chunk)] for chunk in x]
        moments = self._moments(chunks)
        chunks, moments = self._residuals(chunks, moments, "block1_1", "block1_2")
        chunks, moments = self._fuse(chunks, "fuse1")
        if self._halves_twice:
            chunks, moments = self._mapped(chunks, "downsample1", conv_stride2)
        chunks, _ = self._residuals(chunks, moments, "block2_1", "block2_2")
        f1, _ = self._fuse(chunks, "fuse2")
        chunks, moments = self._mapped(f1, "downsample2", conv_stride2)
        f1 = _trimmed(f1, 2)
        chunks, _ = self._residuals(chunks, moments, "block3_1", "block3_2", "block3_3")
        f2, moments = self._fuse(chunks, "fuse3")
        chunks, _ = self._residuals(f2, moments, "block4_1", "block4_2", "block4_3")
        f3, _ = self._fuse(chunks, "fuse4")
        return self._predicted(f1, _trimmed(f2, 1), f3)

    def _cut(self, slices: Tensor) -> list[Tensor]:
        """Split [D, H, W, C] into blocks of about the size that fits the cache."""
        step = max(1, self._block_pixels // (slices.shape[1] * slices.shape[2]))
        return list(torch.split(slices, step))

    def _moments(self, chunks: Blocks) -> Moments:
        moments = Moments(self._scratch)
        for block in _every(chunks):
            moments.add(self._get(block))
        return moments

    def _norm(self, layer: str) -> Norm:
        return Norm(*(self._weights[f"{layer}.{part}"] for part in ("gamma", "beta", "alpha")))

    def _activation(self, layer: str, moments: Moments) -> Activation:
        return Activation(self._norm(layer), moments, self._scratch)

    def _residuals(self, chunks: Blocks, moments: Moments, *names: str) -> tuple[Blocks, Moments]:
        """Pre-activation residual blocks: conv(act(conv(act(x)))) + x."""
        for name in names:
            dilation = DILATIONS.get(name, 1)
            active = self._activation(f"{name}.bn_0", moments)
            weight = self._weights[f"{name}.conv_0.weight"]
            inner, inner_moments = self._convolved(chunks, active, weight, dilation)
            active = self._activation(f"{name}.bn_1", inner_moments)
            weight = self._weights[f"{name}.conv_1.weight"]
            moments = Moments(self._scratch)
            for chunk, inside in zip(chunks, inner, strict=True):
                for number, block in enumerate(inside):
                    out = conv(active(self._get(block)), weight, dilation)
                    _add_centred(out, self._get(chunk[number]))
                    moments.add(out)
                    inside[number] = self._put(out)
            chunks = inner
        return chunks, moments

    def _convolved(self, chunks: Blocks, active: Activation, weight: Tensor, dilation: int) -> tuple[Blocks, Moments]:
        """Activate and convolve the blocks; return the result and its moments."""
        moments = Moments(self._scratch)
        outs: Blocks = []
        for chunk in chunks:
            outs.append([])
            for block in chunk:
                out = conv(active(self._get(block)), weight, dilation)
                moments.add(out)
                outs[-1].append(self._put(out))
        return outs, moments

    def _finished(self, raw: Blocks, layer: str) -> tuple[Blocks, Moments]:
        """Apply batch norm and PReLU in place; return the result and its moments."""
        active, moments = self._activation(layer, self._moments(raw)), Moments(self._scratch)
        for chunk in raw:
            for number, offloaded in enumerate(chunk):
                block = self._get(offloaded)
                moments.add(active(block, out=block))
                chunk[number] = block if block is offloaded else self._put(block)
        return raw, moments

    def _mapped(self, chunks: Blocks, layer: str, form: Callable[[Tensor, Tensor], Tensor]) -> tuple[Blocks, Moments]:
        """Apply ``form`` (a slice-wise convolution), then batch norm and PReLU."""
        weight = self._weights[f"{layer}.weight"]
        raw = [self._gathered(form(self._get(block), weight) for block in chunk) for chunk in chunks]
        return self._finished(raw, layer)

    def _gathered(self, blocks: Iterable[Tensor]) -> list[Tensor]:
        """Concatenate blocks that a layer made smaller, up to the size that fits the cache."""
        out: list[Tensor] = []
        group: list[Tensor] = []
        for block in blocks:
            if group and len(group) * block[..., 0].numel() + block[..., 0].numel() > self._block_pixels:
                out.append(self._put(torch.cat(group)))
                group = []
            group.append(block)
        return [*out, self._put(torch.cat(group))]

    def _fuse(self, chunks: Blocks, layer: str) -> tuple[Blocks, Moments]:
        """Convolve three neighbouring slices inside each chunk, then batch norm and PReLU; a chunk loses two slices."""
        weight = self._weights[f"{layer}.weight"]
        raw: Blocks = []
        for chunk in chunks:
            slices = _single(chunk)
            mixed: list[Tensor] = []
            step = max(_FUSED_SLICES, self._block_pixels // slices[0][..., 0].numel())
            for start in range(0, len(slices) - 2, step):
                group = [self._get(one) for one in slices[start : start + step + 2]]
                joined = torch.cat(group, out=self._scratch.stack(group[0], len(group)))
                mixed += [self._put(block) for block in self._cut(conv_slices(joined, weight))]
            raw.append(mixed)
        return self._finished(raw, layer)

    def _predicted(self, f1: Blocks, f2: Blocks, f3: Blocks) -> Tensor:
        """Upsample the three scales to full size, concatenate and convolve them to two logits: [N, D-8, H, W, 2]."""
        if self._halves_twice:
            p1, _ = self._mapped(f1, "pred_up1", deconv)
        else:
            weight = self._weights["pred1.weight"]
            p1 = [[self._put(conv(self._get(block), weight)) for block in chunk] for chunk in f1]
        p2, _ = self._mapped(f2, "pred_up2_1", deconv)
        p3, _ = self._mapped(f3, "pred_up3_1", deconv)
        if self._halves_twice:
            p2, _ = self._mapped(p2, "pred_up2_2", deconv)
            p3, _ = self._mapped(p3, "pred_up3_2", deconv)
        weight = self._weights["final_pred.weight"]
        outs = []
        for parts in zip(p1, p2, p3, strict=True):
            slices = zip(*(_single(blocks) for blocks in parts), strict=True)
            joined = (torch.cat([self._get(part) for part in one], dim=-1) for one in slices)
            outs.append(torch.cat([conv(one, weight) for one in joined]))
        return torch.stack(outs)


def _single(blocks: Iterable[Tensor]) -> list[Tensor]:
    return [one for block in blocks for one in torch.split(block, 1)]


def _every(chunks: Blocks) -> Iterator[Tensor]:
    return (block for chunk in chunks for block in chunk)


def _add_centred(out: Tensor, x: Tensor) -> None:
    """``out += x``; if ``x`` has fewer channels, zeros are added on both sides."""
    surplus = (out.shape[-1] - x.shape[-1]) // 2
    out[..., surplus : surplus + x.shape[-1]] += x


def _trimmed(chunks: Blocks, each_end: int) -> Blocks:
    """``chunks`` without the first and last ``each_end`` slices of each chunk."""
    return [_without_first(_without_first(chunk, each_end), each_end, from_end=True) for chunk in chunks]


def _without_first(blocks: Iterable[Tensor], count: int, *, from_end: bool = False) -> list[Tensor]:
    kept = []
    for block in reversed(list(blocks)) if from_end else blocks:
        lost = min(count, len(block))
        count -= lost
        if lost < len(block):
            kept.append(block[: len(block) - lost] if from_end else block[lost:])
    return kept[::-1] if from_end else kept


def _residual_layers(name: str) -> list[str]:
    parts = [f"{name}.bn_{i}.{part}" for i in (0, 1) for part in ("gamma", "beta", "alpha")]
    return [*parts, f"{name}.conv_0.weight", f"{name}.conv_1.weight"]


def layer_names(halves_twice: bool) -> list[str]:
    """Names of all tensors of one network: 125, or 110 for the variant that halves the in-plane size once."""
    blocks = ("block1_1", "block1_2", "block2_1", "block2_2", *DILATIONS)
    names = [name for block in blocks for name in _residual_layers(block)]
    post = ["fuse1", "fuse2", "fuse3", "fuse4", "downsample2", "pred_up2_1", "pred_up3_1"]
    if halves_twice:
        post += ["downsample1", "pred_up1", "pred_up2_2", "pred_up3_2"]
    names += [f"{layer}.{part}" for layer in post for part in ("weight", "gamma", "beta", "alpha")]
    return names + ["final_pred.weight"] + ([] if halves_twice else ["pred1.weight"])
