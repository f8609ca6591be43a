"""Rigid co-registration of one contrast to the T1c: six degrees of freedom, mutual information (Mattes et al. 2003)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from node.errors import ContentRefused, GeometryRefused

LONGEST_SHIFT_MM = 40.0
"""Largest shift accepted: series of one exam share a frame of reference, and patients move less than this between them.
"""

LARGEST_ROTATION_DEGREES = 30.0

MOST_STEPS = 120
"""Correct registrations, real and synthetic, converged in 20 to 45 steps; other anatomy or a turned head never did."""

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
