"""A DICOM series as an image: exact where it is regular, refused with the reason where it is not."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import phantoms
import pydicom
import pytest
import SimpleITK as sitk
from phantoms import GEOMETRIES, Geometry
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1, LegacyConvertedEnhancedMRImageStorage

from node.dicom.uids import derived_uid
from node.errors import ContentRefused, GeometryRefused, GlionodeError, InstanceRefused, RefusedError
from node.segmentation import volume
from node.segmentation.volume import affine_of, image_from_affine, read_volume
from node.series.headers import read_study

SMALL = Geometry(size=(24, 20, 6), spacing_between_slices_mm=3.0, pixel_spacing=(2.0, 0.5), centre_mm=(14, -11, 9))
BY_NAME = [pytest.param(geometry, id=name) for name, geometry in GEOMETRIES.items()]


def named(keyword):
    """The attribute's name as a pattern; the tag follows it."""
    return re.escape(dictionary_description(keyword)) + r" \([0-9A-F,]{9}\)"


def arrays(source):
    return sitk.GetArrayFromImage(source.image)


def check_placed(source, geometry):
    np.testing.assert_allclose(source.affine_lps, geometry.affine_lps, atol=1e-6)
    np.testing.assert_allclose(arrays(source), np.rint(phantoms.signal(geometry)), atol=1e-3)


