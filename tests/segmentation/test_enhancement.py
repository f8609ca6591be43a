"""Before or after contrast agent by images: real and synthetic heads, and what must not look like contrast agent."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk

from node.errors import ContentRefused, SelectionUndecided
from node.segmentation import enhancement
from node.segmentation.enhancement import Brightening, brightening, compare_enhancement
from node.segmentation.uptake import LEAST_UPTAKE_ML, uptake
from node.segmentation.volume import image_from_affine, read_volume
from node.series.fact_reader import read_facts
from node.series.headers import read_study
from node.series.select import select_by_facts
from node.series.vocabulary import load_vocabulary
from node.study import Contrast

STEP_MM = 2  # the comparison's own grid


def changed(image, *, noise=0.0, gain=1.0, field=0.0, shift_mm=(0.0, 0.0, 0.0), turn_degrees=0.0, blur_mm=0.0, fat=1.0):
    """The same head again: moved, blurred, fat suppressed, under another receive field and gain, with noise.

    ``noise``: its standard deviation over the tissue's level; ``field``: logarithm of the gain at the head's sides;
    ``fat``: what is left of the brightest tissue.
    """
    transform = sitk.Euler3DTransform()
    transform.SetCenter(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    transform.SetTranslation(shift_mm)
    transform.SetRotation(*[float(np.radians(turn_degrees))] * 3)
    moved = sitk.Resample(image, image, transform, sitk.sitkLinear, 0.0)
    if blur_mm:
        moved = sitk.SmoothingRecursiveGaussian(moved, blur_mm)
    array = np.maximum(sitk.GetArrayFromImage(moved), 0)
    level = np.median(array[array > np.percentile(array, 60)])
    array = array * (1 - (1 - fat) / (1 + np.exp(np.clip((1.7 * level - array) / (0.1 * level), -50, 50))))
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in array.shape), indexing="ij")
    array = array * gain * np.exp(field * (x + 0.5 * y - 0.7 * z * x + 0.6 * y**2))
    real, imaginary = np.random.default_rng(0).normal(0, noise * gain * level, (2, *array.shape))
    copy = sitk.GetImageFromArray(np.hypot(array + real, imaginary).astype(np.float32))
    copy.CopyInformation(image)
    return copy


@pytest.fixture(scope="module")
def head(synthetic_patient):
    """A contrast of the synthetic patient in voxels of 2 mm."""

    @functools.cache
    def image_of(contrast):
        whole = image_from_affine(synthetic_patient.contrast_zyx[contrast], synthetic_patient.affine_lps)
        return sitk.Shrink(sitk.DiscreteGaussian(whole, 0.8), [STEP_MM] * 3)

    return image_of


@pytest.fixture(scope="module")
def brainix(data_folder):
    """Series of the real exam by number; 601 was acquired before, 701 after contrast agent."""
    return {series.series_number: series for series in read_study(data_folder / "brainix").series}


@pytest.fixture(scope="module")
def answers():
    """Answers of ``brightening`` by its arguments; several tests compare the same two series."""
    return {}


@pytest.fixture
def compare(monkeypatch, answers):
    """``compare_enhancement`` that does not compute again what a test before has computed from the same images."""

    def remembered(one, other, names):
        key = (*names, *(hash(sitk.GetArrayViewFromImage(image).tobytes()) for image in (one, other)))
        if key not in answers:
            answers[key] = brightening(one, other, names)
        return answers[key]

    monkeypatch.setattr(enhancement, "brightening", remembered)
    return compare_enhancement


@pytest.mark.parametrize(
    ("found", "is_enhancement"),
    [
        (Brightening(0.0230, 0.0000, 0.0090, 0.0000), True),
        (Brightening(0.0004, 0.0000, 0.0001, 0.0000), False),
        (Brightening(0.0120, 0.0060, 0.0350, 0.0090), False),
        (Brightening(0.0530, 0.0000, 0.2400, 0.0001), False),
        (Brightening(0.3700, 0.0003, 0.0220, 0.0053), False),
    ],
    ids=["much, on one side", "too little", "much on both sides", "the scalp above all", "most of the head"],
)
def test_enhancement_is_much_on_one_side_and_inside_the_head(found, is_enhancement):
    """Only a large share that is brighter, with next to nothing darker, and not near the surface, is contrast agent."""
    assert found.is_enhancement is is_enhancement
    assert not found.reverse.is_enhancement


@pytest.mark.slow
@pytest.mark.parametrize("after_is_one", [True, False])
def test_real_twins_are_told_apart(brainix, compare, after_is_one):
    """Of two real series alike in every header value, the one after contrast agent is found, in either order."""
    pair = (brainix[701], brainix[601]) if after_is_one else (brainix[601], brainix[701])
    comparison = compare(*pair)
    assert comparison.after == ("one" if after_is_one else "other")
    assert (
        f"brighter by a quarter in {brainix[701].label} than in {brainix[601].label}, 0.00% darker"
        in comparison.evidence
    )


@pytest.mark.slow
def test_real_exam_without_any_mark_is_selected_by_its_images(data_folder, brainix, compare):
    """Bare of overlay, subtraction and further T1 series, the real exam is undecided; its images settle it."""
    series = tuple(one for number, one in brainix.items() if number in (301, 401, 601, 701))
    study = replace(read_study(data_folder / "brainix"), series=series)
    facts = {one.key: replace(read_facts(one), has_overlay=False) for one in series}
    with pytest.raises(SelectionUndecided):
        select_by_facts(study, facts, load_vocabulary())
    selection = select_by_facts(study, facts, load_vocabulary(), compare=compare)
    assert [selection.chosen[contrast].series_number for contrast in (Contrast.T1, Contrast.T1C)] == [601, 701]
    assert all(any("brighter by a quarter" in text for text in one.evidence) for one in selection.verdicts[2:])


@pytest.mark.slow
@pytest.mark.parametrize("has_before", [True, False], ids=["after the twin before contrast", "of unknown time"])
def test_real_series_between_the_twins_is_taken_for_t1c_by_its_images(data_folder, brainix, compare, has_before):
    """Bare of every mark, and acquired between the twins, the 3-D series is the T1c: order does not make it the T1."""
    known = {number: brainix[number] for number in (301, 401, 601, 701)}
    known[801] = replace(brainix[801], series_description="T1/3D/FFE")
    study = replace(read_study(data_folder / "brainix"), series=tuple(known.values()))
    facts = {one.key: replace(read_facts(one), has_overlay=False) for one in known.values()}
    first, last = (facts[known[number].key].acquisition_datetime for number in (601, 701))
    moment = first + (last - first) / 2 if has_before else None
    key = known[801].key
    facts[key] = replace(facts[key], acquisition_datetime=moment)
    with pytest.raises(SelectionUndecided):
        select_by_facts(study, facts, load_vocabulary())
    selection = select_by_facts(study, facts, load_vocabulary(), compare=compare)
    assert [selection.chosen[contrast].series_number for contrast in (Contrast.T1, Contrast.T1C)] == [601, 801]


@pytest.mark.slow
def test_synthetic_exam_is_told_apart(synthetic_exam, compare):
    """The T1c of the synthetic exam, as DICOM, is found; swapping the two swaps the answer."""
    series = {one.series_description: one for one in read_study(synthetic_exam.series[0].files[0].parents[1]).series}
    after, before = series["T1w_MPRAGE_sag_KM"], series["T1w_MPRAGE_sag"]
    assert compare(after, before).after == "one"
    assert compare(before, after).after == "other"


@pytest.mark.slow
@pytest.mark.parametrize("contrast", [Contrast.T1, Contrast.T1C])
@pytest.mark.parametrize(
    "change",
    [
        {"noise": 0.15},
        {"gain": 3.0, "field": 0.6},
        {"shift_mm": (2.0, 2.0, 2.0)},
        {"blur_mm": 2.0},
        {"shift_mm": (5.0, -4.0, 6.0), "turn_degrees": 5.0, "noise": 0.05, "gain": 0.5, "field": 0.4},
    ],
    ids=["noise", "gain and field", "small motion", "blur", "all at once"],
)
def test_the_same_head_again_is_undecided(head, contrast, change):
    """Noise, gain, receive field, motion and blur brighten a tenth of what would decide, at most."""
    image = head(contrast)
    found = brightening(image, changed(image, **change))
    assert max(found.brighter, found.darker) < 0.0005


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"noise": 0.15}, {"shift_mm": (5.0, -4.0, 6.0), "turn_degrees": 5.0, "field": 0.4}])
def test_real_twins_are_told_apart_under_disturbance(brainix, change):
    """Noise, motion and another receive field do not hide contrast agent, nor turn the answer around."""
    before, after = (read_volume(brainix[number]).image for number in (601, 701))
    assert brightening(changed(after, **change), before).is_enhancement
    assert brightening(changed(before, **change), after).reverse.is_enhancement


@pytest.mark.slow
def test_fat_suppression_is_no_contrast_agent(head):
    """A head whose fat is bright against the same with fat suppressed is undecided, not 'after contrast'."""
    image = head(Contrast.T1)
    found = brightening(image, changed(image, fat=0.3))
    assert found.outer_brighter > 0.05
    assert not found.is_enhancement
    assert not found.reverse.is_enhancement


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "is_decided"),
    [("BraTS2021_00006", True), ("BraTS2021_01479", True), ("BraTS2021_01477", False), ("BraTS2021_01484", False)],
)
def test_skull_stripped_pairs_are_right_or_undecided(data_folder, case, is_decided):
    """Without scalp and mucosa only an enhancing tumour tells; two cases without one are left undecided."""
    before, after = (
        sitk.ReadImage(str(data_folder / "brats" / case / f"{case}_{name}.nii.gz"), sitk.sitkFloat32)
        for name in ("t1", "t1ce")
    )
    found = brightening(after, before)
    assert found.is_enhancement is is_decided
    assert not found.reverse.is_enhancement


@pytest.mark.slow
def test_pair_of_another_scanner_is_told_apart(data_folder):
    """A second real exam, thick slices of a spin echo, is told apart."""
    before, after = (
        sitk.ReadImage(str(data_folder / "tcga-fg-6692" / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("t1", "t1c")
    )
    assert brightening(after, before).is_enhancement


def reweighted(image, power, noise=0.03):
    """The same head under another contrast between tissues, as another kind of sequence has, with noise."""
    array = np.maximum(sitk.GetArrayFromImage(image).astype(float), 0)
    level = np.percentile(array, 99)
    noisy = (array / level) ** power * level + np.random.default_rng(1).normal(0, noise * level, array.shape)
    copy = sitk.GetImageFromArray(np.abs(noisy).astype(np.float32))
    copy.CopyInformation(image)
    return copy


@pytest.mark.slow
def test_a_real_series_of_another_kind_is_told_by_two_twins(brainix):
    """The coronal gradient echo after contrast agent is bright where the two spin echoes differ; so it is decided."""
    found = compare_enhancement(brainix[801], brainix[601], brainix[701])
    assert found.after == "one"
    assert "among the brightest tenth of like tissue in series 801" in found.evidence
    assert compare_enhancement(brainix[801], brainix[601]).after is None


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.6, 1.6])
def test_a_series_of_another_kind_before_contrast_is_not_taken_for_one_after_it(brainix, power):
    """With other weights of the tissues, the spin echo before contrast agent is never said to be after it."""
    before, after = (read_volume(brainix[number]).image for number in (601, 701))
    share, volume_ml = uptake(reweighted(before, power), before, after)
    assert share < 0.7
    assert volume_ml > LEAST_UPTAKE_ML


def test_a_third_series_that_cannot_be_read_is_undecided(tmp_path):
    """The reason is told, and nothing is decided."""
    series = phantoms.write_series(tmp_path / "good", phantoms.classic(phantoms.Geometry()))
    bad = replace(series, series_instance_uid="1.2.3", instances=series.instances[:2])
    found = compare_enhancement(bad, series, series)
    assert found.after is None
    assert "cannot be compared with two others" in found.evidence


def test_a_series_that_cannot_be_read_is_undecided_with_the_reason(tmp_path):
    """A volume that is refused leaves the pair undecided, and the evidence says why."""
    instances = phantoms.classic(phantoms.Geometry())
    good = phantoms.write_series(tmp_path / "good", instances)
    bad = replace(good, series_instance_uid="1.2.3", instances=good.instances[:2])
    comparison = compare_enhancement(good, bad)
    assert comparison.after is None
    assert "2 slices are too few for a volume" in comparison.evidence


def test_an_empty_image_is_refused():
    """Nothing is compared with an image of air."""
    ball = sitk.GaussianSource(sitk.sitkFloat32, [40] * 3, [9.0] * 3, [20.0] * 3)
    with pytest.raises(ContentRefused, match="other is empty"):
        brightening(ball, ball * 0)


def test_too_little_of_a_head_is_refused():
    """A ball of some millilitres is no head to judge contrast agent by."""
    ball = sitk.GaussianSource(sitk.sitkFloat32, [40] * 3, [9.0] * 3, [20.0] * 3)
    with pytest.raises(ContentRefused, match="too little of one head"):
        brightening(ball, ball * 2)
