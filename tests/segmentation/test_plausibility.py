"""Lies about an exam are found in its images, each in a brain of three tissues, folded as irregularly as a real one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from node.errors import ContentRefused
from node.segmentation.align import align_coarse
from node.segmentation.local_contrast import STEP, coarse_exam, exam_of_signal
from node.segmentation.plausibility import check_plausible, findings
from node.segmentation.same_head import limited
from node.study import Contrast

SHAPE = (62, 76, 66)
FLUID, GREY, WHITE, VESSEL = range(4)
SIGNAL = {  # of fluid, grey matter, white matter, vessels
    Contrast.T1: (0.3, 0.7, 1.0, 0.6),
    Contrast.T1C: (0.3, 0.75, 1.0, 2.2),
    Contrast.T2: (3.0, 1.4, 1.0, 0.5),
    Contrast.FLAIR: (0.3, 1.2, 1.0, 0.6),
}
NAMES = {contrast: f"series {number}" for number, contrast in enumerate(Contrast, 1)}
PAIRS = list(itertools.combinations(Contrast, 2))


def brain_mask():
    z, y, x = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    return z**2 + y**2 + x**2 < 1


def signals(seed):
    """Each contrast of the brain of ``seed``, with noise of its own."""
    rng = np.random.default_rng(seed)
    folds = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    tissue = np.digitize(folds, np.quantile(folds, (0.15, 0.55)))
    fine = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.0)
    tissue[fine > np.quantile(fine, 0.98)] = VESSEL
    brain = brain_mask()
    made = {}
    for contrast, of_tissue in SIGNAL.items():
        smooth = ndimage.gaussian_filter(np.array(of_tissue)[tissue] * brain, 0.5)
        made[contrast] = np.maximum(smooth + rng.normal(0, 0.03, SHAPE), 0).astype(np.float32) * 400
    return made


@pytest.fixture(scope="module")
def honest():
    """An exam whose contrasts are what they are called."""
    return exam_of_signal(signals(0), brain_mask(), NAMES)


@pytest.fixture(scope="module")
def other():
    """The signals of another brain of the same outline."""
    return signals(1)


def with_contrast(exam, contrast, signal):
    """``exam`` with ``signal`` for ``contrast``, registered to another contrast."""
    fixed = Contrast.T1 if contrast is Contrast.T1C else Contrast.T1C
    inside = limited(signal, exam.brain)
    placed, _ = align_coarse(limited(exam.signal[fixed], exam.brain), inside, exam.brain.astype(np.float32))
    return exam_of_signal({**exam.signal, contrast: placed}, exam.brain, NAMES)


def exchanged(exam, one, two):
    names = {one: two, two: one}
    signal, local = ({each: of[names.get(each, each)] for each in Contrast} for of in (exam.signal, exam.local))
    return replace(exam, signal=signal, local=local)


def test_honest_exam_is_not_doubted(honest):
    """What is called by its name, and of one head, gets neither refusal nor caution."""
    assert findings(honest) == []


def test_receive_field_and_gain_are_no_lie(honest):
    """A field of 40 % over the head, another for each contrast, and any gain leave an honest exam undoubted."""
    ramps = [np.linspace(0.6, 1.4, n).reshape([-1 if axis == each else 1 for each in range(3)])
             for axis, n in enumerate(SHAPE)]  # fmt: skip
    fields = dict(zip(Contrast, (*ramps, 7.0 * ramps[0][::-1]), strict=True))
    biased = {each: (signal * fields[each]).astype(np.float32) for each, signal in honest.signal.items()}
    assert findings(exam_of_signal(biased, honest.brain, NAMES)) == []


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_exchanged_contrasts_are_named(honest, pair):
    """Two series under each other's names are told, and which two; only T1c against T1 or FLAIR is not refused."""
    (found,) = findings(exchanged(honest, *pair))
    for contrast in pair:
        assert f"{NAMES[contrast]} ({contrast})" in found.text
    assert found.is_refusal == (pair not in [(Contrast.T1, Contrast.T1C), (Contrast.T1C, Contrast.FLAIR)])


@pytest.mark.parametrize("contrast", [Contrast.T1C, Contrast.FLAIR])
def test_mirrored_series_is_refused_by_name(honest, contrast):
    """One series of four mirrored left to right, but not in its header, is found, whichever it is."""
    (found,) = findings(with_contrast(honest, contrast, honest.signal[contrast][:, :, ::-1]))
    assert found.is_refusal
    assert found.text.startswith(f"{NAMES[contrast]} ({contrast}) is mirrored left to right")


def test_exam_mirrored_as_a_whole_cannot_be_found(honest):
    """All four mirrored alike fit one another: no image shows it, and the docs say so."""
    mirrored = {each: np.ascontiguousarray(signal[:, :, ::-1]) for each, signal in honest.signal.items()}
    assert findings(exam_of_signal(mirrored, honest.brain[:, :, ::-1], NAMES)) == []


@pytest.mark.parametrize("contrast", [Contrast.T1C, Contrast.T2])
def test_series_of_another_head_is_told_by_name(honest, other, contrast):
    """A series whose folds are those of nobody else in the exam is told; these heads share nothing but the outline."""
    (found,) = findings(with_contrast(honest, contrast, other[contrast]))
    assert found.text.startswith(f"{NAMES[contrast]} ({contrast}) ")
    assert "mirrored" not in found.text


def test_mask_with_bone_is_told(honest):
    """A shell without signal in any contrast, under a rim that has some, is bone in the brain mask."""
    z, y, x = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    bone = (radius > 0.8) & (radius < 0.86)
    signal = {each: np.where(bone, 0, values).astype(np.float32) for each, values in honest.signal.items()}
    texts = [each.text for each in findings(exam_of_signal(signal, honest.brain, NAMES))]
    assert any("may hold skull" in text for text in texts)


def test_small_brain_is_told(honest):
    """A brain that is smaller than an adult's is a child's, an animal's, or a part: told with its volume."""
    small = ndimage.binary_erosion(honest.brain, iterations=6)
    texts = [each.text for each in findings(exam_of_signal(honest.signal, small, NAMES))]
    assert any("less than an adult's" in text for text in texts)


def test_refusal_names_the_reason_and_honest_volumes_pass(honest):
    """On the grid of 1 mm, an honest exam passes; with T2 and FLAIR exchanged it is refused in a plain sentence."""
    fine = {each: signal.repeat(STEP, 0).repeat(STEP, 1).repeat(STEP, 2) for each, signal in honest.signal.items()}
    brain = honest.brain.repeat(STEP, 0).repeat(STEP, 1).repeat(STEP, 2)
    seen = dict.fromkeys(Contrast, np.ones_like(brain))
    assert check_plausible(fine, brain, seen, NAMES) == ()
    fine[Contrast.T2], fine[Contrast.FLAIR] = fine[Contrast.FLAIR], fine[Contrast.T2]
    with pytest.raises(ContentRefused, match=r"series 3 \(T2\) and series 4 \(FLAIR\) are exchanged"):
        check_plausible(fine, brain, seen, NAMES)


def test_series_that_share_no_brain_are_refused():
    """Without any voxel that all series have seen, nothing can be compared."""
    volumes = {each: np.ones((8, 8, 8), np.float32) for each in Contrast}
    with pytest.raises(ContentRefused, match="in common"):
        coarse_exam(volumes, np.zeros((8, 8, 8), bool), NAMES)