def test_affine_of_pixels_two_by_half_a_millimetre_is_the_standards(read):
    """Column 10, row 3 of 2.0 x 0.5 mm pixels lies 5 mm along the row and 6 mm down the column (PS3.3 C.7.6.2.1.1)."""
    instances = phantoms.classic(SMALL)
    for index, instance in enumerate(instances):
        instance.ImagePositionPatient = [0, 0, 3 * index]
    source = read(instances)
    expected = [[0.5, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(source.affine_lps, expected)
    assert source.image.TransformIndexToPhysicalPoint((10, 3, 0)) == (5.0, 6.0, 0.0)


def test_affine_of_a_sagittal_series_is_the_standards(read):
    """Rows run to posterior, columns to the feet, slices to the right or left: numbers written out by hand."""
    geometry = replace(SMALL, orientation=phantoms.SAGITTAL)
    instances = phantoms.classic(geometry)
    for index, instance in enumerate(instances):
        instance.ImagePositionPatient = [40 - 3 * index, -100, 80]
    # the normal of (0, 1, 0) and (0, 0, -1) is (-1, 0, 0): slices run to the right
    expected = [[0, 0, -3.0, 40], [0.5, 0, 0, -100], [0, -2.0, 0, 80], [0, 0, 0, 1]]
    np.testing.assert_allclose(read(instances).affine_lps, expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", BY_NAME)
def test_classic_series_of_any_orientation_is_read_exactly(read, geometry):
    """Affine and voxels are those of the phantom, whatever its orientation."""
    check_placed(read(phantoms.classic(geometry)), geometry)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", BY_NAME)
def test_enhanced_instance_of_any_orientation_is_read_exactly(read, geometry):
    """A multi-frame instance gives the same affine and voxels as the classic series."""
    check_placed(read([phantoms.enhanced(geometry)]), geometry)


@pytest.mark.parametrize("numbers", [[6, 5, 4, 3, 2, 1], [1, 4, 2, 5, 3, 6], [3, 1, 6, 2, 5, 4], [1] * 6], ids=str)
def test_order_of_the_instances_does_not_matter(read, numbers):
    """Reversed, interleaved, shuffled or equal instance numbers: the positions alone say where a slice lies."""
    instances = phantoms.classic(SMALL)
    for instance, number in zip(instances, numbers, strict=True):
        instance.InstanceNumber = number
    check_placed(read(instances), SMALL)


def test_order_in_which_slices_are_given_does_not_matter(tmp_path):
    """Instances named and listed in any order give the same volume, and each slice keeps its own source."""
    series = phantoms.write_series(tmp_path, phantoms.classic(SMALL))
    shuffled = replace(series, instances=tuple(series.instances[i] for i in (4, 1, 5, 0, 3, 2)))
    source = read_volume(shuffled)
    check_placed(source, SMALL)
    positions = [pydicom.dcmread(path).ImagePositionPatient for path, _ in source.sources]
    expected = [SMALL.affine_lps[:3, 3] + z * SMALL.affine_lps[:3, 2] for z in range(6)]
    np.testing.assert_allclose(np.array(positions, float), expected, atol=1e-6)


def test_frames_counted_from_the_other_end_are_read_exactly(read):
    """Frames stored last slice first give the same volume, and each slice names its own frame."""
    source = read([phantoms.enhanced(SMALL, frame_order=[5, 4, 3, 2, 1, 0])])
    check_placed(source, SMALL)
    assert [frame for _, frame in source.sources] == [6, 5, 4, 3, 2, 1]


def per_frame(instance):
    shared = instance.SharedFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        for group in instance.PerFrameFunctionalGroupsSequence:
            setattr(group, keyword, copy.deepcopy(shared[keyword].value))
        del shared[keyword]
    return instance


def test_geometry_repeated_in_each_frame_is_read_exactly(read):
    """Measures and orientation may stand in the per-frame groups, as Philips writes them."""
    check_placed(read([per_frame(phantoms.enhanced(SMALL))]), SMALL)


@pytest.mark.parametrize(
    "manufacturer", ["SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems", "Hitachi Medical Corporation", ""]
)
def test_manufacturer_does_not_change_the_geometry(read, manufacturer):
    """Each vendor's way through the converter gives the same volume."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        instance.Manufacturer = manufacturer
    check_placed(read(instances), SMALL)


def test_rescale_that_differs_between_slices_is_applied(read):
    """Stored values are made the same measure again when each slice has its own slope and intercept."""
    instances = phantoms.classic(SMALL)
    for index, instance in enumerate(instances):
        slope, intercept = 0.25 + 0.125 * index, -8.0 * index
        stored = np.rint((instance.pixel_array - intercept) / slope)
        instance.RescaleSlope, instance.RescaleIntercept, instance.RescaleType = str(slope), str(intercept), "US"
        instance.PixelData = stored.astype("<u2").tobytes()
    np.testing.assert_allclose(arrays(read(instances)), phantoms.signal(SMALL), atol=1.0)


def test_slice_thickness_and_spacing_between_slices_are_not_taken_for_the_distance(read):
    """The planes' positions alone say how far apart they are."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        instance.SliceThickness, instance.SpacingBetweenSlices = 1.0, -9.0
    check_placed(read(instances), SMALL)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("RepetitionTime", ""), ("EchoTime", ""), ("SliceThickness", ""), ("SpacingBetweenSlices", "")],
)
def test_attributes_that_geometry_does_not_need_may_be_empty(read, keyword, value):
    """An empty echo time (type 2) or slice thickness stops nothing."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        setattr(instance, keyword, value)
    check_placed(read(instances), SMALL)


def test_instance_number_may_be_missing(read):
    """InstanceNumber (type 2) is not needed to order the slices."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        del instance.InstanceNumber
    check_placed(read(instances), SMALL)


def test_rounding_to_a_hundredth_of_a_millimetre_is_no_irregularity(read):
    """Positions rounded to 0.01 mm, cosines to six digits: read, within that rounding."""
    geometry = replace(SMALL, spacing_between_slices_mm=1.005, size=(24, 20, 30))
    instances = phantoms.classic(geometry)
    for instance in instances:
        instance.ImagePositionPatient = [f"{float(value):.2f}" for value in instance.ImagePositionPatient]
    instances[3].ImageOrientationPatient = ["1", "0", "0.000001", "0", "1", "0"]
    np.testing.assert_allclose(read(instances).affine_lps, geometry.affine_lps, atol=0.011)


# ---- refused -------------------------------------------------------------------------------------------------------


def moved(instances, shift_mm_of):
    for index, instance in enumerate(instances):
        position = np.array(instance.ImagePositionPatient, float) + shift_mm_of(index)
        instance.ImagePositionPatient = [f"{value:.6f}" for value in position]
    return instances


def with_position_of_another(instances):
    instances[3].ImagePositionPatient = instances[2].ImagePositionPatient
    return instances


def twice(instances):
    again = copy.deepcopy(instances)
    for instance in again:
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID + ".1"
    return instances + again


def changed(keyword, value):
    def change(instances):
        setattr(instances[1], keyword, value)
        return instances

    return change


IRREGULAR = {
    "missing slice": (lambda instances: instances[:2] + instances[3:], "a slice is missing"),
    "two instances at one position": (with_position_of_another, "share one position"),
    "two time points": (twice, "share one position"),
    "unequal gaps": (lambda instances: moved(instances, lambda i: (0, 0, 0.2 * (i % 2))), "slice gaps differ"),
    "sheared as by a gantry's tilt": (
        lambda instances: moved(instances, lambda i: (0, 0.8 * i, 0)),
        "its planes are tilted",
    ),
    "slightly sheared": (lambda instances: moved(instances, lambda i: (0, 0.05 * i, 0)), "its planes are tilted"),
    "mixed orientations": (
        changed("ImageOrientationPatient", list(phantoms.CORONAL)),
        r"Orientation \(Patient\) \(0020,0037\) differs",
    ),
    "mixed frames of reference": (changed("FrameOfReferenceUID", "1.2.3"), r"\(0020,0052\) differs"),
    "mixed rows": (changed("Rows", 19), r"\(0028,0010\) differs"),
    "mixed columns": (changed("Columns", 23), r"\(0028,0011\) differs"),
    "mixed pixel spacing": (changed("PixelSpacing", [2.0, 0.6]), r"\(0028,0030\) differs"),
    "too few slices": (lambda instances: instances[:3], "3 slices are too few"),
    "position of two values": (changed("ImagePositionPatient", [1, 2]), r"\(0020,0032\) is missing or mal"),
    "position that is no number": (
        changed("ImagePositionPatient", ["nan", 0, 0]),
        r"\(0020,0032\) is missing or mal",
    ),
    "orientation of five values": (
        changed("ImageOrientationPatient", [1, 0, 0, 0, 1]),
        r"\(0020,0037\) is missing",
    ),
    "pixel spacing of one value": (changed("PixelSpacing", "1"), r"\(0028,0030\) is missing or malformed"),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize(("break_it", "reason"), IRREGULAR.values(), ids=IRREGULAR)
def test_irregular_series_is_refused_with_its_reason(read, break_it, reason):
    """What is no regular volume is refused, and the reason says why."""
    with pytest.raises(GeometryRefused, match=reason):
        read(break_it(phantoms.classic(SMALL)))


@pytest.mark.parametrize("cosines", [[0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0]], ids=str)
def test_cosines_that_are_none_are_refused(read, cosines):
    """Row and column cosines must be orthogonal unit vectors."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        instance.ImageOrientationPatient = cosines
    with pytest.raises(GeometryRefused, match="orthogonal unit vectors"):
        read(instances)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("spacing", [[0, 0], [-1, 1], ["inf", 1]], ids=str)
def test_impossible_pixel_spacing_is_refused(read, spacing):
    """Pixels have a positive, finite size."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        instance.PixelSpacing = spacing
    with pytest.raises(GeometryRefused):
        read(instances)


REQUIRED = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "FrameOfReferenceUID"]


@pytest.mark.parametrize("keyword", REQUIRED)
@pytest.mark.parametrize("is_empty", [False, True], ids=["missing", "empty"])
def test_missing_attribute_is_named_with_its_tag(read, keyword, is_empty):
    """An attribute that geometry needs is never assumed: the refusal names it and the number of images without it."""
    instances = phantoms.classic(SMALL)
    if is_empty:
        instances[2][keyword].value = None
    else:
        del instances[2][keyword]
    with pytest.raises(GeometryRefused, match=rf"{named(keyword)} is missing.* in 1 of 6 images"):
        read(instances)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "FrameOfReferenceUID"])
