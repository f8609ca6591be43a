"""Packs of the kind ``nnunet-v2``: a results folder of nnU-Net v2 (``dataset.json``, ``plans.json``, ``fold_N/``).

What is supported says `nnunet_plans`. nnU-Net's axes are ``[z, y, x]``, as here. Logits are summed in float32, where
nnU-Net uses float16.

Checkpoints are read with ``weights_only=True``. nnU-Net's hold NumPy scalars beside the weights (the log of the
training), which torch refuses; inert stand-ins take their places, so no NumPy object is built from a file.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from node.errors import ModelPackError
from node.methods.card import CARD, ForeignCard
from node.methods.contract import CORE, ENHANCING, OEDEMA, MethodResult, Volume
from node.methods.foreign_regions import channels_of, from_axes, result_of
from node.methods.nnunet_network import UNet, UNetShape
from node.methods.nnunet_plans import DATASET, PLANS, Configuration, Results, read_results
from node.methods.pack_files import verified_file
from node.methods.torch_weights import load_into, read_torch_file
from node.study import Contrast

_GAUSSIAN_PEAK, _SIGMA_SCALE = 10.0, 1 / 8
_BRATS_LABELS = {"whole_tumour": OEDEMA, "tumour_core": CORE, "enhancing_tumour": ENHANCING}
"""BraTS label of a voxel by the innermost region that it is in."""


class _Dropped:
    """Stands where a checkpoint has a NumPy scalar, its type or its bytes; it holds nothing."""

    def __init__(self, *_values: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Dropped, name)
    for name in (
        "numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype", "_codecs.encode",
        *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    )
]  # fmt: skip


def read_checkpoint(content: io.BytesIO, path: str) -> dict[str, Any]:
    """A checkpoint of nnU-Net: tensors and plain containers; no code is run and no NumPy object is built.

    Raises:
        ModelPackError: it holds anything else, or no network weights; the text names the file.
    """
    loaded = read_torch_file(content, path, _STAND_INS)
    weights = loaded.get("network_weights") if isinstance(loaded, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in weights.items()
    ):
        raise ModelPackError(f"{path}: network_weights: tensors by name are wanted")
    axes = loaded.get("inference_allowed_mirroring_axes")
    if axes is not None and not (isinstance(axes, list | tuple) and all(each in (0, 1, 2) for each in axes)):
        raise ModelPackError(f"{path}: inference_allowed_mirroring_axes: numbers of axes, 0 to 2, are wanted")
    return dict(loaded)


def _shape(configuration: Configuration) -> UNetShape:
    architecture, network = configuration.architecture, configuration.architecture.arch_kwargs
    return UNetShape(
        network.features_per_stage,
        network.kernel_sizes,
        network.strides,
        network.n_blocks_per_stage or network.n_conv_per_stage or (),
        network.n_conv_per_stage_decoder,
        architecture.is_residual,
        network.conv_bias,
        network.norm_op_kwargs.eps,
    )


def _starts(length: int, size: int) -> list[int]:
    """First voxels of windows that overlap by half, spread evenly, as nnU-Net's ``tile_step_size`` 0.5."""
    count = math.ceil((length - size) / (size * 0.5)) + 1
    step = (length - size) / (count - 1) if count > 1 else 0.0
    return [round(step * number) for number in range(count)]


