"""Odd but real inputs, each from a public report of a field tool or a conformance statement, on synthetic data.

Each case says what is right: the volume is read exactly, the part of a series that is one is chosen, or the study is
refused and the reason names what is wrong. The number after # is that of the public report of the tool.
"""

from __future__ import annotations

import copy
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import phantoms
import pydicom
import pytest
import SimpleITK as sitk
from instances import encode_instance
from mutable_study import (
    COLUMNS,
    FIRST_MM,
    MIDDLE,
    ROWS,
    SLICES,
    STEP_MM,
    as_enhanced,
    encoded,
    make_mutable_study,
    reference_volume,
)
from node_process import write_config
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRColorImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from node.config import load_config
from node.dicom.uids import derived_uid
from node.processing.request import build_request
from node.segmentation.exam_reader import ExamReader
from node.segmentation.seg_writer import write_seg
from node.series.explain import selection_as_dict
from node.study import Contrast

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Study = dict[str, list[Dataset]]
T2_LABEL = "T2 TSE tra"


@pytest.fixture
def study() -> Study:
    """Four good series of eight slices."""
    return make_mutable_study()


class World:
    """Writes a study, and asks the node for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "study"
        self.config = load_config(write_config(folder / "node"))
        self.reader = ExamReader()

    def write(self, study: Study, encode: Callable[[Dataset], bytes] = encode_instance) -> None:
        """One file for each instance."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for instance in (each for series in study.values() for each in series):
            (self.folder / f"{instance.SOPInstanceUID}.dcm").write_bytes(encode(instance))

    def ask(self):
        """The request for the study on disk."""
        return build_request(self.folder, self.config, why_unusable=self.reader.why_unusable)

    def volumes(self):
        """The volumes of the four contrasts; the study must be selected."""
        request = self.ask()
        assert request.selection is not None, request.refusal
        return self.reader.take(request.selection)

    def refusal(self) -> str:
        """Why the study is refused."""
        reason = self.ask().refusal
        assert reason is not None
        return reason


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty folder and a node."""
    return World(tmp_path)


def check_exact(volume, instances: Sequence[Dataset], stored: np.ndarray | None = None) -> None:
    """Voxels and affine are those of ``instances``; ``stored``: their pixels, if they are encoded."""
    meant = reference_volume(instances)
    np.testing.assert_allclose(volume.affine_lps, meant.affine, atol=2e-3)
    array = sitk.GetArrayFromImage(volume.image)
    np.testing.assert_allclose(array, meant.array if stored is None else stored, rtol=1e-6, atol=1e-3)


def pixels_of(instances: Sequence[Dataset], dtype: str = "<u2") -> np.ndarray:
    """[slice, row, column]."""
    return np.stack([np.frombuffer(each.PixelData, dtype).reshape(each.Rows, each.Columns) for each in instances])


def enlarged(instances: Sequence[Dataset], factor: int = 8) -> np.ndarray:
    """Each pixel of ``instances``, in place, as a square of them: encoders and GDCM refuse images of a few pixels."""
    stored = np.kron(pixels_of(instances), np.ones((1, factor, factor), "<u2")).astype("<u2")
    for each, plane in zip(instances, stored, strict=True):
        each.Rows, each.Columns, each.PixelData = *plane.shape, plane.tobytes()
    return stored


def again(instances: Sequence[Dataset], name: str, **attributes: object) -> list[Dataset]:
    """The same planes under other UIDs, with other pixels and other attributes."""
    copies = []
    for number, instance in enumerate(instances):
        other = copy.deepcopy(instance)
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = derived_uid(name, str(number))
        other.PixelData = np.random.default_rng(number).integers(50, 900, (ROWS, COLUMNS)).astype("<u2").tobytes()
        for keyword, value in attributes.items():
            setattr(other, keyword, value)
        copies.append(other)
    return copies


def as_series(instances: Sequence[Dataset], number: int, description: str) -> list[Dataset]:
    """``instances``, in place, as a series of their own."""
    for instance in instances:
        instance.SeriesInstanceUID, instance.SeriesNumber = derived_uid("series", str(number)), number
        instance.SeriesDescription = description
    return list(instances)


# ---- read exactly ------------------------------------------------------------------------------------------------


def same_numbers(series):
    for each in series:
        each.InstanceNumber, each.AcquisitionNumber, each.AcquisitionTime = 1, 1, "120000"


def repeated_and_negative_numbers(series):
    for number, each in enumerate(series):
        each.InstanceNumber = [-3, 0, 7, 7, 7, 2, 99999, -1][number]


def long_decimals(series):
    for number, each in enumerate(series):
        each.ImagePositionPatient = [*FIRST_MM[:2], FIRST_MM[2] + STEP_MM * number + 4e-6 * (-1) ** number]


def rounded_to_tenths(series):
    for number, each in enumerate(series):
        each.ImagePositionPatient = [*FIRST_MM[:2], round(FIRST_MM[2] + STEP_MM * number + 0.004 * (number % 3), 2)]


def scaled_by_slice(series):
    for number, each in enumerate(series):
        each.RescaleSlope, each.RescaleIntercept, each.RescaleType = f"{0.5 + number * 0.37:.6g}", str(-number), "US"


def real_world_values(series):
    for each in series:
        item = Dataset()
        item.RealWorldValueSlope, item.RealWorldValueIntercept = 3.0, -200.0
        item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 65535
        each.RealWorldValueMappingSequence = [item]


def real_world_values_alone(series):
    real_world_values(series)
    for each in series:
        del each.RescaleSlope, each.RescaleIntercept


def icon(series):
    for each in series:
        item = Dataset()
        item.Rows = item.Columns = 2
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 8
        item.HighBit, item.PixelRepresentation, item.PixelData = 7, 0, b"\1\2\3\4"
        each.IconImageSequence = [item]


def overlay_plane(series):
    for each in series:
        each.add_new(0x60000010, "US", ROWS)
        each.add_new(0x60000011, "US", COLUMNS)
        each.add_new(0x60000040, "CS", "G")
        each.add_new(0x60000050, "SS", [1, 1])
        each.add_new(0x60000100, "US", 1)
        each.add_new(0x60000102, "US", 0)
        each.add_new(0x60003000, "OW", bytes(4))


def private_sequence(series):
    for each in series:
        item = Dataset()
        item.add_new(0x00291010, "OB", b"")
        item.add_new(0x00291020, "LO", "x")
        each.add_new(0x00290010, "LO", "VENDOR")
        each.add_new(0x00291030, "SQ", [item])
        each[0x00291030].is_undefined_length = True


def wrong_slice_location(series):
    for number, each in enumerate(series):
        each.SliceLocation, each.SpacingBetweenSlices = -1000 + number * 3.0, "1"


def images_in_acquisition(series):
    for each in series:
        each.ImagesInAcquisition = 44


def spacing_of_zero(series):
    for each in series:
        each.SpacingBetweenSlices = "0"


def rounded_cosines(series):
    for each in series:
        each.ImageOrientationPatient = ["1", "0.00021", "0", "-0.00021", "1", "0"]


def jittered_cosines(series):
    for number, each in enumerate(series):
        each.ImageOrientationPatient = ["1", f"{2e-7 * number:.8f}", "0", "0", "1", "0"]


def two_patient_positions(series):
    for number, each in enumerate(series):
        each.PatientPosition = "HFS" if number % 2 else "FFS"


def lossy(series):
    for each in series:
        each.LossyImageCompression, each.LossyImageCompressionRatio = "01", "12.5"
        each.LossyImageCompressionMethod = "ISO_10918_1"


def anonymised(series):
    for each in series:
        for keyword in ("PatientBirthDate", "PatientSex", "StudyTime", "AccessionNumber", "StudyID", "StationName"):
            setattr(each, keyword, "")
        del each.InstitutionName, each.ReferringPhysicianName


def korean(series):
    for each in series:
        each.SpecificCharacterSet = ["", "ISO 2022 IR 149"]
        each.PatientName, each.SeriesDescription = "Hong^Gildong=洪^吉洞=홍^길동", f"{each.SeriesDescription} 뇌"


def chinese(series):
    for each in series:
        each.SpecificCharacterSet, each.SeriesDescription = "GB18030", "T2 头部 横断"


def frames_as_text(series):
    for each in series:
        each.NumberOfFrames = " 1 "


def group_lengths(series):
    for each in series:
        each.add_new(0x00080000, "UN", struct.pack("<I", 4))
        each.add_new(0x00200000, "UN", struct.pack("<I", 4))


READ = {
    "dcm2niix #168: Philips slices of equal time, acquisition and image number": same_numbers,
    "dcm2niix #539: instance numbers that repeat, jump and are negative": repeated_and_negative_numbers,
    "dcm2niix #216: positions with the noise of single precision": long_decimals,
    "dicom2nifti #36: positions rounded to a hundredth": rounded_to_tenths,
    "dcm2niix #363: Philips scales each slice by its own slope": scaled_by_slice,
    "dcm2niix #493: Philips Real World Value Mapping beside the rescale": real_world_values,
    "nibabel #143: ADNI, Real World Value Mapping without a rescale": real_world_values_alone,
    "dcm2niix #440: an icon with Rows and Pixel Data of its own": icon,
    "pydicom: an empty overlay plane beside the pixels": overlay_plane,
    "dicomParser #49: a private sequence of undefined length before the pixels": private_sequence,
    "ITK #112: Slice Location and Spacing Between Slices contradict the positions": wrong_slice_location,
    "GE conformance statement: Images in Acquisition counts other images": images_in_acquisition,
    "BRAINSTools #334: Spacing Between Slices is 0": spacing_of_zero,
    "3D Slicer: cosines not quite orthonormal": rounded_cosines,
    "dcmstack #55: cosines that jitter from slice to slice": jittered_cosines,
    "Siemens conformance statement: Patient Position differs between instances": two_patient_positions,
    "PACS: lossy compressed and said so": lossy,
    "anonymiser: empty and missing attributes of type 2": anonymised,
    "Korean hospital: names and descriptions in ISO 2022 IR 149": korean,
    "Chinese hospital: descriptions in GB18030": chinese,
    "old archive: Number of Frames with blanks around it": frames_as_text,
    "fo-dicom #1941: group lengths whose VR is UN": group_lengths,
}


@pytest.mark.parametrize("change", READ.values(), ids=READ)
def test_odd_series_is_read_exactly(world, study, change):
    """What does not say where pixels lie or what they are changes neither choice nor volume."""
    if change in (korean, anonymised):
        for series in study.values():
            change(series)
    else:
        change(study["T2"])
    world.write(study)
    volumes = world.volumes()
    check_exact(volumes[Contrast.T2], study["T2"])
    check_exact(volumes[Contrast.T1C], study["T1c"])


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_uncompressed_transfer_syntax_does_not_matter(world, study, syntax):
    """fo-dicom, dcm4che: implicit, big-endian and deflated instances give the same voxels."""
    stored = pixels_of(study["T2"])
    for each in study["T2"]:
        each.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            each.PixelData = pixels_of([each]).astype(">u2").tobytes()
        each["PixelData"].VR = "OW"
    world.write(study)
    check_exact(world.volumes()[Contrast.T2], make_mutable_study()["T2"], stored)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
def test_losslessly_compressed_instances_are_read_exactly(world, study, syntax, is_signed):
    """MONAI, pydicom: 16-bit values, negative ones included, come out of each codec as they went in."""
    stored = enlarged(study["T2"]).astype(int) - (2000 if is_signed else 0)
    for each, plane in zip(study["T2"], stored, strict=True):
        each.PixelRepresentation = int(is_signed)
        each.PixelData = plane.astype("<i2" if is_signed else "<u2").tobytes()
        each.compress(syntax, generate_instance_uid=False)
    world.write(study)
    check_exact(world.volumes()[Contrast.T2], make_mutable_study()["T2"], stored)


@pytest.mark.parametrize("fragments", [1, 3])
def test_frame_in_several_fragments_is_one_image(world, study, fragments):
    """fo-dicom #992: one frame in several fragments, without an offset table."""
    stored = enlarged(study["T2"])
    for each in study["T2"]:
        each.compress(RLELossless, generate_instance_uid=False)
        (frame,) = pydicom.encaps.generate_frames(each.PixelData, number_of_frames=1)
        each.PixelData = encapsulate([frame], fragments_per_frame=fragments, has_bot=False)
    world.write(study)
    check_exact(world.volumes()[Contrast.T2], make_mutable_study()["T2"], stored)


