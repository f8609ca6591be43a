"""The brain mask: near the truth on heads, refused where there is none."""

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk

from node.errors import ContentRefused
from node.segmentation.brain import brain_mask
from node.segmentation.grid import common_grid, to_grid
from node.segmentation.volume import image_from_affine, read_volume
from node.series.headers import read_study
from node.study import Contrast

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")]


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("contrast", [Contrast.T1, Contrast.T1C])
def test_synthetic_brain_is_found(synthetic_patient, contrast):
    """Dice over 0.93 with the known brain, and no part of the tumour is cut off."""
    image = image_from_affine(synthetic_patient.contrast_zyx[contrast], synthetic_patient.affine_lps)
    found = brain_mask(image, "series 5")
    assert dice(found, synthetic_patient.brain_zyx) > 0.93
    assert found[synthetic_patient.label_zyx > 0].mean() > 0.99


def test_real_brain_is_found(data_folder):
    """Dice over 0.95 with another program's mask on a real glioma's T1c of 5.5 mm slices."""
    folder = data_folder / "tcga-fg-6692"
    t1c, truth = (
        sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("t1c", "hd_bet_mask_t1c")
    )
    grid = common_grid(t1c)
    found = brain_mask(to_grid(t1c, grid), "series 5")
    assert dice(found, sitk.GetArrayFromImage(to_grid(truth, grid)) > 0.5) > 0.95


@pytest.mark.parametrize(
    "array_zyx", [np.zeros((60, 60, 60)), np.full((60, 60, 60), 7.0)], ids=["all zero", "all the same"]
)
def test_image_without_content_is_refused(array_zyx):
    """Nothing to see is no brain, and the series is named."""
    with pytest.raises(ContentRefused, match="series 5"):
        brain_mask(image_from_affine(array_zyx.astype(np.float32), np.eye(4)), "series 5")


def test_small_phantom_is_refused():
    """Something too small for a brain is refused with its volume."""
    geometry = phantoms.Geometry(spacing_between_slices_mm=1.0, size=(80, 84, 80))
    image = image_from_affine(phantoms.signal(geometry).astype(np.float32), geometry.affine_lps)
    with pytest.raises(ContentRefused, match="no whole brain"):
        brain_mask(image, "series 5")


def test_slab_of_a_head_is_refused(synthetic_patient):
    """60 mm of a head hold half a brain: too flat to be a whole one, though large enough."""
    image = image_from_affine(synthetic_patient.contrast_zyx[Contrast.T1C], synthetic_patient.affine_lps)
    middle = int(np.argwhere(synthetic_patient.label_zyx)[:, 0].mean())
    with pytest.raises(ContentRefused, match="no whole brain"):
        brain_mask(image[:, :, middle - 30 : middle + 30], "series 5")


def test_knee_is_refused(data_folder):
    """What the method takes for a brain in a knee is refused by its shape."""
    folder = data_folder / "stress" / "compressed_and_negative" / "Database" / "Knee" / "T1"
    knee = read_volume(read_study(folder).series[0]).image
    with pytest.raises(ContentRefused, match="no whole brain"):
        brain_mask(to_grid(knee, common_grid(knee)), "series 5")
