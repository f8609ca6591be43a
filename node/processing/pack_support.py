"""Which method runs which model pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.config_sections import SegmentationSection
from node.errors import ConfigError, ModelPackError
from node.study import Contrast

if TYPE_CHECKING:
    from node.segmentation.packs import Card


def cascade_card(model: str) -> Card:
    """The card of ``model``, a pack that the cascade can run: it takes all four contrasts.

    Raises:
        ModelPackError: there is no such pack, or the pack takes other contrasts.
    """
    from node.segmentation.packs import read_card

    card = read_card(model)
    if len(card.inputs) != len(Contrast):
        raise ModelPackError(f"model pack '{model}' wants {', '.join(card.inputs)}; its method is not in this version")
    return card


def require_methods(section: SegmentationSection) -> None:
    """Make sure that this version can run the packs that the config names; they need not be installed.

    Raises:
        ConfigError: it cannot run one of them; names the key.
    """
    try:
        cascade_card(section.model)
    except ModelPackError as error:
        raise ConfigError(f"segmentation.model: {error}") from None
    require_t1c_only_method(section)


def require_t1c_only_method(section: SegmentationSection) -> None:
    """Make sure that ``segmentation.t1c_only_model`` is empty, as long as no method runs a pack for T1c alone.

    Raises:
        ConfigError: the key is not empty.
    """
    if section.t1c_only_model:
        raise ConfigError(
            f"segmentation.t1c_only_model: no method of this version runs a pack for T1c alone"
            f" ('{section.t1c_only_model}'); leave the key empty"
        )
