"""T1-weighted twins: series of one name and acquisition, which contrast agent alone may tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from node.series.facts import SeriesFacts
from node.series.marker import Marker
from node.series.words import Classification
from node.study import Series

SESSION = timedelta(hours=3)
"""Longer than any examination; contrast agent of an earlier one is gone by the next."""

_SAME_TIMING = 0.01  # relative difference of TE and TR between twins


@dataclass(slots=True)
class T1Series:
    """One T1-weighted series while its contrast state is being found.

    ``is_usable``: nothing but its state keeps it from being chosen; ``doubt``: what images said without settling it;
    ``is_inferred``: its state rests on the lack of any mark, where others are marked.
    """

    series: Series
    facts: SeriesFacts
    classification: Classification
    state: Marker | None = None
    evidence: list[str] = field(default_factory=list)
    is_usable: bool = True
    doubt: str = ""
    is_inferred: bool = False

    @property
    def acquired(self) -> datetime | None:
        """When its first image was acquired."""
        return self.facts.acquisition_datetime

    def decide(self, state: Marker, evidence: str) -> None:
        """Settle the state, once."""
        if self.state is None:
            self.state = state
            self.evidence.append(evidence)


def are_twins(one: T1Series, other: T1Series) -> bool:
    """Same name and same acquisition: what differs may be the contrast agent alone."""
    a, b = one.facts, other.facts
    return (
        one is not other
        and (one.series.series_description or "").casefold() == (other.series.series_description or "").casefold()
        and a.scanning_sequence == b.scanning_sequence
        and _close(a.echo_time_ms, b.echo_time_ms)
        and _close(a.repetition_time_ms, b.repetition_time_ms)
        and _plane(a) == _plane(b)
    )


def comparable(member: T1Series, members: Sequence[T1Series]) -> list[T1Series]:
    """The twins of ``member`` whose images differ by nothing but the contrast agent, as far as headers tell."""
    a = member.facts
    return [
        twin
        for twin in members
        if are_twins(member, twin)
        and member.is_usable
        and twin.is_usable
        and set(a.scan_options) == set(twin.facts.scan_options)  # fat suppression
        and set(a.sequence_variant) == set(twin.facts.sequence_variant)  # magnetisation transfer
        and _close(a.flip_angle, twin.facts.flip_angle)
    ]


def _close(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and abs(a - b) <= _SAME_TIMING * max(abs(a), abs(b)))


def _plane(facts: SeriesFacts) -> tuple[float, ...] | None:
    orientation = facts.image_orientation_patient
    return tuple(round(value) for value in orientation) if orientation else None


def sooner(one: T1Series, other: T1Series) -> bool:
    """``one`` was acquired before ``other``, as far as both times are known."""
    return one.acquired is not None and other.acquired is not None and one.acquired < other.acquired


def same_acquisition(one: T1Series, other: T1Series) -> bool:
    """One and the same acquisition, as far as both times are known: stored twice, with and without a filter, say."""
    return one.acquired is not None and one.acquired == other.acquired


def in_one_session(one: T1Series, other: T1Series | datetime) -> bool:
    """Not hours apart: what an injection did to ``other`` it did to ``one``. Without times: as far as is known."""
    moment = other if isinstance(other, datetime) else other.acquired
    return one.acquired is None or moment is None or abs(one.acquired - moment) <= SESSION


def clock(moment: datetime | None) -> str:
    """The time of day, for evidence texts."""
    return f"{moment:%H:%M}" if moment else "at an unknown time"
