"""Where feature maps wait between two layers: in memory, or, if they do not fit, somewhere larger.

The network walks over blocks of slices and needs only one block at a time at hand, so all others may wait in the host's
memory (for a GPU) or in a temporary file (for the CPU). The arithmetic is the same, block by block, and so is the
answer, bit for bit; it only takes longer.
"""

from __future__ import annotations

import tempfile
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

FEATURE_MAPS = 2.3
"""Full-size feature maps of 32 channels alive at once (two, and what the layers between scales need)."""

_CHANNELS, _FLOAT_BYTES = 32, 4
_CUDA_SHARE = 0.8


class FeatureMapOffload(Protocol):
    """Keeps blocks between layers."""

    def put(self, block: Tensor) -> Tensor:
        """Keep ``block``; what is returned stands for it."""

    def get(self, offloaded: Tensor) -> Tensor:
        """The block itself, on the device that computes; writing into it need not change what is parked."""


class NoOffload:
    """Everything stays where it is."""

    def put(self, block: Tensor) -> Tensor:
        """The block itself."""
        return block

    def get(self, offloaded: Tensor) -> Tensor:
        """The block itself."""
        return offloaded


class HostOffload:
    """Blocks of a GPU wait in the host's memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def put(self, block: Tensor) -> Tensor:
        """A copy on the host."""
        return block.cpu()

    def get(self, offloaded: Tensor) -> Tensor:
        """A copy on the device."""
        return offloaded.to(self._device)


class FileOffload:
    """Blocks of the CPU wait in temporary files, which the kernel may write out (``TMPDIR`` says where)."""

    def put(self, block: Tensor) -> Tensor:
        """A copy in a file of its own that vanishes with the last use of the tensor."""
        with tempfile.TemporaryFile() as file:
            mapped = np.memmap(file, np.float32, "w+", shape=tuple(block.shape))
        mapped[...] = block.numpy()
        return torch.from_numpy(mapped)

    def get(self, offloaded: Tensor) -> Tensor:
        """The mapped file, read where it is used."""
        return offloaded


def choose_offload(shape: tuple[int, ...], device: torch.device, memory_bytes: int | None) -> FeatureMapOffload:
    """``NoOffload`` if the feature maps of an input of ``shape`` [N, D, H, W, C] fit.

    Args:
        memory_bytes: what they may take; None is no limit on the CPU, and four fifths of the free memory on a GPU.
    """
    if memory_bytes is None and device.type == "cuda":
        memory_bytes = int(torch.cuda.mem_get_info(device)[0] * _CUDA_SHARE)
    chunks, depth, height, width, _ = shape
    needed = FEATURE_MAPS * chunks * depth * height * width * _CHANNELS * _FLOAT_BYTES
    if memory_bytes is None or needed <= memory_bytes:
        return NoOffload()
    return HostOffload(device) if device.type == "cuda" else FileOffload()
