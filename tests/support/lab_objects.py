"""A tiny MR series, and a SEG and an SR made of it by highdicom: good objects for the laboratory to try itself on."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.sr import coding
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

ROWS, COLUMNS, SLICES = 8, 10, 4
PIXEL_SPACING_MM = (2.0, 0.5)  # between rows, between columns
SPACING_BETWEEN_SLICES_MM = 3.0
FIRST_POSITION_MM = (-7.0, 11.0, 20.0)


def mr_instance(study: str, series: str, frame_of_reference: str, index: int) -> Dataset:
    """One axial MR slice that fulfils its IOD; ``index`` counts towards the head."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame_of_reference
    image.Modality = "MR"
    image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image.StudyDate = image.SeriesDate = image.ContentDate = "20240102"
    image.StudyTime = image.SeriesTime = image.ContentTime = "030405"
    image.AccessionNumber = image.StudyID = image.ReferringPhysicianName = image.PositionReferenceIndicator = ""
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Phantom^Lab", "LAB", "", "O"
    image.Manufacturer, image.SeriesNumber, image.InstanceNumber = "Lab", 1, index + 1
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "SE", "NONE", ""
    image.MRAcquisitionType, image.EchoTime, image.RepetitionTime, image.EchoTrainLength = "2D", 10.0, 500.0, 1
    image.PatientPosition, image.BodyPartExamined = "HFS", "BRAIN"
    x_mm, y_mm, z_mm = FIRST_POSITION_MM
    image.ImagePositionPatient = [x_mm, y_mm, z_mm + index * SPACING_BETWEEN_SLICES_MM]
    image.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    image.PixelSpacing = list(PIXEL_SPACING_MM)
    image.SliceThickness = SPACING_BETWEEN_SLICES_MM
    image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = (np.arange(ROWS * COLUMNS, dtype="<u2") + index).tobytes()
    return image


def mr_series(study: str) -> list[Dataset]:
    """One axial MR series of four slices."""
    series, frame_of_reference = generate_uid(), generate_uid()
    return [mr_instance(study, series, frame_of_reference, index) for index in range(SLICES)]


def write(folder: Path, *instances: Dataset) -> list[Path]:
    """Write each data set into ``folder``, named by its SOP Instance UID."""
    paths = [folder / f"{instance.SOPInstanceUID}.dcm" for instance in instances]
    for path, instance in zip(paths, instances, strict=True):
        instance.save_as(path, enforce_file_format=True)
    return paths


def nested_masks() -> np.ndarray:
    """Boolean array, segments then zyx: a region and a part of it; no flip or swap of axes leaves either as it is."""
    masks = np.zeros((2, SLICES, ROWS, COLUMNS), dtype=bool)
    masks[0, 1, 2, 6:9] = True
    masks[0, 1, 3, 6] = True
    masks[0, 2, 2, 6] = True
    masks[1] = masks[0]
    masks[1, 1, 2, 8] = False
    return masks


def segment_description(number: int, label: str) -> hd.seg.SegmentDescription:
    """A neoplasm drawn by an algorithm."""
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence("Lab", codes.cid7162.ArtificialIntelligence, "1.0"),
        tracking_uid=generate_uid(),
        tracking_id=label,
    )


def make_seg(images: list[Dataset]) -> Dataset:
    """A BINARY segmentation of two nested segments on the grid of ``images``."""
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=np.moveaxis(nested_masks(), 0, -1),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment_description(1, "Whole"), segment_description(2, "Core")],
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Lab",
        manufacturer_model_name="Lab",
        software_versions="1.0",
        device_serial_number="1",
        content_label="LESION",
        series_description="Lab segmentation",
    )


def make_sr(images: list[Dataset], seg: Dataset) -> Dataset:
    """A TID 1500 report of one volumetric ROI with one measurement."""
    device = hd.sr.ObserverContext(codes.DCM.Device, hd.sr.DeviceObserverIdentifyingAttributes(generate_uid()))
    segment = seg.SegmentSequence[0]
    volume = hd.sr.Measurement(
        codes.SCT.Volume, 15.0, codes.UCUM.CubicMillimeter, algorithm_id=hd.sr.AlgorithmIdentification("Lab", "1.0")
    )
    source = hd.sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID)
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(segment.TrackingUID, segment.TrackingID),
        referenced_segment=hd.sr.ReferencedSegment(seg.SOPClassUID, seg.SOPInstanceUID, 1, source_series=source),
        finding_type=codes.SCT.Neoplasm,
        measurements=[volume],
    )
    procedure = coding.CodedConcept("25056-3", "LN", "MRI unspecified body region")
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=procedure,
        imaging_measurements=[group],
        title=codes.DCM.OncologyMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[*images, seg],
        content=report,
        series_instance_uid=generate_uid(),
        series_number=101,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Lab",
        is_complete=True,
    )
