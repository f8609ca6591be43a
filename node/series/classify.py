"""Classify one series by its description; the timing attributes confirm or contradict the result.

Word rules (``vocabulary.toml``) decide by the description. TR, TE, TI and Image Type confirm that verdict, contradict
it (the contradiction is shown, and confidence falls below :data:`DECIDED`), or decide with low confidence when no word
does.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.errors import ConfigError
from node.series import physics
from node.series.facts import SeriesFacts
from node.series.settle import BY_FACTS, SINGLE_SHOT, covers_brain, is_single_shot, settle_by_facts
from node.series.vocabulary import OTHER, Vocabulary, load_vocabulary, tokens
from node.series.words import BY_PHYSICS, BY_WORDS, Classification, classify_words
from node.study import Contrast

DECIDED = 0.4  # below it, words and timing contradict each other: the series is shown, but never chosen
_CONFIRMED, _CONTRADICTED = 0.98, 0.2

# values of Contrast/Bolus Agent that mean no agent: _NOTHING as the first word, _NO_AGENT as any word
_NOTHING = frozenset(
    ["0", "n", "na", "nil", "no", "non", "nein", "nej", "w", "wo", "o", "s", "x", "unknown", "pre", "null"]
)
_NO_AGENT = frozenset([
    "none", "without", "not", "ohne", "kein", "keine", "keiner", "nativ", "native", "sans", "aucun", "sin", "ninguno",
    "ninguna", "sem", "nenhum", "senza", "nessuno", "nessun", "geen", "zonder", "inget", "ingen", "utan", "uten",
    "uden", "ilman", "brak", "bez", "zadny", "nincs", "без", "нет", "yok", "无", "無", "なし", "없음",
])  # fmt: skip


def classify_description(
    description: str | None, facts: SeriesFacts | None, vocabulary: Vocabulary, ignored: Collection[str] = ()
) -> Classification:
    """Classify one series by its description, checked against its header.

    If no word of the description decides, Protocol Name (0018,1030) and then Sequence Name (0018,0024) are read, with
    less confidence. ``ignored``: words that are to mean nothing, because they name the whole examination.
    """
    found = classify_words(description or "", vocabulary, facts is not None and physics.is_mprage(facts), ignored)
    if facts is None:
        return found
    by_words = found
    found = _single_shot(settle_by_facts(found, description or "", facts, vocabulary, ignored), facts, vocabulary)
    limit = 1.0 if found is by_words or found.contrast is None else found.confidence
    by_header = physics.kind_by_header(facts)
    if by_header:
        kind = found.kind if by_header[0] == "echo planar" and found.kind else by_header[0]  # a perfusion, say
        return Classification(None, (by_header[1], *found.evidence), 0.95, found.marker, kind)
    for name, text in (("Protocol Name", facts.protocol_name), ("Sequence Name", facts.sequence_name)):
        if text and found.contrast is None and found.kind is None:
            found = _with_other_words(found, name, classify_words(text, vocabulary))
    found = _with_agent(_with_physics(found, facts), facts)
    return replace(found, confidence=min(found.confidence, limit))


def _single_shot(found: Classification, facts: SeriesFacts, vocabulary: Vocabulary) -> Classification:
    """``found``, unless Sequence Name says that its T2 is a single shot: then one of low confidence, or a localizer."""
    if found.contrast is not Contrast.T2 or not is_single_shot(facts, vocabulary):
        return found
    evidence = (*found.evidence, f"Sequence Name {facts.sequence_name} is that of a single shot")
    if covers_brain(facts):
        return replace(found, evidence=evidence, confidence=min(found.confidence, BY_FACTS))
    return Classification(None, evidence, BY_WORDS, found.marker, SINGLE_SHOT)


def _with_other_words(found: Classification, name: str, other: Classification) -> Classification:
    """The classification by the words of attribute ``name`` if they decide something, else ``found``."""
    if other.contrast is None and other.kind is None:
        return found
    evidence = tuple(f"{name}: {text}" for text in other.evidence)
    marker = found.marker or other.marker
    contrast = Contrast.T1C if other.contrast is Contrast.T1 and marker == "after" else other.contrast
    return replace(other, contrast=contrast, evidence=evidence, confidence=other.confidence - 0.2, marker=marker)


def is_unknown(description: str, facts: SeriesFacts, vocabulary: Vocabulary) -> bool:
    """True if neither a word nor the header decides which of the four contrasts, or which other kind, a series is."""
    texts = (description, facts.protocol_name, facts.sequence_name)
    found = [classify_words(text or "", vocabulary) for text in texts]
    is_told = any(one.contrast is not None or one.kind is not None for one in found)
    return not is_told and physics.kind_by_header(facts) is None


def classify_text(description: str, columns: Mapping[str, str], vocabulary: Vocabulary | None = None) -> str:
    """The label for ``glionode classify``: T1, T1c, T2, FLAIR or other.

    ``columns`` may hold attributes by keyword (EchoTime, RepetitionTime, ContrastBolusAgent, ...); others are ignored.
    """
    found = classify_description(description, _facts_of(columns), vocabulary or load_vocabulary())
    return str(found.contrast) if found.contrast else OTHER


def classify_csv(source: Path, out: Path, vocabulary: Vocabulary) -> int:
    """Copy the CSV ``source`` to ``out`` with a column ``predicted``; return the number of rows.

    Raises:
        ConfigError: the file is not UTF-8, or has no column ``description``.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{source}: not a CSV in UTF-8: {error}") from None
    columns = list(reader.fieldnames or ())
    if "description" not in columns:
        raise ConfigError(f"{source}: no column 'description'; the columns are {', '.join(columns) or 'none'}")
    with out.open("w", encoding="utf-8", newline="") as stream:
        names = [name for name in columns if name != "predicted"] + ["predicted"]
        writer = csv.DictWriter(stream, names, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "predicted": classify_text(row["description"] or "", row, vocabulary)})
    return len(rows)


