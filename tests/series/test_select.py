from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InstanceRefused, RefusedError, SelectionRefused
from node.series.facts import SeriesFacts
from node.series.select import select, select_by_facts
from node.series.vocabulary import load_vocabulary
from node.study import Contrast, Instance, Series, Study

VOCABULARY = load_vocabulary()


def run(builder):
    return select_by_facts(builder.study(), builder.facts, VOCABULARY)


def numbers(builder):
    """Series numbers chosen as (T1, T1c, T2, FLAIR)."""
    chosen = run(builder).chosen
    return tuple(chosen[contrast].series_number for contrast in Contrast)


def with_others(builder):
    return builder.add(1, "T2 TSE", 1).add(2, "FLAIR", 5)


def verdict(builder, number):
    return next(one for one in run(builder).verdicts if one.series_number == number)


def test_four_marked_series_are_chosen(builder):
    """A study whose names say everything is selected by its names."""
    with_others(builder).add(3, "T1 MPRAGE", 10).add(4, "T1 MPRAGE KM", 20)
    assert numbers(builder) == (3, 4, 1, 2)
    assert run(builder).cautions == ()


def test_a_study_with_all_traps(builder):
    """Reformat, subtraction, MIP, localizer, diffusion, T1-FLAIR after contrast, perfusion and SEG are passed over."""
    with_others(builder).add(3, "T1 MPRAGE", 10).add(4, "T1 MPRAGE KM", 20, mr_acquisition_type="3D")
    builder.add(5, "T1 MPRAGE KM MPR tra", 20).add(6, "SUB T1", 21).add(7, "T1 MIP", 21).add(8, "localizer T2", 0)
    builder.add(9, "ep2d_diff T2", 6, diffusion_b_value=1000.0).add(10, "T1 FLAIR +C", 25, slice_step_mm=5.0)
    builder.add(11, "SEG", modality="SEG").add(12, "T1 SE +C", 22, slice_step_mm=4.0).add(13, "T2*", 7)
    builder.add(14, "T2 TSE", 2, images_per_position=2.0).add(15, "T1 perfusion", 15)
    assert numbers(builder) == (3, 4, 1, 2)
    assert verdict(builder, 11).note == "ignored: modality SEG"
    assert "slices" in verdict(builder, 12).note
    assert "runner-up series 12" in verdict(builder, 4).note


@pytest.mark.parametrize("marked", [{"contrast_bolus_agent": "Dotarem"}, {"has_overlay": True}])
def test_twins_are_told_apart_by_bolus_tag_or_overlay(builder, marked):
    """Of two series alike in name and timing, the later one with the tag or mark is after contrast."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 20, **marked)
    assert numbers(builder) == (3, 4, 1, 2)
    assert verdict(builder, 4).evidence[-1] != verdict(builder, 3).evidence[-1]


def test_twins_are_told_apart_by_bolus_start_time(builder):
    """Acquired before or after the stated start of the injection."""
    start = datetime(2020, 1, 1, 14, 15)
    with_others(builder).add(3, "T1 SE", 10, contrast_bolus_start=start).add(4, "T1 SE", 20, contrast_bolus_start=start)
    assert numbers(builder) == (3, 4, 1, 2)


def test_twins_are_told_apart_by_order_around_a_known_series(builder):
    """After a series known as after contrast everything is after, the earliest twin before it is before."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 30).add(5, "T1 3D +C", 20)
    assert verdict(builder, 4).contrast is Contrast.T1C
    assert verdict(builder, 3).contrast is Contrast.T1
    assert "14:30" in verdict(builder, 4).evidence[-1]


@pytest.mark.parametrize("proof", ["SUB", "perfusion"])
def test_twins_are_told_apart_by_order_when_contrast_was_surely_given(builder, proof):
    """Where a subtraction or perfusion series proves contrast, the earliest twin is before and the latest after."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 20).add(5, proof, 21)
    assert numbers(builder) == (3, 4, 1, 2)


def test_twins_without_any_evidence_are_refused(builder):
    """Order alone may be a repeat for motion: the study is refused naming both series, not guessed."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 20)
    with pytest.raises(SelectionRefused, match=r"series 3 .* and series 4 .* are alike"):
        run(builder)