def test_missing_attribute_of_an_enhanced_instance_is_named(read, keyword):
    """So it is for a multi-frame instance."""
    instance = phantoms.enhanced(SMALL)
    instance[keyword].value = None
    with pytest.raises(GeometryRefused, match=rf"{named(keyword)} is missing"):
        read([instance])


def without_group(keyword, frame=None):
    def change(instance):
        groups = instance.SharedFunctionalGroupsSequence if frame is None else instance.PerFrameFunctionalGroupsSequence
        del groups[frame or 0][keyword]

    return change


def second_position(value):
    def change(instance):
        instance.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = value

    return change


def spacing_of(keyword, value):
    def change(instance):
        setattr(instance.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], keyword, value)

    return change


BROKEN_ENHANCED = {
    "no pixel measures": without_group("PixelMeasuresSequence"),
    "no orientation": without_group("PlaneOrientationSequence"),
    "a frame without position": without_group("PlanePositionSequence", frame=2),
    "position of two values": second_position([1, 2]),
    "position twice": second_position([8.25, -30.0, 1.5 + 6]),
    "no shared groups": lambda instance: delattr(instance, "SharedFunctionalGroupsSequence"),
    "empty shared groups": lambda instance: setattr(instance, "SharedFunctionalGroupsSequence", []),
    "no frame groups": lambda instance: delattr(instance, "PerFrameFunctionalGroupsSequence"),
    "empty frame groups": lambda instance: setattr(instance, "PerFrameFunctionalGroupsSequence", []),
    "fewer frames than groups": lambda instance: setattr(instance, "NumberOfFrames", 5),
    "no number of frames": lambda instance: setattr(instance, "NumberOfFrames", None),
}