def _with_physics(found: Classification, facts: SeriesFacts) -> Classification:
    timing = physics.timing(facts)
    if found.contrast is None:
        by_physics = physics.contrast_by_physics(facts) if found.kind is None else None
        if by_physics is None:
            return found
        contrast = Contrast.T1C if by_physics is Contrast.T1 and found.marker == "after" else by_physics
        evidence = (*found.evidence, f"{timing}: the timing of {by_physics}")
        return replace(found, contrast=contrast, evidence=evidence, confidence=BY_PHYSICS)
    te, ti = facts.echo_time_ms, facts.inversion_time_ms or 0.0
    if found.contrast is Contrast.FLAIR and te is not None and te < physics.SHORT_TE_MS and ti < physics.FLUID_TI_MS:
        contrast = Contrast.T1C if found.marker == "after" else Contrast.T1
        return replace(found, contrast=contrast, evidence=(*found.evidence, f"{timing}: a T1-FLAIR"), confidence=0.7)
    if found.contrast is Contrast.T2 and physics.is_gradient_echo(facts):
        return Classification(
            None, (*found.evidence, f"{timing}: a gradient echo, T2*"), BY_WORDS, found.marker, "susceptibility"
        )
    against = physics.contradiction(found.contrast, facts)
    if against:
        text = f"contradicted: {against} ({timing})"
        return replace(found, evidence=(*found.evidence, text), confidence=_CONTRADICTED, contradicted=text)
    base = Contrast.T1 if found.contrast is Contrast.T1C else found.contrast
    if physics.contrast_by_physics(facts) is base:
        return replace(
            found, evidence=(*found.evidence, f"{timing} agree"), confidence=max(found.confidence, _CONFIRMED)
        )
    return found


def _with_agent(found: Classification, facts: SeriesFacts) -> Classification:
    """Contrast/Bolus Agent (0018,0010) makes an unmarked T1 a T1c; if a word says before contrast, it is only shown."""
    agent = named_agent(facts)
    if agent is None or found.contrast not in (Contrast.T1, Contrast.T1C):
        return found
    evidence = (*found.evidence, f"Contrast/Bolus Agent is '{agent}'")
    if found.marker == "before":
        return replace(found, evidence=(*evidence[:-1], evidence[-1] + ", but the words say before"))
    return replace(found, contrast=Contrast.T1C, evidence=evidence)


def named_agent(facts: SeriesFacts) -> str | None:
    """Contrast/Bolus Agent (0018,0010) if it names an agent; None if it is empty or says that there was none."""
    agent = facts.contrast_bolus_agent
    said = tokens(agent) if agent else []
    is_none = not said or said[0] in _NOTHING or not _NO_AGENT.isdisjoint(said)
    return None if is_none else agent


def _facts_of(columns: Mapping[str, Any]) -> SeriesFacts:
    def text(keyword: str) -> str | None:
        return str(columns.get(keyword) or "").strip() or None

    def number(keyword: str) -> float | None:
        try:
            value = float(text(keyword) or "")
        except ValueError:
            return None
        return value if abs(value) < float("inf") else None

    def values(keyword: str) -> tuple[str, ...]:
        raw = (text(keyword) or "").strip("[]").replace("'", "").replace(",", "\\").split("\\")
        return tuple(part.strip().upper() for part in raw if part.strip())

    return SeriesFacts(
        protocol_name=text("ProtocolName"),
        sequence_name=text("SequenceName"),
        scanning_sequence=values("ScanningSequence"),
        image_type=values("ImageType"),
        echo_time_ms=number("EchoTime"),
        repetition_time_ms=number("RepetitionTime"),
        inversion_time_ms=number("InversionTime"),
        flip_angle=number("FlipAngle"),
        contrast_bolus_agent=text("ContrastBolusAgent"),
        diffusion_b_value=number("DiffusionBValue"),
    )