def test_a_bolus_tag_on_every_series_tells_nothing(builder):
    """The agent is often entered at registration and copied to all series: twins stay undecided."""
    with_others(builder).add(3, "T1 SE", 10, contrast_bolus_agent="Gd").add(4, "T1 SE", 20, contrast_bolus_agent="Gd")
    with pytest.raises(SelectionRefused, match="undecided"):
        run(builder)


def test_an_unmarked_t1_acquired_after_the_marked_one_is_no_plain_t1(builder):
    """Contrast agent stays: a T1 acquired after the T1c leaves the study without a T1."""
    with_others(builder).add(4, "T1 MPRAGE KM", 10).add(5, "T1 SE", 20)
    with pytest.raises(SelectionRefused, match="no T1:"):
        run(builder)


def test_words_against_order_are_a_caution(builder):
    """A series named pre but acquired after a post one is kept by its name, and the disagreement is shown."""
    with_others(builder).add(3, "T1 pre", 30).add(4, "T1 post", 20)
    assert any("series 3" in caution for caution in run(builder).cautions)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"slice_step_mm": 5.0}, {"slice_step_mm": 1.0}),
        ({"image_type": ("DERIVED", "SECONDARY")}, {"image_type": ("ORIGINAL", "PRIMARY")}),
        ({"coverage_mm": 90.0}, {"coverage_mm": 150.0}),
        ({"frame_of_reference_uid": "1.9"}, {}),
    ],
)
def test_the_better_of_two_is_chosen_and_the_other_explained(builder, worse, better):
    """Original, common frame of reference, thin, whole brain: the loser's note says what decided."""
    with_others(builder).add(3, "T1 MPRAGE", 10).add(4, "T1 KM", 20, **better).add(5, "T1 SE KM", 25, **worse)
    assert numbers(builder)[1] == 4
    assert "passed over for series 4" in verdict(builder, 5).note


def test_the_later_of_repeats_is_chosen(builder):
    """A series acquired twice was repeated for a reason."""
    with_others(builder).add(3, "T1", 10).add(4, "T1 KM", 20).add(5, "FLAIR", 30)
    assert numbers(builder)[3] == 5


def test_a_thin_slab_is_no_brain(builder):
    """An image of the inner ear is thin and sharp but not a candidate."""
    with_others(builder).add(3, "T1", 10).add(4, "T1 KM", 20).add(5, "T2 SPACE", 9, slice_step_mm=0.4, coverage_mm=40.0)
    assert numbers(builder)[2] == 1
    assert "covers only 40 mm" in verdict(builder, 5).note


def test_two_frames_of_reference_are_refused(builder):
    """Series whose positions cannot be compared are refused naming both."""
    builder.add(1, "T2", 1, frame_of_reference_uid="1.9").add(2, "FLAIR", 2).add(3, "T1", 3).add(4, "T1 KM", 4)
    with pytest.raises(SelectionRefused, match=r"series 1 'T2'.*series 4 'T1 KM'"):
        run(builder)


def test_a_missing_frame_of_reference_is_refused(builder):
    """Without Frame of Reference UID nothing is compared: the tag is named."""
    for number, name in enumerate(["T2", "FLAIR", "T1", "T1 KM"]):
        builder.add(number, name, number, frame_of_reference_uid=None)
    with pytest.raises(SelectionRefused, match=r"\(0020,0052\)"):
        run(builder)


def test_a_missing_contrast_is_named_with_the_nearest(builder):
    """The refusal says what is missing, how many were seen, and which came nearest."""
    builder.add(1, "T2 TSE", 1).add(3, "T1", 10).add(4, "T1 KM", 20)
    with pytest.raises(
        SelectionRefused, match=r"no FLAIR: of 3 MR series none reads as FLAIR; nearest: series 1 'T2 TSE'"
    ):
        run(builder)


