"""Twins that no header tells apart: the images are asked, believed only without contradiction, or the study refused."""

from __future__ import annotations

import pytest

from node.errors import SelectionRefused, SelectionUndecided
from node.series.select import Choice, select_by_facts
from node.series.vocabulary import load_vocabulary
from node.study import Comparison, Contrast

VOCABULARY = load_vocabulary()


class Images:
    """Answers for the images: a series enhances by its number's ``level``; equal levels are undecided."""

    def __init__(self, **level: int) -> None:
        self.level = {int(name.removeprefix("s")): value for name, value in level.items()}
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, one, other, twin=None) -> Comparison:
        self.asked.append(tuple(each.series_number for each in (one, other, twin) if each))
        a, b = self.level[one.series_number], self.level[other.series_number]
        after = None if a == b else "one" if a > b else "other"
        return Comparison(after, f"images: {one.series_number} has {a}, {other.series_number} has {b}")


def run(builder, compare=None, choice=None):
    return select_by_facts(builder.study(), builder.facts, VOCABULARY, choice, compare)


def numbers(selection):
    """Series numbers chosen as (T1, T1c, T2, FLAIR)."""
    return tuple(selection.chosen[contrast].series_number for contrast in Contrast)


def states(selection):
    """Verdict on each T1 series by its number."""
    family = (Contrast.T1, Contrast.T1C)
    return {one.series_number: str(one.contrast) for one in selection.verdicts if one.contrast in family}


@pytest.fixture
def twins(builder):
    """T2, FLAIR, and two T1 series that nothing in their headers tells apart but the time."""
    return builder.add(1, "T2 TSE", 1).add(2, "FLAIR", 5).add(3, "T1 SE", 10).add(4, "T1 SE", 20)


def test_without_images_open_twins_are_undecided(twins):
    """The refusal is of the kind that says: the images may tell."""
    with pytest.raises(SelectionUndecided, match=r"series 3 .* and series 4 .* are alike"):
        run(twins)


def test_images_tell_twins_apart(twins):
    """With a comparison, the enhancing twin is T1c, the other T1, and both show it as evidence."""
    selection = run(twins, Images(s3=0, s4=1))
    assert numbers(selection) == (3, 4, 1, 2)
    for verdict in selection.verdicts[2:]:
        assert "images: 3 has 0, 4 has 1" in verdict.evidence


def test_images_that_do_not_tell_are_refused_with_their_evidence(twins):
    """Undecided images end in a plain refusal, not in one that asks for images again."""
    with pytest.raises(SelectionRefused, match="overlay or order tells; images: 3 has 0, 4 has 0") as refused:
        run(twins, Images(s3=0, s4=0))
    assert not isinstance(refused.value, SelectionUndecided)


def test_images_against_the_order_of_acquisition_are_refused(twins):
    """Contrast agent does not leave: an enhancing series earlier than its plain twin is a contradiction."""
    with pytest.raises(SelectionRefused, match=r"but series 3 'T1 SE' was acquired earlier than series 4 'T1 SE'"):
        run(twins, Images(s3=1, s4=0))