def _gaussian(size: tuple[int, ...]) -> Tensor:
    peak = np.zeros(size)
    peak[tuple(each // 2 for each in size)] = 1
    weights = ndimage.gaussian_filter(peak, [each * _SIGMA_SCALE for each in size], 0, mode="constant", cval=0)
    tensor = torch.from_numpy(weights / (weights.max() / _GAUSSIAN_PEAK)).half()
    tensor[tensor == 0] = tensor[tensor != 0].min()
    return tensor.float()


class NnUNet:
    """A results folder of nnU-Net v2 ready to run on cases; the mean of all folds that its card lists.

    Args:
        folder: the pack's folder, whose card is ``card``.
        device: where the network runs, as torch names it.

    Raises:
        ModelPackError: a file is missing or differs from the card; plans or checkpoints are not supported.
    """

    def __init__(self, card: ForeignCard, folder: Path, device: str = "cpu") -> None:
        plans, dataset = (verified_file(card, folder, path).read() for path in (PLANS, DATASET))
        self._results = read_results(plans, dataset, card)
        self._patch = self._results.configuration.patch_size
        network = UNet(_shape(self._results.configuration), len(card.needed), self._results.outputs)
        self._card, self._device = card, device
        folds = [each.path for each in card.files if re.fullmatch(r"fold_\w+/checkpoint_\w+\.pth", each.path)]
        if not folds:
            raise ModelPackError(f"{CARD}: files: list no fold_N/checkpoint_final.pth")
        checkpoints = [read_checkpoint(verified_file(card, folder, path), path) for path in folds]
        self._mirror = tuple(checkpoints[0].get("inference_allowed_mirroring_axes") or ())
        self._weights = [each["network_weights"] for each in checkpoints]
        for path, weights in zip(folds, self._weights, strict=True):
            load_into(network, weights, path, PLANS)
        self._network = network.eval().to(device)

    def run(self, volumes_zyx: Mapping[Contrast, Volume], seed: int = 0) -> MethodResult:
        """Segment one case; nothing is random, so ``seed`` has no effect. For errors see `contract.Method`."""
        grid = self._card.grid
        channels = channels_of(volumes_zyx, self._card).transpose(0, 3, 2, 1)
        brain = (channels != 0).any(axis=0)
        box = ndimage.find_objects(ndimage.binary_fill_holes(brain).astype(np.uint8))[0]
        inside = np.asarray(ndimage.binary_fill_holes(brain))[box]
        cropped = self._normalised(channels[(slice(None), *box)].copy(), inside)
        with torch.inference_mode():
            logits = torch.stack([self._logits(cropped, weights) for weights in self._weights]).mean(dim=0)

        def full(array: NDArray[Any]) -> NDArray[Any]:
            out = np.zeros(brain.shape, array.dtype)
            out[box] = array
            return out.transpose(2, 1, 0)

        regions = {name: full(array) for name, array in _probabilities(self._results, logits).items()}
        result = result_of(regions, brain.transpose(2, 1, 0), grid)
        if self._results.is_region_based:
            return result
        # with labels, nnU-Net takes the likeliest, which may be none although all together are likelier than none
        label = full(_likeliest(self._results, logits)) * brain.transpose(2, 1, 0)
        return replace(result, label_zyx=from_axes(label, grid))

    def _normalised(self, channels: NDArray[np.float32], inside: NDArray[np.bool_]) -> Tensor:
        for channel, is_masked in zip(channels, self._results.configuration.use_mask_for_norm, strict=True):
            place = inside if is_masked else np.ones_like(inside)
            values = channel[place]
            channel[place] = (values - values.mean()) / max(values.std(), 1e-8)
        return torch.from_numpy(np.ascontiguousarray(channels))

    def _logits(self, volume: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Logits of one fold, ``[output, z, y, x]``: Gaussian-weighted mean over windows and mirrored copies."""
        self._network.load_state_dict(weights)
        lacks = [max(size - length, 0) for size, length in zip(self._patch, volume.shape[1:], strict=True)]
        pads = [(lack // 2, lack - lack // 2) for lack in lacks]
        padded = functional.pad(volume, [each for pair in reversed(pads) for each in pair]).to(self._device)
        weight = _gaussian(self._patch).to(self._device)
        total = torch.zeros((self._results.outputs, *padded.shape[1:]), device=self._device)
        seen = torch.zeros(padded.shape[1:], device=self._device)
        starts = [_starts(length, size) for length, size in zip(padded.shape[1:], self._patch, strict=True)]
        for corner in itertools.product(*starts):
            place = tuple(slice(start, start + size) for start, size in zip(corner, self._patch, strict=True))
            total[(slice(None), *place)] += self._mirrored(padded[(slice(None), *place)][None])[0] * weight
            seen[place] += weight
        kept = tuple(slice(pad[0], pad[0] + length) for pad, length in zip(pads, volume.shape[1:], strict=True))
        return (total / seen)[(slice(None), *kept)].cpu()

    def _mirrored(self, window: Tensor) -> Tensor:
        axes = [axis + 2 for axis in self._mirror]
        turns = [turn for count in range(len(axes) + 1) for turn in itertools.combinations(axes, count)]
        outputs = [torch.flip(self._network(torch.flip(window, turn)), turn) for turn in turns]
        return torch.stack(outputs).mean(dim=0)


def _likeliest(results: Results, logits: Tensor) -> NDArray[np.uint8]:
    """BraTS labels by the likeliest of nnU-Net's labels, of which the first is the background."""
    table = np.array([0, *(_BRATS_LABELS[regions[-1]] for regions in results.labels.values())], np.uint8)
    labels: NDArray[np.uint8] = table[logits.argmax(dim=0).numpy()]
    return labels


def _probabilities(results: Results, logits: Tensor) -> dict[str, NDArray[np.float32]]:
    """Region to its probability, ``[z, y, x]``: a sigmoid for each, or the sum over its labels of the softmax."""
    if results.is_region_based:
        found = torch.sigmoid(logits.float()).numpy()
    else:
        found = torch.softmax(logits.float(), 0).numpy()[1:]
    probability: dict[str, NDArray[np.float32]] = {}
    for regions, each in zip(results.labels.values(), found, strict=True):
        for region in regions:
            probability[region] = probability[region] + each if region in probability else each
    return probability
