"""From the names in the config to the methods that can run."""

from __future__ import annotations

from pathlib import Path

import pytest
from cards import know_cards, make_card, make_pulled_card

from node.errors import ModelPackError
from node.methods.card import card_names, read_card
from node.methods.contract import REGIONS
from node.methods.packs import is_installed, pull
from node.methods.registry import LOADERS, cards_at_hand, listed_cards, load_method
from node.study import Contrast


@pytest.mark.parametrize("name", card_names())
def test_each_card_declares_what_its_method_can(name: str) -> None:
    """Each shipped card is of a kind that runs, needs T1c, gives known regions, and says what it refuses."""
    card = read_card(name)
    assert card.kind in LOADERS
    assert Contrast.T1C in card.needed
    assert set(card.outputs) <= set(REGIONS)
    assert card.outputs
    assert not set(card.needed) & set(card.optional)
    assert (card.grid.spacing_mm, card.grid.orientation) == (1.0, "LPS")
    assert set(card.states) <= {"pre-operative", "post-operative"}
    assert card.refuses
    measured_with = [[Contrast(each) for each in subset.split(", ")] for subset in card.cost]
    assert not [subset for subset in measured_with if not card.fits(subset) or set(subset) - set(card.inputs)]


def test_the_cascade_fits_four_contrasts_alone() -> None:
    """The published networks fit an exam with all four contrasts and none with three."""
    card = read_card("anisotropic_nets_brats17")
    assert card.fits(Contrast)
    assert not any(card.fits(set(Contrast) - {each}) for each in Contrast)


def test_kind_that_no_method_is_of_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A card of an unknown kind is named, with its kind, before any study arrives."""
    know_cards(monkeypatch, make_card("odd", kind="oracle"))
    with pytest.raises(ModelPackError, match="'odd' is of kind 'oracle'"):
        listed_cards(["odd"], tmp_path)


def test_what_is_not_installed_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installed and shipped packs stay in the order of the list; if none is there, the whole list stays."""
    one, two = make_card("one"), make_card("two")
    know_cards(monkeypatch, one, two, make_pulled_card("gone"))
    names = ["anisotropic_nets_brats17", "two", "gone", "one"]
    assert [card.name for card in cards_at_hand(names, tmp_path)] == ["two", "one"]
    assert [card.name for card in cards_at_hand(["gone"], tmp_path)] == ["gone"]


def test_shipped_pack_needs_no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pack inside the package counts as installed, and a pull of it says that there is nothing to fetch."""
    know_cards(monkeypatch, make_card("inside"))
    assert is_installed("inside", tmp_path)
    with pytest.raises(ModelPackError, match="nothing to fetch"):
        pull("inside", tmp_path)


def test_missing_pack_names_the_command(tmp_path: Path) -> None:
    """Loading a method whose pack is not installed says how to install it."""
    with pytest.raises(ModelPackError, match="glionode models pull anisotropic_nets_brats17"):
        load_method(read_card("anisotropic_nets_brats17"), tmp_path)
