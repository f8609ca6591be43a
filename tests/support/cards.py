"""Cards of methods that tests make up, and a method without networks that takes any exam with a T1c."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from node.errors import ModelPackError
from node.methods import card as cards
from node.methods import packs, registry
from node.methods.agreement import Agreement
from node.methods.card import Card, CascadeCard, Grid
from node.methods.contract import CORE, ENHANCING, OEDEMA, REGIONS, MethodResult, region_of
from node.study import Contrast

OTHERS = (Contrast.T1, Contrast.T2, Contrast.FLAIR)


def make_card(name: str, **changes: Any) -> Card:
    """A card of a shipped pack that needs T1c alone and gives all regions, unless ``changes`` say otherwise."""
    texts = ("method", "reference", "intended_use", "licence", "training_data", "measured_accuracy")
    values: dict[str, Any] = {
        "name": name, "version": "1", **dict.fromkeys(texts, "test"), "kind": "threshold",
        "needed": (Contrast.T1C,), "optional": (), "outputs": REGIONS, "states": ("pre-operative",),
        "grid": Grid(spacing_mm=1.0, orientation="LPS"), "is_shipped": True,
    }  # fmt: skip
    return Card(**values | changes)


def make_pulled_card(name: str) -> CascadeCard:
    """The card of a pack that is to be fetched, and was not."""
    published = cards.read_card("anisotropic_nets_brats17")
    return CascadeCard(**published.model_dump(by_alias=True) | {"name": name})


def know_cards(monkeypatch: pytest.MonkeyPatch, *known: Card) -> None:
    """Let glionode know these cards beside its own, and run those of kind ``threshold``."""
    own = cards.read_card
    by_name = {card.name: card for card in known}

    def read(name: str, models_folder: Path | None = None) -> Card:
        return by_name[name] if name in by_name else own(name, models_folder)

    for module in (cards, packs, registry):
        monkeypatch.setattr(module, "read_card", read)
    monkeypatch.setitem(registry.LOADERS, "threshold", lambda card, _folder, _runtime: Threshold(card))


class Threshold:
    """A method without networks: bright tissue of the T1c is tumour. ``ran_on``: the contrasts of each run."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.ran_on: list[tuple[Contrast, ...]] = []

    def run(self, volumes_zyx: Mapping[Contrast, NDArray[np.float32]], seed: int = 0) -> MethodResult:
        if not self._card.fits(volumes_zyx):
            raise ModelPackError("a contrast is missing")
        self.ran_on.append(tuple(volumes_zyx))
        t1c = volumes_zyx[Contrast.T1C]
        label = np.zeros(t1c.shape, np.uint8)
        for value, share in ((OEDEMA, 0.5), (CORE, 0.7), (ENHANCING, 0.9)):
            label[t1c > share * t1c.max()] = value
        chances = {region: region_of(label, region).astype(np.float32) for region in self._card.outputs}
        agreement = dict.fromkeys(chances, Agreement(expected_dice=1.0, view_dice=1.0, volume_cv=0.0))
        return MethodResult(label, chances, np.zeros(t1c.shape, np.float32), agreement)
