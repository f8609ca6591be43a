"""Which FLAIR is nearer to the data the method was trained on: the one before contrast agent.

The consensus protocol for brain tumours acquires FLAIR before the injection and T2 after it (Ellingson et al., Neuro
Oncol 2015;17:1188). On FLAIR, leaking contrast agent brightens the enhancing tumour and the leptomeninges; on T2 it
changes next to nothing, so T2 is not ranked by it. BraTS does not tell how each of its FLAIR images was acquired.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.series.candidate import Candidate
from node.series.classify import named_agent
from node.series.marker import Marker
from node.series.twins import SESSION, clock
from node.study import Contrast


def settle_flair(candidates: Sequence[Candidate]) -> None:
    """Set ``agent`` of each FLAIR, with evidence, if the study holds several; call it when T1 and T1c are settled."""
    members = [one for one in candidates if one.contrast is Contrast.FLAIR and one.excluded is None]
    if len(members) < 2:
        return
    for one in members:
        found = _by_header(one, candidates) or _by_order(one, candidates)
        if found:
            one.agent, text = found
            one.evidence.append(text)


def _by_header(one: Candidate, candidates: Sequence[Candidate]) -> tuple[Marker, str] | None:
    marker = one.classification.marker
    if marker:
        return marker, f"its name says {marker} contrast"
    agents = [named_agent(each.facts) for each in candidates if each.facts]
    agent = named_agent(one.facts) if one.facts else None
    if agent and not all(agents):  # the attribute is often copied to every series at registration
        return "after", f"Contrast/Bolus Agent is '{agent}': after contrast"
    return None


def _by_order(one: Candidate, candidates: Sequence[Candidate]) -> tuple[Marker, str] | None:
    moment = one.facts and one.facts.acquisition_datetime
    if not moment:
        return None
    known = [
        (each.contrast, each.facts.acquisition_datetime)
        for each in candidates
        if each.facts and each.facts.acquisition_datetime and not each.is_undecided
    ]
    session = [(contrast, other) for contrast, other in known if abs(other - moment) <= SESSION]
    after = [other for contrast, other in session if contrast is Contrast.T1C]
    before = [other for contrast, other in session if contrast is Contrast.T1]
    if after and moment >= min(after):
        return "after", f"acquired {clock(moment)}, later than a T1c ({clock(min(after))}): after contrast"
    if after and before and moment <= max(before):
        return "before", f"acquired {clock(moment)}, earlier than a T1 ({clock(max(before))}): before contrast"
    return None
