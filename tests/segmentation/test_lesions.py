"""Pictures that are not one glioma: many separate enhancing lesions, and no tumour, each get a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from node.segmentation.lesions import lesion_cautions, separate_lesions


def balls(*centres, radius=5):
    grid = np.indices((60, 90, 90))
    return np.any(
        [sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) < radius**2 for centre in centres], 0
    )


def label_map(enhancing):
    return np.where(enhancing, 4, 0).astype(np.uint8)


def test_three_lesions_far_apart_are_told():
    """Three lesions of 0.5 mL, more than 10 mm apart, may be metastases; each is measured for itself."""
    mask = balls((30, 20, 20), (30, 60, 20), (30, 40, 70))
    assert separate_lesions(mask) == pytest.approx([mask.sum() / 3000] * 3)
    (found,) = lesion_cautions(label_map(mask))
    assert found.startswith("3 separate enhancing lesions")


@pytest.mark.parametrize(
    "mask",
    [balls((30, 40, 40), radius=9), balls((30, 20, 20), (30, 60, 60), radius=7),
     balls((30, 20, 20), (30, 35, 20), (30, 50, 20)),
     balls((30, 45, 45), radius=7) | balls((9, 9, 9), (50, 80, 9), radius=2)],
    ids=["one", "two", "close together", "one and specks"],
)  # fmt: skip
def test_one_tumour_gets_no_sentence(mask):
    """One or two lesions, lesions less than 10 mm apart, and specks below 0.1 mL are an ordinary picture."""
    assert not list(lesion_cautions(label_map(mask)))


def test_no_tumour_is_told():
    """An empty label map, and one below 0.5 mL, say that no tumour was found; no error is raised."""
    for mask in (np.zeros((60, 90, 90), bool), balls((30, 30, 30), radius=4)):
        (found,) = lesion_cautions(label_map(mask))
        assert found.startswith("no tumour was found")
