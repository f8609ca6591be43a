"""Which workers live, judged by their heartbeats.

Each worker counts its heartbeats in the database. A worker whose count stood still for a while, as measured by this
process's own monotonic clock, is taken for dead: no two machines' clocks are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class WorkerWatch:
    """The heartbeats as this worker saw them. Time is passed in, in monotonic seconds.

    Attributes:
        living: the workers whose count changed within ``dead_seconds`` before the last look, and this one.
        silent: the workers that were known for ``dead_seconds``, and whose count did not change, or that have none.
    """

    def __init__(self, identity: str, dead_seconds: float) -> None:
        self._identity = identity
        self._dead_seconds = dead_seconds
        self._seen: dict[str, tuple[int | None, float]] = {}
        self.living = {identity}
        self.silent: set[str] = set()

    def look(self, beats: Mapping[str, int], others: Iterable[str], now: float) -> None:
        """Take in the counts of all workers (executor id to count), and workers that may have none."""
        seen = {}
        for executor in {*beats, *others}:
            beat = beats.get(executor)
            before = self._seen.get(executor)
            seen[executor] = before if before is not None and before[0] == beat else (beat, now)
        self._seen = seen
        self.silent = {executor for executor, (_, since) in seen.items() if now - since >= self._dead_seconds}
        self.silent.discard(self._identity)
        self.living = set(beats) - self.silent | {self._identity}

    @property
    def is_first(self) -> bool:
        """True if this worker is the first by name of the living ones, so that all workers agree on one that acts."""
        return min(self.living) == self._identity


class OverdueIds:
    """Which ids were given at every look for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def due(self, ids: Iterable[str], now: float) -> set[str]:
        """Those of ``ids`` that were given at every look for so long; they are given as long again."""
        self._since = {each: self._since.get(each, now) for each in ids}
        due = {each for each, since in self._since.items() if now - since >= self._seconds}
        for each in due:
            del self._since[each]
        return due
