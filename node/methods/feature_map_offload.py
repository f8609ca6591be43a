"""Storage of feature maps between two layers: in memory, or, if they do not fit, in a larger place.

The network processes one block of slices at a time, so all other blocks may be kept in the host's memory (for a GPU) or
in a temporary file (for the CPU). The arithmetic is the same, block by block, so the result is equal bit for bit; it
only takes longer.
"""

from __future__ import annotations

import tempfile
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

FEATURE_MAPS = 2.3
"""Full-size feature maps of 32 channels held at once: two, plus the needs of the layers between scales."""

_CHANNELS, _FLOAT_BYTES = 32, 4
_CUDA_SHARE = 0.8


class FeatureMapOffload(Protocol):
    """Keeps blocks between layers."""

    def put(self, block: Tensor) -> Tensor:
        """Keep ``block``; return a tensor from which `get` restores it."""

    def get(self, offloaded: Tensor) -> Tensor:
        """The block on the device of the network; writing into it may leave the kept copy unchanged."""


class NoOffload:
    """Blocks stay in the memory of the device."""

    def put(self, block: Tensor) -> Tensor:
        """The block itself."""
        return block

    def get(self, offloaded: Tensor) -> Tensor:
        """The block itself."""
        return offloaded


class HostOffload:
    """Blocks of a GPU are kept in the host's memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def put(self, block: Tensor) -> Tensor:
        """A copy on the host."""
        return block.cpu()

    def get(self, offloaded: Tensor) -> Tensor:
        """A copy on the device."""
        return offloaded.to(self._device)


class FileOffload:
    """Blocks of the CPU are kept in temporary files below ``TMPDIR``, which the kernel may write to the disk."""

    def put(self, block: Tensor) -> Tensor:
        """A copy in a file of its own, which is deleted when the tensor is released."""
        with tempfile.TemporaryFile() as file:
            mapped = np.memmap(file, np.float32, "w+", shape=tuple(block.shape))
        mapped[...] = block.numpy()
        return torch.from_numpy(mapped)

    def get(self, offloaded: Tensor) -> Tensor:
        """The mapped file; its content is read on access."""
        return offloaded


def choose_offload(shape: tuple[int, ...], device: torch.device, memory_bytes: int | None) -> FeatureMapOffload:
    """``NoOffload`` if the feature maps of an input of ``shape`` [N, D, H, W, C] fit into memory, else an offload.

    Args:
        memory_bytes: the memory they may take; None means no limit on the CPU, and four fifths of the free memory on a
            GPU.
    """
    if memory_bytes is None and device.type == "cuda":
        memory_bytes = int(torch.cuda.mem_get_info(device)[0] * _CUDA_SHARE)
    chunks, depth, height, width, _ = shape
    needed = FEATURE_MAPS * chunks * depth * height * width * _CHANNELS * _FLOAT_BYTES
    if memory_bytes is None or needed <= memory_bytes:
        return NoOffload()
    return HostOffload(device) if device.type == "cuda" else FileOffload()