def test_images_are_not_asked_where_headers_tell(builder):
    """A comparison takes seconds of computing: it is made only when there is no selection without it."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 5).add(3, "T1 SE", 10).add(4, "T1 SE", 20, has_overlay=True)
    images = Images(s3=1, s4=0)
    assert numbers(run(builder, images)) == (3, 4, 1, 2)
    assert images.asked == []


@pytest.mark.parametrize("missing", ["T2 TSE", "FLAIR"])
def test_images_cannot_help_where_another_contrast_is_missing(builder, missing):
    """With FLAIR or T2 missing, too, the study is refused for good, and no image is read."""
    present = "FLAIR" if missing == "T2 TSE" else "T2 TSE"
    builder.add(1, present, 1).add(3, "T1 SE", 10).add(4, "T1 SE", 20)
    images = Images(s3=0, s4=1)
    for compare in (None, images):
        with pytest.raises(SelectionRefused) as refused:
            run(builder, compare)
        assert not isinstance(refused.value, SelectionUndecided)
    assert images.asked == []


def test_images_help_where_t1c_alone_is_needed(builder):
    """What is not needed may be missing: the twins still decide."""
    builder.add(3, "T1 SE", 10).add(4, "T1 SE", 20)
    choice = Choice(needed=(Contrast.T1C,))
    with pytest.raises(SelectionUndecided):
        run(builder, None, choice)
    assert run(builder, Images(s3=0, s4=1), choice).chosen[Contrast.T1C].series_number == 4


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ({"s3": 0, "s4": 1, "s5": 1}, {3: "T1", 4: "T1c", 5: "T1c"}),
        ({"s3": 0, "s4": 0, "s5": 1}, {3: "T1", 4: "T1", 5: "T1c"}),
    ],
)
def test_three_twins_fall_into_before_and_after(twins, level, expected):
    """A repeat before or after the injection goes with its like."""
    twins.add(5, "T1 SE", 30)
    assert states(run(twins, Images(**level))) == expected


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ({"s3": 0, "s4": 1, "s5": 2}, "do not agree with one another"),
        ({"s3": 0, "s4": 1, "s5": 0}, "but series 4 .* was acquired earlier than series 5"),
        ({"s3": 0, "s4": 0, "s5": 0}, "images: 3 has 0, 4 has 0; images: 3 has 0, 5 has 0"),
    ],
    ids=["three kinds", "against the order", "all alike"],
)
def test_three_twins_that_do_not_agree_are_refused(twins, level, reason):
    """Three answers that cannot all be true settle nothing."""
    twins.add(5, "T1 SE", 30)
    with pytest.raises(SelectionRefused, match=reason):
        run(twins, Images(**level))


def test_one_group_of_twins_settles_another_by_order(twins):
    """Once the images told one pair, a second pair around the injection needs no images."""
    twins.add(13, "T1 SE sag", 8).add(14, "T1 SE sag", 25)
    images = Images(s3=0, s4=1)
    assert states(run(twins, images)) == {3: "T1", 4: "T1c", 13: "T1", 14: "T1c"}
    assert images.asked == [(3, 4)]


def test_many_twins_are_refused_without_comparing_all(builder):
    """Five twins would take ten comparisons: the study is refused, saying so."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 2)
    for number in range(3, 8):
        builder.add(number, "T1 SE", 10 * number - 20)
    images = Images()
    with pytest.raises(SelectionRefused, match="5 twins are too many to be compared"):
        run(builder, images)
    assert images.asked == []


@pytest.mark.parametrize("other", [{"scan_options": ("FS",)}, {"flip_angle": 30.0}, {"sequence_variant": ("MTC",)}])
def test_twins_acquired_otherwise_are_not_compared(builder, other):
    """Fat suppression, flip angle or magnetisation transfer brighten and darken by themselves: no image is asked."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 5).add(3, "T1 SE", 10, flip_angle=90.0, sequence_variant=("SK",))
    builder.add(4, "T1 SE", 20, **{"flip_angle": 90.0, "sequence_variant": ("SK",), **other})
    images = Images(s3=0, s4=1)
    with pytest.raises(SelectionRefused) as refused:
        run(builder, images)
    assert not isinstance(refused.value, SelectionUndecided)
    assert images.asked == []


def test_an_unusable_twin_is_not_compared(builder):
    """A twin that is no whole volume is not read for its images, and does not make the study one that images settle."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 5).add(3, "T1 SE", 10).add(4, "T1 SE", 20, coverage_mm=30.0)
    with pytest.raises(SelectionRefused, match="no T1c") as refused:
        run(builder)
    assert not isinstance(refused.value, SelectionUndecided)


def test_the_answer_does_not_depend_on_the_order_of_series(twins):
    """The same study listed in another order gives the same choice and asks the same questions."""
    twins.add(5, "T1 SE", 30)
    first, second = Images(s3=0, s4=1, s5=1), Images(s3=0, s4=1, s5=1)
    expected = numbers(run(twins, first))
    twins.series.reverse()
    assert numbers(run(twins, second)) == expected
    assert first.asked == second.asked


