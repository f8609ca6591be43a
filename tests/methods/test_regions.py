"""Morphology and component rules, on masks small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from node.errors import ContentRefused
from node.methods.regions import bounding_box, closing, keep_above, keep_inside, keep_two

SHAPE = (12, 12, 30)


def blobs(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box] = True
    return mask


LARGE = np.s_[1:5, 1:5, 1:6]  # 80 voxels
SMALL = np.s_[1:3, 1:3, 10:13]  # 12 voxels
TINY = np.s_[8:9, 8:9, 25:27]  # 2 voxels


def test_a_box_has_its_margin_and_stays_inside() -> None:
    """Five voxels around, cut at the array's border."""
    assert bounding_box(blobs(SMALL)) == np.s_[0:8, 0:8, 5:18]


def test_a_box_around_nothing_is_refused() -> None:
    """The released code raised an index error here; the error says what is wrong."""
    with pytest.raises(ContentRefused, match="empty"):
        bounding_box(blobs())


def test_closing_fills_a_gap_and_clears_the_border() -> None:
    """A one-voxel gap closes; the outermost layer is always background."""
    mask = blobs(np.s_[4:7, 4:7, 4:7], np.s_[4:7, 4:7, 8:11], np.s_[0:1, 0:12, 0:30])
    closed = closing(mask)
    assert closed[5, 5, 7]
    assert not closed[0].any()


def test_components_above_a_size_stay() -> None:
    """Of several components those with more voxels than the threshold stay."""
    assert (keep_above(blobs(LARGE, SMALL, TINY), 11) == blobs(LARGE, SMALL)).all()
    assert (keep_above(blobs(LARGE, SMALL, TINY), 12) == blobs(LARGE)).all()


def test_a_single_component_stays_whatever_its_size() -> None:
    """One small component is kept."""
    assert (keep_above(blobs(TINY), 2000) == blobs(TINY)).all()


def test_of_small_components_only_the_largest_stays() -> None:
    """Several components, none above the threshold, was undefined in the released code."""
    assert (keep_above(blobs(SMALL, TINY), 2000) == blobs(SMALL)).all()


def test_a_second_component_needs_a_tenth_of_the_first() -> None:
    """12 of 80 voxels is enough, 2 of 80 is not."""
    assert (keep_two(blobs(LARGE, SMALL)) == blobs(LARGE, SMALL)).all()
    assert (keep_two(blobs(LARGE, TINY)) == blobs(LARGE)).all()


def test_equal_components_are_both_kept() -> None:
    """Two components of exactly one size made the released code fail."""
    twins = blobs(np.s_[1:3, 1:3, 1:3], np.s_[1:3, 1:3, 10:12])
    assert (keep_two(twins) == twins).all()
    assert (keep_above(twins, 7) == twins).all()


def test_a_component_mostly_outside_goes() -> None:
    """A component stays if at least half of it lies in the main region."""
    half = blobs(np.s_[1:3, 1:3, 0:4])
    assert (keep_inside(half, blobs(np.s_[1:3, 1:3, 0:2])) == half).all()
    assert not keep_inside(half, blobs(np.s_[1:3, 1:3, 0:1])).any()


def test_nothing_stays_nothing() -> None:
    """Empty masks pass through every rule."""
    for rule in (closing, keep_above, keep_two):
        assert not rule(blobs()).any()
    assert not keep_inside(blobs(), blobs(LARGE)).any()
