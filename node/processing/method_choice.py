"""Which method an exam gets: of the listed packs that are installed, the first that fits its contrasts and its state.

An exam is after surgery by evidence, or before it by assumption. A pack that was made for the other state alone is
passed over, but only in favour of one that fits: if there is none, it runs, and the report has a caution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from node.config import Config
from node.errors import SelectionRefused, SelectionUndecided
from node.processing.method_words import passed_over, with_method
from node.series.by_images import Compare
from node.series.select import Choice, select
from node.series.subject import surgery_told
from node.series.vocabulary import Vocabulary, load_vocabulary
from node.study import Selection, Study

if TYPE_CHECKING:
    from node.methods.card import Card


@dataclass(frozen=True, slots=True)
class _Fit:
    """A pack that can do with what the exam holds: the selection for it, and what is known of surgery."""

    card: Card
    found: Selection
    evidence: tuple[str, ...]

    @property
    def is_made_for_it(self) -> bool:
        return self.card.is_for(bool(self.evidence))


def chosen_method(
    study: Study, config: Config, choice: Choice, compare: Compare | None, surgery_seen: Sequence[str] = ()
) -> tuple[Selection, str]:
    """The selection, and the name of the pack that runs.

    Args:
        choice: how series are chosen; its ``needed`` is that of each pack in turn.
        surgery_seen: what images show of surgery, one sentence each.

    Raises:
        SelectionRefused: no pack can do with the study; the reason is that of the first.
        SelectionUndecided: only images can tell T1 from T1c.
    """
    from node.methods.registry import cards_at_hand  # deferred, so that commands that only read start fast

    vocabulary = load_vocabulary(dict(config.series.rules))
    cards = cards_at_hand(config.segmentation.models, config.models_folder)
    states_differ = len({frozenset(card.states) for card in cards}) > 1
    fits: list[_Fit] = []
    refusal: SelectionRefused | None = None
    for card in cards:
        try:
            found = select(study, vocabulary, replace(choice, needed=card.needed), compare)
        except SelectionUndecided as error:
            if config.series.compare_images:
                raise
            refusal = refusal or SelectionRefused(str(error), error.considered)
        except SelectionRefused as error:
            refusal = refusal or error
        else:
            told = surgery_told(found) if states_differ else ()
            fits.append(_Fit(card, found, (*told, *surgery_seen)))
            if fits[-1].is_made_for_it or not states_differ:
                break
    if not fits:
        assert refusal is not None  # the config names one pack at least
        raise refusal from None
    used = next((fit for fit in fits if fit.is_made_for_it), fits[0])
    before = [fit.card.name for fit in fits[: fits.index(used)]]
    selection = with_method(used.found, used.card, lambda: _why_missing(study, vocabulary, choice))
    if before:
        words = passed_over(used.card.name, before, used.evidence)
        selection = replace(selection, cautions=(words, *selection.cautions))
    return selection, used.card.name


def pack_identity(name: str, models_folder: Path) -> str:
    """What names a pack in the digest of a request: its name, and for a pack that an admin installed its card, too.

    So another pack under the same name is another method.
    """
    from node.methods.card import read_card

    card = read_card(name, models_folder)
    if card.is_own:
        return name
    return f"{name} {hashlib.sha256(card.model_dump_json().encode()).hexdigest()}"


def _why_missing(study: Study, vocabulary: Vocabulary, choice: Choice) -> str:
    """Why the study has not all four contrasts, in the words of the selection."""
    try:
        select(study, vocabulary, choice)
    except SelectionRefused as error:
        return str(error)
    return "they lie in another frame of reference"
