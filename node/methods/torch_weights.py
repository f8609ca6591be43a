"""Files that ``torch.save`` wrote, read as data: tensors and plain containers, whatever else their pickles name."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from node.errors import ModelPackError

_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, AttributeError, TypeError, LookupError,
    AssertionError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What torch raises on files that are no archive of its own, or a broken one; found by giving it such files."""


def read_torch_file(content: io.BytesIO, path: str, stand_ins: Sequence[Any] = ()) -> Any:
    """What the file holds, on the CPU; no code is run.

    Args:
        content: the verified bytes of the file.
        path: names the file in errors.
        stand_ins: classes that take the place of named ones (`torch.serialization.safe_globals`).

    Raises:
        ModelPackError: the file holds anything but tensors, plain containers and ``stand_ins``, or cannot be read.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
            warnings.simplefilter("ignore")  # torch warns of forms of pickles that it may not know; then it is refused
            return torch.load(content, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = "it holds more than weights" if isinstance(error, pickle.UnpicklingError) else "it cannot be read"
        raise ModelPackError(f"{path}: {reason} ({type(error).__name__})") from None


def load_into(network: nn.Module, weights: Mapping[str, Tensor], path: str, config: str) -> None:
    """Give ``network`` its weights, all of them and no others.

    Args:
        path: names the file of the weights in errors, ``config`` the one that describes the network.

    Raises:
        ModelPackError: a tensor is missing, of another shape, not finite, or not of the network.
    """
    try:
        for name, each in weights.items():
            if not torch.isfinite(each).all():
                raise ModelPackError(f"{path}: {name[:100]}: holds values that are not finite")
        network.load_state_dict(weights)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise ModelPackError(f"{path} does not fit {config}: {text}") from None
