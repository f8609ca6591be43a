"""MR phantoms of any geometry: three nested ellipsoids, placed in LPS millimetres, in a textured background.

The object lies left of, in front of and above the volume's middle: no flip or swap of axes leaves it in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from node.dicom.uids import derived_uid
from node.study import Instance, ResultIdentity, Series, Software

PATIENT_NAME, PATIENT_ID = "Phantom^Secret", "PHANTOM-0815"
STUDY = derived_uid("phantom", "study")
FRAME_OF_REFERENCE = derived_uid("phantom", "frame of reference")
LEVEL = 200.0
"""Signal is LEVEL outside and LEVEL more inside each nested region; borders are half way, whatever the voxel size."""

IDENTITY = ResultIdentity(
    workflow_id="0123456789abcdef0123456789abcdef",
    created=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    software=Software("Phantom method", "1.2", parameters={"mode": "slab"}),
    node_version="0.1.0",
    station_name="GLIONODE",
    device_serial_number="SN-1",
)

Orientation = tuple[float, float, float, float, float, float]
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
AXIAL_FLIPPED = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # column cosine negated: rows run from posterior to anterior
AXIAL_TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)  # a quarter turn in plane
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def turned(orientation: Orientation, x_degrees: float, y_degrees: float = 0.0, z_degrees: float = 0.0) -> Orientation:
    """``orientation`` turned about the patient's x, then y, then z axis."""
    a, b, c = np.radians((x_degrees, y_degrees, z_degrees))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    row, column = (np.reshape(orientation, (2, 3)) @ (about_z @ about_y @ about_x).T).tolist()
    return (*row, *column)


@dataclass(frozen=True, slots=True)
class Region:
    """An ellipsoid: centre and radii in LPS mm."""

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]

    @property
    def volume_ml(self) -> float:
        """What the ellipsoid holds."""
        return float(4 / 3 * np.pi * np.prod(self.radii_mm) / 1000)


