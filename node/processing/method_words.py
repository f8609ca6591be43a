"""What the report says of the method that runs: with which contrasts, what is missing, why, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from node.study import Contrast, Selection

if TYPE_CHECKING:
    from node.methods.card import Card


def with_method(found: Selection, card: Card, why_missing: Callable[[], str]) -> Selection:
    """``found`` with the contrasts alone that the method of ``card`` takes, and what its reader must know of it.

    Args:
        why_missing: says why the exam lacks a contrast; called only if it lacks one.
    """
    chosen = {contrast: series for contrast, series in found.chosen.items() if contrast in card.inputs}
    cautions = []
    missing = [contrast for contrast in Contrast if contrast not in found.chosen]
    if missing:
        cautions.append(f"{_used(card, chosen)}, for the four contrasts are not all there: {why_missing()}")
    elif len(chosen) < len(found.chosen):
        cautions.append(f"{_used(card, chosen)}: the method takes no others")
    cautions += _not_given(card) if not cautions else [*_cost(card, chosen), *_not_given(card)]
    kept = {series.key for series in chosen.values()}
    note = f"not used: {card.name} does not take this contrast"
    verdicts = tuple(
        replace(each, chosen=False, note=note) if each.chosen and each.key not in kept else each
        for each in found.verdicts
    )
    return replace(found, chosen=chosen, verdicts=verdicts, cautions=(*cautions, *found.cautions))


def passed_over(used: str, before: Sequence[str], evidence: Sequence[str]) -> str:
    """Why the pack ``used`` runs and not those ``before`` it in the list: they were made for exams of another state."""
    if evidence:
        state = f"the exam is after surgery ({'; '.join(evidence)})"
        return f"{used} was chosen before {_listed(before)}: {state}"
    return f"{used} was chosen before {_listed(before)}: there is no trace of surgery in the headers"


def _used(card: Card, chosen: Collection[Contrast]) -> str:
    return f"{card.name} was used with {_listed(list(chosen))} alone"


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else str(last)


def _cost(card: Card, chosen: Collection[Contrast]) -> list[str]:
    """What was measured of volumes made with these contrasts, if it was."""
    from node.methods.card import subset_name

    measured = card.cost.get(subset_name(chosen), {})
    if not measured:
        return []
    parts = [f"{region.replace('_', ' ')} {volume_ml:.1f} mL" for region, volume_ml in measured.items()]
    return [f"with these contrasts, volumes differ from an expert's on average by: {', '.join(parts)}"]


def _not_given(card: Card) -> list[str]:
    from node.methods.contract import REGIONS

    lacking = [region.replace("_", " ") for region in REGIONS if region not in card.outputs]
    return [f"{card.name} does not outline {_listed(lacking)}"] if lacking else []
