"""Series descriptions that no known word decides, collected so that an admin can add rules for them. No patient data.

They are kept in one JSON file, ``{description: {count, first_seen, last_seen, physics}}``. It is written to a temporary
file and renamed under a lock, since several processes may collect at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import structlog

from node.dicom.aside_file import written_aside
from node.errors import ConfigError, InstanceRefused
from node.series.body_part import is_other_body_part
from node.series.classify import is_unknown
from node.series.fact_reader import read_first_facts
from node.series.facts import SeriesFacts
from node.series.patient import holds_patient_data, read_patient_values
from node.series.physics import contrast_by_physics
from node.series.vocabulary import Vocabulary, tokens
from node.study import Series, Study

log = structlog.get_logger()

MOST_ENTRIES = 5_000
_LONGEST_DESCRIPTION = 64  # SeriesDescription is LO (PS3.5 6.2)
_NUMBER = re.compile(r"\d{5,}")  # long enough to be an identity
_WORDS_PER_TERM = 4


@dataclass(frozen=True, slots=True)
class UnknownDescription:
    """A description that no word decides: how often and on which days (ISO 8601) it was seen, and the contrast that
    the timing suggests.
    """

    description: str
    count: int
    first_seen: str
    last_seen: str
    physics: str | None


def collect(file: Path, study: Study, vocabulary: Vocabulary, today: date | None = None) -> int:
    """Add the undecided descriptions of ``study`` to ``file``; return how many series had one.

    Call it after each selection, successful or refused. File and disk errors are logged, not raised. A description
    that holds a word of the patient's identity is not kept; runs of five or more digits become ``#``.
    """
    found: list[tuple[str, str | None]] = []
    for series in study.series:
        if series.modality == "MR" and series.series_description:
            found += _undecided(series, series.series_description, vocabulary)
    if not found:
        return 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            _write(file, _merged(read_unknown(file), found, (today or date.today()).isoformat()))
    except (OSError, ConfigError) as error:
        log.warning("unknown_descriptions_not_kept", file=file.name, reason=str(error))
        return 0
    return len(found)


def read_unknown(file: Path) -> tuple[UnknownDescription, ...]:
    """The descriptions collected in ``file``, the most frequent first; empty if the file does not exist.

    Raises:
        ConfigError: the file does not have the format that :func:`collect` writes.
    """
    try:
        entries = json.loads(file.read_text("utf-8"))
        found = [UnknownDescription(description=str(text), **entry) for text, entry in entries.items()]
        return tuple(sorted(found, key=lambda one: (-int(one.count), str(one.description))))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"{file}: not a file of unknown descriptions; move it away") from None


def proposed_rule(one: UnknownDescription, vocabulary: Vocabulary) -> str | None:
    """A line for ``[series.rules]`` that would decide ``one``: its longest run of unknown words, assigned to the
    contrast that the timing suggests (``?`` if none); None if ``one`` has no unknown word of three letters.
    """
    runs: list[list[str]] = [[]]
    for word in vocabulary.words(one.description):
        if word.group is None and not word.text.isdigit() and word.text not in "+*":
            runs[-1].append(word.text)
        else:
            runs.append([])
    term = " ".join(max(runs, key=lambda run: len("".join(run)))[:_WORDS_PER_TERM])
    stem = term.rstrip("0123456789 ")  # a number at the end only numbers the series
    if len(stem) < 3 and stem.isascii():
        return None
    return f'{one.physics or "?"} = ["{stem if stem == term else stem + "*"}"]'


def _undecided(series: Series, description: str, vocabulary: Vocabulary) -> list[tuple[str, str | None]]:
    """[(masked description, contrast that the timing suggests)] for a series that no word decides; else empty."""
    if not is_unknown(description, SeriesFacts(), vocabulary):
        return []  # decided without opening a file
    try:
        facts = read_first_facts(series)
        identity = read_patient_values(series.instances[0])
    except InstanceRefused:
        return []
    is_wanted = is_unknown(description, facts, vocabulary) and not is_other_body_part(facts, vocabulary)
    if not is_wanted or holds_patient_data(description, identity) or not tokens(description):
        return []
    suggested = contrast_by_physics(facts)
    return [(_NUMBER.sub("#", description)[:_LONGEST_DESCRIPTION], str(suggested) if suggested else None)]


def _merged(
    known: Sequence[UnknownDescription], found: Sequence[tuple[str, str | None]], today: str
) -> Mapping[str, UnknownDescription]:
    """``known`` with ``found`` counted in; above the limit, the rarest and longest unseen entries are removed."""
    entries = {one.description: one for one in known}
    for description, physics in found:
        old = entries.get(description, UnknownDescription(description, 0, today, today, None))
        entries[description] = UnknownDescription(
            description, old.count + 1, old.first_seen, today, physics or old.physics
        )
    kept = sorted(entries.values(), key=lambda one: (one.last_seen == today, one.count, one.last_seen), reverse=True)
    return {one.description: one for one in kept[:MOST_ENTRIES]}


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also if this process is killed
        yield


def _write(file: Path, entries: Mapping[str, UnknownDescription]) -> None:
    values = {
        text: {key: each for key, each in asdict(one).items() if key != "description"} for text, one in entries.items()
    }
    with written_aside(file) as aside, aside.open("w", encoding="utf-8") as stream:
        json.dump(values, stream, ensure_ascii=False, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
