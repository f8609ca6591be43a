"""Whether the endless loops of a process still turn: each loop says so after every round."""

from __future__ import annotations

import time


class LoopWatch:
    """The loops by their names. The monotonic clock counts; any thread may call."""

    def __init__(self, *names: str) -> None:
        self._moved = dict.fromkeys(names, time.monotonic())

    def moved(self, name: str) -> None:
        """The loop has ended a round."""
        self._moved[name] = time.monotonic()

    def standing(self, seconds: float) -> list[str]:
        """The loops that have ended no round for so long."""
        now = time.monotonic()
        return [name for name, moved in self._moved.items() if now - moved >= seconds]
