"""Series chosen by hand: a user names the series of a contrast, which overrides words, attributes and order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from node.errors import SelectionRefused
from node.series.candidate import Candidate, volume_problem
from node.series.marker import Marker
from node.study import Contrast

EVIDENCE = "chosen by hand"
_MARKERS: dict[Contrast, Marker] = {Contrast.T1: "before", Contrast.T1C: "after"}


def assign_by_hand(candidates: Sequence[Candidate], use: Mapping[Contrast, str]) -> None:
    """Assign each contrast in ``use`` to the series named there (Series Instance UID, or series number as text).

    Raises:
        SelectionRefused: a series does not exist or is named twice, its number is not unique, or it is not one volume
            of MR images as a scanner acquired them; the message names the contrast and the series.
    """
    taken: dict[int, Contrast] = {}
    for contrast, name in use.items():
        one = _named(candidates, contrast, name.strip())
        if id(one) in taken:
            raise SelectionRefused(f"{one.series.label} was named by hand for {taken[id(one)]} and for {contrast}")
        taken[id(one)] = contrast
        reason = _unusable(one)
        if reason:
            raise SelectionRefused(f"{contrast} {one.series.label}, chosen by hand, cannot be used: {reason}")
        one.is_by_hand, one.contrast, one.excluded = True, contrast, None
        one.evidence.insert(0, EVIDENCE)
        one.classification = replace(
            one.classification,
            contrast=contrast,
            evidence=tuple(one.evidence),
            confidence=1.0,
            marker=_MARKERS.get(contrast, one.classification.marker),
            kind=None,
        )


def _named(candidates: Sequence[Candidate], contrast: Contrast, name: str) -> Candidate:
    """The candidate that ``name`` names: a UID or a number; followed by ``/2``, the second part of a split series."""
    whole, _, part = name.partition("/")
    found = [one for one in candidates if whole == one.series.series_instance_uid]
    found = found or [one for one in candidates if whole == str(one.series.series_number)]
    uids = list(dict.fromkeys(one.series.series_instance_uid for one in found))
    if len(uids) > 1:
        raise SelectionRefused(
            f"{contrast} by hand: {len(uids)} series have the number {whole}; name one by UID: {', '.join(uids)}"
        )
    if len(found) == 1 and not part:
        return found[0]
    if part.isdecimal() and 1 <= int(part) <= len(found):
        return found[int(part) - 1]
    if found:
        parts = ", ".join(f"{whole}/{place} is {one.series.part}" for place, one in enumerate(found, start=1))
        raise SelectionRefused(f"{contrast} by hand: series {whole} holds {len(found)} parts; name one: {parts}")
    numbers = ", ".join(dict.fromkeys(str(one.series.series_number) for one in candidates if one.facts))
    raise SelectionRefused(f"{contrast} by hand: the study holds no series '{name[:64]}'; MR series are {numbers}")


def _unusable(one: Candidate) -> str | None:
    if one.facts is None:
        return f"modality {one.series.modality}, not MR"
    if one.facts.made_by_software:
        return one.facts.made_by_software[1]
    return volume_problem(one.facts)
