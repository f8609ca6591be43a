"""``glionode bench series``: accuracy of the word rules on labelled descriptions, also with groups left out.

The rules are written by hand, so leaving out a group means: every shipped term that matches only descriptions of that
group is removed from the vocabulary, as if it had been learnt from them; then the group is classified.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.errors import ConfigError
from node.series.classify import classify_text
from node.series.vocabulary import Vocabulary, load_vocabulary

COLUMNS = ("rules", "rows", "accuracy", "T1c recall (marked)", "precision T1", "T1c", "T2", "FLAIR", "terms left out")
GROUPS = ("lang", "manufacturer")
_NEEDED = ("description", "label")
_CONTRASTS = ("T1", "T1c", "T2", "FLAIR")
_UNMARKED = "no contrast marker"

Row = Mapping[str, str]
Pair = tuple[Row, str]  # a row and its predicted label


@dataclass(frozen=True, slots=True)
class Score:
    """One line of the table. Shares are 0 to 1, or None if there was no row to count.

    ``recall_t1c`` counts only rows whose description says whether contrast agent was given.
    """

    name: str
    rows: int
    accuracy: float | None
    recall_t1c: float | None
    precision: Mapping[str, float | None]
    terms_left_out: int

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of :data:`COLUMNS`."""
        shares = (self.accuracy, self.recall_t1c, *(self.precision[contrast] for contrast in _CONTRASTS))
        percent = ("-" if share is None else f"{share:.1%}" for share in shares)
        return (self.name, str(self.rows), *percent, str(self.terms_left_out))


def bench(labelled_csv: Path) -> list[Score]:
    """Scores of all rules, then pooled over groups left out: languages, manufacturers.

    The CSV is UTF-8 with the columns ``description``, ``label``, and for the groups ``lang`` and ``manufacturer``; a
    row without a value there is in no group. ``trap`` and ``decided`` may mark descriptions that do not say whether
    contrast agent was given.

    Raises:
        ConfigError: a column is missing.
    """
    rows = read_labelled(labelled_csv)
    vocabulary = load_vocabulary()
    scores = [_score("all", _predicted(rows, vocabulary), 0)]
    for column in GROUPS:
        in_groups = [row for row in rows if row.get(column)]
        if in_groups:
            scores.append(_score(f"{column}: all rules", _predicted(in_groups, vocabulary), 0))
            scores.append(_without_groups(column, rows, vocabulary))
    return scores


def read_labelled(labelled_csv: Path) -> list[Row]:
    """The rows of a labelled CSV.

    Raises:
        ConfigError: a column is missing, or there is no row.
    """
    with labelled_csv.open(encoding="utf-8-sig", newline="") as stream:
        rows: list[Row] = list(csv.DictReader(stream))
    missing = [column for column in _NEEDED if not rows or column not in rows[0]]
    if missing:
        raise ConfigError(f"{labelled_csv}: no column '{missing[0]}', or no row")
    return rows


def terms_only_in(column: str, rows: Sequence[Row], vocabulary: Vocabulary) -> dict[str, frozenset[str]]:
    """For each group of ``column``, the shipped terms that match its descriptions and no other row's."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        for word in vocabulary.words(row["description"]):
            if word.term:
                seen.setdefault(word.term, set()).add(row.get(column) or "")
    groups = sorted({row[column] for row in rows if row.get(column)})
    return {group: frozenset(term for term, where in seen.items() if where == {group}) for group in groups}


def _without_groups(column: str, rows: Sequence[Row], vocabulary: Vocabulary) -> Score:
    pairs: list[Pair] = []
    count = 0
    for group, terms in terms_only_in(column, rows, vocabulary).items():
        members = [row for row in rows if row.get(column) == group]
        pairs += _predicted(members, load_vocabulary(without=terms))
        count += len(terms)
    return _score(f"{column}: each left out", pairs, count)


def _predicted(rows: Iterable[Row], vocabulary: Vocabulary) -> list[Pair]:
    return [(row, classify_text(row["description"], {}, vocabulary)) for row in rows]


def _is_marked(row: Row) -> bool:
    """True if the description itself says whether contrast agent was given."""
    return row.get("decided") != "position" and _UNMARKED not in (row.get("trap") or "")


def _score(name: str, pairs: Sequence[Pair], terms_left_out: int) -> Score:
    marked = [(row, predicted) for row, predicted in pairs if _is_marked(row)]
    found_t1c = [predicted == "T1c" for row, predicted in marked if row["label"] == "T1c"]
    precision = {
        contrast: _share([row["label"] == contrast for row, predicted in marked if predicted == contrast])
        for contrast in _CONTRASTS
    }
    right = [row["label"] == predicted for row, predicted in pairs]
    return Score(name, len(pairs), _share(right), _share(found_t1c), precision, terms_left_out)


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
