"""Choose one series per contrast and explain the choice, or refuse the study with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from node.errors import InstanceRefused, SelectionRefused, SelectionUndecided
from node.series.body_part import lies_elsewhere
from node.series.by_hand import EVIDENCE, assign_by_hand
from node.series.by_images import Compare
from node.series.candidate import Candidate, make_candidate, verdict
from node.series.cautions import cautions_on
from node.series.facts import FactsByKey, SeriesFacts
from node.series.flair import settle_flair
from node.series.injection import resolve
from node.series.missing import T1_FAMILY, images_may_decide, missing_text
from node.series.order import open_reason
from node.series.part_reader import read_parts
from node.series.protocol_words import words_of_protocol
from node.series.ranking import Entry, first_difference, rank, shortfall_of
from node.series.signs import OtherSeries
from node.series.twins import SESSION, T1Series, comparable
from node.series.vocabulary import Vocabulary
from node.study import Contrast, Selection, Series, Study


@dataclass(frozen=True, slots=True)
class Choice:
    """Requirements on a selection.

    Attributes:
        needed: contrasts that the selection must contain; others are chosen if the study has them.
        use: contrast to Series Instance UID, or series number as text; this choice of a user overrides all evidence.
        shortfall: for a series below the method's data requirements: "caution" adds a caution, "refuse" excludes it.
        unusable: by `Series.key`, why a series cannot become a volume, as its pixels showed.
    """

    needed: tuple[Contrast, ...] = tuple(Contrast)
    use: Mapping[Contrast, str] = field(default_factory=dict)
    shortfall: Literal["caution", "refuse"] = "caution"
    unusable: Mapping[tuple[str, str], str] = field(default_factory=dict)


def select(
    study: Study, vocabulary: Vocabulary, choice: Choice | None = None, compare: Compare | None = None
) -> Selection:
    """Choose the series of ``study`` to segment, one per contrast, each with its evidence.

    Args:
        compare: determines from images which of two T1 series is after contrast; called only if the headers do not
            yield a selection.

    Raises:
        InstanceRefused: a file cannot be read: its series is unknown, so no series is known to be complete.
        SelectionRefused: no brain MR, a contrast missing or undecided, two frames of reference, or a series chosen by
            hand that does not exist or cannot be used; the error names series and carries the verdict on each.
        SelectionUndecided: the headers yield no selection, but with ``compare`` there may be one.
    """
    if study.unreadable:
        name, reason = study.unreadable[0]
        more = f" (and {len(study.unreadable) - 1} more)" if len(study.unreadable) > 1 else ""
        raise InstanceRefused(f"file {name} cannot be read: {reason}{more}; the study cannot be known to be complete")
    members: list[Series] = []
    facts: dict[tuple[str, str], SeriesFacts] = {}
    for series in study.series:
        for part, found in read_parts(series, study, vocabulary):
            members.append(part)
            if found is not None:
                facts[part.key] = found
    return select_by_facts(replace(study, series=tuple(members)), facts, vocabulary, choice, compare)


def select_by_facts(
    study: Study,
    facts: FactsByKey,
    vocabulary: Vocabulary,
    choice: Choice | None = None,
    compare: Compare | None = None,
) -> Selection:
    """As :func:`select`, with the facts of every MR series given (by `Series.key`). No input or output."""
    try:
        return _selection(study, facts, vocabulary, choice or Choice(), None)
    except SelectionUndecided:
        if compare is None:
            raise
    return _selection(study, facts, vocabulary, choice or Choice(), compare)


def _selection(
    study: Study,
    facts: FactsByKey,
    vocabulary: Vocabulary,
    choice: Choice,
    compare: Compare | None,
) -> Selection:
    in_order = sorted(study.series, key=_place)  # the order of arrival changes no word of the result
    pairs = [(series, _known(series, facts, choice)) for series in in_order]
    candidates = [make_candidate(*pair, vocabulary) for pair in pairs]
    ignored = words_of_protocol(candidates, vocabulary)
    if ignored:
        candidates = [make_candidate(*pair, vocabulary, ignored) for pair in pairs]
    try:
        return _decide(study, candidates, choice, compare)
    except SelectionRefused as error:
        verdicts = tuple(verdict(one, is_chosen=False) for one in candidates)
        error.considered = Selection(study.study_instance_uid, {}, verdicts)
        raise


def _known(series: Series, facts: FactsByKey, choice: Choice) -> SeriesFacts | None:
    """The facts of ``series``; what its pixels showed counts as irregularity."""
    found = facts.get(series.key)
    reason = choice.unusable.get(series.key)
    return found if found is None or reason is None else replace(found, irregularity=reason)


def _place(series: Series) -> tuple[bool, int, str]:
    return series.series_number is None, series.series_number or 0, series.series_instance_uid


def _decide(study: Study, candidates: Sequence[Candidate], choice: Choice, compare: Compare | None) -> Selection:
    if not any(one.facts for one in candidates):
        held = ", ".join(sorted({series.modality for series in study.series}))
        raise SelectionRefused(f"not brain MR: the study holds no MR series (modality {held or 'unknown'})")
    assign_by_hand(candidates, choice.use)
    _refuse_other_body_part([one for one in candidates if one.facts and not one.is_by_hand])
    _exclude_elsewhere(candidates)
    cautions = list(_settle_contrast_agent(candidates, compare))
    settle_flair(candidates)
    if choice.shortfall == "refuse":
        _exclude_short(candidates)
    chosen = _choose(candidates, choice.needed)
    missing = [contrast for contrast in Contrast if contrast in {*choice.needed, *choice.use} - chosen.keys()]
    if missing:
        is_open = compare is None and images_may_decide(missing, candidates)
        raise (SelectionUndecided if is_open else SelectionRefused)(missing_text(missing, candidates))
    _check_frame_of_reference(chosen)
    cautions += cautions_on(chosen, candidates)
    chosen_ids = {id(one) for one in chosen.values()}
    return Selection(
        study_instance_uid=study.study_instance_uid,
        chosen={contrast: one.series for contrast, one in chosen.items()},
        verdicts=tuple(verdict(one, is_chosen=id(one) in chosen_ids) for one in candidates),
        cautions=tuple(cautions),
    )


def _refuse_other_body_part(mr: Sequence[Candidate]) -> None:
    if mr and all(one.is_elsewhere for one in mr):
        parts = ", ".join(sorted({str(one.facts.body_part_examined) for one in mr if one.facts}))
        raise SelectionRefused(
            f"not brain MR: Body Part Examined is {parts} in all {len(mr)} MR series; where that is wrong, the series "
            "can be chosen by hand"
        )


def _exclude_elsewhere(candidates: Sequence[Candidate]) -> None:
    """Exclude series that lie below the brain, whose position the FLAIR gives: it is hardly used for other parts."""
    brains = [
        (one.series.frame_of_reference_uid, one.facts.box_mm)
        for one in candidates
        if one.contrast is Contrast.FLAIR and one.facts and one.excluded is None
    ]
    for one in candidates:
        if one.facts is None or one.contrast is None or one.excluded or one.is_by_hand:
            continue
        near = [box for frame, box in brains if frame == one.series.frame_of_reference_uid]
        if near and all(lies_elsewhere(one.facts.box_mm, box) for box in near):
            one.excluded = "lies elsewhere than the FLAIR: another body part"


def _exclude_short(candidates: Sequence[Candidate]) -> None:
    """Exclude series that fall short of the method's data requirements."""
    for one in candidates:
        if one.contrast and one.facts and one.excluded is None:
            one.excluded = shortfall_of(one.contrast, one.facts)


