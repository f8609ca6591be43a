"""Whether a series shows the brain, by Body Part Examined and by the position of the study's other series."""

from __future__ import annotations

from node.series.facts import Box, SeriesFacts
from node.series.vocabulary import Vocabulary, plain, tokens

_HEAD = (
    "head", "brain", "skull", "neuro", "crani", "crane", "schadel", "kopf", "tete", "cabeza", "cabeca", "cereb",
    "enceph", "encef", "orbit", "pituitary", "hoofd", "cerveau", "gehirn", "hirn", "hjarna",
    "hjerne", "aivo", "glow", "mozg", "mozek", "hlava", "koponya", "kafa", "beyin", "голов",
    "мозг", "头", "頭", "脑", "脳",
)  # fmt: skip
_HEAD_WHOLE = frozenset(["iac", "testa", "capo"])  # matched as whole words: "cardiac" and "iliac" contain "iac"
_ANOTHER = "another body part"
_OVERLAP = 0.5


def is_other_body_part(facts: SeriesFacts, vocabulary: Vocabulary) -> bool:
    """True if Body Part Examined (0018,0015) names a known body part other than the head; unknown words are ignored."""
    part = plain(facts.body_part_examined or "")
    if any(word in part for word in _HEAD) or not _HEAD_WHOLE.isdisjoint(tokens(part)):
        return False
    return any(word.kind == _ANOTHER for word in vocabulary.words(part))


def lies_elsewhere(box: Box | None, brain: Box | None) -> bool:
    """True if two volumes of one frame of reference overlap by less than half the height of the shorter one.

    Height is measured from feet to head (the third LPS coordinate), since head and neck are often examined together.
    """
    if box is None or brain is None:
        return False
    low, high = max(box[0][2], brain[0][2]), min(box[1][2], brain[1][2])
    height = min(box[1][2] - box[0][2], brain[1][2] - brain[0][2])
    return height > 0 and high - low < _OVERLAP * height
