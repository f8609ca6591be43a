"""Packs of the kinds ``torchscript`` and ``onnx``: one file that holds a network, run as its card declares.

A TorchScript archive is a program, which torch runs: its card's digest says that the admin trusts this very file. An
ONNX file is a graph of known operators; one whose weights lie in further files is refused.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from node.errors import ModelPackError
from node.methods.card import ExportedCard
from node.methods.contract import MethodResult, Volume
from node.methods.foreign_regions import channels_of, result_of, zscore_nonzero
from node.methods.pack_files import verified_file
from node.methods.sliding_window import Window, over_windows
from node.study import Contrast

Predictor = Callable[[Tensor], Tensor]


def _torchscript(card: ExportedCard, folder: Path, device: str) -> Predictor:
    path = card.files[0].path
    content = verified_file(card, folder, path)
    try:
        with warnings.catch_warnings():
            # torch names torch.export as the successor, which cannot read what is published as TorchScript
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(content, map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ModelPackError(f"model pack {card.name}: {path} is no TorchScript ({type(error).__name__})") from None
    module.eval()

    def predict(volume: Tensor) -> Tensor:
        try:
            output = module(volume)
        except torch.OutOfMemoryError:  # not the pack's fault
            raise
        except RuntimeError as error:
            raise _unfit(card, path, volume, type(error).__name__) from None
        if not isinstance(output, Tensor):
            raise ModelPackError(f"model pack {card.name}: {path}: its output is no tensor")
        return output

    return predict


def _unfit(card: ExportedCard, path: str, volume: Tensor, reason: str) -> ModelPackError:
    """That a network does not run on what its card says that it takes."""
    size = " x ".join(map(str, volume.shape[2:]))
    text = f"does not run on {volume.shape[1]} channels of {size} voxels ({reason}): see needed and [network]"
    return ModelPackError(f"model pack {card.name}: {path} {text}")


def _onnx(card: ExportedCard, folder: Path, device: str) -> Predictor:
    path = card.files[0].path
    content = verified_file(card, folder, path)
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ModelPackError(f"model pack {card.name}: ONNX Runtime is missing; install glionode[onnx]") from None
    wanted = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if wanted not in runtime.get_available_providers():
        raise ModelPackError(f"model pack {card.name}: this ONNX Runtime has no {wanted}, which {device} needs")
    faults: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_faults())
    try:  # from bytes, so that no file beside it, which the digest does not cover, can be read as weights
        session = runtime.InferenceSession(content.read(), providers=[wanted])
    except faults as error:
        raise ModelPackError(f"model pack {card.name}: {path} is no ONNX network ({type(error).__name__})") from None
    _check_ends(card, path, session)
    name = session.get_inputs()[0].name

    def predict(volume: Tensor) -> Tensor:
        try:
            (output,) = session.run(None, {name: np.ascontiguousarray(volume.cpu().numpy())})
        except faults as error:
            raise _unfit(card, path, volume, type(error).__name__) from None
        return torch.from_numpy(output).to(volume.device)

    return predict


def _check_ends(card: ExportedCard, path: str, session: Any) -> None:
    """One input and one output, float32, with as many channels as the card says, as far as the file tells them."""
    told = f"model pack {card.name}: {path}"
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        raise ModelPackError(f"{told}: one input and one output are wanted")
    for key, end, count in (
        ("needed", session.get_inputs()[0], len(card.needed)),
        ("outputs", session.get_outputs()[0], _output_channels(card)),
    ):
        if end.type != "tensor(float)":
            raise ModelPackError(f"{told}: {end.name[:64]}: float32 is wanted")
        channels = end.shape[1] if len(end.shape) == 5 else None
        if isinstance(channels, int) and channels != count:  # an axis without a fixed size has a name, or none
            raise ModelPackError(f"{told}: {end.name[:64]} has {channels} channels; by {key} of the card it is {count}")


def _output_channels(card: ExportedCard) -> int:
    return len(card.outputs) + (card.network.activation == "softmax")


def _faults() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises on a file that it cannot use; its exceptions share no base but ``Exception``."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = (
        "Fail", "InvalidArgument", "InvalidProtobuf", "InvalidGraph", "NotImplemented", "NoSuchFile",
        "RuntimeException",
    )  # fmt: skip
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _activated(output: Tensor, activation: str) -> Tensor:
    """Probabilities of the regions, ``[K, x, y, z]``, from the network's output ``[1, C, x, y, z]``."""
    if activation == "sigmoid":
        return torch.sigmoid(output)[0]
    if activation == "softmax":
        return torch.softmax(output, dim=1)[0, 1:]
    return output[0]


def _whole(volume: Tensor, predict: Predictor, multiple_of: int) -> Tensor:
    """The prediction for the whole volume, padded by zeros at the end of each axis to a multiple."""
    lacks = [-length % multiple_of for length in volume.shape[2:]]
    padded = functional.pad(volume, [each for lack in reversed(lacks) for each in (0, lack)])
    kept = tuple(slice(0, length) for length in volume.shape[2:])
    return predict(padded)[(slice(None), slice(None), *kept)]


class ExportedNetwork:
    """A TorchScript or ONNX network ready to run on cases; see `contract.Method`.

    The network maps float32 ``[1, channel, x, y, z]`` to ``[1, output, x, y, z]``, axes in LPS.

    Args:
        folder: the pack's folder, whose card is ``card``.
        device: where the network runs, as torch names it.

    Raises:
        ModelPackError: the file is missing, differs from the card, or is no network; ONNX Runtime is missing.
    """

    def __init__(self, card: ExportedCard, folder: Path, device: str = "cpu") -> None:
        load = _torchscript if card.kind == "torchscript" else _onnx
        self._predict = load(card, folder, device)
        self._card, self._device = card, device

    def run(self, volumes_zyx: Mapping[Contrast, Volume], seed: int = 0) -> MethodResult:
        """Segment one case; nothing is random, so ``seed`` has no effect. For errors see `contract.Method`.

        Raises:
            ModelPackError: the network does not run on such volumes, or its output is not what the card declares.
        """
        section, card = self._card.network, self._card
        channels = channels_of(volumes_zyx, card)
        brain = (channels != 0).any(axis=0)
        if section.normalisation == "zscore_nonzero":
            channels = zscore_nonzero(channels)
        volume = torch.from_numpy(channels)[None].to(self._device)
        with torch.inference_mode():
            if section.window_xyz:
                window = Window(section.window_xyz, section.overlap, section.blend)
                output = over_windows(volume, self._checked, window)
            else:
                output = _whole(volume, self._checked, section.multiple_of)
            probability = _activated(output.float(), section.activation).cpu().numpy()
        return result_of(dict(zip(card.outputs, probability, strict=True)), brain, card.grid)

    def _checked(self, volume: Tensor) -> Tensor:
        """The network's output for one window or volume, if it is what the card declares."""
        output = self._predict(volume)
        card, wanted = self._card, (1, _output_channels(self._card), *volume.shape[2:])
        told = f"model pack {card.name}: {card.files[0].path}: its output"
        if tuple(output.shape) != wanted:
            sizes = [" x ".join(map(str, each)) for each in (output.shape, wanted)]
            raise ModelPackError(f"{told} is {sizes[0]}; by outputs and [network] of the card it is {sizes[1]}")
        if not output.isfinite().all():
            raise ModelPackError(f"{told} is not finite")
        if card.network.activation == "none" and not ((output >= 0) & (output <= 1)).all():
            raise ModelPackError(f"{told} is no probability; network.activation of the card is none")
        return output
