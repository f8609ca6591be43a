"""A tiny study on disk, one attribute of which is changed at a time, with a reference reading of its volumes.

The reference shares no code with the node: it computes places by PS3.3 C.7.6.2.1.1 from the values that were written.
"""

from __future__ import annotations

import copy
import io
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_data_element
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage
from small_study import make_small_study
from wrong_values import Wrong

SLICES, ROWS, COLUMNS = 8, 5, 6
STEP_MM = 14.0
MIDDLE = 3
_LONG = ("OB", "OD", "OF", "OL", "OW", "SQ", "UC", "UN", "UR", "UT")  # PS3.5 7.1.2: a length of four bytes
FIRST_MM = (-40.0, -35.0, 10.0)
PIXEL_SPACING_MM = (12.0, 11.0)

_OF_A_FRAME = (
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept",
)  # fmt: skip

PATIENT = {
    "PatientBirthTime": "101112", "OtherPatientIDs": "OTHER-1", "PatientComments": "none", "EthnicGroup": "none",
    "PatientSpeciesDescription": "human", "IssuerOfPatientID": "HOSPITAL", "TypeOfPatientID": "TEXT",
    "PatientIdentityRemoved": "NO", "QualityControlSubject": "NO", "PatientBreedDescription": "none",
    "ResponsiblePerson": "Person^Responsible", "ResponsibleOrganization": "Organization", "PatientAge": "054Y",
    "PatientSize": "1.7", "PatientWeight": "70", "PatientBodyMassIndex": "24", "MedicalAlerts": "none",
    "Allergies": "none", "Occupation": "none", "SmokingStatus": "NO", "PregnancyStatus": 4, "PatientState": "none",
    "AdditionalPatientHistory": "none", "AdmissionID": "ADM", "PatientSexNeutered": "UNALTERED",
    "LastMenstrualDate": "20231201", "AdmittingDiagnosesDescription": "none",
}  # fmt: skip
STUDY = {
    "StudyDescription": "MR brain", "PhysiciansOfRecord": "Record^Doctor", "NameOfPhysiciansReadingStudy": "A^B",
    "RequestingService": "Neurology", "TimezoneOffsetFromUTC": "+0100", "StudyID": "1", "AccessionNumber": "ACC",
    "ReferringPhysicianName": "Refer^Doctor", "ConsultingPhysicianName": "Consult^Doctor",
}  # fmt: skip
EQUIPMENT = {
    "Manufacturer": "Phantom", "InstitutionName": "Hospital", "InstitutionAddress": "Street", "StationName": "MR1",
    "InstitutionalDepartmentName": "Radiology", "ManufacturerModelName": "Model", "DeviceSerialNumber": "4711",
    "SoftwareVersions": "1.0", "GantryID": "G", "SpatialResolution": "1", "DateOfLastCalibration": "20230101",
    "TimeOfLastCalibration": "101112", "PositionReferenceIndicator": "", "PatientPosition": "HFS",
}  # fmt: skip
IMAGE = {
    "ProtocolName": "brain", "SequenceName": "seq", "BodyPartExamined": "BRAIN", "FlipAngle": "90",
    "AcquisitionDate": "20240101", "ContentDate": "20240101", "SeriesDate": "20240101", "AcquisitionNumber": "1",
    "EchoNumbers": "1", "SpacingBetweenSlices": "14", "RescaleSlope": "1", "RescaleIntercept": "0", "NumberOfFrames": 1,
    "TemporalPositionIdentifier": "1", "TriggerTime": "0", "InstanceCreationDate": "20240101",
}  # fmt: skip


def make_mutable_study() -> dict[str, list[Dataset]]:
    """Contrast to its eight instances, whose pixels differ and whose modules are full; no pixel is 0."""
    study = {contrast: instances[:SLICES] for contrast, instances in make_small_study("mutable").items()}
    for number, (contrast, instances) in enumerate(study.items()):
        rng = np.random.default_rng(number)
        for index, instance in enumerate(instances):
            for keyword, value in (PATIENT | STUDY | EQUIPMENT | IMAGE).items():
                setattr(instance, keyword, value)
            minute = number * 7 + 1
            instance.AcquisitionTime = instance.SeriesTime = instance.ContentTime = f"12{minute:02}00"
            instance.AcquisitionDateTime = f"2024010112{minute:02}00"
            if contrast == "T1c":
                instance.ContrastBolusAgent, instance.ContrastBolusStartTime = "Gadolinium", "120500"
            instance.Rows, instance.Columns = ROWS, COLUMNS
            instance.PixelSpacing, instance.SliceThickness = list(PIXEL_SPACING_MM), "10"
            instance.ImagePositionPatient = [*FIRST_MM[:2], FIRST_MM[2] + STEP_MM * index]
            instance.PixelData = rng.integers(60, 4000, (ROWS, COLUMNS), "<u2").astype("<u2").tobytes()
    return study


