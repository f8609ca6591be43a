"""Packs of our own networks: a folder with ``card.toml`` and ``weights.safetensors``, as ``glionode train`` writes it.

One is shipped inside the package, so that a machine that reaches no model pack has a method all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
from safetensors.torch import load

from node.errors import ModelPackError
from node.methods.card import CARD, DropoutCard, read_card_file
from node.methods.dropout_unet import DropoutUNet
from node.methods.pack_files import verified_file

WEIGHTS = "weights.safetensors"
SHIPPED = Path(__file__).parent / "weights" / "glionode_any_t1c"
"""The pack inside the package; made by ``recipes/any_t1c.toml``."""

Accuracy = Mapping[str, Mapping[str, float]]
"""Mean Dice of cases held out, by contrasts at hand (``held_out.SUBSETS``), then by region."""


def read_dropout_card(folder: Path) -> DropoutCard:
    """The card of the pack in ``folder``.

    Raises:
        ModelPackError: there is none, or it is not one of this kind; names the file.
    """
    card = read_card_file(folder / CARD)
    if not isinstance(card, DropoutCard):
        raise ModelPackError(f"{folder / CARD}: kind: is not dropout_net")
    return card


def load_networks(card: DropoutCard, folder: Path) -> dict[str, DropoutUNet]:
    """The networks of the pack in ``folder``, by name (``fold1`` ...), in float32 on the CPU.

    Raises:
        ModelPackError: the weights are missing, unreadable, or not those of the card.
    """
    content = verified_file(card, folder, WEIGHTS)
    try:
        tensors = load(content.read())  # what was verified is what is loaded
    except safetensors.SafetensorError as error:
        raise ModelPackError(f"model pack {card.name}: {WEIGHTS} cannot be read: {error}") from None
    if len(card.widths) != len(card.blocks):
        raise ModelPackError(f"model pack {card.name}: {CARD}: widths and blocks differ in length")
    networks = {}
    for number in range(1, len(card.folds) + 1):
        name = f"fold{number}"
        network = DropoutUNet(card.widths, card.blocks)
        own = {key.partition("/")[2]: value.float() for key, value in tensors.items() if key.startswith(f"{name}/")}
        try:
            network.load_state_dict(own)
        except RuntimeError:
            text = f"model pack {card.name}: {WEIGHTS}: {name}: the weights do not fit widths and blocks of the card"
            raise ModelPackError(text) from None
        networks[name] = network
    return networks
