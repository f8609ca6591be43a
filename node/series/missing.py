"""Why a contrast is missing, as the text of a refusal that a user can act on."""

from __future__ import annotations

from collections.abc import Sequence

from node.series.candidate import Candidate
from node.study import Contrast

T1_FAMILY = (Contrast.T1, Contrast.T1C)
_MOST_SEEN = 12


def missing_text(missing: Sequence[Contrast], candidates: Sequence[Candidate]) -> str:
    """The reason to refuse: ``no FLAIR: of 5 MR series none reads as FLAIR; nearest: series 301 ... . Seen: ...``."""
    mr = [one for one in candidates if one.facts]
    seen = ", ".join(one.series.label for one in mr[:_MOST_SEEN]) + (", ..." if len(mr) > _MOST_SEEN else "")
    reasons = [_why_missing(contrast, mr) for contrast in missing]
    return f"{'; '.join(dict.fromkeys(reasons))}. Seen: {seen}"


def images_may_decide(missing: Sequence[Contrast], candidates: Sequence[Candidate]) -> bool:
    """True if only T1 or T1c is missing, and a comparison of undecided twins may find it."""
    return set(missing) <= set(T1_FAMILY) and any(one.may_compare for one in candidates)


def _why_missing(contrast: Contrast, mr: Sequence[Candidate]) -> str:
    unusable = [one for one in mr if one.contrast is contrast and one.excluded]
    undecided = [one for one in mr if one.is_undecided]
    if unusable or (contrast is Contrast.T1C and undecided):
        one = max(unusable or undecided[:1], key=lambda each: each.is_by_hand)
        return f"no {contrast}: {one.series.label}: {one.excluded}"
    related = T1_FAMILY if contrast in T1_FAMILY else (Contrast.T2, Contrast.FLAIR)
    name = str(contrast)[:2].casefold()
    nearest = [
        *(one for one in mr if one.contrast in related),
        *(one for one in mr if name in (one.series.series_description or "").casefold()),
        *(one for one in mr if one.classification.kind == "unclear"),
    ]
    evidence = ", ".join(nearest[0].evidence) if nearest else ""
    text = f"; nearest: {nearest[0].series.label}, {evidence}" if evidence else ""
    return f"no {contrast}: of {len(mr)} MR series none reads as {contrast}{text}"