def _settle_contrast_agent(candidates: Sequence[Candidate], compare: Compare | None) -> tuple[str, ...]:
    """Distinguish T1 from T1c; a T1 series that is like a twin and stays undecided is excluded. Returns cautions."""
    members = {
        one.series.key: T1Series(one.series, one.facts, one.classification, is_usable=one.excluded is None)
        for one in candidates
        if one.facts and one.contrast in T1_FAMILY
    }
    family = list(members.values())
    others = [OtherSeries(one.series, one.facts, one.classification.kind) for one in candidates if one.facts]
    cautions = resolve(family, others, compare)
    for one in candidates:
        member = members.get(one.series.key)
        if member is None:
            continue
        one.evidence += [text for text in member.evidence if text not in one.evidence]
        one.contrast = Contrast.T1C if member.state == "after" else Contrast.T1
        one.is_inferred = member.is_inferred
        one.may_compare = member.state is None and bool(comparable(member, family))
        reason = open_reason(member, family)
        if reason:
            one.excluded, one.is_undecided = one.excluded or reason, True
    return cautions


def _choose(candidates: Sequence[Candidate], needed: Sequence[Contrast]) -> dict[Contrast, Candidate]:
    usable = {contrast: _usable(candidates, contrast) for contrast in Contrast}
    frames_held = [{one.series.frame_of_reference_uid for one in several} for several in usable.values() if several]
    complete = set.intersection(*frames_held) if frames_held else set()
    chosen: dict[Contrast, Candidate] = {}
    for contrast in (Contrast.T1C, Contrast.T1, Contrast.T2, Contrast.FLAIR):
        reference = chosen.get(Contrast.T1C)
        frames = {reference.series.frame_of_reference_uid} if reference else complete
        pairs = [(_entry(contrast, one, frames, reference), one) for one in usable[contrast]]
        pairs.sort(key=lambda pair: rank(pair[0]), reverse=True)
        if not pairs:
            continue
        entry, best = pairs[0]
        if reference and not entry.in_frame and contrast not in needed and not best.is_by_hand:
            for _, one in pairs:
                one.note = f"not used: in another frame of reference than {reference.series.label}"
            continue
        chosen[contrast] = best
        _write_notes(pairs, [one for one in candidates if _is_out(one, contrast)])
        _note_by_hand(best, candidates)
    return {contrast: chosen[contrast] for contrast in Contrast if contrast in chosen}


