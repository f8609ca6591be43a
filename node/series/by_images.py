"""T1 twins that their headers do not distinguish are compared by image; an unclear result is kept as a reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Protocol

from node.series.twins import T1Series, are_twins, comparable, in_one_session, is_earlier
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


def may_be_compared(member: T1Series, members: Sequence[T1Series]) -> bool:
    """True if there are images with which those of ``member``, whose state is open, may be compared."""
    others = (comparable(member, members), unlike_and_open(member, members))
    return any(others) or is_beside_known(member, members)


def unlike_and_open(member: T1Series, members: Sequence[T1Series]) -> list[T1Series]:
    """The other T1 series of the session of ``member``, of whatever kind, if the state of all of them is open.

    Twins are compared among themselves before; so the list is empty where ``member`` has one.
    """
    session = [one for one in members if in_one_session(member, one)]
    is_open = all(one.state is None for one in session) and member.is_usable
    if not is_open or any(are_twins(member, one) for one in session):
        return []
    return [one for one in session if one is not member and one.is_usable and _is_suppressed_alike(member, one)]


def is_beside_known(member: T1Series, members: Sequence[T1Series]) -> bool:
    """True if a usable series of the session of ``member`` is known to be after contrast."""
    return member.is_usable and bool(_known(member, members, "after"))


def decide_unlike(member: T1Series, decided: Sequence[T1Series], compare: Compare) -> None:
    """Decide ``member`` by images of another kind: of series before and after contrast that are known by other means.

    Where two of them are twins, they show which tissue takes up contrast agent, and that same tissue is looked at in
    ``member``. Otherwise it is compared with one known series of each state.
    """
    before, after = (_known(member, decided, state) for state in ("before", "after"))
    pairs = [(one, twin) for one in before for twin in comparable(one, after)]
    if pairs:
        one, twin = pairs[0]
        found = compare(member.series, one.series, twin.series)
        if found.after == "one":
            member.decide("after", found.evidence)
        else:
            member.doubt = found.evidence
        return
    answers = {}
    doubts = []
    for known in (*before[:1], *after[:1]):
        found = compare(member.series, known.series)
        doubts.append(found.evidence)
        if found.after == "one" and known.state == "before":
            answers["after"] = found.evidence
        elif found.after == "other" and known.state == "after":
            answers["before"] = found.evidence
        elif found.after:
            doubts.append(f"the images speak against what else is known of {known.series.label}")
            answers |= {"before": "", "after": ""}
    if len(answers) == 1:
        ((state, evidence),) = answers.items()
        member.decide("after" if state == "after" else "before", evidence)
    else:
        member.doubt = "; ".join(doubts)


def _known(member: T1Series, members: Sequence[T1Series], state: str) -> list[T1Series]:
    """The usable series of ``state`` in the session of ``member``, those most like it first."""
    known = [one for one in members if one.state == state and one.is_usable and in_one_session(member, one)]
    return sorted(known, key=lambda one: (not _is_of_one_kind(member, one), one.series.series_number or 0))


def _is_suppressed_alike(one: T1Series, other: T1Series) -> bool:
    """True if both suppress fat, or neither, and the same holds for magnetisation transfer: they change intensities."""
    return all(
        (mark in (*one.facts.scan_options, *one.facts.sequence_variant))
        == (mark in (*other.facts.scan_options, *other.facts.sequence_variant))
        for mark in ("FS", "MTC")
    )


def _is_of_one_kind(one: T1Series, other: T1Series) -> bool:
    return (
        one.facts.scanning_sequence == other.facts.scanning_sequence
        and one.facts.mr_acquisition_type == other.facts.mr_acquisition_type
    )


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
