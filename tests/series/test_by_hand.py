from __future__ import annotations

import pytest

from node.errors import SelectionRefused
from node.series.explain import short_lines
from node.series.select import Choice, select_by_facts
from node.study import Contrast


@pytest.fixture
def study(builder):
    """T1 3, two T1c's 4 (thin) and 5 (thick), a reformat 6, T2 1, FLAIR 2."""
    builder.add(1, "T2 TSE", 1).add(2, "FLAIR", 5).add(3, "T1 MPRAGE", 10)
    builder.add(4, "T1 MPRAGE KM", 20).add(5, "T1 SE KM", 25, slice_step_mm=5.0).add(6, "T1 MPR tra", 26)
    return builder


def chosen(builder, vocabulary, **choice):
    selection = select_by_facts(builder.study(), builder.facts, vocabulary, Choice(**choice))
    return selection, {str(contrast): series.series_number for contrast, series in selection.chosen.items()}


@pytest.mark.parametrize("name", ["5", "1.2.3.5", " 5 "])
def test_the_series_named_by_hand_is_taken(study, vocabulary, name):
    """By number or UID: it goes before the ranking, says so, and the reader is told."""
    selection, numbers = chosen(study, vocabulary, use={Contrast.T1C: name})
    assert numbers == {"T1": 3, "T1c": 5, "T2": 1, "FLAIR": 2}
    told = {verdict.series_number: verdict for verdict in selection.verdicts}
    assert (told[5].evidence[0], told[5].note) == ("chosen by hand", "chosen by hand")
    assert told[4].note == "passed over for series 5 'T1 SE KM': that was chosen by hand"
    assert "T1c (series 5 'T1 SE KM') was chosen by hand" in selection.cautions
    assert short_lines(selection)[1] == "T1c: series 5 'T1 SE KM': chosen by hand"


def test_by_hand_goes_against_the_words(study, vocabulary):
    """A series that its words call a reformat is T1, and no longer anything else, when a human says so."""
    selection, numbers = chosen(study, vocabulary, use={Contrast.T1: "6"})
    assert numbers["T1"] == 6
    assert next(one for one in selection.verdicts if one.series_number == 6).contrast is Contrast.T1


def test_by_hand_settles_twins(builder, vocabulary):
    """Of two series alike, the one named as T1c is after contrast and the earlier other one before."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 5).add(3, "T1 SE", 10).add(4, "T1 SE", 20)
    assert chosen(builder, vocabulary, use={Contrast.T1C: "4"})[1] == {"T1": 3, "T1c": 4, "T2": 1, "FLAIR": 2}


def test_a_series_moves_from_one_contrast_to_another(builder, vocabulary):
    """A series taken by hand for T1c is not there as T1 any more."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 5).add(3, "T1 SE", 10).add(4, "T1 SE", 20)
    with pytest.raises(SelectionRefused, match="by hand for T1 and for T1c"):
        chosen(builder, vocabulary, use={Contrast.T1: "4", Contrast.T1C: "4"})


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"irregularity": "a slice is missing: gaps of 1.00 to 2.00 mm"}, "a slice is missing"),
        ({"images_per_position": 2.0}, "not one volume"),
        ({"made_by_software": ("result of software", "Manufacturer is glionode")}, "Manufacturer is glionode"),
        ({"modality": "SEG"}, "modality SEG, not MR"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(study, vocabulary, facts, reason):
    """A series chosen by hand that is no MR volume of a scanner is refused, naming it."""
    study.add(9, "T1 KM", 30, **facts)
    with pytest.raises(SelectionRefused, match=rf"T1c series 9 'T1 KM', chosen by hand, cannot be used: .*{reason}"):
        chosen(study, vocabulary, use={Contrast.T1C: "9"})


def test_an_unknown_series_is_refused(study, vocabulary):
    """A series that does not exist is named, with those that do."""
    with pytest.raises(SelectionRefused, match="no series '77'; MR series are 1, 2, 3, 4, 5, 6"):
        chosen(study, vocabulary, use={Contrast.T1C: "77"})


def test_a_number_that_two_series_share_is_refused(study, vocabulary):
    """A series number need not be unique: then the UID must be given."""
    study.series[3], study.series[4] = (
        type(one)(**{**{name: getattr(one, name) for name in one.__slots__}, "series_number": 4})
        for one in study.series[3:5]
    )
    with pytest.raises(SelectionRefused, match=r"2 series have the number 4; name one by UID: 1\.2\.3\.4, 1\.2\.3\.5"):
        chosen(study, vocabulary, use={Contrast.T1C: "4"})


def test_only_what_is_needed_must_be_there(builder, vocabulary):
    """For a model of T1c alone the others may be missing; they are chosen when present."""
    builder.add(4, "T1 MPRAGE KM", 20)
    assert chosen(builder, vocabulary, needed=(Contrast.T1C,))[1] == {"T1c": 4}
    builder.add(2, "FLAIR", 5)
    assert chosen(builder, vocabulary, needed=(Contrast.T1C,))[1] == {"T1c": 4, "FLAIR": 2}
    with pytest.raises(SelectionRefused, match="no T1:"):
        chosen(builder, vocabulary)


def test_what_is_not_needed_is_left_out_when_it_does_not_fit(builder, vocabulary):
    """A series of another frame of reference is not used, and does not refuse the study, unless it is needed."""
    builder.add(4, "T1 MPRAGE KM", 20).add(2, "FLAIR", 5, frame_of_reference_uid="1.9")
    selection, numbers = chosen(builder, vocabulary, needed=(Contrast.T1C,))
    assert numbers == {"T1c": 4}
    assert "another frame of reference" in next(one for one in selection.verdicts if one.series_number == 2).note
    with pytest.raises(SelectionRefused, match="two frames of reference"):
        chosen(builder, vocabulary, needed=(Contrast.T1C, Contrast.FLAIR))


def test_a_shortfall_may_refuse(study, vocabulary):
    """With "refuse", thick series are not used: a thin runner-up is, or the study is refused naming series and mm."""
    assert chosen(study, vocabulary, shortfall="refuse")[1]["T1c"] == 4
    study.add(7, "FLAIR 3D", 30, slice_step_mm=4.0)
    assert chosen(study, vocabulary, shortfall="caution")[1]["FLAIR"] == 2
    with pytest.raises(SelectionRefused, match=r"no T1c: series 5 'T1 SE KM': slices every 5 mm; the method wants 3-D"):
        chosen(study, vocabulary, shortfall="refuse", use={Contrast.T1C: "5"})


@pytest.mark.parametrize("fault", [{"irregularity": "a slice is missing: gaps of 1.00 to 2.00 mm"}, {"slice_count": 5}])
def test_a_sound_runner_up_is_taken(study, vocabulary, fault):
    """A better series with a missing slice is passed over with the reason, for one that can be read."""
    study.add(8, "T1 SPACE KM", 30, slice_step_mm=0.9, **fault)
    selection, numbers = chosen(study, vocabulary)
    assert numbers["T1c"] == 4
    assert next(one for one in selection.verdicts if one.series_number == 8).note.startswith("not usable: ")


def test_a_missing_slice_without_a_runner_up_refuses(builder, vocabulary):
    """The refusal names the series and its gap."""
    builder.add(1, "T2", 1, irregularity="a slice is missing: gaps of 5.00 to 10.00 mm").add(2, "FLAIR", 5)
    builder.add(3, "T1", 10).add(4, "T1 KM", 20)
    with pytest.raises(SelectionRefused, match=r"no T2: series 1 'T2': a slice is missing: gaps of 5\.00 to 10\.00 mm"):
        chosen(builder, vocabulary)
