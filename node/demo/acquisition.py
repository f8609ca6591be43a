"""The exam of the synthetic patient: one acquisition per series. Geometry is in LPS millimetres (PS3.3 C.7.6.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from node.study import Contrast

Orientation = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Geometry, timing and attributes of one series. ``contrast`` is None for a localizer.

    ``orientation``: row cosines, then column cosines, LPS (ImageOrientationPatient). ``size``: columns, rows, slices.
    ``pixel_spacing``: row spacing, column spacing in mm (PixelSpacing). ``centre_mm``: middle of the volume, LPS.
    ``offset_seconds``: start of the series after the start of the study.
    """

    contrast: Contrast | None
    series_number: int
    series_description: str
    orientation: Orientation
    size: tuple[int, int, int]
    pixel_spacing: tuple[float, float]
    spacing_between_slices_mm: float
    slice_thickness_mm: float
    centre_mm: tuple[float, float, float]
    offset_seconds: float
    repetition_time_ms: float
    echo_time_ms: float
    inversion_time_ms: float | None
    flip_angle_degrees: float
    scanning_sequence: tuple[str, ...]
    sequence_variant: tuple[str, ...]
    mr_acquisition_type: str
    echo_train_length: int = 1
    contrast_bolus_agent: str | None = None

    @property
    def affine_lps(self) -> NDArray[np.float64]:
        """4x4, index (column, row, slice, 1) of a voxel's centre to LPS mm (PS3.3 C.7.6.2.1.1)."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        row_spacing, column_spacing = self.pixel_spacing
        affine = np.eye(4)
        affine[:3, 0] = row * column_spacing
        affine[:3, 1] = column * row_spacing
        affine[:3, 2] = np.cross(row, column) * self.spacing_between_slices_mm
        affine[:3, 3] = self.centre_mm - affine[:3, :3] @ ((np.array(self.size) - 1) / 2)
        return affine


def _tilted(x_degrees: float, z_degrees: float, orientation: Orientation) -> Orientation:
    """``orientation`` turned about the patient's x axis, then about z."""
    turned = Rotation.from_euler("xz", (x_degrees, z_degrees), degrees=True).apply(np.reshape(orientation, (2, 3)))
    row, column = turned.tolist()
    return (*row, *column)


AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)

STANDARD_EXAM = (
    Acquisition(
        contrast=None,
        series_number=1,
        series_description="localizer",
        orientation=CORONAL,
        size=(128, 128, 3),
        pixel_spacing=(2.0, 2.0),
        spacing_between_slices_mm=30.0,
        slice_thickness_mm=8.0,
        centre_mm=(0.0, 2.0, -14.0),
        offset_seconds=60.0,
        repetition_time_ms=8.6,
        echo_time_ms=4.0,
        inversion_time_ms=None,
        flip_angle_degrees=20.0,
        scanning_sequence=("GR",),
        sequence_variant=("SP",),
        mr_acquisition_type="2D",
    ),
    Acquisition(
        contrast=Contrast.T1,
        series_number=2,
        series_description="T1w_MPRAGE_sag",
        orientation=SAGITTAL,
        size=(240, 240, 176),
        pixel_spacing=(1.0, 1.0),
        spacing_between_slices_mm=1.0,
        slice_thickness_mm=1.0,
        centre_mm=(0.0, 2.0, -14.0),
        offset_seconds=150.0,
        repetition_time_ms=2000.0,
        echo_time_ms=2.5,
        inversion_time_ms=900.0,
        flip_angle_degrees=8.0,
        scanning_sequence=("GR", "IR"),
        sequence_variant=("SP", "MP"),
        mr_acquisition_type="3D",
    ),
    Acquisition(
        contrast=Contrast.T2,
        series_number=3,
        series_description="T2_TSE_tra",
        orientation=AXIAL,
        size=(272, 320, 52),
        pixel_spacing=(0.75, 0.65),
        spacing_between_slices_mm=3.3,
        slice_thickness_mm=3.0,
        centre_mm=(0.0, 2.0, 11.0),
        offset_seconds=480.0,
        repetition_time_ms=5200.0,
        echo_time_ms=98.0,
        inversion_time_ms=None,
        flip_angle_degrees=150.0,
        scanning_sequence=("SE",),
        sequence_variant=("SK",),
        mr_acquisition_type="2D",
        echo_train_length=15,
    ),
    Acquisition(
        contrast=Contrast.FLAIR,
        series_number=4,
        series_description="FLAIR_tra_obl",
        orientation=_tilted(12.0, 0.0, AXIAL),
        size=(180, 244, 64),
        pixel_spacing=(1.0, 1.0),
        spacing_between_slices_mm=3.0,
        slice_thickness_mm=3.0,
        centre_mm=(0.0, 2.0, 8.0),
        offset_seconds=700.0,
        repetition_time_ms=9000.0,
        echo_time_ms=110.0,
        inversion_time_ms=2500.0,
        flip_angle_degrees=150.0,
        scanning_sequence=("SE", "IR"),
        sequence_variant=("SK", "SP"),
        mr_acquisition_type="2D",
        echo_train_length=16,
    ),
    Acquisition(
        contrast=Contrast.T1C,
        series_number=5,
        series_description="T1w_MPRAGE_sag_KM",
        orientation=_tilted(4.0, 3.0, SAGITTAL),
        size=(240, 240, 180),
        pixel_spacing=(1.0, 1.0),
        spacing_between_slices_mm=1.0,
        slice_thickness_mm=1.0,
        centre_mm=(1.5, 3.0, -13.0),
        offset_seconds=1300.0,
        repetition_time_ms=2000.0,
        echo_time_ms=2.5,
        inversion_time_ms=900.0,
        flip_angle_degrees=8.0,
        scanning_sequence=("GR", "IR"),
        sequence_variant=("SP", "MP"),
        mr_acquisition_type="3D",
        contrast_bolus_agent="Gadobutrol",
    ),
)
