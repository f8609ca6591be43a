from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import RefusedError
from node.series.headers import read_study
from node.series.patient import masked
from node.series.select import select
from node.series.vocabulary import load_vocabulary


@pytest.mark.parametrize(
    ("description", "identity", "expected"),
    [
        ("AX T1 +C MUSTERMANN ERIKA", ["Mustermann^Erika"], "AX T1 +C *** ***"),
        ("T1 Müller", ["MUELLER^ANNA"], "T1 ***"),
        ("T1 Mueller", ["Müller^Anna"], "T1 ***"),
        ("T1 geb 12.03.1950", [], "T1 geb ***"),
        ("T1 PAT4711 1950", ["PAT-4711", "19500312"], "T1 *** ***"),
        ("T1 KM Phantom", ["T1^KM"], "T1 KM Phantom"),
        ("t1_mprage_sag_p2_iso 1.0", ["X^Y"], "t1_mprage_sag_p2_iso 1.0"),
        ("T1 3.5.2 mm", [], "T1 3.5.2 mm"),
        (None, ["X"], None),
    ],
)
def test_names_and_dates_in_a_description_are_masked(description, identity, expected):
    """A word of the patient's name, ID or birth date, or any date; words that the vocabulary knows stay."""
    assert masked(description, identity) == expected


@given(st.text(max_size=64), st.lists(st.text(max_size=20), max_size=3))
def test_any_description_is_masked_without_trouble(description, identity):
    """No text crashes it, and masking twice changes nothing more."""
    once = masked(description, identity)
    assert masked(once, identity) == once


def test_a_refusal_names_no_patient(write, tmp_path):
    """The technologist typed the patient's name into the series description: the reason does not repeat it."""
    identity = {"PatientName": "Mustermann^Erika", "PatientID": "PAT-4711", "PatientBirthDate": "19500312"}
    write(tmp_path / "a", SeriesDescription="AX T1 MUSTERMANN 12.03.1950 PAT4711", **identity)
    with pytest.raises(RefusedError) as caught:
        select(read_study(tmp_path), load_vocabulary())
    told = str(caught.value).casefold()
    assert "ax t1 *** *** ***" in told
    assert [word for word in ("mustermann", "1950", "4711") if word in told] == []
