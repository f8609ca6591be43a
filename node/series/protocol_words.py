"""Words for contrast agent that name the whole examination: they stand in every series, also in those before it."""

from __future__ import annotations

from collections.abc import Sequence

from node.series.candidate import Candidate
from node.series.classify import named_agent
from node.series.marker import MARKING_GROUPS
from node.series.vocabulary import Vocabulary
from node.study import Contrast

_T1_FAMILY = (Contrast.T1, Contrast.T1C)
_GROUPS = MARKING_GROUPS - {"after"}  # "post" in every name may well be true: everything was acquired after contrast


def words_of_protocol(candidates: Sequence[Candidate], vocabulary: Vocabulary) -> frozenset[str]:
    """The words that mark no series, because all T1 series have them ("BRAINCONTRASTT1AXIAL").

    T2 and FLAIR must have them as well. Otherwise the T1 series may all be after contrast, unless those of one name
    differ by their Contrast/Bolus Agent.
    """
    t1 = [one for one in candidates if one.contrast in _T1_FAMILY]
    others = [one for one in candidates if one.contrast in (Contrast.T2, Contrast.FLAIR)]
    if len(t1) < 2:
        return frozenset()
    if _differ_by_agent(t1, vocabulary):
        return frozenset(["both"])
    in_t1 = frozenset.intersection(*(_marks(one, vocabulary) for one in t1))
    if _differ_by_tag(t1):
        return in_t1
    return frozenset.intersection(in_t1, *(_marks(one, vocabulary) for one in others)) if others else frozenset()


def _differ_by_agent(t1: Sequence[Candidate], vocabulary: Vocabulary) -> bool:
    """True if all names say "pre and post" in one, and only some name an agent, which then is no part of that."""
    groups = [{word.group for word in vocabulary.words(one.series.series_description or "")} for one in t1]
    return all("both" in each for each in groups) and len({"agent" in each for each in groups}) > 1


def _marks(one: Candidate, vocabulary: Vocabulary) -> frozenset[str]:
    words = vocabulary.words(one.series.series_description or "")
    return frozenset(word.text for word in words if word.group in _GROUPS)


def _differ_by_tag(t1: Sequence[Candidate]) -> bool:
    """True if all T1 series have one name, and only later ones have a Contrast/Bolus Agent (0018,0010)."""
    with_agent = [one for one in t1 if one.facts and named_agent(one.facts)]
    without = [one for one in t1 if one.facts and not named_agent(one.facts)]
    moments = [[one.facts.acquisition_datetime for one in group if one.facts] for group in (without, with_agent)]
    known = [[moment for moment in group if moment] for group in moments]
    is_one_name = len({(one.series.series_description or "").casefold() for one in t1}) == 1
    return is_one_name and all(known) and known == moments and max(known[0]) < min(known[1])
