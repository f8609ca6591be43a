"""From a card to a method that is ready to run. A new kind of method is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from node.errors import ModelPackError
from node.methods.card import Card, DropoutCard, ExportedCard, ForeignCard, card_names, pack_folder, read_card
from node.methods.contract import Method
from node.methods.pack_files import file_faults
from node.methods.packs import is_installed

if TYPE_CHECKING:
    from node.methods.cascade import Mode, Progress


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how a method computes.

    Attributes:
        device: ``cpu`` or ``cuda:N``.
        memory_bytes: what feature maps may take in memory; None: no limit.
        precision: of the convolutions' operands.
        mode: of the cascade (see ``cascade``).
        progress: called with the current work and the fraction done (0 to 1).
    """

    device: str = "cpu"
    memory_bytes: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    mode: Mode = "slab"
    progress: Progress | None = None


Loader = Callable[[Card, Path, Runtime], Method]


def _cascade(card: Card, models_folder: Path, runtime: Runtime) -> Method:
    # each loader imports its method, and with it torch, only when it is called
    from node.methods.cascade import Cascade
    from node.methods.packs import load_networks

    networks = load_networks(card, models_folder, runtime.device, runtime.memory_bytes, runtime.precision)
    return Cascade(networks, runtime.mode, runtime.progress)


def _dropout_net(card: Card, models_folder: Path, runtime: Runtime) -> Method:
    from node.methods.dropout_net import DropoutNet
    from node.methods.dropout_pack import load_networks

    assert isinstance(card, DropoutCard)  # see card.KINDS; so in the loaders below
    networks = load_networks(card, pack_folder(card, models_folder))
    return DropoutNet(networks, runtime.device, runtime.memory_bytes, runtime.precision)


def _monai_bundle(card: Card, models_folder: Path, runtime: Runtime) -> Method:
    from node.methods.monai_bundle import MonaiBundle

    assert isinstance(card, ForeignCard)
    return MonaiBundle(card, pack_folder(card, models_folder), runtime.device)


def _nnunet(card: Card, models_folder: Path, runtime: Runtime) -> Method:
    from node.methods.nnunet import NnUNet

    assert isinstance(card, ForeignCard)
    return NnUNet(card, pack_folder(card, models_folder), runtime.device)


def _exported(card: Card, models_folder: Path, runtime: Runtime) -> Method:
    from node.methods.exported_network import ExportedNetwork

    assert isinstance(card, ExportedCard)
    return ExportedNetwork(card, pack_folder(card, models_folder), runtime.device)


LOADERS: Mapping[str, Loader] = {
    "cascade": _cascade, "dropout_net": _dropout_net, "monai-bundle": _monai_bundle, "nnunet-v2": _nnunet,
    "torchscript": _exported, "onnx": _exported,
}  # fmt: skip
"""Kind of a card to what loads such methods."""


def load_method(card: Card, models_folder: Path, runtime: Runtime | None = None) -> Method:
    """The method of ``card``, ready to run.

    Raises:
        ModelPackError: no method of this version is of the card's kind; the pack is not installed (the text names the
            command), or what it holds is unreadable, differs from the card, or is not what such a pack must hold.
    """
    _require_loader(card)
    try:
        return LOADERS[card.kind](card, models_folder, runtime or Runtime())
    except ModelPackError as error:
        told, pack = str(error), f"model pack {card.name}"
        raise ModelPackError(told if told.startswith(pack) else f"{pack}: {told}") from None


def _require_loader(card: Card) -> None:
    if card.kind not in LOADERS:
        raise ModelPackError(f"model pack '{card.name}' is of kind '{card.kind}'; no method of this version runs it")


def listed_cards(names: Sequence[str], models_folder: Path) -> list[Card]:
    """The cards of ``names``, in order; each is of a kind that this version runs.

    Raises:
        ModelPackError: there is no such pack, its card is wrong, or no method runs it.
    """
    cards = [read_card(name, models_folder) for name in names]
    for card in cards:
        _require_loader(card)
    return cards


def cards_at_hand(names: Sequence[str], models_folder: Path) -> list[Card]:
    """The cards of ``names`` whose packs are installed, in order.

    If none is installed, all of them: the study's failure then names the pack that is missing and how to install it.
    """
    cards = listed_cards(names, models_folder)
    return [card for card in cards if is_installed(card.name, models_folder)] or cards


def installed_names(names: Sequence[str], models_folder: Path) -> list[str]:
    """Those of ``names`` that are installed and whose cards can be read, in order."""
    found = []
    for name in names:
        with suppress(ModelPackError):
            if is_installed(name, models_folder):
                found.append(name)
    return found


def names_at_hand(models_folder: Path) -> list[str]:
    """The packs that are shipped or installed, and those whose cards cannot be read."""
    return [name for name in card_names(models_folder) if not is_missing(name, models_folder)]


def is_missing(name: str, models_folder: Path) -> bool:
    """True for a pack that glionode knows and could fetch, but has not."""
    try:
        return not is_installed(name, models_folder)
    except ModelPackError:
        return False


def faults(name: str, models_folder: Path) -> list[str]:
    """What is wrong with an installed pack, one sentence each; empty if it can run.

    Every file is compared with its digest, whatever is wrong with the others; if all are right, the method is loaded,
    in the way in which it is loaded for a study.
    """
    try:
        card = read_card(name, models_folder)
        if not is_installed(name, models_folder):
            load_method(card, models_folder)  # which says how to install it
        found = list(file_faults(card, pack_folder(card, models_folder)))
        if not found:
            load_method(card, models_folder)
    except ModelPackError as error:
        return [str(error)]
    return found


def verify(name: str, models_folder: Path) -> None:
    """Check every file and the weights of an installed pack.

    Raises:
        ModelPackError: a file is missing or differs from the card, or the pack cannot run; the message names it.
    """
    found = faults(name, models_folder)
    if found:
        raise ModelPackError(found[0])
