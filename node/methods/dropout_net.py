"""The method of our own networks: any subset of contrasts that holds T1c, to the three nested regions.

Every second network sees the exam mirrored left to right (a single one sees it both ways); the mean of these views
decides, and their disagreement is the method's own doubt. Arrays are ``[z, y, x]`` in LPS, 1 mm, skull-stripped,
background exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.methods.agreement import DOUBTFUL_DICE, agreement_of, view_dice
from node.methods.cascade import LEAST_ENHANCING_VOXELS
from node.methods.contract import CORE, ENHANCING, OEDEMA, MethodResult, region_of
from node.methods.dropout_unet import CHANNELS, OUTPUTS, DropoutUNet
from node.methods.input_check import check_volumes
from node.methods.network import Precision
from node.methods.regions import bounding_box, keep_two
from node.study import Contrast

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

_BYTES_PER_VOXEL = 200
"""Memory that a forward pass takes for each voxel of 1 mm, measured with the shipped networks in float32."""

_LEAST_SLAB = 64
_OVERLAP = 16
"""Slices of a slab's neighbours that it sees as well, so that its convolutions have surroundings."""


class DropoutNet:
    """Networks of `dropout_unet`, ready to run on cases.

    Args:
        networks: by name; their mean is the answer.
        memory_bytes: what a forward pass may take; a larger exam is computed in slabs of slices.
        precision: of the convolutions' operands.
    """

    def __init__(
        self,
        networks: Mapping[str, DropoutUNet],
        device: str = "cpu",
        memory_bytes: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._networks = [network.to(device).eval() for network in networks.values()]
        self._device = torch.device(device)
        self._memory_bytes = memory_bytes
        self._precision = precision

    def run(self, volumes_zyx: Mapping[Contrast, Volume], seed: int = 0) -> MethodResult:
        """Segment one case.

        Args:
            volumes_zyx: T1c and any of FLAIR, T1, T2; float32, equal shapes.
            seed: nothing is random here; taken because methods with chance need one.

        Raises:
            ContentRefused: T1c is missing; a contrast is empty, constant or not finite; shapes differ.
        """
        check_volumes(volumes_zyx, (Contrast.T1C,), "the method")
        shape = volumes_zyx[Contrast.T1C].shape
        brain = np.any([volume > 0 for volume in volumes_zyx.values()], axis=0)
        box = bounding_box(brain, 0)
        x, present = _input(volumes_zyx, box)
        cropped = brain[box]
        views = [view * cropped for view in self._views(x, present)]
        label, dropped = _labels(views)
        return _result((shape, box), views, label, dropped)

    @torch.inference_mode()
    def _views(self, x: Tensor, present: Tensor) -> list[Volume]:
        """Probabilities ``[3, z, y, x]`` of each network, of every second one on the mirror image and turned back."""
        size = x.shape[1:]
        multiple = self._networks[0].multiple
        padding = [edge for size_of in reversed(size) for edge in (0, -size_of % multiple)]
        padded = torch.nn.functional.pad(x, padding)[None].to(self._device)
        views = []
        networks = self._networks if len(self._networks) > 1 else self._networks * 2
        for number, network in enumerate(networks):
            mirrored = number % 2 == 1
            seen = padded.flip(-1) if mirrored else padded
            out = self._probability(network, seen, present[None].to(self._device))
            out = out.flip(-1) if mirrored else out
            views.append(out[0, :, : size[0], : size[1], : size[2]].cpu().numpy())
        return views

    def _probability(self, network: DropoutUNet, x: Tensor, present: Tensor) -> Tensor:
        """Probabilities, [1, 3, D, H, W], nested: an inner region is at most as probable as the one around it."""
        parts = []
        for start, stop in _slabs(x.shape[2], self._slab(x, network.multiple)):
            low, high = max(start - _OVERLAP, 0), min(stop + _OVERLAP, x.shape[2])
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
                logits = network(x[:, :, low:high], present)
            parts.append(logits[:, :, start - low : stop - low].float().sigmoid())
        return torch.cat(parts, dim=2).cummin(dim=1).values

    def _slab(self, x: Tensor, multiple: int) -> int:
        """Slices computed at once: all, or as many as the memory allows."""
        _, _, depth, height, width = x.shape
        if self._memory_bytes is None:
            return depth
        fitting = self._memory_bytes // (height * width * _BYTES_PER_VOXEL) - 2 * _OVERLAP
        return min(depth, max(fitting // multiple * multiple, _LEAST_SLAB))


def _slabs(depth: int, slab: int) -> list[tuple[int, int]]:
    return [(start, min(start + slab, depth)) for start in range(0, depth, slab)]


def _input(volumes_zyx: Mapping[Contrast, Volume], box: tuple[slice, ...]) -> tuple[Tensor, Tensor]:
    """The networks' input: contrasts normalised inside the brain, [4, D, H, W], and which are there, [4]."""
    shape = volumes_zyx[Contrast.T1C][box].shape
    x = np.zeros((len(CHANNELS), *shape), np.float32)
    present = np.zeros(len(CHANNELS), np.float32)
    for channel, contrast in enumerate(CHANNELS):
        if contrast not in volumes_zyx:
            continue
        volume = volumes_zyx[contrast][box]
        inside = volume > 0
        values = volume[inside].astype(np.float64)
        x[channel][inside] = ((values - values.mean()) / values.std()).astype(np.float32)
        present[channel] = 1
    return torch.from_numpy(x), torch.from_numpy(present)


def _labels(views: Sequence[Volume]) -> tuple[NDArray[np.uint8], int]:
    """The label map, and the number of enhancing voxels found but not reported.

    Enhancing tumour is kept by the cascade's rules: neither tiny, nor such that the views disagree on it.
    """
    whole, core, enhancing = (np.mean([view[region] for view in views], axis=0) > 0.5 for region in range(len(OUTPUTS)))
    whole = keep_two(whole)
    core, enhancing = core & whole, enhancing & core & whole
    found = int(enhancing.sum())
    doubtful = view_dice([view[2] > 0.5 for view in views]) < DOUBTFUL_DICE
    dropped = found if found < LEAST_ENHANCING_VOXELS or doubtful else 0
    label = np.zeros(whole.shape, np.uint8)
    label[whole], label[core] = OEDEMA, CORE
    if not dropped:
        label[enhancing] = ENHANCING
    return label, dropped


def _result(
    frame: tuple[tuple[int, ...], tuple[slice, ...]], views: Sequence[Volume], label: NDArray[np.uint8], dropped: int
) -> MethodResult:
    """The result on the grid of the input. ``frame``: its shape, and the box of the brain in it."""
    shape, box = frame

    def full(array: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros(shape, array.dtype)
        out[box] = array
        return out

    probability, agreement = {}, {}
    for number, region in enumerate(OUTPUTS):
        mean: Volume = np.stack([view[number] for view in views]).mean(axis=0)
        probability[region] = full(mean)
        agreement[region] = agreement_of(region_of(label, region), mean, [view[number] > 0.5 for view in views])
    spread = np.std(np.stack(views), axis=0).max(axis=0).astype(np.float32)
    return MethodResult(full(label), probability, full(spread), agreement, dropped)
