"""Words of a description that speak of something else than the series itself: what it is acquired for or before.

"T2 pre spectroscopy" is a T2, "W/WO CONTRAST" names the examination, and "brain & neck" shows the brain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from node.series.vocabulary import OTHER, Word

# other examinations that a series of the four is acquired before, after or for
_PREPARED = frozenset(["spectroscopy", "functional", "diffusion", "arterial spin labelling"])
_WITH_AGENT = frozenset(["perfusion"])  # "pre perfusion" is before contrast agent as well
_PURPOSES = _PREPARED | _WITH_AGENT | {"map"}
_BEFORE_OR_AFTER = frozenset(
    ["pre", "post", "pos", "before", "after", "avant", "apres", "vor", "nach", "antes", "despues", "depois", "prima",
     "dopo", "przed", "po", "pred", "efter", "etter", "voor", "inainte", "dupa", "oncesi", "sonrasi", "перед", "после"]
)  # fmt: skip
_ARTICLES = frozenset(
    ["the", "la", "le", "el", "il", "der", "die", "das", "de", "a", "and", "y", "e", "et", "und", "i", "en"]
)

_HEAD = frozenset(
    ["brain", "head", "cranio", "craneo", "cranial", "cranium", "encephale", "cerebro", "cabeza", "cabeca", "kopf",
     "schadel", "gehirn", "tete", "crane", "cerveau", "testa", "cranio", "encefalo", "hoofd", "hersenen", "hoved",
     "hode", "huvud", "glowa", "hlava", "kafa", "beyin", "голова", "головы", "мозг"]
)  # fmt: skip
_NECK = frozenset(
    ["neck", "hals", "cou", "cuello", "collo", "pescoco", "nek", "boyun", "szyja", "szyi", "krk", "шея", "шеи"]
)

_DIRECTIONS = frozenset(["dorsal"])  # the thoracic spine, but a direction in a name that says head or brain


def without_relations(words: Sequence[Word]) -> list[Word]:
    """``words``, with those that say nothing of the series itself made neutral."""
    return list(_related(words))


def _related(words: Sequence[Word]) -> Iterator[Word]:
    index = 0
    while index < len(words):
        word = words[index]
        target = _next_word(words, index)
        if (
            (word.group == "both" and target and words[target].group == "agent")
            or (word.group == "purpose" and target and words[target].kind in _PURPOSES)
            or (word.text in _BEFORE_OR_AFTER and target and words[target].kind in _PREPARED)
        ):
            yield from map(_neutral, words[index : target + 1])
            index = target
        elif word.text in _BEFORE_OR_AFTER and target and words[target].kind in _WITH_AGENT:
            yield word
            yield from map(_neutral, words[index + 1 : target + 1])
            index = target
        elif word.group == OTHER and (
            (word.text in _NECK and _is_beside_head(words, index))
            or (word.text in _DIRECTIONS and any(each.text in _HEAD for each in words))
        ):
            yield _neutral(word)
        else:
            yield word
        index += 1


def _next_word(words: Sequence[Word], index: int) -> int | None:
    """Index of the word behind the one at ``index`` that is no article, or None."""
    return next((place for place in range(index + 1, len(words)) if words[place].text not in _ARTICLES), None)


def _is_beside_head(words: Sequence[Word], index: int) -> bool:
    """True if the word before or after, articles left out, names the head: "head and neck"."""
    before = next((words[place] for place in range(index - 1, -1, -1) if words[place].text not in _ARTICLES), None)
    behind = _next_word(words, index)
    return any(word is not None and word.text in _HEAD for word in (before, words[behind] if behind else None))


def _neutral(word: Word) -> Word:
    return replace(word, group="neutral", kind=None)