@pytest.mark.parametrize("break_it", BROKEN_ENHANCED.values(), ids=BROKEN_ENHANCED)
def test_broken_enhanced_instance_is_refused(read, break_it):
    """Groups that are missing, empty or contradicting are a reason to refuse, not to fail."""
    instance = phantoms.enhanced(SMALL)
    break_it(instance)
    with pytest.raises(RefusedError):
        read([instance])


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_enhanced_instance_of_few_frames_is_refused(read, frames):
    """Three frames are no volume."""
    with pytest.raises(RefusedError):
        read([phantoms.enhanced(replace(SMALL, size=(24, 20, frames)))])


FRAME_ORDERS = {
    "in no order": ([3, 1, 0, 5, 2, 4], None),
    "interleaved": ([0, 2, 4, 1, 3, 5], None),
    "reversed": ([5, 4, 3, 2, 1, 0], None),
    "two interleaved stacks": ([0, 2, 4, 1, 3, 5], [1, 1, 1, 2, 2, 2]),
    "two stacks, the upper one first": ([3, 4, 5, 0, 1, 2], [1, 1, 1, 2, 2, 2]),
}


@pytest.mark.parametrize(("order", "stacks"), FRAME_ORDERS.values(), ids=FRAME_ORDERS)
def test_frames_are_ordered_by_their_positions_alone(read, order, stacks):
    """Frames in any order, or in several stacks that make one even volume, give the volume of the ordered ones."""
    instance = phantoms.enhanced(SMALL, frame_order=order)
    places = {}
    for number, frame in zip(stacks or [1] * 6, instance.PerFrameFunctionalGroupsSequence, strict=True):
        places[number] = places.get(number, 0) + 1
        content = frame.FrameContentSequence[0]
        content.StackID, content.InStackPositionNumber = str(number), places[number]
        content.DimensionIndexValues = [number, places[number]]
    found = read([instance])
    assert np.array_equal(sitk.GetArrayFromImage(found.image), np.rint(phantoms.signal(SMALL)))
    assert [frame for _, frame in found.sources] == list(np.argsort(order) + 1)


def temporal_index_2(instance):
    for frame in instance.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].TemporalPositionIndex = 2


def no_stack(instance):
    for frame in instance.PerFrameFunctionalGroupsSequence:
        del frame.FrameContentSequence[0].StackID, frame.FrameContentSequence[0].InStackPositionNumber


def no_dimensions(instance):
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = LegacyConvertedEnhancedMRImageStorage
    del instance.DimensionOrganizationSequence, instance.DimensionIndexSequence
    no_stack(instance)


def geometry_of_each_frame(instance):
    shared = instance.SharedFunctionalGroupsSequence[0]
    for frame in instance.PerFrameFunctionalGroupsSequence:
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
    instance.SharedFunctionalGroupsSequence = [Dataset()]


READ_ENHANCED = {
    "temporal position index 2 in all frames": temporal_index_2,
    "no stack": no_stack,
    "legacy converted, without dimensions": no_dimensions,
    "geometry of each frame": geometry_of_each_frame,
    "a frame without content": without_group("FrameContentSequence", frame=2),
    "slice spacing that contradicts the positions": spacing_of("SpacingBetweenSlices", 9),
}


