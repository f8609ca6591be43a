"""Words that say whether contrast agent was given, whatever the weighting of the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from node.series.vocabulary import Word

Marker = Literal["after", "before"]

MARKING_GROUPS = frozenset(["agent", "after", "before", "without"])
"""Groups of words that say before or after contrast, beside the weighting."""

# words allowed between a negation and the agent it negates: articles and routes of administration
_BETWEEN = frozenset([
    "any", "the", "el", "la", "le", "il", "o", "a", "de", "del", "di", "du", "d", "l", "iv", "ev", "i", "e", "v", "inj",
])  # fmt: skip
_SPINE_AFTER_C = frozenset(["spine", "sp", "wirbel", "column", "vertebra"])


def read_marker(words: Sequence[Word]) -> tuple[Marker | None, str | None]:
    """The marker (before or after contrast agent) that the words give, and its evidence.

    A word for "before" outweighs an agent (``PRE_GD``), unless it refers to something else (``GD pre biopsy``): then
    there is no marker. A negation such as ``ohne`` negates only an agent that follows it.
    """
    after: str | None = None
    index = 0
    while index < len(words):
        word = words[index]
        if word.group == "before":
            behind = words[index + 1] if index + 1 < len(words) else None
            if after and behind and behind.group is None and behind.text.isalpha() and len(behind.text) > 1:
                return None, f"'{word.text} {behind.text}' beside an agent: before or after contrast is open"
            return "before", f"'{word.text}' says before contrast"
        if word.group == "without":
            agent = _agent_behind(words, index)
            if agent is not None:
                return "before", f"'{word.text} {words[agent].text}' says without contrast"
        if word.group in ("agent", "after", "T1c") and not _is_centimetre(words, index):
            after = after or f"'{word.text}' says after contrast"
        elif word.text == "c" and _is_contrast_c(words, index):
            after = after or "'C' says after contrast"
        index += 1
    if after is None and words and words[-1].text == "+":
        after = "'+' at the end says after contrast"
    return ("after", after) if after else (None, None)


def _agent_behind(words: Sequence[Word], index: int) -> int | None:
    """Index of the agent that the negation at ``index`` negates, with at most two words of `_BETWEEN` between them."""
    for position in range(index + 1, min(index + 4, len(words))):
        word = words[position]
        if word.group in ("agent", "after") or (word.text == "c" and position == index + 1):
            return position
        if word.text not in _BETWEEN:
            return None
    return None


def _is_centimetre(words: Sequence[Word], index: int) -> bool:
    return words[index].text == "cm" and index > 0 and words[index - 1].text.isdigit()


def _is_contrast_c(words: Sequence[Word], index: int) -> bool:
    """A single C means contrast unless it is the first word or denotes a vertebra (``C 5``, ``C spine``)."""
    if index == 0:
        return False
    behind = words[index + 1].text if index + 1 < len(words) else ""
    return not (behind.isdigit() or behind in _SPINE_AFTER_C)
