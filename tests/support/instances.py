"""Small valid MR instances for tests, as data sets, as bytes and as files."""

from __future__ import annotations

import io
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
)

from node.dicom.uids import derived_uid

PRIVATE_TRANSFER_SYNTAX = "1.2.826.0.1.3680043.10.1462.1"  # explicit VR little endian under a name nobody knows
PATIENT_NAME = "Secret^Patient"
PATIENT_ID = "PAT-4711"
STUDY = derived_uid("test", "study")
SERIES = derived_uid("test", "series")


def sop_instance_uid(number: int, series_instance_uid: str = SERIES) -> str:
    """The SOP Instance UID of a series' instance ``number``."""
    return derived_uid(series_instance_uid, str(number))


def make_instance(
    number: int = 1,
    *,
    study_instance_uid: str = STUDY,
    series_instance_uid: str = SERIES,
    transfer_syntax: str = ExplicitVRLittleEndian,
    pixel: int = 0,
) -> Dataset:
    """A 4 x 4 MR instance; ``pixel`` is the value of each of its pixels."""
    data_set = Dataset()
    data_set.SOPClassUID = MRImageStorage
    data_set.SOPInstanceUID = sop_instance_uid(number, series_instance_uid)
    data_set.StudyInstanceUID = study_instance_uid
    data_set.SeriesInstanceUID = series_instance_uid
    data_set.FrameOfReferenceUID = derived_uid("test", "frame of reference")
    data_set.PatientName, data_set.PatientID = PATIENT_NAME, PATIENT_ID
    data_set.PatientBirthDate, data_set.PatientSex = "19700101", "O"
    data_set.StudyID, data_set.StudyDate, data_set.StudyTime = "1", "20240101", "120000"
    data_set.AccessionNumber, data_set.ReferringPhysicianName = "", ""
    data_set.Modality, data_set.SeriesNumber, data_set.InstanceNumber = "MR", 1, number
    data_set.ScanningSequence, data_set.SequenceVariant, data_set.ScanOptions = "SE", "NONE", ""
    data_set.MRAcquisitionType, data_set.EchoTime, data_set.EchoTrainLength = "2D", 10, 1
    data_set.ImageType = ["ORIGINAL", "PRIMARY"]
    data_set.ImagePositionPatient, data_set.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    data_set.PixelSpacing, data_set.SliceThickness = [1, 1], 1
    data_set.Rows = data_set.Columns = 4
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated = data_set.BitsStored = 16
    data_set.HighBit, data_set.PixelRepresentation = 15, 0
    data_set.PixelData = pixel.to_bytes(2, "little") * 16
    if transfer_syntax == JPEGLosslessSV1:  # nobody decodes it in these tests
        data_set.PixelData = encapsulate([bytes([0xFF, 0xD8, pixel, 0, 0xFF, 0xD9])])
        data_set["PixelData"].VR = "OB"
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = transfer_syntax
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    return data_set


def encode_instance(data_set: Dataset) -> bytes:
    """The DICOM file that holds ``data_set``, in the transfer syntax of its file meta."""
    buffer = io.BytesIO()
    name = data_set.file_meta.TransferSyntaxUID
    standard = (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEGLosslessSV1,
    )
    if name in standard:
        dcmwrite(buffer, data_set, enforce_file_format=True)
    else:
        dcmwrite(buffer, data_set, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def write_instance_file(folder: Path, data_set: Dataset) -> Path:
    """Write ``data_set`` as a file named by its SOP Instance UID."""
    path = folder / f"{data_set.file_meta.MediaStorageSOPInstanceUID}.dcm"
    path.write_bytes(encode_instance(data_set))
    return path


def data_set_bytes(content: bytes) -> bytes:
    """What follows the file meta of a DICOM file: the bytes that C-STORE carries."""
    return content[144 + int.from_bytes(content[140:144], "little") :]