@pytest.mark.parametrize("change", READ_ENHANCED.values(), ids=READ_ENHANCED)
def test_only_geometry_decides_how_an_enhanced_instance_is_read(read, change):
    """Dimensions, stacks and times that are missing or odd change nothing where positions say where frames lie."""
    instance = phantoms.enhanced(SMALL)
    change(instance)
    assert np.array_equal(sitk.GetArrayFromImage(read([instance]).image), np.rint(phantoms.signal(SMALL)))


def one_frame_each():
    """The volume as one-frame instances, as Siemens XA writes it for interoperability."""
    return [renamed(phantoms.enhanced(SMALL, frame_order=[index]), index) for index in range(6)]


def two_halves():
    """The volume as a concatenation of two instances (PS3.3 C.7.6.16.2.2.4)."""
    halves = [renamed(phantoms.enhanced(SMALL, frame_order=part), part[0]) for part in ([0, 1, 2], [3, 4, 5])]
    for number, half in enumerate(halves, start=1):
        half.ConcatenationUID, half.InConcatenationNumber = derived_uid("concatenation"), number
        half.InConcatenationTotalNumber, half.ConcatenationFrameOffsetNumber = 2, 3 * (number - 1)
    return halves[::-1]


def renamed(instance, number):
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = derived_uid("part", str(number))
    return instance


@pytest.mark.parametrize("make", [one_frame_each, two_halves])
def test_volume_in_several_enhanced_instances_is_one_volume(read, make):
    """All frames of a series' enhanced instances are its images; each slice keeps its file and frame."""
    instances = make()
    found = read(instances)
    assert np.array_equal(sitk.GetArrayFromImage(found.image), np.rint(phantoms.signal(SMALL)))
    assert len(set(found.sources)) == 6
    for (path, number), z in zip(found.sources, range(6), strict=True):
        frames = pydicom.dcmread(path).pixel_array
        frame = frames if frames.ndim == 2 else frames[number - 1]
        assert np.array_equal(frame, np.rint(phantoms.signal(SMALL))[z])


def test_enhanced_instance_of_two_time_points_is_refused(read):
    """Two frames at each position are two volumes."""
    with pytest.raises(GeometryRefused):
        read([phantoms.enhanced(SMALL, frame_order=[*range(6), *range(6)])])


def truncated(instance):
    instance.PixelData = instance.PixelData[:-100]


def undecodable(instance):
    instance.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    instance.PixelData = encapsulate([b"\xff\xd8 no image \xff\xd9"])
    instance["PixelData"].VR = "OB"


def without_bits(instance):
    del instance.BitsStored


def without_pixels(instance):
    del instance.PixelData


@pytest.mark.parametrize("break_it", [truncated, undecodable, without_bits, without_pixels])
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_pixel_data_that_cannot_be_decoded_are_refused_as_such(read, break_it, kind):
    """The reason names the instance and its pixel data, and is one line."""
    instances = phantoms.classic(SMALL) if kind == "classic" else [phantoms.enhanced(SMALL)]
    break_it(instances[-1])
    name = r"Bits Stored \(0028,0101\)" if break_it is without_bits else instances[-1].SOPInstanceUID
    with pytest.raises(InstanceRefused, match=name) as refusal:
        read(instances)
    assert "\n" not in str(refusal.value)


def test_file_that_is_no_dicom_is_refused(tmp_path):
    """A file overwritten since its header was read is named."""
    series = phantoms.write_series(tmp_path, phantoms.classic(SMALL))
    series.instances[2].path.write_bytes(b"no DICOM")
    with pytest.raises(InstanceRefused, match=series.instances[2].path.name):
        read_volume(series)


def test_file_that_has_gone_is_refused(tmp_path):
    """A file that is not there any more is named."""
    series = phantoms.write_series(tmp_path, phantoms.classic(SMALL))
    series.instances[2].path.unlink()
    with pytest.raises(InstanceRefused, match=series.instances[2].path.name):
        read_volume(series)


