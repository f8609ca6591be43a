"""T1-weighted twins: series of equal name and acquisition parameters that may differ only by contrast agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from node.series.facts import SeriesFacts
from node.series.marker import Marker
from node.series.words import Classification
from node.study import Series

SESSION = timedelta(hours=3)
"""Longer than any examination; the contrast agent of an earlier examination is no longer visible in the next."""

_SAME_TIMING = 0.01  # relative difference of TE and TR between twins


@dataclass(slots=True)
class T1Series:
    """One T1-weighted series and its state (before or after contrast agent) as far as it is decided.

    ``is_usable``: nothing but an open state excludes it; ``doubt``: the result of image comparisons that did not decide
    its state; ``is_inferred``: its state rests on the lack of any mark that other series have; ``is_marked``: its own
    words or header give its state.
    """

    series: Series
    facts: SeriesFacts
    classification: Classification
    state: Marker | None = None
    evidence: list[str] = field(default_factory=list)
    is_usable: bool = True
    doubt: str = ""
    is_inferred: bool = False
    is_marked: bool = False

    @property
    def acquired(self) -> datetime | None:
        """Time at which its first image was acquired, if known."""
        return self.facts.acquisition_datetime

    def decide(self, state: Marker, evidence: str) -> None:
        """Set the state unless it is already decided."""
        if self.state is None:
            self.state = state
            self.evidence.append(evidence)


def are_twins(one: T1Series, other: T1Series) -> bool:
    """True if name and acquisition parameters are the same, so that only the contrast agent may differ."""
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
    """The twins of ``member`` whose images differ only by the contrast agent, as far as their headers show."""
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


def is_earlier(one: T1Series, other: T1Series) -> bool:
    """True if both times are known and ``one`` was acquired before ``other``."""
    return one.acquired is not None and other.acquired is not None and one.acquired < other.acquired


def same_acquisition(one: T1Series, other: T1Series) -> bool:
    """True if both times are known and equal: one acquisition, stored twice (e.g. with and without a filter)."""
    return one.acquired is not None and one.acquired == other.acquired


def in_one_session(one: T1Series, other: T1Series | datetime) -> bool:
    """True if the two are at most `SESSION` apart, so that one injection concerns both; also if a time is unknown."""
    moment = other if isinstance(other, datetime) else other.acquired
    return one.acquired is None or moment is None or abs(one.acquired - moment) <= SESSION


def clock(moment: datetime | None) -> str:
    """The time of day, for evidence texts."""
    return f"{moment:%H:%M}" if moment else "at an unknown time"
