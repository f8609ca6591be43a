"""T1 twins that their headers do not distinguish are compared by image; an unclear result is kept as a reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Protocol

from node.series.twins import T1Series, acquired_alike, in_one_session, is_earlier
from node.study import Comparison, Series


class Compare(Protocol):
    """Determines from their images which of two T1 series was acquired after contrast agent."""

    def __call__(self, one: Series, other: Series, twin: Series | None = None, /) -> Comparison:
        """Compare ``one`` with ``other``. ``twin``: acquired like ``other``, but after contrast agent, so that the two
        show where this patient takes it up; then the answer is "one" or None.
        """


_MOST_COMPARED = 4  # four twins need six comparisons, which take half a minute


def decide_by_images(group: Sequence[T1Series], compare: Compare) -> None:
    """Compare each pair; the results count only if they split the twins into before and after without contradiction."""
    if len(group) > _MOST_COMPARED:
        _leave_undecided(group, f"images: {len(group)} twins are too many to be compared")
        return
    comparisons: list[str] = []
    pairs: list[tuple[T1Series, T1Series, str]] = []  # after, before, evidence
    for one, other in combinations(group, 2):
        if one.state and other.state:
            if one.state != other.state:
                pairs.append((one, other, "") if one.state == "after" else (other, one, ""))
            continue
        found = compare(one.series, other.series)
        comparisons.append(found.evidence)
        if found.after:
            pairs.append((one, other, found.evidence) if found.after == "one" else (other, one, found.evidence))
    reason = _contradiction(group, pairs)
    if reason is not None:
        _leave_undecided(group, "; ".join([*comparisons, *([reason] if reason else [])]))
        return
    for after, before, evidence in pairs:
        after.decide("after", evidence)
        before.decide("before", evidence)


def decide_by_pair(member: T1Series, decided: Sequence[T1Series], compare: Compare) -> None:
    """Decide ``member`` by two series of ``decided`` that differ by contrast agent only, whatever its own kind.

    These show which tissue takes up contrast agent, and that same tissue is looked at in ``member``. Without such a
    pair it stays open: other differences between two kinds of sequence may look like contrast agent.
    """
    pairs = _known_pairs(member, decided)
    if pairs:
        before, after = pairs[0]
        found = compare(member.series, before.series, after.series)
        if found.after == "one":
            member.decide("after", found.evidence)
        else:
            member.doubt = found.evidence


def _known_pairs(member: T1Series, members: Sequence[T1Series]) -> list[tuple[T1Series, T1Series]]:
    """(before, after): usable series of its session acquired alike, in the order of their numbers."""
    if not member.is_usable:
        return []
    session = [one for one in members if one is not member and one.is_usable and in_one_session(member, one)]
    in_order = sorted(session, key=lambda one: (one.series.series_number or 0, one.series.series_instance_uid))
    before, after = ([one for one in in_order if one.state == state] for state in ("before", "after"))
    return [(one, twin) for one in before for twin in after if acquired_alike(one, twin)]


def _contradiction(group: Sequence[T1Series], pairs: Sequence[tuple[T1Series, T1Series, str]]) -> str | None:
    """Why the comparisons decide nothing (an empty string if no pair was decided), or None if they are consistent."""
    after = {id(one) for one, _, _ in pairs}
    before = {id(other) for _, other, _ in pairs}
    if not pairs:
        return ""
    if after & before or len(after | before) < len(group) or len(pairs) < len(after) * len(before):
        return "the comparisons do not agree with one another"
    for one, other, _ in pairs:
        if one.state == "before" or other.state == "after":
            return f"the images speak against what else is known of {one.series.label} and {other.series.label}"
        if is_earlier(one, other):
            return f"but {one.series.label} was acquired earlier than {other.series.label}"
    return None


def _leave_undecided(group: Sequence[T1Series], reason: str) -> None:
    for member in group:
        if member.state is None:
            member.doubt = reason
