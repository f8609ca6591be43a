"""Brain mask by deepbet (Fisch et al. 2024), whose weights are part of its wheel."""

from __future__ import annotations

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from deepbet.bet import BrainExtraction
from numpy.typing import NDArray

from node.errors import ContentRefused
from node.segmentation.volume import affine_of
from node.segmentation.wheel_weights import verified_weights

LEAST_BRAIN_ML = 400.0
LARGEST_BRAIN_ML = 2500.0
LEAST_ROUNDNESS = 0.56
"""Shortest over longest principal axis: whole brains have 0.65 to 0.80; a slab of 60 mm 0.45, a knee 0.5."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def brain_mask(image: sitk.Image, name: str, device: str = "cpu") -> NDArray[np.bool_]:
    """The brain in ``image`` (a T1-weighted head), ``[z, y, x]``.

    Args:
        name: name of the image in an error.
        device: "cpu", or a CUDA device.

    Raises:
        ContentRefused: no brain was found, or its volume or shape is not that of a whole brain.
        ModelPackError: the weights are not those of the pinned version.
    """
    array_xyz = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0)
    nifti = nibabel.Nifti1Image(np.asarray(array_xyz, np.float32), _LPS_TO_RAS @ affine_of(image))
    with torch.inference_mode():
        try:
            _, mask, _ = _extraction(device).run(nifti)
        except (ValueError, RuntimeError, IndexError) as error:  # deepbet found no component
            raise ContentRefused(f"no brain found in {name} ({type(error).__name__})") from None
    found: NDArray[np.bool_] = np.asanyarray(mask.dataobj).transpose(2, 1, 0) > 0
    volume_ml = float(found.sum() * np.prod(image.GetSpacing()) / 1000)
    if not LEAST_BRAIN_ML <= volume_ml <= LARGEST_BRAIN_ML:
        raise ContentRefused(f"what was found in {name} is no whole brain: {volume_ml:.0f} mL")
    roundness = _roundness(found, image)
    if roundness < LEAST_ROUNDNESS:
        raise ContentRefused(f"what was found in {name} is no whole brain: too flat or too long ({roundness:.2f})")
    return found


def _extraction(device: str) -> BrainExtraction:
    weights = {name: verified_weights(f"data/models/{name}.pt") for name in ("model", "bbox_model")}
    return BrainExtraction(no_gpu=device == "cpu", model_path=weights["model"], bbox_model_path=weights["bbox_model"])


def _roundness(mask_zyx: NDArray[np.bool_], image: sitk.Image) -> float:
    """Shortest over longest principal axis of the mask (standard deviations of its points in mm)."""
    points_mm = np.argwhere(mask_zyx)[:, ::-1] * image.GetSpacing()
    variances = np.linalg.eigvalsh(np.cov(points_mm.T))
    return float(np.sqrt(variances[0] / variances[-1]))
