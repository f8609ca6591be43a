"""What the order of acquisition says about contrast agent, and what the lack of a mark says.

Contrast agent stays during an examination. So a series acquired no later than one known to be before contrast is before
it, and one acquired no earlier than one known to be after contrast is after it. Between the last known before and the
first known after, order decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.series.classify import named_agent
from node.series.signs import Sign
from node.series.twins import T1Series, are_twins, clock, in_one_session, is_earlier, same_acquisition

UNDECIDED = "undecided before or after contrast"


def by_order(members: Sequence[T1Series], signs: Sequence[Sign]) -> None:
    """Decide the series that lie outside the interval between the last known before and the first known after."""
    for member in [one for one in members if one.state is None and one.acquired]:
        _by_neighbours(member, [one for one in members if in_one_session(member, one)], signs)


def by_lack_of_mark(members: Sequence[T1Series]) -> None:
    """Decide series without a mark as before contrast if others bear one and the lack of it means something.

    It does if the same name occurs with a mark, or if the scanner enters the agent in the series after the injection.
    """
    for member in members:
        marked = _marked_beside(member, members)
        has_counterpart = any(_differ_by_mark(member, one) for one in marked)
        has_tags = any(named_agent(one.facts) for one in marked) and not named_agent(member.facts)
        if has_counterpart or has_tags:
            _infer(member, marked)


def by_being_first(members: Sequence[T1Series]) -> None:
    """Decide as before contrast the only T1 series that is not after it, or the first one, if others bear a mark."""
    found = [
        (member, marked)
        for member in members
        if (marked := _marked_beside(member, members)) and _is_first(member, members)
    ]
    for member, marked in found:
        _infer(member, marked)


def _marked_beside(member: T1Series, members: Sequence[T1Series]) -> list[T1Series]:
    """The series of its session after contrast, by marks of their own, of which none is earlier than ``member``.

    Empty if the state of ``member`` is decided, or if it has a twin that is not later: that one is the first.
    """
    twins = [one for one in members if are_twins(member, one) and not same_acquisition(member, one)]
    if member.state is not None or any(not is_earlier(member, twin) for twin in twins):
        return []
    return [
        one
        for one in members
        if one.state == "after" and one.is_marked and in_one_session(member, one) and not is_earlier(one, member)
    ]


def _is_first(member: T1Series, members: Sequence[T1Series]) -> bool:
    session = [one for one in members if one is not member and one.is_usable and in_one_session(member, one)]
    others = [one for one in session if not same_acquisition(member, one)]
    if not any(one.state != "after" for one in others):
        return True
    return all(is_earlier(member, one) for one in others) and not any(one.state == "before" for one in others)


def _infer(member: T1Series, marked: Sequence[T1Series]) -> None:
    is_known_earlier = any(is_earlier(member, one) for one in marked)
    text = f"acquired {clock(member.acquired)}, earlier than" if is_known_earlier else "bears no mark, unlike"
    member.is_inferred = True
    member.decide("before", f"{text} the series after contrast")


def open_reason(member: T1Series, members: Sequence[T1Series]) -> str | None:
    """Why it stays open whether ``member`` is before or after contrast; None if that is decided, or if no series of
    its session is known to be either and it has no twin: then it is an ordinary T1.
    """
    session = [one for one in members if one is not member and in_one_session(member, one)]
    if member.state is not None:
        return None
    twins = [one for one in session if are_twins(member, one)]
    if twins:
        names = " and ".join(sorted({member.series.label, *(twin.series.label for twin in twins)}))
        reason = f"{names} are alike; no word, bolus tag, overlay or order tells"
    else:
        before = [one for one in session if one.state == "before"]
        after = [one for one in session if one.state == "after"]
        if not after:  # an ordinary T1, unless its images were compared in vain
            reason = f"no word, bolus tag, overlay or order tells {member.series.label} from others"
            return f"{UNDECIDED}: {reason}; {member.doubt}" if member.doubt else None
        first = min(after, key=lambda one: (one.acquired is None, one.acquired, one.series.label))
        parts = [f"{first.series.label}, which is after contrast ({clock(first.acquired)}), does not come before it"]
        if before:
            last = max(before, key=lambda one: (one.acquired is not None, one.acquired, one.series.label))
            parts.insert(
                0, f"{last.series.label}, which is before contrast ({clock(last.acquired)}), does not follow it"
            )
        reason = f"{member.series.label} bears no mark, and {' and '.join(parts)}; order decides nothing between them"
    return "; ".join(text for text in (f"{UNDECIDED}: {reason}", member.doubt) if text)


def _differ_by_mark(one: T1Series, other: T1Series) -> bool:
    """True if the two names are the same but for the words that say after contrast in the name of ``other``."""
    names = [tuple(sorted(each.classification.bare_name)) for each in (one, other)]
    return other.classification.marker == "after" and bool(names[0]) and names[0] == names[1]


def _by_neighbours(member: T1Series, session: Sequence[T1Series], signs: Sequence[Sign]) -> None:
    assert member.acquired is not None
    known = [(one.acquired, one.state) for one in session if one.acquired]
    after = [(moment, f"a series after contrast ({clock(moment)})") for moment, state in known if state == "after"]
    before = [moment for moment, state in known if state == "before"]
    if after:  # a sign alone may be a misnamed series; with a series known to be after contrast it gives the time
        after += [
            (sign.moment, f"{sign.text} ({clock(sign.moment)})")
            for sign in signs
            if sign.moment
            and sign.kind != "subtraction"
            and in_one_session(member, sign.moment)
            and not any(sign.moment < moment for moment in before)  # contradicted by a series known as before
        ]
    is_after = bool(after) and member.acquired >= min(after)[0]
    is_before = bool(before) and member.acquired <= max(before)
    if is_after and is_before:  # what is known contradicts the order, so that order tells nothing
        return
    if is_after:
        first, text = min(after)
        relation = "later than" if member.acquired > first else "together with"
        member.decide("after", f"acquired {clock(member.acquired)}, {relation} {text}")
    if is_before:
        relation = "earlier than" if member.acquired < max(before) else "together with"
        text = f"acquired {clock(member.acquired)}, {relation} one before contrast ({clock(max(before))})"
        member.decide("before", text)
