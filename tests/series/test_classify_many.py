from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import ConfigError
from node.series.classify import classify_csv, classify_description, classify_text
from node.series.vocabulary import load_vocabulary
from node.study import Contrast

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


_AFTER = """
T1 com contraste | T1 pós gadolínio | T1 po kontraście | T1 po k.l. | T1 s k.l. | T1 postkontrastně | T1 efter kontrast
T1 etter kontrast | T1 kontrastlı | T1 IVKM sonrası | T1 με σκιαγραφικό | Τ1 μετά Gd | T1 kontrasztanyag után
T1 cu contrast | T1 met contrast | T1 varjoaineella | T1 dopo m.d.c. | T1 C/C | T1 après injection | T1 mit KM
T1 с контрастом | T1 с к/у | T1 постконтраст | Т1 після контрасту | T1増強 | T1造影 | 造影T1 | T1加权增强 | 조영증강 T1
T1 CE(+) | T1 造影(+) | T1 Gadavist | T1 مع تباين | T1 setelah kontras | T1 posle kontrasta | T1 có thuốc
"""
_BEFORE = """
T1 sem contraste | AX T1 S/ CONTRASTE | T1 bez kontrastu | T1 bez k.l. | T1 nativně | T1 natywne | T1 före kontrast
T1 før kontrast | T1 uten kontrast | T1 kontrastsız | T1 IVKM öncesi | T1 χωρίς σκιαγραφικό | T1 πριν σκιαγραφικό
T1 kontraszt nélkül | T1 kontraszt előtt | T1 fără contrast | T1 înainte de contrast | T1 zonder contrast
T1 ilman varjoainetta | T1 senza m.d.c. | T1 S/C | T1 sans injection | T1 o. KM | T1 vor KM | Т1 до контраста
Т1 без КУ | T1 преконтраст | Т1 без контрасту | T1 造影前 | T1 造影なし | T1平扫 | 조영전 T1 | T1 CE(-) | T1 FS(-) Gd(-)
T1 بدون تباين | T1 tanpa kontras | T1 prije kontrasta | T1 không thuốc
"""


def strings(block):
    return [text.strip() for text in block.replace("\n", "|").split("|") if text.strip()]


@pytest.mark.parametrize(
    ("description", "expected"),
    [*((text, "T1c") for text in strings(_AFTER)), *((text, "T1") for text in strings(_BEFORE))],
)
def test_contrast_agent_in_many_languages(description, expected):
    """After and before contrast as hospitals write them, with prepositions, postpositions, suffixes and signs."""
    assert label(description) == expected


_STORIES = """
T1 GADO pre operatorio | T1 Gd pre-operative | T1 gado pre-operatoire | T1 +C Pre Stereotaxis | T1+C PRE GK
PRE SRS T1 +C | T1 +C PRE-SAT | T1 GD avant chirurgie | T1 KM vor RT | T1 gado antes de cirugia | T1 nach OP KM
T1 KM prae OP | AX T1 3MM NO GAP +C | AX T1 W/O GAP GAD | T1 no ARC POST | 3D T1 no FC +C | T1 No 2 GD | T1 S KM
T1 s gadoliniem
"""
_PLAIN_STORIES = """
T1 post operative | T1 post-operatoire | T1 post-operatorio | T1 POST GK | T1 post TMZ | T1 post craniotomy
T1 nach Bestrahlung | T1 apres chirurgie | T1 after surgery | T1 po operacji | T1 pos cirurgia | MPRAGE OP | T1 nach OP
"""


@pytest.mark.parametrize(
    ("description", "expected"),
    [*((text, "T1c") for text in strings(_STORIES)), *((text, "T1") for text in strings(_PLAIN_STORIES))],
)
def test_before_and_after_treatment_are_not_before_and_after_contrast(description, expected):
    """A date in the patient's story, or a negation of something else, says nothing about contrast agent."""
    assert label(description) == expected


def test_before_something_unknown_beside_an_agent_is_open():
    """'GD pre xyz' may be before contrast or before xyz: neither is guessed."""
    found = classify_description("T1 GD pre xyz", None, VOCABULARY)
    assert (found.marker, found.contrast) == (None, Contrast.T1)
    assert "before or after contrast is open" in found.evidence[-1]


_OTHERS = """
T2 диффузия | T2 拡散 | T2 dyfuzja | T1 вычитание | T1 subtrakcja | T1 çıkarma | T1 post-pre | T1 减影 | T1 reconstrução
T1 MPRAGE KM Differenz | T1 KM - T1 nativ | T1 KM minus T1 | delta T1 | T1 KM coreg | t1_mpr_sag_KM_MPR_tra
T1 реконструкция | T1 重建 | T1 动态增强 | T2 gradiente | T2 MPGR | T2 磁敏感 | T2 kręgosłup | T2 páteř | T2 omurga
T2 gerinc | T2 шейный отдел | T2 頚椎 | T2 rachide lombare | T2 myelo | T1 定位 | T1 ROI
"""


@pytest.mark.parametrize("description", strings(_OTHERS))
def test_other_techniques_and_body_parts_in_many_languages(description):
    """A word for another technique or body part decides, in any language."""
    assert label(description) == "other"


@pytest.mark.slow
@given(st.lists(st.sampled_from(_WORDS), max_size=6), st.sampled_from(" _-/.,:"), st.sampled_from(" _-/.,:"))
def test_separators_do_not_change_the_verdict(words, one, other):
    """The same words between other separators get the same label."""
    assert label(one.join(words)) == label(other.join(words))


@pytest.mark.slow
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


def test_descriptions_of_invented_hospitals():
    """Some 1500 strings as hospitals of forty languages might write them, labelled by others than the rules' author."""
    with Path(__file__).with_name("invented_descriptions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    wrong = [f"{row['description']} is {row['label']}" for row in rows if label(row["description"]) != row["label"]]
    assert len(wrong) / len(rows) < 0.01, wrong