def test_contradicted_words_are_not_chosen(builder):
    """A 'T2' that suppresses fluid is not taken for the T2."""
    builder.add(
        1, "T2 TSE", 1, echo_time_ms=100, repetition_time_ms=9000, inversion_time_ms=2500, scanning_sequence=("SE",)
    )
    builder.add(2, "FLAIR", 2).add(3, "T1", 10).add(4, "T1 KM", 20)
    with pytest.raises(SelectionRefused, match=r"no T2: series 1 .*suppresses fluid"):
        run(builder)


def test_other_modalities_and_body_parts_are_refused(builder):
    """CT and knees are not brain MR, and the refusal says so."""
    builder.add(1, "Head", modality="CT")
    with pytest.raises(SelectionRefused, match=r"no MR series \(modality CT\)"):
        run(builder)
    builder.add(2, "T1W_TSE", 1, body_part_examined="KNEE")
    with pytest.raises(SelectionRefused, match="not brain MR: Body Part Examined is KNEE"):
        run(builder)


def test_an_unreadable_file_refuses_the_study(builder):
    """Which series an unreadable file belonged to is unknown, so none is known to be complete."""
    builder.unreadable = (("IM7.dcm", "truncated"),)
    with pytest.raises(InstanceRefused, match=r"IM7\.dcm"):
        select(builder.study(), VOCABULARY)


def test_thick_slices_are_cautions(builder):
    """What falls short of the method's training data is said, not hidden."""
    builder.add(1, "T2", 1, slice_step_mm=6.0).add(2, "FLAIR", 5, slice_step_mm=3.0)
    builder.add(3, "T1", 10, slice_step_mm=5.0).add(4, "T1 KM", 20, slice_step_mm=1.0)
    assert [caution.split(" ")[0] for caution in run(builder).cautions] == ["T1", "T2"]


def test_selection_does_not_depend_on_the_order_of_series(builder):
    """The same study in another order gives the same choice."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 20, has_overlay=True).add(5, "T1 3D +C", 25)
    expected = numbers(builder)
    builder.series.reverse()
    assert numbers(builder) == expected


_FACTS = st.builds(
    SeriesFacts,
    description=st.none(),
    image_type=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    echo_time_ms=st.none() | st.floats(0, 300),
    repetition_time_ms=st.none() | st.floats(0, 9000),
    inversion_time_ms=st.none() | st.floats(0, 3000),
    scanning_sequence=st.sampled_from([(), ("SE",), ("GR",), ("SE", "IR"), ("EP",)]),
    contrast_bolus_agent=st.none() | st.text(max_size=9),
    acquisition_datetime=st.none() | st.datetimes(),
    slice_step_mm=st.none() | st.floats(0.1, 10),
    coverage_mm=st.none() | st.floats(0, 300),
    has_overlay=st.booleans(),
    body_part_examined=st.none() | st.text(max_size=9),
)
_NAMES = st.none() | st.text(max_size=20) | st.sampled_from(["T1", "T1 KM", "T1 SE", "T2", "FLAIR", "T1 pre", "SUB"])


@given(st.lists(st.tuples(_NAMES, _FACTS), max_size=7))
def test_any_facts_give_a_selection_or_a_refusal(members):
    """No combination of header values does anything but select or refuse."""
    series = tuple(
        Series(f"1.2.{index}", "1.2", "MR", name, index, "1.9", (Instance(index, "1", "1"),))
        for index, (name, _) in enumerate(members)
    )
    facts = {one.series_instance_uid: fact for one, (_, fact) in zip(series, members, strict=True)}
    try:
        selection = select_by_facts(Study("1.2", series), facts, VOCABULARY)
    except RefusedError:
        return
    assert set(selection.chosen) == set(Contrast)
    assert len({one.series_instance_uid for one in selection.chosen.values()}) == 4


def test_vertebrae_in_a_name_tell_another_body_part(builder):
    """Of a combined examination of head and neck, the series that names vertebrae is passed over."""
    with_others(builder).add(3, "T1 MPRAGE", 10).add(4, "T1 MPRAGE KM", 20).add(9, "T2 TSE tra C5-C7", 50)
    assert numbers(builder) == (3, 4, 1, 2)
    assert verdict(builder, 9).contrast is Contrast.T2
    assert verdict(builder, 9).note == "not usable: 'c5 c7' are vertebrae: another body part"