def test_extended_offset_table_is_understood(world, study):
    """pydicom #1178: an enhanced instance with an Extended Offset Table."""
    stored = enlarged(study["T1c"])
    enhanced = as_enhanced(study["T1c"])
    enhanced.compress(RLELossless, generate_instance_uid=False)
    frames = list(pydicom.encaps.generate_frames(enhanced.PixelData, number_of_frames=SLICES))
    enhanced.PixelData, enhanced.ExtendedOffsetTable, enhanced.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    study["T1c"] = [enhanced]
    world.write(study)
    check_exact(world.volumes()[Contrast.T1C], make_mutable_study()["T1c"], stored)


BITS = {"8 of 8": ("<u1", 8, 8, 0), "10 of 16": ("<u2", 16, 10, 0), "32 of 32": ("<u4", 32, 32, 0),
        "12 of 16, signed": ("<i2", 16, 12, 1)}  # fmt: skip


@pytest.mark.parametrize(("dtype", "allocated", "stored", "signed"), BITS.values(), ids=BITS)
def test_other_numbers_of_bits_are_read_exactly(world, study, dtype, allocated, stored, signed):
    """Conformance statements: 8, 10 of 16 and 32 bits; negative values in 12 bits."""
    truth = pixels_of(study["T2"]).astype(int) % (1 << min(stored, 11)) - 300 * signed
    for each, plane in zip(study["T2"], truth, strict=True):
        each.BitsAllocated, each.BitsStored, each.HighBit, each.PixelRepresentation = (
            allocated, stored, stored - 1, signed,
        )  # fmt: skip
        each.PixelData = plane.astype(dtype).tobytes()
        each["PixelData"].VR = "OB" if allocated == 8 else "OW"
    world.write(study)
    check_exact(world.volumes()[Contrast.T2], make_mutable_study()["T2"], truth)


