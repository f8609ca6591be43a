"""How long a workflow waits before it tries a request to another system again, and when it gives up."""

from __future__ import annotations

from node.config_sections import DeliverySection

_DAY_SECONDS = 86400.0


class RetryPauses:
    """Growing pauses: each is twice as long as the one before, up to ``delivery.longest_retry_seconds``.

    Seconds waited count, not the clock, which may jump.
    """

    def __init__(self, section: DeliverySection) -> None:
        self._section = section
        self.restart()

    def restart(self) -> None:
        """From now on, pauses are short again, and the days until giving up are counted anew."""
        self._pause_seconds = self._section.first_retry_seconds
        self._waited_seconds = 0.0

    @property
    def is_over(self) -> bool:
        """True if ``delivery.give_up_days`` were waited."""
        return self._waited_seconds >= self._section.give_up_days * _DAY_SECONDS

    def count(self, seconds: float) -> None:
        """Note a wait without success."""
        self._waited_seconds += seconds

    def next_seconds(self) -> float:
        """The next pause, counted as waited."""
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, self._section.longest_retry_seconds)
        self.count(pause)
        return pause
