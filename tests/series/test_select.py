from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InstanceRefused, RefusedError, SelectionRefused
from node.series.facts import SeriesFacts
from node.series.select import Choice, select, select_by_facts
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


@pytest.mark.parametrize(("proof", "minute"), [("SUB", 21), ("perfusion", 15), ("ep2d_perf_p2", 15)])
def test_twins_are_told_apart_by_order_when_contrast_was_surely_given(builder, proof, minute):
    """A subtraction after both, or a perfusion series between them: the earliest twin is before, the latest after."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 20)
    builder.add(5, proof, minute, scanning_sequence=("EP",) if "ep2d" in proof else ())
    assert numbers(builder) == (3, 4, 1, 2)
    assert f"series 5 '{proof}' shows that contrast was given" in " ".join(verdict(builder, 4).evidence)


@pytest.mark.parametrize(
    ("proof", "minute"),
    [("perfusion", 8), ("perfusion", 21), ("perfusion", None), ("pCASL", 15), ("SUB", 15), ("art TOF sub", 21)],
)
def test_what_proves_no_contrast_between_twins_leaves_them_open(builder, proof, minute):
    """Perfusion before or after both, spin labelling, an earlier subtraction, an angiography: perhaps only a repeat."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 20).add(5, proof, minute)
    with pytest.raises(SelectionRefused, match="undecided"):
        run(builder)


def at(hour, minute, day=1):
    return {"acquisition_datetime": datetime(2020, 1, day, hour, minute)}


@pytest.mark.parametrize(
    "sign",
    [
        {"description": "ep2d_perf", "minute": 15},
        {"description": "FLAIR 3D", "minute": 15, "contrast_bolus_agent": "Gd"},
        {"description": "T2 SPACE", "minute": 12, "contrast_bolus_start": datetime(2020, 1, 1, 14, 15)},
    ],
    ids=["perfusion", "agent of another series", "bolus start of another series"],
)
def test_an_unmarked_t1_after_the_injection_is_no_plain_t1(builder, sign):
    """Between the injection, as any series tells it, and the first marked T1c an unmarked T1 is after contrast."""
    with_others(builder).add(3, "AX T1", 5, slice_step_mm=5.0).add(4, "t1_mprage_sag", 20).add(5, "AX T1 +C", 25)
    builder.add(6, sign.pop("description"), sign.pop("minute"), **sign)
    assert verdict(builder, 4).contrast is Contrast.T1C
    assert numbers(builder)[0] == 3


def test_a_sign_older_than_a_series_known_as_before_is_no_sign(builder):
    """An agent tag that was entered too early does not make what follows one after contrast."""
    builder.add(1, "T2 TSE", 1, contrast_bolus_agent="Gd").add(2, "FLAIR", 5)
    builder.add(3, "T1 SE pre", 10).add(4, "T1 MPRAGE", 12).add(5, "T1 MPRAGE KM", 30)
    assert numbers(builder)[:2] == (4, 5)


@pytest.mark.parametrize("minute", [20, None])
def test_an_unmarked_t1_that_may_be_after_contrast_is_not_used_and_told(builder, minute):
    """Between a T1 and the first marked series, or at an unknown time, a series may be after contrast: it is no T1."""
    builder.add(1, "T2 TSE", 1).add(2, "FLAIR", 2)
    builder.add(3, "AX T1", minute and 5, slice_step_mm=5.0).add(4, "t1_mprage_sag", minute)
    builder.add(5, "AX T1 +C", minute and 25)
    assert numbers(builder)[:2] == (3, 5)
    assert any("series 4 't1_mprage_sag' may be before or after contrast" in text for text in run(builder).cautions)
    assert verdict(builder, 4).note.startswith("not usable: undecided before or after contrast")


def test_a_name_that_occurs_with_a_mark_is_before_contrast_without_it(builder):
    """Where each plane is repeated with a mark, the unmarked ones are before contrast, wherever they were acquired."""
    with_others(builder).add(3, "AX T1", 10, slice_step_mm=5.0).add(4, "T1 COR 3D", 14).add(5, "+C T1 COR 3D", 30)
    builder.add(6, "AX T1 +C", 25, slice_step_mm=5.0)
    assert numbers(builder) == (4, 5, 1, 2)


def test_a_scanner_that_enters_the_agent_leaves_no_series_open(builder):
    """If series after the injection have the agent in their header, one without it is before, whatever its kind."""
    with_others(builder).add(3, "AX T1", 10, slice_step_mm=5.0).add(4, "SAG MPRAGE", 14)
    builder.add(5, "COR VIBE", 30, contrast_bolus_agent="Gd")
    assert numbers(builder) == (4, 5, 1, 2)


