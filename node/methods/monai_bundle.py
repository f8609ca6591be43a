"""Packs of the kind ``monai-bundle``: a folder as MONAI's ``brats_mri_segmentation`` bundle.

``configs/inference.json`` is data (see `monai_config`). ``models/model.pt`` is loaded with ``weights_only=True``, which
builds tensors and plain containers and runs no code.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch

from node.errors import ModelPackError
from node.methods.card import ForeignCard
from node.methods.contract import MethodResult, Volume
from node.methods.foreign_regions import channels_of, result_of, zscore_nonzero
from node.methods.monai_config import CONFIG, read_config
from node.methods.pack_files import verified_file
from node.methods.segresnet import SegResNet
from node.methods.sliding_window import over_windows
from node.methods.torch_weights import load_into, read_torch_file
from node.study import Contrast

WEIGHTS = "models/model.pt"


def read_state_dict(content: io.BytesIO, path: str) -> dict[str, torch.Tensor]:
    """Tensors by name from a file that ``torch.save`` wrote; nothing else is accepted, and no code is run.

    Raises:
        ModelPackError: the file holds anything but tensors by name; the text names it.
    """
    loaded = read_torch_file(content, path)
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in loaded.items()
    ):
        raise ModelPackError(f"{path}: tensors by name are wanted")
    return dict(loaded)


class MonaiBundle:
    """A bundle ready to run on cases; see `contract.Method`.

    Args:
        folder: the pack's folder, whose card is ``card``.
        device: where the network runs, as torch names it.

    Raises:
        ModelPackError: a file is missing or differs from the card; config or weights are not what they should be.
    """

    def __init__(self, card: ForeignCard, folder: Path, device: str = "cpu") -> None:
        shape, self._window = read_config(verified_file(card, folder, CONFIG).read(), card.grid)
        for key, count, wanted in (
            ("in_channels", shape.in_channels, card.needed),
            ("out_channels", shape.out_channels, card.outputs),
        ):
            if count != len(wanted):
                raise ModelPackError(f"{CONFIG}: network_def.{key}: is {count}; the card has {', '.join(wanted)}")
        network = SegResNet(shape)
        load_into(network, read_state_dict(verified_file(card, folder, WEIGHTS), WEIGHTS), WEIGHTS, CONFIG)
        self._card, self._device = card, device
        self._network = network.eval().to(device)

    def run(self, volumes_zyx: Mapping[Contrast, Volume], seed: int = 0) -> MethodResult:
        """Segment one case; nothing is random, so ``seed`` has no effect. For errors see `contract.Method`."""
        channels = channels_of(volumes_zyx, self._card)
        volume = torch.from_numpy(zscore_nonzero(channels))[None].to(self._device)
        with torch.inference_mode():
            outputs = torch.sigmoid(over_windows(volume, self._network, self._window))[0].cpu().numpy()
        probability = dict(zip(self._card.outputs, outputs, strict=True))
        return result_of(probability, (channels != 0).any(axis=0), self._card.grid)
