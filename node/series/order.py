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
    """Decide series without a mark as before contrast where others bear one, as far as that lack means something.

    It does if the same name occurs with a mark; if the scanner enters the agent in the series after the injection; and
    for the only T1 series, or the first one, that nothing shows to be after contrast.
    """
    for member in members:
        marked = [
            one
            for one in members
            if one.state == "after" and one.is_marked and in_one_session(member, one) and not is_earlier(one, member)
        ]
        not_later = [
            twin
            for twin in members
            if are_twins(member, twin) and not is_earlier(member, twin) and not same_acquisition(member, twin)
        ]
        if member.state is not None or not marked or not_later:
            continue
        evidence = _meaning_of_lack(member, marked, members)
        if evidence:
            member.is_inferred = True
            member.decide("before", evidence)


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
        if not after:
            return None
        first = min(after, key=lambda one: (one.acquired is None, one.acquired, one.series.label))
        parts = [f"{first.series.label}, which is after contrast ({clock(first.acquired)}), does not come before it"]
        if before:
            last = max(before, key=lambda one: (one.acquired is not None, one.acquired, one.series.label))
            parts.insert(
                0, f"{last.series.label}, which is before contrast ({clock(last.acquired)}), does not follow it"
            )
        reason = f"{member.series.label} bears no mark, and {' and '.join(parts)}; order decides nothing between them"
    return "; ".join(text for text in (f"{UNDECIDED}: {reason}", member.doubt) if text)


def _meaning_of_lack(member: T1Series, marked: Sequence[T1Series], members: Sequence[T1Series]) -> str | None:
    """Why ``member``, unlike the ``marked`` series after contrast, is before it; None: that lack says nothing."""
    session = [one for one in members if one is not member and in_one_session(member, one)]
    session = [one for one in session if one.is_usable and not same_acquisition(member, one)]
    others = [one for one in session if one.state != "after"]
    counterpart = next((one for one in marked if _differ_by_mark(member, one)), None)
    tagged = next((one for one in marked if named_agent(one.facts)), None)
    later = any(is_earlier(member, one) for one in marked)
    text = f"acquired {clock(member.acquired)}, earlier than" if later else "bears no mark, unlike"
    if counterpart or (tagged and not named_agent(member.facts)) or not others:
        return f"{text} the series after contrast"
    is_first = all(is_earlier(member, one) for one in session)
    if is_first and not any(one.state == "before" for one in session):
        return f"{text} the series after contrast"
    return None


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
