"""Twins that headers leave open are told apart by their images, or left open with what the images said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from node.series.twins import T1Series, sooner
from node.study import Comparison, Series

Compare = Callable[[Series, Series], Comparison]
"""Tells from their images which of two T1 series is after contrast agent."""

_MOST_COMPARED = 4  # twins: six comparisons, half a minute


def settle_by_images(group: Sequence[T1Series], compare: Compare) -> None:
    """Each pair is compared; the answers must split the twins into before and after without any contradiction."""
    if len(group) > _MOST_COMPARED:
        _doubt(group, f"images: {len(group)} twins are too many to be compared")
        return
    said: list[str] = []
    pairs: list[tuple[T1Series, T1Series, str]] = []  # after, before, evidence
    for one, other in combinations(group, 2):
        if one.state and other.state:
            if one.state != other.state:
                pairs.append((one, other, "") if one.state == "after" else (other, one, ""))
            continue
        found = compare(one.series, other.series)
        said.append(found.evidence)
        if found.after:
            pairs.append((one, other, found.evidence) if found.after == "one" else (other, one, found.evidence))
    reason = _contradiction(group, pairs)
    if reason is not None:
        _doubt(group, "; ".join([*said, *([reason] if reason else [])]))
        return
    for after, before, evidence in pairs:
        after.decide("after", evidence)
        before.decide("before", evidence)


def _contradiction(group: Sequence[T1Series], pairs: Sequence[tuple[T1Series, T1Series, str]]) -> str | None:
    """Why the answers settle nothing (empty: there are too few), or None."""
    after = {one.series.series_instance_uid for one, _, _ in pairs}
    before = {other.series.series_instance_uid for _, other, _ in pairs}
    if not pairs:
        return ""
    if after & before or len(after | before) < len(group) or len(pairs) < len(after) * len(before):
        return "the comparisons do not agree with one another"
    for one, other, _ in pairs:
        if one.state == "before" or other.state == "after":
            return f"the images speak against what else is known of {one.series.label} and {other.series.label}"
        if sooner(one, other):
            return f"but {one.series.label} was acquired earlier than {other.series.label}"
    return None


def _doubt(group: Sequence[T1Series], reason: str) -> None:
    for member in group:
        if member.state is None:
            member.doubt = reason
