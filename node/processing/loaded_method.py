"""The method that the computing process holds in memory, from one study to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.config import Config

if TYPE_CHECKING:
    from node.methods.card import Card
    from node.methods.contract import Method


Progress = Callable[[str, float], None]


class LoadedMethod:
    """Loads a method when it is first needed, and another one when another card is.

    Args:
        progress: called with the current work and the fraction done, of all that is done with a study.
    """

    def __init__(self, config: Config, progress: Progress | None = None) -> None:
        self._config = config
        self._progress = progress
        self._card: Card | None = None
        self._method: Method | None = None
        self.device = "cpu"

    def of(self, card: Card) -> Method:
        """The method of ``card``, on ``device``.

        Raises:
            ModelPackError: see `registry.load_method`.
        """
        if self._method is None or self._card != card:
            from node.methods.registry import Runtime, load_method
            from node.segmentation.device import prepare_device

            section = self._config.segmentation
            self._method = None  # the networks of two packs need not be in memory together
            self.device = prepare_device(section.device, section.threads)
            runtime = Runtime(self.device, self._config.memory_bytes, section.precision, section.mode, self._report)
            self._method, self._card = load_method(card, self._config.models_folder, runtime), card
        return self._method

    def _report(self, work: str, fraction: float) -> None:
        if self._progress:
            self._progress(f"segmenting: {work}", 0.32 + 0.64 * fraction)
