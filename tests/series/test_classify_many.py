from __future__ import annotations

import csv
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import ConfigError
from node.series.classify import classify_csv, classify_text
from node.series.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()


def label(description, **columns):
    return classify_text(description, columns, VOCABULARY)


_WORDS = [
    "t1",
    "t2",
    "flair",
    "mprage",
    "km",
    "gd",
    "post",
    "pre",
    "ohne",
    "tra",
    "sag",
    "tse",
    "c",
    "swi",
    "dark fluid",
    "fs",
    "3d",
]


@given(st.lists(st.sampled_from(_WORDS), max_size=6), st.sampled_from(" _-/.,:"), st.sampled_from(" _-/.,:"))
def test_separators_do_not_change_the_verdict(words, one, other):
    """The same words between other separators get the same label."""
    assert label(one.join(words)) == label(other.join(words))


@given(st.lists(st.sampled_from(_WORDS), max_size=6).map(" ".join))
def test_case_and_accents_do_not_change_the_verdict(description):
    """Upper case and combining accents change nothing."""
    accented = "".join(letter + "\u0301" if letter.isalpha() else letter for letter in description)
    assert label(description) == label(description.upper()) == label(accented)


@given(
    st.text(max_size=80), st.dictionaries(st.sampled_from(["EchoTime", "ImageType", "ContrastBolusAgent"]), st.text())
)
def test_no_string_crashes(description, columns):
    """Any description and any column text gets one of the five labels."""
    assert classify_text(description, columns, VOCABULARY) in ("T1", "T1c", "T2", "FLAIR", "other")


def test_ten_thousand_descriptions_in_two_seconds():
    """Auditing a PACS's worth of descriptions is a matter of seconds (CPU time)."""
    descriptions = [f"t1_mprage_sag_p2_iso_{number} post KM {number % 97}x" for number in range(10_000)]
    start = time.process_time()
    assert {classify_text(description, {}, VOCABULARY) for description in descriptions} == {"T1c"}
    assert time.process_time() - start < 2


def test_a_csv_gains_a_column(tmp_path):
    """Every row is kept and labelled; a column named by a DICOM keyword is used."""
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(
        "\ufeffid,description,EchoTime,ImageType\n1,T1 post,,\n2,T2 TSE,,ORIGINAL\\PRIMARY\\MPR\n3\n", encoding="utf-8"
    )
    assert classify_csv(source, out, VOCABULARY) == 3
    with out.open(encoding="utf-8", newline="") as stream:
        assert [(row["id"], row["predicted"]) for row in csv.DictReader(stream)] == [
            ("1", "T1c"),
            ("2", "other"),
            ("3", "other"),
        ]


def test_a_csv_without_descriptions_is_refused(tmp_path):
    """The missing column is named."""
    (tmp_path / "in.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no column 'description'"):
        classify_csv(tmp_path / "in.csv", tmp_path / "out.csv", VOCABULARY)


def test_the_labelled_descriptions(data_folder):
    """On 863 real strings: accuracy 97 %, T1c recall 93 % where the string carries a marker, precision 96 %."""
    file = data_folder / "series_descriptions" / "labelled.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    pairs = [(row, label(row["description"])) for row in rows]
    assert sum(row["label"] == predicted for row, predicted in pairs) / len(pairs) >= 0.97
    told = [
        (row, predicted)
        for row, predicted in pairs
        if row["decided"] != "position" and "no contrast marker" not in row["trap"]
    ]
    marked = [predicted for row, predicted in told if row["label"] == "T1c"]
    assert marked.count("T1c") / len(marked) >= 0.93
    for contrast in ("T1", "T1c", "T2", "FLAIR"):
        truths = [row["label"] for row, predicted in told if predicted == contrast]
        assert truths.count(contrast) / len(truths) >= 0.96