@dataclass(frozen=True, slots=True)
class Change:
    """One attribute that gets another value in some instances.

    ``place``: keywords of the sequences in whose first items (of every frame, for Per-frame) the attribute stands.
    """

    keyword: str
    vr: str
    value: Wrong
    place: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()

    def apply(self, instance: Dataset) -> None:
        """Change ``instance`` in place."""
        for item in self._items(instance):
            tag = Tag(self.keyword)
            if self.value is None:
                item.pop(tag, None)
            elif isinstance(self.value, list):
                setattr(item, self.keyword, copy.deepcopy(self.value))
            else:
                item[tag] = RawDataElement(tag, self.vr, len(self.value), self.value, 0, False, True)

    def _items(self, instance: Dataset) -> Iterable[Dataset]:
        items = [instance]
        for keyword in self.place:
            inner = [item[keyword].value for item in items if keyword in item]
            if keyword == "PerFrameFunctionalGroupsSequence" and self.frames:
                inner = [[sequence[number] for number in self.frames] for sequence in inner]
            items = [one for sequence in inner for one in sequence]
        return items


def encoded(instance: Dataset) -> bytes:
    """The Part 10 file of ``instance``, Explicit VR Little Endian; changed values are written as they are."""
    head = Dataset()
    head.file_meta = instance.file_meta
    buffer = io.BytesIO()
    dcmwrite(buffer, head, enforce_file_format=True)
    return buffer.getvalue() + _data_set(instance)


def _data_set(items: Dataset) -> bytes:
    return b"".join(_element(items.get_item(tag)) for tag in sorted(items.keys()))


def _element(element: DataElement | RawDataElement) -> bytes:
    vr = str(element.VR).split(" or ")[-1]  # of pixel data: OB or OW
    if isinstance(element, RawDataElement):
        value = element.value or b""
    elif vr == "SQ":
        parts = [_data_set(item) for item in element.value]
        value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in parts)
    else:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, True
        write_data_element(buffer, element)
        value = buffer.getvalue()[8:]
    head = struct.pack("<HH", element.tag.group, element.tag.element) + vr.encode()
    length = struct.pack("<H", len(value)) if vr not in _LONG else struct.pack("<HI", 0, len(value))
    return head + length + value


