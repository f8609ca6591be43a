"""Signs that contrast agent was given in an examination, from all its MR series, whatever their contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from node.series.classify import named_agent
from node.series.facts import SeriesFacts
from node.study import Series

GIVEN_KINDS = frozenset(["subtraction", "perfusion"])
"""Kinds of series that exist only if contrast agent was given. Arterial spin labelling needs no agent."""


@dataclass(frozen=True, slots=True)
class OtherSeries:
    """Any MR series of the study: its header and its kind (None: one of the four contrasts, or unknown)."""

    series: Series
    facts: SeriesFacts
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """Contrast agent was given by ``moment`` (None: time unknown).

    ``text`` names the evidence; ``kind`` is one of `GIVEN_KINDS`, "bolus start" or "agent".
    """

    kind: str
    moment: datetime | None
    text: str


def signs_of(others: Sequence[OtherSeries]) -> list[Sign]:
    """Signs of an injection in the series of a study, whatever their contrast.

    A Contrast/Bolus Agent counts only if other series lack it, since it is often copied to all at registration.
    """
    found = [
        Sign(one.kind or "", one.facts.acquisition_datetime, f"the {one.kind} {one.series.label}")
        for one in others
        if one.kind in GIVEN_KINDS
    ]
    found += [
        Sign("bolus start", one.facts.contrast_bolus_start, f"the Contrast/Bolus Start Time of {one.series.label}")
        for one in others
        if one.facts.contrast_bolus_start
    ]
    with_agent = [one for one in others if named_agent(one.facts)]
    if len(with_agent) < len(others):
        found += [
            Sign("agent", one.facts.acquisition_datetime, f"the Contrast/Bolus Agent of {one.series.label}")
            for one in with_agent
            if one.facts.acquisition_datetime
        ]
    return found
