"""dicom2nifti, which gets nothing to read but planes and their pixels; no other module imports it.

dicom2nifti 2.6.2 decides by manufacturer, private elements, image type, instance numbers and dimension indices what a
series holds. The planes are known before the conversion, so it gets single-frame data sets without any of these.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from node.dicom.character_sets import pydicom_tables_kept
from node.dicom.uids import derived_uid

with pydicom_tables_kept():
    import dicom2nifti.convert_generic
    from dicom2nifti.exceptions import ConversionError, ConversionValidationError

CONVERSION_ERRORS = (ConversionValidationError, ConversionError)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Plane:
    """One image: ``stored`` values [row, column], their linear rescale to pixel values, and geometry (PS3.3 C.7.6.2).

    ``position_mm``: LPS of the first pixel's centre; ``orientation``: cosines of the row, then of the column;
    ``pixel_spacing_mm``: between rows, between columns.
    """

    stored: NDArray[Any]
    rescale_slope: float
    rescale_intercept: float
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]


def neutral_series(planes: Sequence[Plane], spacing_between_slices_mm: float) -> list[Dataset]:
    """``planes`` as single-frame MR data sets, numbered in the order given, with geometry and pixels alone."""
    return [_neutral(plane, number, spacing_between_slices_mm) for number, plane in enumerate(planes, start=1)]


def _neutral(plane: Plane, number: int, spacing_between_slices_mm: float) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, derived_uid("plane", str(number))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = derived_uid("planes", "study"), derived_uid("planes")
    dataset.FrameOfReferenceUID = derived_uid("planes", "frame of reference")
    dataset.Modality, dataset.Manufacturer, dataset.InstanceNumber = "MR", "", number
    dataset.ImagePositionPatient = _decimals(plane.position_mm)
    dataset.ImageOrientationPatient = _decimals(plane.orientation)
    dataset.PixelSpacing = _decimals(plane.pixel_spacing_mm)
    dataset.SliceThickness = DSfloat(spacing_between_slices_mm, auto_format=True)
    dataset.RescaleSlope, dataset.RescaleIntercept = _decimals((plane.rescale_slope, plane.rescale_intercept))
    stored = np.ascontiguousarray(plane.stored)
    bits = stored.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    return dataset


def _decimals(values: Sequence[float]) -> list[DSfloat]:
    return [DSfloat(value, auto_format=True) for value in values]


def converted(datasets: Sequence[Dataset]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Affine (index x, y, z to LPS in mm) and array [z, y, x] of pixel values, as dicom2nifti converts ``datasets``.

    Raises:
        ConversionValidationError, ConversionError: dicom2nifti refuses them (`CONVERSION_ERRORS`).
    """
    # on a refusal dicom2nifti logs values of the header
    logging.getLogger("dicom2nifti").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nifti = dicom2nifti.convert_generic.dicom_to_nifti(list(datasets), None)["NII"]
    return _RAS_TO_LPS @ nifti.affine, np.asanyarray(nifti.dataobj).transpose(2, 1, 0)