def test_inverted_display_leaves_the_values_as_they_are(read):
    """MONOCHROME1 says how an image is displayed (PS3.3 C.7.6.3.1.2), not that its values are inverted."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        instance.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(sitk.GetArrayFromImage(read(instances).image), np.rint(phantoms.signal(SMALL)))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BitsStored": 12, "HighBit": 15}, r"High Bit \(0028,0102\) is 15 with Bits Stored 12"),
        ({"BitsStored": 17}, r"Bits Stored \(0028,0101\) is 17 of 16"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, r"Bits Stored \(0028,0101\) is 12 of 12"),
        ({"PixelRepresentation": 2}, r"Pixel Representation \(0028,0103\)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"Photometric Interpretation \(0028,0004\)"),
        ({"SamplesPerPixel": None}, r"Samples per Pixel \(0028,0002\) is missing"),
    ],
)
def test_pixel_description_that_the_standard_forbids_is_refused(read, attributes, reason):
    """Bits that cannot be read for sure are not read; the reason names the attribute."""
    instances = phantoms.classic(SMALL)
    for keyword, value in attributes.items():
        instances[3][keyword].value = value
    with pytest.raises(InstanceRefused, match=reason):
        read(instances)


def test_signed_values_in_fewer_bits_keep_their_sign(read):
    """Twelve signed bits of sixteen, the unused ones zero: PS3.5 8.1.1."""
    signed = np.rint(phantoms.signal(SMALL)) - 500
    instances = phantoms.classic(SMALL)
    for instance, plane in zip(instances, signed, strict=True):
        instance.PixelRepresentation, instance.BitsStored, instance.HighBit = 1, 12, 11
        instance.PixelData = (plane.astype("<i2").view("<u2") & 0x0FFF).tobytes()
    assert np.array_equal(sitk.GetArrayFromImage(read(instances).image), signed)


def test_overlay_in_the_unused_bits_is_no_part_of_the_values(read):
    """Old files keep a graphic overlay above Bits Stored (PS3.5 8.1.2)."""
    truth = np.rint(phantoms.signal(SMALL))
    instances = phantoms.classic(SMALL)
    for instance, plane in zip(instances, truth, strict=True):
        overlay = np.zeros(plane.shape, "<u2")
        overlay[2:9, 3:11] = 1
        instance.BitsStored, instance.HighBit = 12, 11
        instance.PixelData = (plane.astype("<u2") | (overlay << 12)).tobytes()
    assert np.array_equal(sitk.GetArrayFromImage(read(instances).image), truth)


@pytest.mark.parametrize(
    ("is_signed", "value", "limit", "padded"),
    [
        (False, 65535, None, [65535]),
        (False, 60000, 65535, [60000, 61234, 65535]),
        (True, -32768, None, [-32768]),
        (True, 32768, None, [-32768]),  # written as US although pixels are signed
        (True, -2000, -1000, [-2000, -1500, -1000]),
        (False, 0, None, [0]),
    ],
)
def test_padding_is_no_part_of_the_image(read, is_signed, value, limit, padded):
    """Padded pixels (PS3.3 C.7.5.1.1.2) get the least value of the image, and none counts as signal."""
    truth = np.rint(phantoms.signal(SMALL))
    stored = truth.copy()
    stored[:, :, :4] = np.resize(padded, stored[:, :, :4].shape)
    instances = phantoms.classic(SMALL)
    for instance, plane in zip(instances, stored, strict=True):
        instance.PixelRepresentation = int(is_signed)
        vr = "SS" if is_signed and value < 0 else "US"
        instance.add_new(0x00280120, vr, value)
        if limit is not None:
            instance.add_new(0x00280121, vr, limit)
        instance.PixelData = plane.astype("<i2" if is_signed else "<u2").tobytes()
    found = sitk.GetArrayFromImage(read(instances).image)
    assert np.array_equal(found[:, :, 4:], truth[:, :, 4:])
    assert (found[:, :, :4] == truth[:, :, 4:].min()).all()


def test_image_of_padding_alone_is_refused(read):
    """A series without any pixel of its own is refused, and the reason names the attribute."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        instance.add_new(0x00280120, "US", 7)
        instance.PixelData = np.full(instance.pixel_array.shape, 7, "<u2").tobytes()
    with pytest.raises(ContentRefused, match=r"Pixel Padding Value \(0028,0120\)"):
        read(instances)


def vendor_traps(instances):
    """What dicom2nifti would take for time points, localizers or private scaling."""
    for index, instance in enumerate(instances):
        instance.Manufacturer = "Philips Medical Systems"
        instance.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"] if index % 2 else ["ORIGINAL", "PRIMARY", "M_SE"]
        instance.InstanceNumber = 5 - index if index < 3 else 1
        instance.add_new(0x20010010, "LO", "Philips Imaging DD 001")
        instance.add_new(0x2001100A, "IS", index % 3 + 1)
        instance.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
        instance.add_new(0x2005100E, "FL", 3.0 + index)
        instance.PerFrameFunctionalGroupsSequence, instance.SharedFunctionalGroupsSequence = [], []
        instance.NumberOfFrames = 1


