"""Before or after contrast agent, for T1 series whose name may not say.

Evidence in this order: words; Contrast/Bolus Start Time; a bolus agent that not all T1 series of the study state; an
overlay mark that the series' twin lacks; acquisition order around a series already known; acquisition order between
twins when the study shows by a subtraction or perfusion series that contrast was given; last, if it may be asked, a
comparison of the twins' images. What stays open is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from node.series.by_images import Compare, settle_by_images
from node.series.classify import named_agent
from node.series.marker import Marker
from node.series.twins import T1Series, are_twins, comparable, sooner

GIVEN_KINDS = frozenset(["subtraction", "perfusion"])


def resolve(
    members: Sequence[T1Series], kinds: Sequence[str | None], compare: Compare | None = None
) -> tuple[str, ...]:
    """Settle ``state`` and ``evidence`` of each T1 series of one study; ``kinds`` are those of its other series.

    ``compare`` is asked about twins that all else leaves open. Returns cautions: where words and times disagree.
    """
    for member in members:
        _by_header(member)
    _by_agent(members)
    _by_overlay(members)
    _by_order(members)
    if any(kind in GIVEN_KINDS for kind in kinds):
        _by_twin_order(members, next(kind for kind in kinds if kind in GIVEN_KINDS) or "")
    if compare:
        _by_images(members, compare)
    _corroborate(members)
    return _disagreements(members)


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M}"


def _by_header(member: T1Series) -> None:
    marker = member.classification.marker
    if marker:
        member.state = marker  # its evidence is already among the classification's
        return
    start = member.facts.contrast_bolus_start
    if start and member.acquired:
        state: Marker = "after" if member.acquired >= start else "before"
        member.decide(
            state, f"acquired {_clock(member.acquired)}, {state} the Contrast/Bolus Start Time {_clock(start)}"
        )


def _by_agent(members: Sequence[T1Series]) -> None:
    """The tag is often copied to every series at registration: it tells only where some series lack it."""
    with_agent = [member for member in members if named_agent(member.facts)]
    if not with_agent or (len(with_agent) == len(members) and len(members) > 1):
        return
    for member in with_agent:
        member.decide("after", f"Contrast/Bolus Agent is '{named_agent(member.facts)}'")


def _by_overlay(members: Sequence[T1Series]) -> None:
    for member in members:
        bare = [
            twin
            for twin in members
            if are_twins(member, twin) and not twin.facts.has_overlay and _not_later(twin, member)
        ]
        if member.facts.has_overlay and bare:
            member.decide("after", f"carries a graphic overlay that its twin {bare[0].series.label} lacks")
            for twin in bare:
                twin.decide("before", f"lacks the graphic overlay of its later twin {member.series.label}")


def _not_later(one: T1Series, other: T1Series) -> bool:
    return one.acquired is None or other.acquired is None or one.acquired <= other.acquired


def _by_order(members: Sequence[T1Series]) -> None:
    """Contrast agent does not leave during an examination: after a series known as after, everything is after."""
    first_after = min((m.acquired for m in members if m.state == "after" and m.acquired), default=None)
    last_before = max((m.acquired for m in members if m.state == "before" and m.acquired), default=None)
    for member in members:
        if member.state is None and member.acquired:
            if first_after and member.acquired > first_after:
                member.decide(
                    "after",
                    f"acquired {_clock(member.acquired)}, later than a series after contrast ({_clock(first_after)})",
                )
            elif last_before and member.acquired < last_before:
                member.decide(
                    "before",
                    f"acquired {_clock(member.acquired)}, earlier than one before contrast ({_clock(last_before)})",
                )
    for member in members:
        not_later = [twin for twin in members if are_twins(member, twin) and not sooner(member, twin)]
        if member.state is None and not not_later and any(other.state == "after" for other in members):
            when = (
                f"acquired {_clock(member.acquired)}, earlier than"
                if member.acquired and first_after
                else "bears no mark, unlike"
            )
            member.decide("before", f"{when} the series after contrast")


def _by_twin_order(members: Sequence[T1Series], kind: str) -> None:
    for member in members:
        twins = [twin for twin in members if are_twins(member, twin)]
        if member.state is not None or not twins or any(twin.state == "after" for twin in twins):
            continue
        if all(sooner(member, twin) for twin in twins):
            member.decide(
                "before", f"the earliest of {len(twins) + 1} twins, and a {kind} series shows that contrast was given"
            )
            last = max(twins, key=lambda twin: twin.acquired or datetime.min)
            last.decide(
                "after", f"the latest of {len(twins) + 1} twins, and a {kind} series shows that contrast was given"
            )


def _by_images(members: Sequence[T1Series], compare: Compare) -> None:
    in_order = sorted(members, key=lambda member: (member.series.series_number or 0, member.series.series_instance_uid))
    asked: list[T1Series] = []
    for member in in_order:
        twins = comparable(member, in_order)
        if member.state is None and twins and not any(member is one for one in asked):
            group = [one for one in in_order if one is member or any(one is twin for twin in twins)]
            asked += group
            settle_by_images(group, compare)
            _by_order(members)


def _corroborate(members: Sequence[T1Series]) -> None:
    before = [member for member in members if member.state == "before"]
    for member in members:
        if member.state != "after":
            continue
        earlier = [other for other in before if sooner(other, member)]
        text = " ".join(member.evidence)
        if earlier and member.acquired and "acquired" not in text:
            latest = max(earlier, key=lambda other: other.acquired or datetime.min)
            member.evidence.append(
                f"acquired {_clock(member.acquired)}, later than {latest.series.label} before contrast"
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
        if before.state == "before" and after.state == "after" and sooner(after, before)
    )