def test_order_tells_nothing_of_a_t1_between_words_that_contradict_it(builder):
    """A series named pre after one named post: what lies between them is left open."""
    with_others(builder).add(3, "T1 pre", 30, slice_step_mm=5.0).add(4, "T1 post", 20).add(5, "MPRAGE", 25)
    assert verdict(builder, 5).note.startswith("not usable: undecided")


def test_contrast_agent_is_gone_on_the_next_day(builder):
    """A plain T1 acquired hours after a T1c of the same study is not taken for one, and hours apart is a caution."""
    builder.add(1, "T2 TSE", None, **at(9, 1, 2)).add(2, "FLAIR", None, **at(9, 5, 2))
    builder.add(3, "T1 MPRAGE", None, **at(14, 0)).add(4, "T1 MPRAGE KM", None, **at(14, 10))
    builder.add(5, "T1 MPRAGE", None, **at(9, 13, 2))
    assert numbers(builder)[:2] == (3, 4)
    assert verdict(builder, 5).contrast is Contrast.T1
    assert "hours apart against of one session" in verdict(builder, 5).note
    assert any(text.startswith("the chosen series are hours apart") for text in run(builder).cautions)


def test_an_acquisition_stored_twice_has_one_state(builder):
    """With and without a filter: two series of one moment are no twins before and after contrast."""
    with_others(builder).add(3, "t1_sag", 10).add(4, "t1_sag", 10).add(5, "t1_sag_KM", 30).add(6, "t1_sag_KM", 30)
    assert numbers(builder) == (4, 6, 1, 2)
    assert {verdict(builder, number).contrast for number in (3, 4)} == {Contrast.T1}


def test_an_overlay_tells_no_copy_of_one_acquisition_apart(builder):
    """A mark on one of two series of the same moment says nothing about contrast agent."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 10, has_overlay=True)
    with pytest.raises(SelectionRefused, match="no T1c"):
        run(builder)


def test_an_overlay_alone_is_a_caution(builder):
    """If nothing else in the study says that contrast was given, the reader is told."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 20, has_overlay=True)
    assert any("nothing but a graphic overlay" in text for text in run(builder).cautions)
    builder.add(5, "SUB", 21)
    assert not any("nothing but a graphic overlay" in text for text in run(builder).cautions)


def test_an_agent_tag_on_every_series_of_the_study_tells_nothing(builder):
    """Not even of a single T1: the tag was entered at registration."""
    for number, name in enumerate(["T2 TSE", "FLAIR", "T1 SE"]):
        builder.add(number, name, number, contrast_bolus_agent="Gd")
    with pytest.raises(SelectionRefused, match="no T1c"):
        select_by_facts(builder.study(), builder.facts, VOCABULARY, Choice(needed=(Contrast.T1C,)))


def test_a_t1c_known_by_its_tag_is_ranked_like_another(builder):
    """A thin 3-D series with a bolus tag goes before a thick one with a word."""
    with_others(builder).add(3, "T1 SE", 5, slice_step_mm=6.0)
    builder.add(4, "T1 MPRAGE", 20, contrast_bolus_agent="Gd").add(5, "T1 SE KM", 25, slice_step_mm=6.0)
    assert numbers(builder)[1] == 4


def test_a_common_frame_of_reference_goes_before_originality(builder):
    """A distortion-corrected copy in the frame of the others is used where the original cannot be compared."""
    with_others(builder).add(3, "T1", 10).add(4, "T1 KM", 20)
    builder.add(5, "T2 TSE", 2, frame_of_reference_uid="1.9")
    builder.facts["1.2.3.1", ""] = replace(builder.facts["1.2.3.1", ""], image_type=("DERIVED", "PRIMARY", "DIS2D"))
    assert numbers(builder)[2] == 1
    assert any("T2 (series 1 'T2 TSE') is a derived image" in text for text in run(builder).cautions)


HEADS = ["CRANEO", "CRÁNEO", "TÊTE", "GEHIRN", "HOOFD", "ГОЛОВА", "頭部", "UNKNOWN", "WHOLEBODY", "X"]


@pytest.mark.parametrize("part", HEADS)
def test_body_part_is_no_reason_unless_it_is_known_to_be_another(builder, part):
    """The head in any language, or a word that nobody knows, is no reason to refuse."""
    for number, name in enumerate(["T2 TSE", "FLAIR", "T1", "T1 KM"]):
        builder.add(number, name, number, body_part_examined=part)
    assert numbers(builder) == (2, 3, 0, 1)


