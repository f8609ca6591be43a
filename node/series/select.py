"""Choose one series per contrast, explain the choice, or refuse with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.errors import InstanceRefused, SelectionRefused
from node.series.classify import DECIDED, Classification, classify_description
from node.series.facts import SeriesFacts
from node.series.headers import read_facts
from node.series.injection import T1Series, are_twins, resolve
from node.series.ranking import Entry, cautions_on, first_difference, rank
from node.series.vocabulary import Vocabulary
from node.study import Contrast, Selection, Series, Study, Verdict

MIN_SLICES = 8
MIN_COVERAGE_MM = 80.0  # less than any adult brain in any direction; a slab of fewer is not an image of the brain
_HEAD_WORDS = (
    "HEAD",
    "BRAIN",
    "SKULL",
    "NEURO",
    "CRANI",
    "SCHADEL",
    "SCHÄDEL",
    "KOPF",
    "TETE",
    "CABEZA",
    "CEREB",
    "ENCEPH",
    "ORBIT",
    "PITUITARY",
    "IAC",
)
_T1_FAMILY = (Contrast.T1, Contrast.T1C)


@dataclass(slots=True)
class Candidate:
    """One series on its way to a verdict."""

    series: Series
    facts: SeriesFacts | None
    classification: Classification
    contrast: Contrast | None
    evidence: list[str] = field(default_factory=list)
    excluded: str | None = None
    note: str = ""


def select(study: Study, vocabulary: Vocabulary) -> Selection:
    """The four series of ``study`` to work on, each with its evidence.

    Raises:
        InstanceRefused: a file cannot be read: its series is unknown, so none is known to be complete.
        SelectionRefused: no brain MR, a contrast missing or undecided, or two frames of reference; names series.
    """
    if study.unreadable:
        name, reason = study.unreadable[0]
        more = f" (and {len(study.unreadable) - 1} more)" if len(study.unreadable) > 1 else ""
        raise InstanceRefused(f"file {name} cannot be read: {reason}{more}; the study cannot be known to be complete")
    facts = {series.series_instance_uid: read_facts(series) for series in study.series if series.modality == "MR"}
    return select_by_facts(study, facts, vocabulary)


def select_by_facts(study: Study, facts: Mapping[str, SeriesFacts], vocabulary: Vocabulary) -> Selection:
    """As :func:`select`, with the facts of every MR series given (by Series Instance UID). No input or output."""
    if not facts:
        held = ", ".join(sorted({series.modality for series in study.series}))
        raise SelectionRefused(f"not brain MR: the study holds no MR series (modality {held or 'unknown'})")
    candidates = [_candidate(series, facts.get(series.series_instance_uid), vocabulary) for series in study.series]
    _refuse_other_body_part([one for one in candidates if one.facts])
    cautions = list(_settle_contrast_agent(candidates))
    chosen = _choose(candidates)
    missing = [contrast for contrast in Contrast if contrast not in chosen]
    if missing:
        raise SelectionRefused(_missing_text(missing, candidates))
    _check_frame_of_reference(chosen)
    for contrast, one in chosen.items():
        cautions += cautions_on(_entry(contrast, one, in_frame=True))
    return Selection(
        study_instance_uid=study.study_instance_uid,
        chosen={contrast: one.series for contrast, one in chosen.items()},
        verdicts=tuple(_verdict(one, chosen) for one in candidates),
        cautions=tuple(cautions),
    )


def _candidate(series: Series, facts: SeriesFacts | None, vocabulary: Vocabulary) -> Candidate:
    if facts is None:
        nothing = Classification(None, (), 0.0)
        return Candidate(
            series, None, nothing, None, [], f"modality {series.modality}", f"ignored: modality {series.modality}"
        )
    found = classify_description(series.series_description, facts, vocabulary)
    one = Candidate(series, facts, found, found.contrast, list(found.evidence))
    one.excluded = _exclusion(facts, found)
    return one


def _exclusion(facts: SeriesFacts, found: Classification) -> str | None:
    """Why a series of the right contrast cannot be used, or None."""
    if _is_other_body_part(facts):
        return f"Body Part Examined is {facts.body_part_examined}"
    if found.contrast is None:
        return None
    if found.confidence < DECIDED:
        return found.evidence[-1]
    if facts.images_per_position is not None and facts.images_per_position > 1:
        return f"holds {facts.images_per_position:.3g} images per slice position: not one volume"
    if facts.slice_count is not None and facts.slice_count < MIN_SLICES:
        return f"has only {facts.slice_count} slices"
    if facts.coverage_mm is not None and facts.coverage_mm < MIN_COVERAGE_MM:
        return f"covers only {facts.coverage_mm:.0f} mm: not the whole brain"
    return None


def _is_other_body_part(facts: SeriesFacts) -> bool:
    part = facts.body_part_examined
    return part is not None and not any(word in part.upper() for word in _HEAD_WORDS)


def _refuse_other_body_part(mr: Sequence[Candidate]) -> None:
    stated = {one.facts.body_part_examined for one in mr if one.facts and _is_other_body_part(one.facts)}
    if stated and all(one.facts and _is_other_body_part(one.facts) for one in mr):
        parts = ", ".join(sorted(part for part in stated if part))
        raise SelectionRefused(f"not brain MR: Body Part Examined is {parts} in all {len(mr)} MR series")


def _settle_contrast_agent(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Tell T1 from T1c; a T1 series whose state stays open belongs to neither."""
    members = {
        one.series.series_instance_uid: T1Series(one.series, one.facts, one.classification)
        for one in candidates
        if one.facts and one.contrast in _T1_FAMILY
    }
    family = list(members.values())
    cautions = resolve(family, [one.classification.kind for one in candidates])
    for one in candidates:
        member = members.get(one.series.series_instance_uid)
        if member is None:
            continue
        twins = [other for other in family if are_twins(member, other)]
        one.evidence += [text for text in member.evidence if text not in one.evidence]
        one.contrast = Contrast.T1C if member.state == "after" else Contrast.T1
        if member.state is None and twins:
            names = " and ".join(sorted({member.series.label, *(twin.series.label for twin in twins)}))
            one.excluded = (
                f"undecided before or after contrast: {names} are alike; no word, bolus tag, overlay or order tells"
            )
    return cautions


