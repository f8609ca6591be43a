"""Registration: a known motion of a head is found again; what cannot be right is refused."""

import functools

import numpy as np
import pytest
import SimpleITK as sitk

from node.errors import ContentRefused, GeometryRefused
from node.segmentation.align import align_rigid
from node.segmentation.grid import common_grid, to_grid
from node.segmentation.volume import image_from_affine, read_volume
from node.series.headers import read_study
from node.study import Contrast

pytestmark = pytest.mark.slow

STEP_MM = 2  # the head is sampled at every other millimetre, which is what the last level of the registration looks at


def motion(angles_degrees, shift_mm):
    """Points of the still patient to points of the moved one."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(angles_degrees).tolist())
    transform.SetTranslation(shift_mm)
    return transform


@pytest.fixture(scope="module")
def head(synthetic_patient):
    """The patient's contrast as an image of 2 mm voxels."""

    @functools.cache
    def image_of(contrast):
        array_zyx = synthetic_patient.contrast_zyx[contrast]
        whole = image_from_affine(array_zyx, synthetic_patient.affine_lps)
        return sitk.Shrink(sitk.DiscreteGaussian(whole, 0.8), [STEP_MM] * 3)

    return image_of


@pytest.fixture(scope="module")
def fixed(head):
    return head(Contrast.T1C)


@pytest.fixture(scope="module")
def moved(head):
    """A contrast of the moved patient, in slices of 3 mm, with noise."""

    def image_of(contrast, transform):
        still = head(contrast)
        size = [still.GetSize()[0], still.GetSize()[1], still.GetSize()[2] * STEP_MM // 3]
        spacing = (STEP_MM, STEP_MM, 3.0)
        image = sitk.Resample(
            still, size, transform.GetInverse(), sitk.sitkLinear, still.GetOrigin(), spacing, still.GetDirection()
        )
        return sitk.AdditiveGaussianNoise(image, 10.0, 0.0, 1)

    return image_of


@pytest.fixture(scope="module")
def brain_points(synthetic_patient):
    """Some points of the brain, LPS mm."""
    index_xyz = np.argwhere(synthetic_patient.brain_zyx)[::4999, ::-1]
    return (index_xyz + synthetic_patient.affine_lps[:3, 3]).tolist()


def distances_mm(found, true, points):
    return [np.linalg.norm(np.subtract(found.TransformPoint(p), true.TransformPoint(p))) for p in points]


def rotation_between_degrees(found, true):
    turn = np.reshape(found.GetMatrix(), (3, 3)) @ np.reshape(true.GetMatrix(), (3, 3)).T
    return np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))


@pytest.mark.parametrize(
    ("contrast", "angles_degrees", "shift_mm"),
    [
        (Contrast.T1, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        (Contrast.T2, (2.0, -1.0, 3.0), (4.0, -3.0, 5.0)),
        (Contrast.FLAIR, (8.0, 5.0, -10.0), (10.0, 12.0, -15.0)),
    ],
    ids=["still", "small", "large"],
)
def test_known_motion_is_found_again(fixed, moved, brain_points, contrast, angles_degrees, shift_mm):
    """A contrast of the moved patient is brought back to within half a millimetre (mean over the brain) and degree."""
    true = motion(angles_degrees, shift_mm)
    found = align_rigid(fixed, moved(contrast, true), "series 4")
    assert np.mean(distances_mm(found, true, brain_points)) < 0.5
    assert max(distances_mm(found, true, brain_points)) < 1.0
    assert rotation_between_degrees(found, true) < 0.5


def test_same_image_stays_where_it_is(fixed, brain_points):
    """Registration of an image to itself moves it by less than a tenth of a millimetre: no half voxel is lost."""
    found = align_rigid(fixed, fixed, "itself")
    assert max(distances_mm(found, motion((0, 0, 0), (0, 0, 0)), brain_points)) < 0.1


def test_two_runs_give_the_same_transform(fixed, moved):
    """The answer is the same to the last bit each time it is computed."""
    image = moved(Contrast.T2, motion((2, -1, 3), (4, -3, 5)))
    answers = {align_rigid(fixed, image, "series 3").GetParameters() for _ in range(4)}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("angles_degrees", "shift_mm"), [((0, 0, 0), (55, 0, 0)), ((45, 0, 0), (0, 0, 0)), ((0, 0, 60), (0, 0, 0))], ids=str
)
def test_result_further_away_than_a_patient_moves_is_refused(fixed, moved, angles_degrees, shift_mm):
    """A head that lies elsewhere, or is turned too far to be found, is refused by name, not aligned somehow."""
    with pytest.raises(GeometryRefused, match="series 9"):
        align_rigid(fixed, moved(Contrast.T2, motion(angles_degrees, shift_mm)), "series 9")


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_empty_image_is_refused(fixed, which):
    """An image without any signal cannot be registered, and is named."""
    empty = fixed * 0
    images = (empty, fixed) if which == "fixed" else (fixed, empty)
    with pytest.raises(ContentRefused, match="is empty"):
        align_rigid(*images, "series 9")


def test_images_that_do_not_overlap_are_refused(fixed):
    """Two images a metre apart share no point, and that is the reason given."""
    elsewhere = sitk.Image(fixed)
    elsewhere.SetOrigin([1000.0 + value for value in fixed.GetOrigin()])
    with pytest.raises(GeometryRefused, match="series 9"):
        align_rigid(fixed, elsewhere, "series 9")


def test_other_anatomy_is_refused(data_folder):
    """A knee does not settle on a head."""
    series = {one.series_number: one for one in read_study(data_folder / "brainix").series}
    head = read_volume(series[801]).image
    knee_folder = data_folder / "stress" / "compressed_and_negative" / "Database" / "Knee" / "T1"
    knee = read_volume(read_study(knee_folder).series[0]).image
    with pytest.raises(GeometryRefused, match="series 9"):
        align_rigid(to_grid(head, common_grid(head)), knee, "series 9")


@pytest.mark.parametrize("number", [301, 401, 601, 701])
def test_real_series_settle(data_folder, number):
    """The real examination's series lie within a few millimetres and degrees of one another."""
    series = {one.series_number: one for one in read_study(data_folder / "brainix").series}
    head = read_volume(series[801]).image
    found = align_rigid(to_grid(head, common_grid(head)), read_volume(series[number]).image, f"series {number}")
    *angles, dx, dy, dz = found.GetParameters()
    assert np.degrees(np.abs(angles)).max() < 4
    assert np.linalg.norm((dx, dy, dz)) < 4