def test_a_single_unmarked_t1_is_a_t1(builder):
    """One T1 without any mark has no twin to be compared with: it is read as T1, and T1c is missing."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 5).add(3, "T1 SE", 10)
    images = Images(s3=1)
    with pytest.raises(SelectionRefused, match="no T1c") as refused:
        run(builder, images)
    assert not isinstance(refused.value, SelectionUndecided)
    assert images.asked == []


SE = {"slice_step_mm": 6.0, "scanning_sequence": ("SE",), "mr_acquisition_type": "2D", "echo_time_ms": 12.0}
GRE = {"scanning_sequence": ("GR",), "mr_acquisition_type": "3D", "echo_time_ms": 4.0}


def exam_without_tags(builder, *, has_first):
    """A 3-D T1, a spin echo, a 3-D T1 with fat suppression, the spin echo again; neither word nor tag tells."""
    builder.add(1, "T2 TSE", 1).add(2, "FLAIR", 5)
    if has_first:
        builder.add(3, "T1 3D", 29, **GRE)
    builder.add(4, "T1 SE", 42, **SE).add(5, "T1 3D FS", 49, **GRE, scan_options=("FS",)).add(6, "T1 SE", 54, **SE)
    return builder


@pytest.mark.parametrize(
    ("has_first", "level", "expected"),
    [
        (True, {"s4": 0, "s5": 2, "s6": 2}, (3, 5, 1, 2)),
        (False, {"s4": 0, "s5": 2, "s6": 2}, (4, 5, 1, 2)),
        (True, {"s4": 0, "s5": 0, "s6": 2}, (3, 6, 1, 2)),
        (False, {"s4": 0, "s5": 0, "s6": 2}, (4, 6, 1, 2)),
    ],
    ids=["decided", "decided, no first", "open", "open, no first"],
)
def test_between_the_last_before_and_the_first_after_order_decides_nothing(builder, has_first, level, expected):
    """The 3-D series between the two spin echoes is taken as T1c if its images show it, else for neither."""
    exam_without_tags(builder, has_first=has_first)
    images = Images(s3=0, **level)
    selection = run(builder, images)
    assert numbers(selection) == expected
    assert images.asked == [(4, 6), (5, 4, 6)]
    between = next(one for one in selection.verdicts if one.series_number == 5)
    if level["s5"]:
        assert "images: 5 has 2, 4 has 0" in between.evidence
    else:
        assert "order decides nothing between them; images: 5 has 0, 4 has 0" in between.note


@pytest.mark.parametrize("has_first", [True, False])
def test_without_images_an_exam_without_tags_stays_undecided(builder, has_first):
    """Headers alone leave the two spin echoes open, so the images are asked."""
    with pytest.raises(SelectionUndecided):
        run(exam_without_tags(builder, has_first=has_first))


def test_a_series_of_another_kind_is_compared_with_a_marked_one_if_no_t1_is_known(builder):
    """Without times, two unmarked series beside a marked one are open; the marked one enhances against either."""
    builder.add(1, "T2").add(2, "FLAIR").add(3, "T1 AX", **SE).add(4, "MPRAGE", **GRE).add(5, "T1 COR GD", **SE)
    with pytest.raises(SelectionUndecided):
        run(builder)
    images = Images(s3=0, s4=0, s5=1)
    assert numbers(run(builder, images)) == (4, 5, 1, 2)
    assert images.asked == [(3, 5), (4, 5)]


def test_images_that_contradict_what_is_known_decide_nothing(builder):
    """An open series that enhances against the one known to be after contrast is no T1c by that."""
    builder.add(1, "T2").add(2, "FLAIR").add(3, "T1 AX", **SE).add(4, "MPRAGE", **GRE).add(5, "T1 COR GD", **SE)
    with pytest.raises(SelectionRefused, match="the images speak against what else is known of series 5"):
        run(builder, Images(s3=2, s4=2, s5=1))


@pytest.mark.parametrize(
    ("level", "expected"), [({"s3": 0, "s4": 1}, (3, 4, 1, 2)), ({"s3": 1, "s4": 0}, (4, 3, 1, 2))]
)
def test_two_kinds_without_any_mark_are_compared(builder, level, expected):
    """Where headers and times are silent, a spin echo and a gradient echo are compared like twins."""
    builder.add(1, "T2").add(2, "FLAIR").add(3, "AX T1", **SE).add(4, "SAG MPRAGE", **GRE)
    with pytest.raises(SelectionUndecided, match="no T1c"):
        run(builder)
    assert numbers(run(builder, Images(**level))) == expected


def test_two_kinds_that_images_do_not_tell_are_refused_with_their_evidence(builder):
    """Neither is taken for T1 or T1c."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 2).add(3, "AX T1", 3, **SE).add(4, "SAG MPRAGE", 9, **GRE)
    with pytest.raises(SelectionRefused, match=r"no T1c: .*; images: 3 has 0, 4 has 0") as refused:
        run(builder, Images(s3=0, s4=0))
    assert not isinstance(refused.value, SelectionUndecided)


@pytest.mark.parametrize("other", [{"scan_options": ("FS",)}, {"sequence_variant": ("MTC",)}])
def test_two_kinds_of_which_one_suppresses_fat_are_not_compared(builder, other):
    """Fat suppression and magnetisation transfer darken by themselves: no image is asked."""
    builder.add(1, "T2", 1).add(2, "FLAIR", 2).add(3, "AX T1", 3, **SE).add(4, "SAG MPRAGE", 9, **GRE, **other)
    images = Images(s3=0, s4=1)
    with pytest.raises(SelectionRefused, match="no T1c"):
        run(builder, images)
    assert images.asked == []