def test_pixels_of_an_odd_length_are_read(world, study):
    """fo-dicom #284: 25 bytes that nobody padded to 26."""
    truth = pixels_of(study["T2"]).astype(int)[:, :, :5] % 200 + 3
    for each, plane in zip(study["T2"], truth, strict=True):
        each.Columns, each.BitsAllocated, each.BitsStored, each.HighBit = 5, 8, 8, 7
        each.PixelData = plane.astype("u1").tobytes()
        each["PixelData"].VR = "OB"
    world.write({"T2": study.pop("T2")}, encoded_odd)
    world.write(study)
    check_exact(world.volumes()[Contrast.T2], make_mutable_study()["T2"], truth)


def encoded_odd(instance: Dataset) -> bytes:
    """The file of ``instance``, whose last element is cut to its odd length."""
    content = encoded(instance)
    length = len(instance.PixelData)
    at = content.rindex(b"\xe0\x7f\x10\x00OB\0\0") + 8
    return content[:at] + struct.pack("<I", length) + instance.PixelData


def test_segmentation_of_a_lossy_source_says_so(world, study):
    """PS3.3 C.7.6.1.1.5: what was made of a lossy compressed image is marked as such, too."""
    lossy(study["T1c"])
    world.write(study)
    volume = world.volumes()[Contrast.T1C]
    masks = {region: np.ones(volume.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    assert write_seg(volume, masks, phantoms.IDENTITY).LossyImageCompression == "01"


@pytest.mark.parametrize("value", ["", "  ", ["", ""], None], ids=repr)
def test_empty_character_set_is_the_default_one(world, study, value):
    """Old archives: a Specific Character Set that is empty stops no segmentation (PS3.3 C.12.1.1.2)."""
    for each in study["T1c"]:
        each.SpecificCharacterSet = value
    world.write(study)
    volume = world.volumes()[Contrast.T1C]
    masks = {region: np.ones(volume.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    seg = write_seg(volume, masks, phantoms.IDENTITY)
    assert not seg.get("SpecificCharacterSet")
    assert seg.PatientName == study["T1c"][0].PatientName


def test_directory_file_beside_the_study_is_no_instance(world, study):
    """PS3.10: a DICOMDIR of a disc is passed over."""
    world.write(study)
    directory = copy.deepcopy(study["T1"][0])
    directory.SOPClassUID = directory.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    (world.folder / "DICOMDIR").write_bytes(encode_instance(directory))
    check_exact(world.volumes()[Contrast.T1], study["T1"])


def enhanced_of_frames(change: Callable[[int, Dataset], None]) -> Callable[[Dataset], None]:
    def apply(instance):
        for number, frame in enumerate(instance.PerFrameFunctionalGroupsSequence):
            change(number, frame)

    return apply


def scaled_frame(number, frame):
    frame.PixelValueTransformationSequence[0].RescaleSlope = f"{0.5 + 0.25 * number}"


def private_groups(number, frame):
    item = Dataset()
    item.add_new(0x20050010, "LO", "Philips MR Imaging DD 005")
    item.add_new(0x2005100E, "FL", 7.0 + number)
    frame.add_new(0x20050011, "LO", "Philips MR Imaging DD 005")
    frame.add_new(0x2005110F, "SQ", [item])


def mixed_frame_type(number, frame):
    frame.MRImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "MIXED" if number % 2 else "T1", "NONE"]


def no_spacing(instance):
    del instance.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices


def unassigned(instance):
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.4"
    for frame in instance.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.EchoTime, item.PatientName = "17", "Other^Name"
        frame.UnassignedPerFrameConvertedAttributesSequence = [item]


ENHANCED = {
    "dcm2niix #363: Philips Enhanced, each frame with its own slope": enhanced_of_frames(scaled_frame),
    "Philips conformance statement: private groups in each frame": enhanced_of_frames(private_groups),
    "dicom2nifti #48: no Spacing Between Slices": no_spacing,
    "OHIF #2193: legacy converted, unassigned attributes in each frame": unassigned,
}


@pytest.mark.parametrize("change", ENHANCED.values(), ids=ENHANCED)
def test_odd_enhanced_instance_is_read_exactly(world, study, change):
    """Frames lie where their positions say, with the values that their own rescale gives."""
    study["T1c"] = [as_enhanced(study["T1c"])]
    change(study["T1c"][0])
    world.write(study)
    check_exact(world.volumes()[Contrast.T1C], study["T1c"])


# ---- split -------------------------------------------------------------------------------------------------------


def with_survey(t2):
    other = again(t2[:3], "survey", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    for number, each in enumerate(other):
        each.ImagePositionPatient = [10 * number, -40, 60]
    return [*t2, *other]


def with_text_page(t2):
    page = again(t2[:1], "page", SOPClassUID=SecondaryCaptureImageStorage, ImageType=["DERIVED", "SECONDARY"])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(page[0], keyword)
    page[0].file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    return [*t2, *page]


def with_phase_images(t2):
    return [*t2, *again(t2, "phase", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])]


def with_first_echo(t2):
    return [*t2, *again(t2, "first echo", EchoTime="13", EchoNumbers="2")]


def with_other_matrix(t2):
    other = again(t2, "matrix")
    for each in other:
        each.Rows, each.Columns, each.PixelSpacing = COLUMNS, ROWS, ["10", "13"]
    return [*t2, *other]


def with_second_frame_of_reference(t2):
    return [*t2, *again(t2, "frame", FrameOfReferenceUID="1.2.3.4.5")]


def with_part_of_it_again(t2):
    return [*t2, *again(t2, "later", AcquisitionNumber="2")[:5]]


def with_repeat(t2):
    other = copy.deepcopy(t2[MIDDLE])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.77"
    return [*t2, other]


SPLIT = {
    "dcm2niix #140: survey planes of another orientation in the series": (with_survey, "axial"),
    "scanner's text page in the series, without geometry": (with_text_page, "MR Image Storage"),
    "MRtrix3 #1056: phase images in the series of the magnitude": (with_phase_images, "image type"),
    "heudiconv #346: proton density and T2 in one series": (with_first_echo, "echo time 98 ms"),
    "PACS: images of another matrix merged into the series": (with_other_matrix, "pixels"),
    "two Frames of Reference in one series": (with_second_frame_of_reference, "frame of reference"),
    "scan that was broken off and begun again": (with_part_of_it_again, "acquisition 1"),
    "dcm2niix #539: ADNI, one slice stored twice": (with_repeat, "without repeated images"),
}


@pytest.mark.parametrize(("add", "part"), SPLIT.values(), ids=SPLIT)
def test_part_that_is_one_volume_is_chosen(world, study, add, part):
    """The series is split; its part that is the T2 is read, and the part is named."""
    original = study["T2"]
    study["T2"] = add(original)
    world.write(study)
    volume = world.volumes()[Contrast.T2]
    assert part in volume.series.part
    check_exact(volume, original)


def test_two_geometries_in_one_enhanced_instance_are_two_parts(world, study):
    """dcm2niix #1009: brain and, at another angle, spine in one enhanced instance: the brain is the T1c."""
    brain, other = study["T1c"], again(study["T1c"], "spine", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    for number, each in enumerate(other):
        each.ImagePositionPatient = [-40, -300 + 14 * number, -200]
    both = as_enhanced([*brain, *other])
    for frame, each in zip(both.PerFrameFunctionalGroupsSequence, [*brain, *other], strict=True):
        item = Dataset()
        item.ImageOrientationPatient = each.ImageOrientationPatient
        frame.PlaneOrientationSequence = [item]
    del both.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    study["T1c"] = [both]
    world.write(study)
    volume = world.volumes()[Contrast.T1C]
    assert "axial" in volume.series.part
    assert [frame for _, frame in volume.sources] == list(range(1, SLICES + 1))
    check_exact(volume, brain)


def test_usable_twin_of_a_sheared_series_is_chosen(world, study):
    """VolView #291, dcm2niix #232: planes shift beside their normal; the series beside it is even, and is taken."""
    twin = as_series(again(study["T2"], "twin"), 9, T2_LABEL)
    for number, each in enumerate(study["T2"]):
        each.ImagePositionPatient = [FIRST_MM[0], FIRST_MM[1] + 3.0 * number, FIRST_MM[2] + STEP_MM * number]
    study["twin"] = twin
    world.write(study)
    check_exact(world.volumes()[Contrast.T2], twin)


@pytest.mark.parametrize("words", [("ND", "DIS2D"), ("NORM", "M")], ids=str)
def test_distortion_corrected_twins_are_one_choice(world, study, words):
    """Siemens conformance statement: a series as acquired and corrected for distortion; one is taken, both are told."""
    twin = as_series(again(study["T2"], "twin"), 9, T2_LABEL)
    for instances, word in ((study["T2"], words[0]), (twin, words[1])):
        for each in instances:
            each.ImageType = ["ORIGINAL", "PRIMARY", "M", word]
    study["twin"] = twin
    world.write(study)
    request = world.ask()
    chosen = request.selection.chosen[Contrast.T2]
    check_exact(world.reader.take(request.selection)[Contrast.T2], study["T2"] if chosen.series_number == 3 else twin)
    listed = [each for each in selection_as_dict(request.selection)["series"] if each["contrast"] == "T2"]
    assert sorted(each["series_number"] for each in listed) == [3, 9]


# ---- refused -----------------------------------------------------------------------------------------------------


def gap_between_slabs(t2):
    for each in t2[4:]:
        each.ImagePositionPatient = [*FIRST_MM[:2], float(each.ImagePositionPatient[2]) + 70]
    return t2


def one_place(t2):
    for each in t2:
        each.ImagePositionPatient = list(FIRST_MM)
    return t2


def classic_of_several_frames(t2):
    first = t2[0]
    first.NumberOfFrames = len(t2)
    first.PixelData = b"".join(each.PixelData for each in t2)
    return [first]


def mosaic(t2):
    tile = t2[0]
    tile.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    return [tile]


def without(keyword):
    def change(t2):
        for each in t2:
            delattr(each, keyword)
        return t2

    return change


def with_value(keyword, value):
    def change(t2):
        for each in t2:
            each.add(pydicom.dataelem.DataElement(pydicom.tag.Tag(keyword), "LO", value))
            each[keyword].VR = pydicom.datadict.dictionary_VR(keyword)
        return t2

    return change


def two_paddings(t2):
    for each in t2:
        each.add_new(0x00280120, "US", [0, 7])
    return t2


def coloured(t2):
    for each in t2:
        each.SamplesPerPixel, each.PhotometricInterpretation, each.PlanarConfiguration = 3, "RGB", 0
        each.PixelData = each.PixelData * 3
    return t2


def enhanced_colour(t2):
    whole = as_enhanced(t2)
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedMRColorImageStorage
    whole.SamplesPerPixel, whole.PhotometricInterpretation, whole.PlanarConfiguration = 3, "RGB", 0
    whole.PixelData = whole.PixelData * 3
    return [whole]


def frame_without_position(t2):
    whole = as_enhanced(t2)
    whole.PerFrameFunctionalGroupsSequence[MIDDLE].PlanePositionSequence = []
    return [whole]


def spacing_by_frame(t2):
    whole = as_enhanced(t2)
    for number, frame in enumerate(whole.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.PixelSpacing, item.SliceThickness = ["12", "11" if number < MIDDLE else "10"], "10"
        frame.PixelMeasuresSequence = [item]
    return [whole]


def header_of_fewer_rows(t2):
    for each in t2:
        each.Rows = ROWS - 2
    return t2


REFUSED = {
    "3D Slicer #4005: a slice is missing": (lambda t2: t2[:MIDDLE] + t2[MIDDLE + 1 :], "a slice is missing"),
    "Philips: two slabs with a gap": (gap_between_slabs, "a slice is missing: gaps of"),
    "OHIF #6138: all images at one place": (one_place, "8 images per slice position"),
    "3D Slicer #7496: several frames in a classic instance": (classic_of_several_frames, r"no T2"),
    "Siemens conformance statement: a mosaic": (mosaic, r"no T2"),
    "CaPTk #445: no orientation": (without("ImageOrientationPatient"), r"Image Orientation \(Patient\) \(0020,0037\)"),
    "dcmjs #287: Pixel Spacing with a comma": (with_value("PixelSpacing", ["0,5", "0,5"]), r"\(0028,0030\)"),
    "dcm2niix: Rescale Slope of 0": (with_value("RescaleSlope", "0"), r"Rescale Slope \(0028,1053\)"),
    "pydicom: Rescale Slope that only Python takes for a number": (with_value("RescaleSlope", "1_0"), r"\(0028,1053\)"),
    "Rescale Intercept beyond all pixels": (with_value("RescaleIntercept", "1e16"), r"\(0028,1052\)"),
    "Number of Frames in words": (with_value("NumberOfFrames", "one"), r"Number of Frames \(0028,0008\)"),
    "two Pixel Padding Values": (two_paddings, r"Pixel Padding Value \(0028,0120\)"),
    "no Frame of Reference": (without("FrameOfReferenceUID"), r"lacks Frame of Reference UID \(0020,0052\)"),
    "colour images of a viewer": (coloured, r"Photometric Interpretation \(0028,0004\) is RGB"),
    "Enhanced MR Color": (enhanced_colour, "no T2"),
    "cornerstone3D #2241: a frame without Plane Position": (frame_without_position, r"\(0020,0032\) is missing"),
    "spacing that differs between frames": (spacing_by_frame, "pixels of 12 x 10 mm: has only 5 slices"),
    "header of fewer rows than there are pixels": (header_of_fewer_rows, "Rows x Columns"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_series_that_is_no_volume_is_refused_by_its_reason(world, study, change, reason):
    """A study without another T2 is refused before the networks run, and the reason says what is wrong."""
    study["T2"] = change(study["T2"])
    world.write(study)
    assert re.search(reason, world.refusal())


def test_incomplete_transfer_is_refused_with_the_file(world, study):
    """dcm2niix #156: a file that ends within its pixels is named."""
    world.write(study)
    name = f"{study['T2'][MIDDLE].SOPInstanceUID}.dcm"
    path = world.folder / name
    path.write_bytes(path.read_bytes()[:-11])
    assert f"file {name} cannot be read: " in world.refusal()


@pytest.mark.parametrize("length", [b"", b"\xfe\xff\xdd\xe0\xff\xff\xff\xff"], ids=["none", "undefined"])
def test_pixel_data_without_a_proper_end_are_refused(world, study, length):
    """dicomParser #266: the delimiter of encapsulated pixels is missing, or has an undefined length."""
    for each in study["T2"]:
        each.compress(RLELossless, generate_instance_uid=False)
    world.write(study)
    for each in study["T2"]:
        path = world.folder / f"{each.SOPInstanceUID}.dcm"
        content = path.read_bytes()
        path.write_bytes(content[: content.rindex(b"\xfe\xff\xdd\xe0")] + length)
    request = world.ask()
    if request.selection is None:
        assert "pixel data" in request.refusal
    else:
        check_exact(world.reader.take(request.selection)[Contrast.T2], make_mutable_study()["T2"])


def test_two_studies_in_one_folder_are_refused(world, study):
    """An export that mixes two examinations is refused, and both are named."""
    for each in study["FLAIR"]:
        each.StudyInstanceUID = "1.2.3.999"
    world.write(study)
    assert "holds 2 studies" in world.refusal()


def test_series_of_before_and_after_under_one_uid_is_no_t1c(world, study):
    """A T1 before and after contrast agent under one Series Instance UID: neither phase is taken for the T1c."""
    study["T1c"] += again(study["T1c"], "before", AcquisitionNumber="2", AcquisitionTime="130000")
    world.write(study)
    assert "no T1c" in world.refusal()
