"""Acquire the synthetic patient: sample it on each series' own grid, add noise, write MR Image Storage instances.

Geometry is LPS millimetres (PS3.3 C.7.6.2); sampled arrays are (slice, row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat
from scipy import ndimage

from node.demo.acquisition import STANDARD_EXAM, Acquisition
from node.demo.patient import WHITE_SIGNAL, SyntheticPatient
from node.dicom.uids import derived_uid
from node.study import Contrast

__all__ = ["STANDARD_EXAM", "Acquisition", "WrittenSeries", "WrittenStudy", "sample_label", "write_study"]

NOISE_FRACTION = 0.025  # of white matter's signal
STUDY_START = datetime(2020, 1, 1, 10, 0, 0)  # fixed: the same seed gives the same bytes
PATIENT_ID = "GLIONODE-DEMO"
SWAP_XYZ = np.eye(3)[::-1]  # (x, y, z) to (z, y, x) and back


@dataclass(frozen=True, slots=True)
class WrittenSeries:
    """One series on disk; ``files`` in the order of InstanceNumber, which is that of the slices."""

    acquisition: Acquisition
    series_instance_uid: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class WrittenStudy:
    """The study that ``write_study`` wrote."""

    study_instance_uid: str
    frame_of_reference_uid: str
    series: tuple[WrittenSeries, ...]


def sample_label(patient: SyntheticPatient, acquisition: Acquisition) -> NDArray[np.uint8]:
    """The true label of each voxel of ``acquisition``: (slice, row, column), nearest neighbour."""
    return np.asarray(_sample(patient, patient.label_zyx, acquisition, order=0))


def write_study(
    folder: Path,
    patient: SyntheticPatient,
    acquisitions: Sequence[Acquisition] = STANDARD_EXAM,
    seed: int = 0,
    patient_id: str = PATIENT_ID,
) -> WrittenStudy:
    """Write one study as ``folder/<series number>/<instance number>.dcm``; an existing file is replaced.

    UIDs and noise depend only on the patient's seed, ``patient_id``, ``seed`` and, below the study level, the
    acquisition: the same arguments give the same bytes.
    """
    identity = ("synthetic", str(patient.seed), patient_id, str(seed))
    study_instance_uid = derived_uid(*identity, "study")
    frame_of_reference_uid = derived_uid(*identity, "frame of reference")
    written = []
    for acquisition in acquisitions:
        dataset = _study_and_equipment(patient_id)
        dataset.StudyInstanceUID = study_instance_uid
        dataset.FrameOfReferenceUID = frame_of_reference_uid
        dataset.SeriesInstanceUID = derived_uid(*identity, "series", repr(acquisition))
        _describe_series(dataset, acquisition)
        noise = np.random.default_rng([seed, patient.seed, acquisition.series_number])
        pixels = _acquire(patient, acquisition, noise)
        series_folder = folder / str(acquisition.series_number)
        files = _write_instances(series_folder, dataset, acquisition, pixels)
        written.append(WrittenSeries(acquisition, dataset.SeriesInstanceUID, files))
    return WrittenStudy(study_instance_uid, frame_of_reference_uid, tuple(written))


def _sample(
    patient: SyntheticPatient, array_zyx: NDArray[Any], acquisition: Acquisition, order: int, shift_mm: float = 0.0
) -> NDArray[Any]:
    """``array_zyx`` at the voxel centres of ``acquisition``, moved by ``shift_mm`` across the slices; 0 outside."""
    affine = np.linalg.inv(patient.affine_lps) @ acquisition.affine_lps
    origin = affine[:3, 3] + affine[:3, 2] * (shift_mm / acquisition.spacing_between_slices_mm)
    matrix = SWAP_XYZ @ affine[:3, :3] @ SWAP_XYZ
    return np.asarray(
        ndimage.affine_transform(array_zyx, matrix, origin[::-1], output_shape=acquisition.size[::-1], order=order)
    )


def _acquire(patient: SyntheticPatient, acquisition: Acquisition, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Pixels (slice, row, column): mean over the slice's thickness, with Rician noise, in 12 bits."""
    contrast = acquisition.contrast or Contrast.T1
    thickness = acquisition.slice_thickness_mm
    shifts_mm = (-thickness / 3, 0.0, thickness / 3) if thickness > 1.5 else (0.0,)
    signal = np.zeros(acquisition.size[::-1], dtype=np.float32)
    for shift_mm in shifts_mm:
        signal += _sample(patient, patient.contrast_zyx[contrast], acquisition, 1, shift_mm) / len(shifts_mm)
    sigma = np.float32(NOISE_FRACTION * WHITE_SIGNAL[contrast])
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.clip(np.rint(np.hypot(real, imaginary)), 0, 4095).astype("<u2")