REGIONS = {
    "whole_tumour": Region((13.0, -11.0, 8.0), (21.0, 18.0, 20.0)),
    "tumour_core": Region((15.0, -12.0, 10.0), (14.0, 11.0, 13.0)),
    "enhancing_tumour": Region((17.0, -13.0, 12.0), (8.0, 6.0, 8.0)),
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the planes of a series lie (PS3.3 C.7.6.2).

    ``size``: columns, rows, slices. ``pixel_spacing``: between rows, between columns, mm. ``centre_mm``: middle of the
    volume, LPS. The slice thickness differs from the spacing on purpose.
    """

    orientation: Orientation = AXIAL
    pixel_spacing: tuple[float, float] = (1.0, 1.0)
    size: tuple[int, int, int] = (80, 84, 40)
    spacing_between_slices_mm: float = 2.0
    slice_thickness_mm: float = 1.5
    centre_mm: tuple[float, float, float] = (1.3, -2.1, 0.7)

    @property
    def affine_lps(self) -> NDArray[np.float64]:
        """4x4, index (column, row, slice) to LPS mm (PS3.3 C.7.6.2.1.1)."""
        row, column = np.reshape(self.orientation, (2, 3))
        affine = np.eye(4)
        affine[:3, 0] = row * self.pixel_spacing[1]
        affine[:3, 1] = column * self.pixel_spacing[0]
        affine[:3, 2] = np.cross(row, column) * self.spacing_between_slices_mm
        affine[:3, 3] = self.centre_mm - affine[:3, :3] @ ((np.array(self.size) - 1) / 2)
        return affine

    @property
    def points_mm(self) -> NDArray[np.float64]:
        """LPS of each voxel's centre: (3, slice, row, column)."""
        columns, rows, slices = (np.arange(n, dtype=float) for n in self.size)
        z, y, x = np.meshgrid(slices, rows, columns, indexing="ij")
        affine = self.affine_lps
        return np.tensordot(affine[:3, :3], np.stack([x, y, z]), 1) + affine[:3, 3][:, None, None, None]


THICK = Geometry(size=(72, 76, 16), spacing_between_slices_mm=6.0, slice_thickness_mm=5.0)
ANISOTROPIC = Geometry(pixel_spacing=(2.0, 0.5), size=(160, 44, 30), spacing_between_slices_mm=3.0)
GEOMETRIES = {
    "axial": Geometry(),
    "axial flipped": Geometry(AXIAL_FLIPPED),
    "axial turned": Geometry(AXIAL_TURNED, pixel_spacing=(1.25, 0.8), size=(100, 68, 40)),
    "coronal": Geometry(CORONAL, pixel_spacing=(1.5, 0.9), size=(90, 60, 44)),
    "sagittal": Geometry(SAGITTAL, pixel_spacing=(0.9, 1.5), size=(60, 90, 44)),
    "oblique": Geometry(turned(AXIAL, 17.0)),
    "double oblique": Geometry(turned(SAGITTAL, 12.0, 9.0, -21.0), spacing_between_slices_mm=1.7, size=(80, 80, 48)),
    "flipped oblique": Geometry(turned(AXIAL_FLIPPED, -14.0, 8.0)),
    "pixels 2.0 x 0.5": ANISOTROPIC,
    "thick slices": THICK,
    "thick coronal": Geometry(CORONAL, size=(72, 76, 16), spacing_between_slices_mm=5.5, slice_thickness_mm=5.0),
}


def signal(geometry: Geometry) -> NDArray[np.float64]:
    """The phantom at the voxel centres: (slice, row, column), 180 to 820."""
    points = geometry.points_mm
    x, y, z = points
    values = LEVEL + 12 * np.sin(x / 7 + 1) * np.cos(y / 6) + 8 * np.sin(z / 5 + x / 11)
    for region in REGIONS.values():
        distance = np.sqrt(
            sum(((p - c) / r) ** 2 for p, c, r in zip(points, region.centre_mm, region.radii_mm, strict=True))
        )
        values += LEVEL * np.clip(0.5 + (1 - distance) * min(region.radii_mm) / 2.0, 0, 1)
    return values


def probability(region: str, array_zyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a perfect method says of ``region``, from the phantom's signal."""
    step = list(REGIONS).index(region) + 1
    return np.clip(array_zyx / np.float32(LEVEL) - np.float32(step), 0, 1)


def series_uid(name: str = "series") -> str:
    """The SeriesInstanceUID of the series called ``name``."""
    return derived_uid("phantom", name)


def classic(geometry: Geometry, name: str = "series") -> list[Dataset]:
    """A series of MR Image Storage instances, in the order of their slices."""
    affine = geometry.affine_lps
    instances = []
    for index, plane in enumerate(np.rint(signal(geometry)).astype("<u2")):
        instance = _identity(MRImageStorage, name, index)
        instance.ScanningSequence, instance.SequenceVariant, instance.ScanOptions = "SE", "NONE", ""
        instance.MRAcquisitionType, instance.EchoTime = "2D", "10"
        instance.RepetitionTime, instance.EchoTrainLength = "500", "1"
        instance.ImagePositionPatient = _decimals(affine[:3, 3] + index * affine[:3, 2])
        instance.ImageOrientationPatient = _decimals(geometry.orientation)
        instance.PixelSpacing = _decimals(geometry.pixel_spacing)
        instance.SliceThickness, instance.SpacingBetweenSlices = _decimals(
            (geometry.slice_thickness_mm, geometry.spacing_between_slices_mm)
        )
        _pixels(instance, geometry, plane)
        instances.append(instance)
    return instances


def enhanced(geometry: Geometry, name: str = "enhanced", frame_order: Sequence[int] | None = None) -> Dataset:
    """The same as one Enhanced MR Image Storage instance; ``frame_order``: the slice of each frame."""
    planes, affine = np.rint(signal(geometry)).astype("<u2"), geometry.affine_lps
    order = list(range(geometry.size[2])) if frame_order is None else list(frame_order)
    instance = _identity(EnhancedMRImageStorage, name, 0)
    instance.ImageType = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    instance.AcquisitionDateTime, instance.NumberOfFrames = "20240102030405", len(order)
    instance.ContentLabel = "PHANTOM"
    shared = Dataset()
    measures, plane_orientation, transformation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = (
        _decimals(geometry.pixel_spacing),
        _decimals((geometry.slice_thickness_mm,))[0],
    )
    measures.SpacingBetweenSlices = _decimals((geometry.spacing_between_slices_mm,))[0]
    plane_orientation.ImageOrientationPatient = _decimals(geometry.orientation)
    transformation.RescaleIntercept, transformation.RescaleSlope, transformation.RescaleType = "0", "1", "US"
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane_orientation]
    instance.SharedFunctionalGroupsSequence = [shared]
    instance.PerFrameFunctionalGroupsSequence = []
    for slice_index in order:
        content, position, frame = Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber = "1", slice_index + 1
        content.DimensionIndexValues = [1, slice_index + 1]
        position.ImagePositionPatient = _decimals(affine[:3, 3] + slice_index * affine[:3, 2])
        frame.FrameContentSequence, frame.PlanePositionSequence = [content], [position]
        frame.PixelValueTransformationSequence = [transformation]
        instance.PerFrameFunctionalGroupsSequence.append(frame)
    organization = derived_uid("phantom", name, "dimensions")
    item = Dataset()
    item.DimensionOrganizationUID = organization
    instance.DimensionOrganizationSequence = [item]
    instance.DimensionIndexSequence = [_dimension(organization, 0x00209056), _dimension(organization, 0x00209057)]
    _pixels(instance, geometry, planes[order])
    return instance


def _dimension(organization: str, pointer: int) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, 0x00209111
    return item


def _identity(sop_class_uid: str, name: str, index: int) -> Dataset:
    """Patient, study, series and equipment; all but what an MR image of its kind adds."""
    instance = Dataset()
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID = sop_class_uid
    instance.SOPInstanceUID = derived_uid("phantom", name, str(index))
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    instance.StudyInstanceUID, instance.SeriesInstanceUID = STUDY, series_uid(name)
    instance.FrameOfReferenceUID, instance.PositionReferenceIndicator = FRAME_OF_REFERENCE, ""
    instance.SpecificCharacterSet = "ISO_IR 100"
    instance.PatientName, instance.PatientID = PATIENT_NAME, PATIENT_ID
    instance.PatientBirthDate, instance.PatientSex = "19600101", "O"
    instance.StudyDate = instance.SeriesDate = instance.ContentDate = "20240102"
    instance.StudyTime = instance.SeriesTime = instance.ContentTime = "030405"
    instance.StudyID, instance.AccessionNumber, instance.ReferringPhysicianName = "1", "ACC", ""
    instance.Modality, instance.SeriesNumber, instance.InstanceNumber = "MR", 5, index + 1
    instance.SeriesDescription, instance.Manufacturer, instance.PatientPosition = "T1 KM", "Phantom", "HFS"
    instance.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    return instance


def _pixels(instance: Dataset, geometry: Geometry, pixels: NDArray[np.uint16]) -> None:
    instance.Columns, instance.Rows, _ = geometry.size
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 16, 16, 15, 0
    instance.PixelData = pixels.tobytes()


def _decimals(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """Decimal Strings of at most 16 characters (PS3.5 6.2)."""
    return [f"{value + 0.0:.9f}"[:16] for value in np.round(np.asarray(values, float), 9)]


def write_series(folder: Path, instances: Sequence[Dataset]) -> Series:
    """Write the instances, each named by its SOP Instance UID; the series as it is known to the node."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for instance in instances:
        uid = str(instance.file_meta.MediaStorageSOPInstanceUID)
        path = folder / f"{uid}.dcm"
        instance.save_as(path, enforce_file_format=True)
        found.append(Instance(path, uid, str(instance.file_meta.MediaStorageSOPClassUID)))
    first = instances[0]
    return Series(
        series_instance_uid=str(first.SeriesInstanceUID),
        study_instance_uid=str(first.StudyInstanceUID),
        modality="MR",
        series_description=first.get("SeriesDescription"),
        series_number=first.get("SeriesNumber"),
        frame_of_reference_uid=first.get("FrameOfReferenceUID"),
        instances=tuple(sorted(found, key=lambda instance: instance.sop_instance_uid)),
    )