def _usable(candidates: Sequence[Candidate], contrast: Contrast) -> list[Candidate]:
    """The usable candidates for ``contrast``; if a user chose one by hand, only that one."""
    members = [one for one in candidates if one.contrast is contrast]
    by_hand = [one for one in members if one.is_by_hand]
    return [one for one in by_hand or members if one.excluded is None]


def _note_by_hand(best: Candidate, candidates: Sequence[Candidate]) -> None:
    if not best.is_by_hand:
        return
    best.note = EVIDENCE
    for one in candidates:
        if one.contrast is best.contrast and one is not best and one.excluded is None:
            one.note = f"passed over for {best.series.label}: that was {EVIDENCE}"


def _entry(contrast: Contrast, one: Candidate, frames: Collection[str | None], reference: Candidate | None) -> Entry:
    facts = one.facts or SeriesFacts()
    moments = facts.acquisition_datetime, reference and reference.facts and reference.facts.acquisition_datetime
    return Entry(
        contrast,
        one.series,
        facts,
        one.classification,
        in_frame=one.series.frame_of_reference_uid in frames,
        in_session=not (moments[0] and moments[1]) or abs(moments[0] - moments[1]) <= SESSION,
        agent=one.agent,
    )


def _is_out(one: Candidate, contrast: Contrast) -> bool:
    """True if ``one`` is, or may be, of ``contrast``, but cannot be used."""
    is_member = one.contrast is contrast or (one.is_undecided and contrast in T1_FAMILY)
    return is_member and one.excluded is not None


def _write_notes(pairs: Sequence[tuple[Entry, Candidate]], out: Sequence[Candidate]) -> None:
    """Write the notes: why the first was chosen, and why the others were passed over for it; ``out``: the unusable."""
    (first, best), *others = pairs
    best.note = f"chosen: the only {first.contrast}"
    if out:
        reasons = "; ".join(f"{one.series.label}: {one.excluded}" for one in out)
        best.note = f"chosen: the only usable {first.contrast} of {len(out) + 1}; not usable: {reasons}"
    for place, (entry, one) in enumerate(others, start=1):
        better, worse = first_difference(first, entry)
        one.note = f"passed over for {best.series.label}: {worse} against {better}"
        if place == 1:
            best.note = f"chosen of {len(pairs)}: {better}; runner-up {one.series.label}: {worse}"


def _check_frame_of_reference(chosen: Mapping[Contrast, Candidate]) -> None:
    name = Contrast.T1C if Contrast.T1C in chosen else next(iter(chosen), Contrast.T1C)
    for contrast, one in chosen.items():
        if one.series.frame_of_reference_uid is None:
            raise SelectionRefused(f"{contrast} {one.series.label} lacks Frame of Reference UID (0020,0052)")
    for contrast, one in chosen.items():
        uid, reference = one.series.frame_of_reference_uid, chosen[name].series
        if uid != reference.frame_of_reference_uid:
            raise SelectionRefused(
                f"two frames of reference: {contrast} {one.series.label} and {name} {reference.label}; "
                "their positions cannot be compared"
            )