def _study_and_equipment(patient_id: str) -> Dataset:
    """Patient, General Study, General Equipment and Frame of Reference modules without their UIDs."""
    dataset = Dataset()
    dataset.PatientName = "Synthetic^Patient"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = "19600101"
    dataset.PatientSex = "O"
    dataset.StudyDate = STUDY_START.strftime("%Y%m%d")
    dataset.StudyTime = STUDY_START.strftime("%H%M%S")
    dataset.StudyID = "1"
    dataset.StudyDescription = "MR head with contrast (synthetic)"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = "Synthetic scanner"  # not glionode, since the node refuses its own results as input
    dataset.ManufacturerModelName = "synthetic patient"
    dataset.MagneticFieldStrength = "3"
    dataset.PositionReferenceIndicator = ""
    return dataset


def _describe_series(dataset: Dataset, acquisition: Acquisition) -> None:
    """General Series, Contrast/Bolus and the constant part of the Image Plane, Image Pixel and MR Image modules."""
    start = STUDY_START + timedelta(seconds=acquisition.offset_seconds)
    dataset.Modality = "MR"
    dataset.SeriesNumber = acquisition.series_number
    dataset.SeriesDescription = acquisition.series_description
    dataset.ProtocolName = acquisition.series_description
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = start.strftime("%Y%m%d")
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = start.strftime("%H%M%S")
    dataset.BodyPartExamined = "HEAD"
    dataset.PatientPosition = "HFS"
    if acquisition.contrast_bolus_agent is not None:
        dataset.ContrastBolusAgent = acquisition.contrast_bolus_agent
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence = list(acquisition.scanning_sequence)
    dataset.SequenceVariant = list(acquisition.sequence_variant)
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = acquisition.mr_acquisition_type
    dataset.RepetitionTime = _ds(acquisition.repetition_time_ms)
    dataset.EchoTime = _ds(acquisition.echo_time_ms)
    if acquisition.inversion_time_ms is not None:
        dataset.InversionTime = _ds(acquisition.inversion_time_ms)
    dataset.EchoTrainLength = acquisition.echo_train_length
    dataset.FlipAngle = _ds(acquisition.flip_angle_degrees)
    dataset.ImageOrientationPatient = [_ds(value) for value in acquisition.orientation]
    dataset.PixelSpacing = [_ds(value) for value in acquisition.pixel_spacing]
    dataset.SliceThickness = _ds(acquisition.slice_thickness_mm)
    dataset.SpacingBetweenSlices = _ds(acquisition.spacing_between_slices_mm)
    dataset.Columns, dataset.Rows, _ = acquisition.size
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0


def _write_instances(
    folder: Path, dataset: Dataset, acquisition: Acquisition, pixels: NDArray[np.uint16]
) -> tuple[Path, ...]:
    """Write one file per slice: ``dataset`` with the attributes that differ between instances."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = acquisition.affine_lps
    brightest = float(np.percentile(pixels, 99.5))
    dataset.WindowCenter, dataset.WindowWidth = _ds(round(brightest / 2)), _ds(round(brightest))
    dataset.SOPClassUID = MRImageStorage
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    files = []
    for index, plane in enumerate(pixels):
        dataset.InstanceNumber = index + 1
        dataset.SOPInstanceUID = derived_uid(dataset.SeriesInstanceUID, str(index + 1))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImagePositionPatient = [_ds(value) for value in affine[:3, 3] + index * affine[:3, 2]]
        dataset.PixelData = plane.tobytes()
        file = folder / f"{index + 1:04d}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        files.append(file)
    return tuple(files)


def _ds(value: float) -> DSfloat:
    """A Decimal String of at most 16 characters (PS3.5 6.2); the rounding error is at most a micrometre."""
    return DSfloat(round(float(value), 9) + 0.0, auto_format=True)