@pytest.mark.parametrize(
    "part", ["NECK", "CSPINE", "KNEE", "FOOT", "LSPINE", "ABDOMEN", "BREAST", "WIRBELSÄULE", "CARDIAC", "ILIAC"]
)
def test_another_body_part_is_refused(builder, part):
    """A known part that is not the head, as its header names it."""
    for number, name in enumerate(["T2 TSE", "FLAIR", "T1", "T1 KM"]):
        builder.add(number, name, number, body_part_examined=part)
    with pytest.raises(SelectionRefused, match=f"Body Part Examined is {part}"):
        run(builder)


def box(low, high):
    return {"box_mm": ((-100.0, -100.0, low), (100.0, 100.0, high))}


def test_a_spine_in_the_same_frame_is_passed_over_by_its_place(builder):
    """Where head and neck were examined together, what lies below the FLAIR is not the brain, however it is named."""
    builder.add(1, "AX T2", 1, slice_step_mm=5.0, **box(-60, 80)).add(2, "FLAIR", 2, **box(-60, 80))
    builder.add(3, "AX T1", 3, **box(-60, 80)).add(4, "AX T1 +C", 9, slice_step_mm=5.0, **box(-70, 70))
    builder.add(5, "AX T2", 5, slice_step_mm=3.0, **box(-220, -80)).add(6, "AX T1 +C", 12, **box(-230, -40))
    assert numbers(builder) == (3, 4, 1, 2)
    assert verdict(builder, 5).note == "not usable: lies elsewhere than the FLAIR: another body part"


def test_part_of_the_brain_is_a_caution(builder):
    """A slab that passes as brain but covers less than 120 mm is used if there is no other, and told."""
    with_others(builder).add(3, "T1", 10).add(4, "T1 KM", 20, coverage_mm=95.0)
    assert any("T1c (series 4 'T1 KM'): covers only 95 mm" in text for text in run(builder).cautions)


def test_a_later_repeat_that_is_left_aside_is_a_caution(builder):
    """Alike, later, before the first marked series: it may be after contrast, so the earlier one is used, and told."""
    with_others(builder).add(3, "T1 SE", 10).add(4, "T1 SE", 14).add(5, "T1 3D +C", 30)
    assert numbers(builder)[0] == 3
    assert any("series 4 'T1 SE' may be before or after contrast" in text for text in run(builder).cautions)


def test_a_contradiction_is_the_reason_even_beside_an_agent_tag(builder):
    """The refusal quotes what contradicts, not whatever evidence came last."""
    with_others(builder).add(3, "T1 SE", 10)
    timing = {"echo_time_ms": 100, "repetition_time_ms": 5000, "scanning_sequence": ("SE",)}
    builder.add(4, "T1 SE KM", 20, contrast_bolus_agent="Gd", **timing)
    with pytest.raises(SelectionRefused, match=r"no T1c: series 4 .*contradicted: TE 100 ms is too long for T1"):
        run(builder)


def test_a_missing_t1_is_explained_by_what_made_it_a_t1c(builder):
    """The nearest series is shown with all its evidence, the tag included."""
    with_others(builder).add(3, "T1 MPRAGE", 10, contrast_bolus_agent="Gd")
    with pytest.raises(SelectionRefused, match=r"no T1: .*nearest: series 3 .*Contrast/Bolus Agent is 'Gd'"):
        run(builder)


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
    with_others(builder).add(3, "T1", 10).add(4, "T1 KM", 20).add(5, "FLAIR", 9).add(6, "T2 TSE", 30)
    assert numbers(builder)[2:] == (6, 5)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({}, 2),
        ({"slice_step_mm": 2.0}, 5),
        ({"description": "FLAIR pre", "minute": 30}, 5),
    ],
    ids=["alike", "the one before is too thick", "a name against the order"],
)
def test_a_flair_before_contrast_goes_before_one_after_it(builder, second, expected):
    """The method's training data were mostly acquired so; only slices beyond the method's limit weigh more."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 5, slice_step_mm=5.0).add(3, "T1", 10).add(4, "T1 KM", 20)
    values = {"description": "FLAIR", "minute": 30, "slice_step_mm": 5.0, **second}
    builder.add(5, values.pop("description"), values.pop("minute"), **values)
    assert numbers(builder)[3] == expected
    if expected == 2:
        assert "runner-up series 5 'FLAIR': after contrast agent" in verdict(builder, 2).note
        assert "acquired 14:30, later than a T1c (14:20): after contrast" in verdict(builder, 5).evidence


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


@pytest.mark.slow
@given(st.lists(st.tuples(_NAMES, _FACTS), max_size=7))
def test_any_facts_give_a_selection_or_a_refusal(members):
    """No combination of header values does anything but select or refuse."""
    series = tuple(
        Series(f"1.2.{index}", "1.2", "MR", name, index, "1.9", (Instance(index, "1", "1"),))
        for index, (name, _) in enumerate(members)
    )
    facts = {one.key: fact for one, (_, fact) in zip(series, members, strict=True)}
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
