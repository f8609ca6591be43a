"""Rigid co-registration of one contrast to the T1c: six degrees of freedom, mutual information (Mattes et al. 2003)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from node.errors import ContentRefused, GeometryRefused

LONGEST_SHIFT_MM = 40.0
"""Largest shift accepted: series of one exam share a frame of reference, and patients move less than this between them.
"""

LARGEST_ROTATION_DEGREES = 30.0

MOST_STEPS = 120
"""Correct registrations, real and synthetic, converged in 20 to 45 steps; other anatomy or a turned head never did."""

_COARSE_STEPS = 40
_COARSE_SAMPLING_FRACTION = 0.4  # with 0.2 a mirrored FLAIR of 5 mm slices fitted little better once mirrored back

_SEED = 1
_SAMPLING_FRACTION = 0.1  # as accurate as 0.2 (0.3 mm on a synthetic head in slices of 3 mm), and faster
# With more than one work unit the metric is summed in the order in which threads end, so runs differ in rounding.
_WORK_UNITS = 1


def _prepared(image: sitk.Image, name: str) -> sitk.Image:
    """Intensities clipped to [0, 99.5th percentile], so that a few bright vessels do not use up the histogram."""
    values = sitk.GetArrayViewFromImage(image)
    positive = values[values > 0]
    if positive.size == 0:
        raise ContentRefused(f"{name} is empty")
    clamped: sitk.Image = sitk.Clamp(image, sitk.sitkFloat32, 0.0, float(np.percentile(positive, 99.5)))
    return clamped


def align_rigid(fixed: sitk.Image, moving: sitk.Image, name: str, fixed_name: str = "T1c") -> sitk.Transform:
    """The rigid transform that maps points of ``fixed`` to points of ``moving``.

    The start is the identity: the scanner's own coordinates are right unless the patient moved.

    Args:
        name: name of ``moving`` in an error; ``fixed_name``: that of ``fixed``.

    Raises:
        ContentRefused: an image is empty.
        GeometryRefused: the registration fails or does not converge, or it exceeds the motion of a patient.
    """
    initial = sitk.Euler3DTransform()
    initial.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=40)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_SAMPLING_FRACTION, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=1e-3,
        numberOfIterations=MOST_STEPS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-5,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(initial, inPlace=True)
    method.SetNumberOfWorkUnits(_WORK_UNITS)
    try:
        method.Execute(_prepared(fixed, fixed_name), _prepared(moving, name))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise GeometryRefused(f"{name} cannot be registered to {fixed_name}: {reason}") from None
    _check_extent(initial, name, fixed_name)
    if method.GetOptimizerIteration() >= MOST_STEPS:
        raise GeometryRefused(
            f"{name} does not settle on {fixed_name} in {MOST_STEPS} steps: not the same anatomy, or turned"
        )
    return initial


def _check_extent(transform: sitk.Euler3DTransform, name: str, fixed_name: str) -> None:
    *angles, dx, dy, dz = transform.GetParameters()
    shift_mm = (dx**2 + dy**2 + dz**2) ** 0.5
    rotation_degrees = max(abs(angle) for angle in angles) * 57.2958
    if shift_mm > LONGEST_SHIFT_MM or rotation_degrees > LARGEST_ROTATION_DEGREES:
        raise GeometryRefused(
            f"{name} lies {shift_mm:.0f} mm and {rotation_degrees:.0f} degrees away from {fixed_name} "
            "after registration: not the same position, or not the same anatomy"
        )


def align_coarse(
    fixed_zyx: NDArray[np.float32], moving_zyx: NDArray[np.float32], mask_zyx: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``moving_zyx`` and ``mask_zyx``, which belongs to it, brought onto ``fixed_zyx``: rigidly, and in voxels.

    This is a quick registration of what lies within one brain mask already: no limit is put on its answer, which is as
    good as the similarity that it reaches. All arrays are cubic voxels of one size, and of one shape.
    """
    fixed, moving, mask = (
        sitk.GetImageFromArray(np.ascontiguousarray(one)) for one in (fixed_zyx, moving_zyx, mask_zyx)
    )
    transform = sitk.Euler3DTransform()
    transform.SetCenter([(n - 1) / 2 for n in fixed.GetSize()])
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_COARSE_SAMPLING_FRACTION, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-2, numberOfIterations=_COARSE_STEPS, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([1.0])
    method.SetInitialTransform(transform, inPlace=True)
    method.SetNumberOfWorkUnits(_WORK_UNITS)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # the two share no sample: nothing fits, and the similarity will say so
        return np.zeros_like(moving_zyx), np.zeros_like(mask_zyx)
    placed = [sitk.Resample(one, fixed, transform, sitk.sitkLinear, 0.0) for one in (moving, mask)]
    return sitk.GetArrayFromImage(placed[0]), sitk.GetArrayFromImage(placed[1])
