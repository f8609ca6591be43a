"""Classify a series by the words of one text: its weighting, before or after contrast agent, or another kind."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

from node.series.marker import MARKING_GROUPS, Marker, read_marker
from node.series.relations import without_relations
from node.series.vocabulary import OTHER, Vocabulary, Word
from node.study import Contrast

BY_WORDS, BY_SEQUENCE, BY_PHYSICS = 0.9, 0.8, 0.5
"""Confidence in a verdict by a word for the weighting, by a word for a sequence, by the timing or a common usage."""

DUAL_ECHO = "dual echo"
"""Kind of a name that means proton density and T2 alike."""

_TRANSFER = "magnetisation transfer"
# kinds that outweigh others in one name: "art TOF sub" is an angiography, "ep2d_perf" a perfusion
_PRECEDENCE = {
    kind: place for place, kind in enumerate(("angiography", "arterial spin labelling", "perfusion", "subtraction"))
}
_VERTEBRA = re.compile(r"[clt]\d{1,2}|s1")
_DIXON_PARTS = frozenset(["f", "fat", "in", "ip", "opp", "op", "oop", "out"])
_SPIN_ECHO = frozenset(
    ["tse", "fse", "se", "frfse", "propeller", "blade", "space", "spc", "cube", "vista", "view", "atse"]
)


@dataclass(frozen=True, slots=True)
class Classification:
    """The verdict on one series. ``contrast`` is None for a series that is none of the four contrasts.

    ``marker``: before or after contrast agent, as the words say, whatever the weighting; ``kind``: the kind of a series
    that is none of the four; ``elsewhere``: why the images show another body part, though their weighting is one of the
    four; ``contradicted``: why the timing contradicts ``contrast``; ``bare_name``: the words of the description without
    those that say before or after contrast.
    """

    contrast: Contrast | None
    evidence: tuple[str, ...]
    confidence: float
    marker: Marker | None = None
    kind: str | None = None
    elsewhere: str | None = None
    contradicted: str | None = None
    bare_name: tuple[str, ...] = ()


def classify_words(
    text: str, vocabulary: Vocabulary, is_mprage: bool = False, ignored: Collection[str] = ()
) -> Classification:
    """The verdict by the words of ``text`` alone; its confidence is 0 if no word decides.

    Args:
        text: the description, or another name.
        vocabulary: what words mean.
        is_mprage: the header says that the images are an MPRAGE as acquired, so "MPR" abbreviates MPRAGE.
        ignored: words, and kinds or groups of words, that are to mean nothing.
    """
    said = [
        replace(word, group="neutral", kind=None) if {word.text, word.kind, word.group} & {*ignored} else word
        for word in vocabulary.words(text)
    ]
    words = without_relations(said)
    return replace(_by_all_words(words, is_mprage), bare_name=_bare_name(words))


def _by_all_words(words: Sequence[Word], is_mprage: bool) -> Classification:
    marker, marker_evidence = read_marker(words)
    abbreviates = is_mprage and not _first(words, "T1_sequence")  # "mprage_MPR" is no MPRAGE cut short
    excluded = _excluding_word(words, marker) or (None if abbreviates else _reformat(words))
    if excluded:
        kind, evidence = excluded
        return Classification(None, (evidence,), BY_WORDS, marker, kind)
    weighting, evidence, confidence = _weighting(words)
    if weighting is None:
        return Classification(
            None, (evidence,), 0.0 if confidence == 0 else BY_WORDS, marker, "unclear" if confidence else None
        )
    if weighting is Contrast.T1:
        texts = (evidence, marker_evidence) if marker_evidence else (evidence,)
        weighting = Contrast.T1C if marker == "after" else weighting
    else:
        texts = (evidence, f"{marker_evidence}; {weighting} keeps its weighting") if marker_evidence else (evidence,)
    return Classification(weighting, texts, confidence, marker, elsewhere=_vertebrae(words))


def _bare_name(words: Sequence[Word]) -> tuple[str, ...]:
    """The words without those that say before or after contrast ("t1c" counts as "t1")."""
    kept = [word for word in words if word.group not in MARKING_GROUPS and word.text not in ("+", "c")]
    return tuple("t1" if word.group == "T1c" else word.text for word in kept)


def _first(words: Sequence[Word], *groups: str) -> Word | None:
    return next((word for word in words if word.group in groups), None)


def _weighting(words: Sequence[Word]) -> tuple[Contrast | None, str, float]:
    """(weighting, evidence, confidence).

    Without a weighting, the confidence is 0 if no word decides, above 0 if the words contradict each other or mean T2*.
    """
    t1, t2 = _first(words, "T1", "T1c"), _first(words, "T2")
    flair, inversion = _first(words, "FLAIR"), _first(words, "inversion")
    sequence = _first(words, "T1_sequence")
    if t1 and t2:
        return None, f"'{t1.text}' and '{t2.text}' in one name: undecided", BY_WORDS
    if t1:
        suffix = f", and '{(flair or inversion).text}' with T1 stays T1" if flair or inversion else ""  # type: ignore[union-attr]
        return Contrast.T1, f"'{t1.text}' reads as T1{suffix}", BY_WORDS
    if flair:
        return Contrast.FLAIR, f"'{flair.text}' reads as FLAIR", BY_WORDS
    if t2 and inversion:
        return Contrast.FLAIR, f"'{t2.text}' with '{inversion.text}' reads as FLAIR", BY_SEQUENCE
    if t2:
        gradient = _first(words, "gradient_echo")
        if gradient and not any(word.text in _SPIN_ECHO for word in words):
            return None, f"'{t2.text}' with '{gradient.text}' is T2*", BY_WORDS
        return Contrast.T2, f"'{t2.text}' reads as T2", BY_WORDS
    if sequence:
        return Contrast.T1, f"'{sequence.text}' is a T1 sequence", BY_SEQUENCE
    navigation = _first(words, "navigation")
    if navigation:
        return Contrast.T1, f"'{navigation.text}' is usually a T1 volume for navigation", BY_PHYSICS
    return None, "no word of the description tells the weighting", 0.0


def _excluding_word(words: Sequence[Word], marker: Marker | None) -> tuple[str, str] | None:
    """(kind, evidence) if a word shows that the series is none of the four contrasts, whatever the other words."""
    # magnetisation transfer darkens the brain to show enhancement better, so after contrast it is a T1c, not excluded
    allowed = (_TRANSFER,) if marker == "after" else ()
    others = [word for word in words if word.group == OTHER and word.kind not in allowed]
    if others:
        other = min(others, key=lambda word: _PRECEDENCE.get(word.kind or "", len(_PRECEDENCE)))
        t2 = _first(words, "T2")
        if t2 and {word.kind for word in others} == {"proton density"}:
            return DUAL_ECHO, f"'{t2.text}' and '{other.text}' in one name read as {DUAL_ECHO}"
        return other.kind or OTHER, f"'{other.text}' reads as {other.kind or OTHER}"
    return _difference(words, marker) or _dixon_part(words) or _spine_letters(words)


def _difference(words: Sequence[Word], marker: Marker | None) -> tuple[str, str] | None:
    """(kind, evidence) for a name like ``T1 KM - T1 nativ``: T1 twice, with and without contrast agent."""
    is_twice = sum(word.group in ("T1", "T1c") for word in words) > 1
    if is_twice and marker == "before" and _first(words, "agent", "after", "T1c"):
        return "subtraction", "T1 is named twice, with and without contrast agent: a subtraction"
    return None


def _vertebrae(words: Sequence[Word]) -> str | None:
    """Evidence for another body part: two vertebrae in a row (``C5-C7``, ``L4/L5``, ``L5-S1``), else None."""
    for pair in pairwise(words):
        if all(word.group is None and _VERTEBRA.fullmatch(word.text) for word in pair):
            return f"'{pair[0].text} {pair[1].text}' are vertebrae: another body part"
    return None


def _spine_letters(words: Sequence[Word]) -> tuple[str, str] | None:
    """(kind, evidence) for parts of the spine as letters: ``C/T/L``, ``T-L``, or ``C/T`` of a sagittal series.

    Elsewhere, C and T mean other things: T is transversal at the end of a name of Philips, C contrast agent.
    """
    letters = [word.text for word in words]
    is_sagittal = not {"sag", "sagittal", "sagi", "sagit"}.isdisjoint(letters)
    for start in range(len(letters)):
        run = list(takewhile(lambda letter: letter in ("c", "t", "l", "s"), letters[start:]))
        is_spine = "l" in run or (run[:2] == ["c", "t"] and (is_sagittal or start == 0))
        if len(run) > 1 and is_spine and run == sorted(run, key="ctls".index):
            return "another body part", f"'{' '.join(run)}' reads as parts of the spine"
    return None


def _dixon_part(words: Sequence[Word]) -> tuple[str, str] | None:
    if len(words) < 2:
        return None
    if words[0].text == "fat":  # "FAT: Ax T1 Flex", whose image is "WATER: ..."; a term for fat suppression is one word
        return "Dixon part", "'fat' at the beginning is one part of a Dixon series"
    last, is_spin_echo = words[-1].text, any(word.text in _SPIN_ECHO for word in words)
    dixon = _first(words, "dixon")
    is_water = last in ("w", "water") and words[-2].group not in ("T1", "T2") and not is_spin_echo
    is_dixon = dixon is not None or _has(words, "vibe", "lava", "flex", "ideal")
    is_part = last in _DIXON_PARTS and words[-1].group is None
    if is_dixon and (is_part or is_water):
        return "Dixon part", f"'{last}' at the end is one part of a Dixon series"
    return None


def _has(words: Sequence[Word], *texts: str) -> bool:
    return any(word.text in texts for word in words)


def _reformat(words: Sequence[Word]) -> tuple[str, str] | None:
    """(kind, evidence) of a reformat: "MPR" followed only by planes, or not directly after T1.

    "MPR" directly after T1 stands for MPRAGE otherwise (``t1_mpr_ns_sag``).
    """
    positions = [index for index, word in enumerate(words) if word.group == "mpr"]
    found = (_reformat_at(words, position) for position in positions)
    return next((each for each in found if each), None)


def _reformat_at(words: Sequence[Word], position: int) -> tuple[str, str] | None:
    behind = words[position + 1 :]
    only_plane = bool(behind) and all(word.group == "plane" for word in behind)
    before = [word for word in words[:position] if word.text not in ("w", "3d", "wi")]
    after_t1 = bool(before) and before[-1].group in ("T1", "T1c")
    if only_plane or not after_t1:
        return "reformat", "'MPR' reads as a multiplanar reformat"
    return None