def _choose(candidates: Sequence[Candidate]) -> dict[Contrast, Candidate]:
    usable = {
        contrast: [one for one in candidates if one.contrast is contrast and one.excluded is None]
        for contrast in Contrast
    }
    complete = set.intersection(
        *({one.series.frame_of_reference_uid for one in usable[contrast]} for contrast in Contrast)
    )
    chosen: dict[Contrast, Candidate] = {}
    for contrast in (Contrast.T1C, Contrast.T1, Contrast.T2, Contrast.FLAIR):
        reference = chosen.get(Contrast.T1C)
        frames = {reference.series.frame_of_reference_uid} if reference else complete
        entries = {
            one.series.series_instance_uid: _entry(contrast, one, in_frame=one.series.frame_of_reference_uid in frames)
            for one in usable[contrast]
        }
        ordered = sorted(usable[contrast], key=lambda one: rank(entries[one.series.series_instance_uid]), reverse=True)
        if ordered:
            chosen[contrast] = ordered[0]
            _write_notes(ordered, [entries[one.series.series_instance_uid] for one in ordered])
    return {contrast: chosen[contrast] for contrast in Contrast if contrast in chosen}


def _entry(contrast: Contrast, one: Candidate, *, in_frame: bool) -> Entry:
    return Entry(contrast, one.series, one.facts or SeriesFacts(), one.classification, in_frame)


def _write_notes(ordered: Sequence[Candidate], entries: Sequence[Entry]) -> None:
    best = ordered[0]
    best.note = f"chosen: the only {entries[0].contrast}"
    for place, one in enumerate(ordered[1:], start=1):
        better, worse = first_difference(entries[0], entries[place])
        one.note = f"passed over for {best.series.label}: {worse} against {better}"
        if place == 1:
            best.note = f"chosen of {len(ordered)}: {better}; runner-up {one.series.label}: {worse}"


def _missing_text(missing: Sequence[Contrast], candidates: Sequence[Candidate]) -> str:
    """For example ``no FLAIR: of 5 MR series none reads as FLAIR; nearest: series 301 ... . Seen: ...``."""
    mr = [one for one in candidates if one.facts]
    seen = ", ".join(one.series.label for one in mr[:12]) + (", ..." if len(mr) > 12 else "")
    reasons = [_why_missing(contrast, mr) for contrast in missing]
    return f"{'; '.join(dict.fromkeys(reasons))}. Seen: {seen}"


def _why_missing(contrast: Contrast, mr: Sequence[Candidate]) -> str:
    unusable = [one for one in mr if one.contrast is contrast and one.excluded]
    undecided = [one for one in mr if one.contrast in _T1_FAMILY and one.excluded and "undecided" in one.excluded]
    if unusable or (contrast is Contrast.T1C and undecided):
        one = (unusable or undecided)[0]
        return f"no {contrast}: {one.series.label}: {one.excluded}"
    related = _T1_FAMILY if contrast in _T1_FAMILY else (Contrast.T2, Contrast.FLAIR)
    name = str(contrast)[:2].casefold()
    nearest = [
        *(one for one in mr if one.contrast in related),
        *(one for one in mr if name in (one.series.series_description or "").casefold()),
        *(one for one in mr if one.classification.kind == "unclear"),
    ]
    text = f"; nearest: {nearest[0].series.label}, {nearest[0].evidence[0]}" if nearest and nearest[0].evidence else ""
    return f"no {contrast}: of {len(mr)} MR series none reads as {contrast}{text}"


def _check_frame_of_reference(chosen: Mapping[Contrast, Candidate]) -> None:
    reference = chosen[Contrast.T1C]
    for contrast, one in chosen.items():
        uid = one.series.frame_of_reference_uid
        if uid is None:
            raise SelectionRefused(f"{contrast} {one.series.label} lacks Frame of Reference UID (0020,0052)")
        if uid != reference.series.frame_of_reference_uid:
            raise SelectionRefused(
                f"two frames of reference: {contrast} {one.series.label} and T1c {reference.series.label}; "
                "their positions cannot be compared"
            )


def _verdict(one: Candidate, chosen: Mapping[Contrast, Candidate]) -> Verdict:
    is_chosen = any(one is other for other in chosen.values())
    note = one.note or (f"not usable: {one.excluded}" if one.excluded else "none of the four contrasts")
    return Verdict(
        series_instance_uid=one.series.series_instance_uid,
        series_number=one.series.series_number,
        series_description=one.series.series_description,
        contrast=one.contrast,
        evidence=tuple(one.evidence),
        chosen=is_chosen,
        note=note,
    )
