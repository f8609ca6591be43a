from __future__ import annotations

import csv

import pytest
from glionode_bench.series import COLUMNS, bench, terms_only_in

from node.errors import ConfigError
from node.series.vocabulary import load_vocabulary


def write_csv(file, rows):
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["description", "label", "lang", "trap"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return file


ROWS = [
    {"description": "T1 ohne KM", "label": "T1", "lang": "de"},
    {"description": "T1 mit KM", "label": "T1c", "lang": "de"},
    {"description": "T1 mprage", "label": "T1", "lang": "de"},
    {"description": "T1 gado", "label": "T1c", "lang": "fr"},
    {"description": "T1 sans gado", "label": "T1", "lang": "fr"},
    {"description": "T2 gado", "label": "T2"},
    {"description": "T1 tra", "label": "T1c", "trap": "no contrast marker in string"},
]


def test_terms_of_one_group_alone():
    """A term belongs to a group if it matches there and nowhere else, rows without a group included."""
    found = terms_only_in("lang", ROWS, load_vocabulary())
    assert found == {"de": {"ohne", "km", "mprage"}, "fr": {"sans"}}


def test_left_out_groups_are_judged_without_their_terms(tmp_path):
    """With all rules everything told is right; without the terms that only German rows hold, its T1c is missed."""
    every, with_rules, left_out = bench(write_csv(tmp_path / "in.csv", ROWS))
    assert (every.rows, every.accuracy, every.recall_t1c) == (7, 6 / 7, 1.0)
    assert (with_rules.rows, with_rules.accuracy) == (5, 1.0)
    assert (left_out.rows, left_out.recall_t1c) == (5, 0.5)
    assert left_out.terms_left_out >= 3
    assert len(left_out.cells()) == len(COLUMNS)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "description,label\n", "description\nT1\n"])
def test_a_csv_without_labels_is_refused(tmp_path, content):
    """The missing column, or that there is no row, is told."""
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(ConfigError, match=r"in\.csv: no column"):
        bench(tmp_path / "in.csv")


def test_the_labelled_descriptions_with_groups_left_out(data_folder):
    """On the real strings: what the rules keep when the words of a language or manufacturer are taken away."""
    scores = {score.name: score for score in bench(data_folder / "series_descriptions" / "labelled.csv")}
    assert scores["all"].accuracy >= 0.97
    assert scores["manufacturer: each left out"].accuracy >= 0.93
    assert scores["lang: each left out"].recall_t1c >= 0.8