@dataclass(slots=True)
class MutableStudy:
    """The study in ``folder``; between two uses of `changed` it is as it was made."""

    folder: Path
    instances: dict[str, list[Dataset]]
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self) -> MutableStudy:
        """Write every instance."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for instance in (each for series in self.instances.values() for each in series):
            self.files[str(instance.SOPInstanceUID)] = encoded(instance)
        for uid, content in self.files.items():
            self._path(uid).write_bytes(content)
        return self

    def _path(self, uid: str) -> Path:
        return self.folder / f"{uid}.dcm"

    @contextmanager
    def changed(self, change: Change, touched: Mapping[str, Iterable[int]]) -> Iterator[dict[str, list[Dataset]]]:
        """The instances (numbers by contrast) of ``touched`` with ``change`` applied, on disk until the end."""
        now = {contrast: list(series) for contrast, series in self.instances.items()}
        written = []
        try:
            for contrast, numbers in touched.items():
                for number in numbers:
                    before = self.instances[contrast][number]
                    after = now[contrast][number] = shallow(before)
                    change.apply(after)
                    written.append(str(before.SOPInstanceUID))
                    self._path(written[-1]).write_bytes(encoded(after))
            yield now
        finally:
            for uid in written:
                self._path(uid).write_bytes(self.files[uid])


def shallow(instance: Dataset) -> Dataset:
    """A copy whose elements can be replaced; sequences are copied as a whole."""
    if any(element.VR == "SQ" for element in instance):
        return copy.deepcopy(instance)
    other = Dataset()
    other.update({element.tag: element for element in instance})
    other.file_meta = instance.file_meta
    return other


def as_enhanced(instances: Sequence[Dataset]) -> Dataset:
    """One Enhanced MR instance whose frames are classic ``instances``; measures and orientation are shared."""
    first = instances[0]
    enhanced = copy.deepcopy(first)
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    enhanced.NumberOfFrames = len(instances)
    for keyword in (*_OF_A_FRAME, "EchoTime"):
        enhanced.pop(Tag(keyword), None)
    enhanced.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_item(**{each: first[each].value for each in _OF_A_FRAME[:3]})],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=first.ImageOrientationPatient)],
            MREchoSequence=[_item(EffectiveEchoTime=float(first.EchoTime))],
        )
    ]
    enhanced.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=one.ImagePositionPatient)],
            PixelValueTransformationSequence=[_item(RescaleSlope="1", RescaleIntercept="0", RescaleType="US")],
            MRImageFrameTypeSequence=[
                _item(FrameType=["ORIGINAL", "PRIMARY", "T1", "NONE"], ComplexImageComponent="MAGNITUDE")
            ],
            FrameContentSequence=[
                _item(
                    StackID="1",
                    InStackPositionNumber=number,
                    TemporalPositionIndex=1,
                    FrameAcquisitionNumber=1,
                    FrameAcquisitionDateTime="20240101120800",
                )
            ],
        )
        for number, one in enumerate(instances, start=1)
    ]
    enhanced.PixelData = b"".join(one.PixelData for one in instances)
    return enhanced


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def frames_of(enhanced: Dataset) -> list[Dataset]:
    """Each frame of what `as_enhanced` made as a classic instance, with raw values.

    Raises:
        MalformedError: there are not the groups that it made.
    """
    shared, frames = (enhanced.get(f"{each}FunctionalGroupsSequence") for each in ("Shared", "PerFrame"))
    if not shared or not frames or len(frames) * ROWS * COLUMNS * 2 != len(enhanced.PixelData):
        raise MalformedError
    found = []
    for number, groups in enumerate(frames):
        instance = Dataset()
        for macros in (shared[0], groups):
            for macro in macros:
                for item in (macro.value or [])[:1] if macro.VR == "SQ" else []:
                    instance.update({tag: item.get_item(tag) for tag in item.keys()})  # noqa: SIM118 - it reads no values
        instance.PixelData = enhanced.PixelData[number * ROWS * COLUMNS * 2 :][: ROWS * COLUMNS * 2]
        found.append(instance)
    return found


# ---- the reference reading ---------------------------------------------------------------------------------------

_DECIMAL = re.compile(rb"[ ]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \0]*")


class MalformedError(Exception):
    """A value on which the volume depends is missing, or is no value of its attribute."""


def decimals(value: bytes | None, count: int) -> tuple[float, ...]:
    """Exactly ``count`` finite numbers of a Decimal String.

    Raises:
        MalformedError: it does not hold them.
    """
    parts = (value or b"").split(b"\\")
    if len(parts) != count or not all(_DECIMAL.fullmatch(part) for part in parts):
        raise MalformedError
    found = tuple(float(part.strip(b" \0")) for part in parts)
    if not all(np.isfinite(found)):
        raise MalformedError
    return found


@dataclass(frozen=True, slots=True)
class ReferenceVolume:
    """Voxels [slice, row, column] and the affine (index column, row, slice to LPS in mm)."""

    array: NDArray[Any]
    affine: NDArray[np.float64]


def raw(instance: Dataset, keyword: str) -> bytes | None:
    """The bytes of an attribute; None: it is missing or empty."""
    tag = Tag(keyword)
    if tag not in instance:
        return None
    element = instance.get_item(tag)
    if isinstance(element, RawDataElement):
        return element.value or None  # blanks are no number
    value = element.value
    values = value if isinstance(value, list) or element.VM > 1 else [value]
    return "\\".join(str(each) for each in values if each is not None).encode() or None


def reference_volume(instances: Iterable[Dataset]) -> ReferenceVolume:
    """The volume of classic instances (or frames) whose geometry and rescale are those that their bytes say.

    Raises:
        MalformedError: they say none.
    """
    instances = list(instances)
    if "PerFrameFunctionalGroupsSequence" in instances[0] or instances[0].get("SOPClassUID") == EnhancedMRImageStorage:
        instances = frames_of(instances[0])
    planes = []
    cosines = spacing = None
    for instance in instances:
        position = np.array(decimals(raw(instance, "ImagePositionPatient"), 3))
        cosines = np.array(decimals(raw(instance, "ImageOrientationPatient"), 6)).reshape(2, 3)
        spacing = decimals(raw(instance, "PixelSpacing"), 2)
        slope, intercept = (
            default if raw(instance, keyword) is None else decimals(raw(instance, keyword), 1)[0]
            for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
        )
        stored = np.frombuffer(instance.PixelData, "<u2").reshape(ROWS, COLUMNS)
        planes.append((float(np.cross(*cosines) @ position), position, stored * slope + intercept))
    if cosines is None or spacing is None:
        raise MalformedError
    planes.sort(key=lambda plane: plane[0])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = cosines[0] * spacing[1], cosines[1] * spacing[0]
    affine[:3, 2] = (planes[-1][1] - planes[0][1]) / (len(planes) - 1)
    affine[:3, 3] = planes[0][1]
    return ReferenceVolume(np.stack([plane[2] for plane in planes]), affine)
