"""Whether this version can run the model packs that the config names."""

from __future__ import annotations

from pathlib import Path

from node.config_sections import SegmentationSection
from node.errors import ConfigError, ModelPackError


def require_methods(section: SegmentationSection, models_folder: Path) -> None:
    """Make sure that this version can run the packs that the config names; its own need not be installed.

    Raises:
        ConfigError: it cannot run one of them; names the key.
    """
    from node.methods.registry import listed_cards

    try:
        listed_cards(section.models, models_folder)
    except ModelPackError as error:
        raise ConfigError(f"segmentation.models: {error}") from None
