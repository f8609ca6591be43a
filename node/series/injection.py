"""Decide for each T1 series of a study whether it was acquired before or after contrast agent.

Evidence in this order: words; Contrast/Bolus Start Time; a Contrast/Bolus Agent that not all series of the study have;
a graphic overlay that the series' twin lacks; acquisition order outside the interval between the last series known to
be before and the first known to be after contrast; the lack of a mark that others have; acquisition order of twins when
a subtraction or perfusion series shows that contrast agent was given between them; last, if the caller passes one, a
comparison of images. An undecided state stays None.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from node.series.by_images import Compare, decide_by_images, decide_unlike, is_beside_known, unlike_and_open
from node.series.classify import named_agent
from node.series.marker import Marker
from node.series.order import by_being_first, by_lack_of_mark, by_order
from node.series.signs import OtherSeries, Sign, signs_of
from node.series.twins import (
    T1Series,
    are_twins,
    clock,
    comparable,
    in_one_session,
    is_earlier,
    same_acquisition,
)


def resolve(
    members: Sequence[T1Series], others: Sequence[OtherSeries], compare: Compare | None = None
) -> tuple[str, ...]:
    """Set ``state`` and ``evidence`` of each T1 series of one study; ``others`` are all its MR series.

    ``compare`` is called for twins that all other evidence leaves open. Returns cautions on words that contradict the
    acquisition times and on weak evidence.
    """
    signs = signs_of(others)
    for member in members:
        _by_header(member)
    _by_agent(members, others)
    _by_overlay(members)
    for member in members:
        member.is_marked = member.state is not None
    by_order(members, signs)
    by_lack_of_mark(members)
    by_order(members, signs)
    by_being_first(members)
    _by_twin_order(members, signs)
    _share_state(members)
    if compare:
        _by_images(members, signs, compare)
        _share_state(members)
    _corroborate(members)
    return (*_disagreements(members), *_weak_evidence(members, signs))


def _by_header(member: T1Series) -> None:
    marker = member.classification.marker
    if marker:
        member.state = marker  # its evidence is already among the classification's
        return
    start = member.facts.contrast_bolus_start
    if start and member.acquired:
        state: Marker = "after" if member.acquired >= start else "before"
        member.decide(state, f"acquired {clock(member.acquired)}, {state} the Contrast/Bolus Start Time {clock(start)}")


def _by_agent(members: Sequence[T1Series], others: Sequence[OtherSeries]) -> None:
    """The attribute is often copied to every series at registration, so it counts only if some series lack it."""
    with_agent = [member for member in members if named_agent(member.facts)]
    is_everywhere = len(others) > 1 and all(named_agent(one.facts) for one in others)
    if is_everywhere or not with_agent or (len(with_agent) == len(members) and len(members) > 1):
        return
    for member in with_agent:
        member.decide("after", f"Contrast/Bolus Agent is '{named_agent(member.facts)}'")


def _by_overlay(members: Sequence[T1Series]) -> None:
    for member in members:
        unmarked = [
            twin
            for twin in members
            if are_twins(member, twin) and not twin.facts.has_overlay and _may_be_later(member, twin)
        ]
        if member.facts.has_overlay and unmarked:
            member.decide("after", f"carries a graphic overlay that its twin {unmarked[0].series.label} lacks")
            for twin in unmarked:
                twin.decide("before", f"lacks the graphic overlay of its twin {member.series.label}")


def _may_be_later(one: T1Series, other: T1Series) -> bool:
    return one.acquired is None or other.acquired is None or is_earlier(other, one)


def _by_twin_order(members: Sequence[T1Series], signs: Sequence[Sign]) -> None:
    for member in members:
        twins = [twin for twin in members if are_twins(member, twin) and in_one_session(member, twin)]
        later = [twin for twin in twins if not same_acquisition(member, twin)]
        if member.state is not None or not later or any(twin.state == "after" for twin in twins):
            continue
        if not all(is_earlier(member, twin) for twin in later):
            continue
        last = max(later, key=lambda twin: twin.acquired or datetime.min)
        sign_between = next((sign for sign in signs if _is_between(sign, member, last)), None)
        if sign_between:
            text = f"of {len(later) + 1} twins, and {sign_between.text} shows that contrast was given"
            member.decide("before", f"the earliest {text}")
            last.decide("after", f"the latest {text}")


def _is_between(sign: Sign, first: T1Series, last: T1Series) -> bool:
    """True for a perfusion series between the twins, or a subtraction made no earlier than the later twin."""
    if sign.moment is None or first.acquired is None or last.acquired is None:
        return False
    if sign.kind == "subtraction":
        return sign.moment >= last.acquired and in_one_session(last, sign.moment)
    return sign.kind == "perfusion" and first.acquired < sign.moment < last.acquired


def _share_state(members: Sequence[T1Series]) -> None:
    """Copy the state between series of one acquisition that was stored twice, e.g. with and without a filter."""
    for member in members:
        known = [one for one in members if one.state and are_twins(member, one) and same_acquisition(member, one)]
        if member.state is None and known and known[0].state:
            member.decide(known[0].state, f"acquired at the same moment as {known[0].series.label}")
            member.is_inferred = known[0].is_inferred


def _by_images(members: Sequence[T1Series], signs: Sequence[Sign], compare: Compare) -> None:
    in_order = sorted(members, key=lambda member: (member.series.series_number or 0, member.series.key))
    compared: list[T1Series] = []
    for member in in_order:
        twins = [one for one in comparable(member, in_order) if not same_acquisition(member, one)]
        if member.state is None and twins and not any(member is one for one in compared):
            group = [one for one in in_order if one is member or any(one is twin for twin in twins)]
            compared += group
            decide_by_images(group, compare)
            by_order(members, signs)
    for member in in_order:
        others = [one for one in unlike_and_open(member, in_order) if not same_acquisition(member, one)]
        if others and not any(member is one for one in compared):
            group = [one for one in in_order if one is member or any(one is other for other in others)]
            compared += group
            decide_by_images(group, compare)
            by_order(members, signs)
    known = [one for one in in_order if one.state]  # what is decided below is no ground for further decisions
    for member in in_order:
        if member.state is None and is_beside_known(member, known):
            decide_unlike(member, known, compare)


def _corroborate(members: Sequence[T1Series]) -> None:
    before = [member for member in members if member.state == "before"]
    for member in members:
        if member.state != "after":
            continue
        earlier = [other for other in before if is_earlier(other, member)]
        text = " ".join(member.evidence)
        if earlier and member.acquired and "acquired" not in text:
            latest = max(earlier, key=lambda other: other.acquired or datetime.min)
            member.evidence.append(
                f"acquired {clock(member.acquired)}, later than {latest.series.label} before contrast"
            )
        if (
            member.facts.has_overlay
            and "overlay" not in text
            and before
            and not any(other.facts.has_overlay for other in before)
        ):
            member.evidence.append("carries a graphic overlay that no series before contrast has")


def _disagreements(members: Sequence[T1Series]) -> tuple[str, ...]:
    return tuple(
        f"{before.series.label} reads as before contrast but was acquired later than {after.series.label}"
        for before in members
        for after in members
        if before.state == "before" and after.state == "after" and is_earlier(after, before)
    )


def _weak_evidence(members: Sequence[T1Series], signs: Sequence[Sign]) -> tuple[str, ...]:
    """Caution if a graphic overlay is the only evidence: it may mean something else, and the twin may be a repeat."""
    after = [member for member in members if member.state == "after"]
    if signs or len(after) != 1 or not after[0].evidence or not after[0].evidence[0].startswith("carries a graphic"):
        return ()
    return (f"nothing but a graphic overlay says that {after[0].series.label} is after contrast",)
