"""Scores on masks whose answer is known, and the evaluation's reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from node.methods.card import Exposure, read_card
from node.methods.contract import REGIONS
from node.segmentation.evaluate import (
    CaseScore,
    hd95_mm,
    score,
    summaries,
    summary,
    write_json,
    write_markdown,
)
from node.segmentation.volume_plot import write_plot


def block(*, shift: int = 0, empty: bool = False) -> np.ndarray:
    mask = np.zeros((20, 20, 20), bool)
    if not empty:
        mask[5:15, 5:15, 5 + shift : 15 + shift] = True
    return mask


def test_equal_masks_score_full() -> None:
    """Dice 1, distance 0, everything found."""
    result = score(block(), block(), 1.0)
    assert (result.dice, result.hd95_mm, result.sensitivity, result.volume_error_ml) == (1.0, 0.0, 1.0, 0.0)


def test_a_shifted_block_scores_as_computed_by_hand() -> None:
    """Two voxels aside: 800 of 1000 voxels are common, and the far faces lie 2 mm apart."""
    result = score(block(shift=2), block(), 1.0)
    assert result.dice == pytest.approx(0.8)
    assert result.sensitivity == pytest.approx(0.8)
    assert result.hd95_mm == pytest.approx(2.0)
    assert result.predicted_ml == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"), [(True, True, 1.0), (False, True, 0.0), (True, False, 0.0)]
)
def test_empty_masks_follow_the_brats_convention(predicted: bool, truth: bool, expected: float) -> None:
    """Both empty is 1, one empty is 0, and there is no distance."""
    result = score(block(empty=predicted), block(empty=truth), 1.0)
    assert result.dice == expected
    assert result.hd95_mm is None
    assert result.sensitivity == (None if truth else 0.0)


def test_a_distance_is_symmetric() -> None:
    """HD95 does not depend on which mask is the truth."""
    one, other = block(), block(shift=3) | block()
    assert hd95_mm(one, other) == hd95_mm(other, one) > 0


@pytest.fixture
def scores() -> list[CaseScore]:
    full, none = score(block(), block(), 0.9), score(block(empty=True), block(empty=True), 1.0)
    wrong = score(block(), block(empty=True), 0.4)
    return [
        CaseScore("one", Exposure.SEEN, dict(zip(REGIONS, (full, full, none), strict=True))),
        CaseScore("two", Exposure.SEEN, dict(zip(REGIONS, (full, full, wrong), strict=True))),
        CaseScore(
            "three", Exposure.UNSEEN, dict(zip(REGIONS, (full, score(block(shift=2), block(), 0.8), full), strict=True))
        ),
    ]


def test_cases_without_truth_are_reported_apart(scores: list[CaseScore]) -> None:
    """Enhancing tumour: one right, one answered empty as it is, one wrongly found."""
    means = summary(scores)["enhancing_tumour"]
    assert means["mean_dice"] == pytest.approx(2 / 3, abs=1e-4)
    assert means["mean_dice_truth_present"] == 1.0
    assert (means["truth_empty"], means["truth_empty_answered_empty"]) == (2, 1)


def test_cases_seen_in_training_share_no_mean_with_others(scores: list[CaseScore]) -> None:
    """Two cases that the networks were trained on, and one that they were not, give two means, never one of three."""
    means = summaries(scores)
    core = {
        exposure: (each["tumour_core"]["cases"], each["tumour_core"]["mean_dice"]) for exposure, each in means.items()
    }
    assert core == {Exposure.UNSEEN: (1, 0.8), Exposure.SEEN: (2, 1.0)}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("Brats18_TCIA01_201_1", Exposure.SEEN),
        ("BraTS2021_01481", Exposure.SEEN),
        ("BraTS2021_00006", Exposure.UNSEEN),
        ("BraTS2021_01482", Exposure.UNKNOWN),
        ("mine", Exposure.UNKNOWN),
    ],
)
def test_card_says_which_cases_its_networks_were_trained_on(case: str, expected: Exposure) -> None:
    """A case that the card does not name counts as neither seen nor unseen."""
    assert read_card("anisotropic_nets_brats17").exposure(case) is expected


@pytest.mark.slow
def test_reports_hold_every_case(scores: list[CaseScore], tmp_path: Path) -> None:
    """JSON for scripts, Markdown and a picture for people."""
    settings = {"mode": "slab"}
    write_json(scores, settings, tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert [case["name"] for case in content["cases"]] == ["one", "two", "three"]
    assert content["summary"]["seen in training"]["tumour_core"]["mean_dice"] == 1.0
    write_markdown(scores, settings, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert (
        text.index("## Cases unseen in training (1)")
        < text.index("| three |")
        < text.index("## Cases seen in training (2)")
    )
    assert "| three | tumour core | 0.800 | 2.0 | 0.800 | 1.00 | 1.00 | 0.80 |" in text
    write_plot(scores, tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 10_000