def test_vendors_private_words_change_nothing(read):
    """Manufacturer, private slice numbers, image type and empty functional groups never reach the conversion."""
    instances = phantoms.classic(SMALL)
    vendor_traps(instances)
    assert np.array_equal(sitk.GetArrayFromImage(read(instances).image), np.rint(phantoms.signal(SMALL)))


def test_second_reader_is_heard(tmp_path, monkeypatch):
    """If pydicom decodes other values than GDCM, the series is refused: two readers with one decoder are one."""
    series = phantoms.write_series(tmp_path, phantoms.classic(SMALL))
    decoded = volume.stored_values

    def noisy(series, images):
        rng = np.random.default_rng(5)
        return [rng.permuted(plane, axis=1) for plane in decoded(series, images)]

    monkeypatch.setattr(volume, "stored_values", noisy)
    with pytest.raises(GeometryRefused, match="differs in content between two readers"):
        read_volume(series)


@pytest.mark.parametrize("number", range(3))
def test_no_refusal_holds_patient_data(read, number):
    """Name and ID of the patient appear in no reason."""
    instances = [with_position_of_another, changed("Rows", 19), changed("PixelSpacing", "1")][number](
        phantoms.classic(SMALL)
    )
    with pytest.raises(RefusedError) as refusal:
        read(instances)
    assert "Secret" not in str(refusal.value)
    assert phantoms.PATIENT_ID not in str(refusal.value)


# ---- the agreement of the two authorities ----------------------------------------------------------------------------


@pytest.fixture
def small_series(tmp_path):
    return phantoms.write_series(tmp_path, phantoms.classic(SMALL))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda affine, array: (affine, array[:-1]), "planes say"),
        (lambda affine, array: (affine, array[:, ::-1]), "content"),
        (lambda affine, array: (affine, array[:, :, ::-1]), "content"),
        (lambda affine, array: (affine, np.roll(array, 1, axis=0)), "content"),
        (lambda affine, array: (affine, np.where(np.arange(6)[:, None, None] == 2, 7, array)), "content"),
        (lambda affine, array: (affine @ np.diag([1, 1, 1.02, 1]), array), "disagree by"),
        (lambda affine, array: (affine @ np.diag([4, 0.25, 1, 1]), array), "disagree by"),
    ],
    ids=["slice lost", "rows flipped", "columns flipped", "slices rolled", "flat slice", "spacing", "spacings swapped"],
)
def test_converter_that_disagrees_with_the_planes_is_not_believed(small_series, monkeypatch, spoil, reason):
    """Any difference between dicom2nifti's volume and the planes' positions and content refuses the series."""
    converted = volume._converted
    monkeypatch.setattr(volume, "_converted", lambda series, datasets: spoil(*converted(series, datasets)))
    with pytest.raises(GeometryRefused, match=reason):
        read_volume(small_series)


def test_image_and_affine_are_each_others_inverse():
    """``affine_of`` gives back the affine that ``image_from_affine`` was given."""
    geometry = GEOMETRIES["double oblique"]
    image = image_from_affine(np.zeros(geometry.size[::-1], np.float32), geometry.affine_lps)
    np.testing.assert_allclose(affine_of(image), geometry.affine_lps, atol=1e-12)


# ---- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", ["brainix", "brainix_roi", "stress/philips_enhanced_t1", "stress/compressed_and_negative"]
)
def test_real_series_are_read_or_refused(data_folder: Path, folder):
    """Every real series becomes a volume or is refused with a reason; nothing else is raised."""
    folders = sorted({file.parent for file in (data_folder / folder).rglob("*") if file.is_file()})
    read, refused = [], []
    for each in folders:
        try:
            series = read_study(each).series
        except GlionodeError:
            continue
        for one in series:
            try:
                read.append(read_volume(one))
            except RefusedError as error:
                refused.append(str(error))
    assert read
    assert all(arrays(source).std() > 0 for source in read)
    assert all(refused)
