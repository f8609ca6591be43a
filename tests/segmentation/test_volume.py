"""A DICOM series as an image: exact where it is regular, refused with the reason where it is not."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import phantoms
import pydicom
import pytest
import SimpleITK as sitk
from phantoms import GEOMETRIES, Geometry
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from node.errors import GeometryRefused, GlionodeError, InstanceRefused, RefusedError
from node.segmentation import volume
from node.segmentation.volume import affine_of, image_from_affine, read_volume
from node.series.headers import read_study

SMALL = Geometry(size=(24, 20, 6), spacing_between_slices_mm=3.0, pixel_spacing=(2.0, 0.5), centre_mm=(14, -11, 9))
BY_NAME = [pytest.param(geometry, id=name) for name, geometry in GEOMETRIES.items()]


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
    "two instances at one position": (with_position_of_another, "share one ImagePositionPatient"),
    "two time points": (twice, "share one ImagePositionPatient"),
    "unequal gaps": (lambda instances: moved(instances, lambda i: (0, 0, 0.2 * (i % 2))), "slice gaps differ"),
    "sheared as by a gantry's tilt": (
        lambda instances: moved(instances, lambda i: (0, 0.8 * i, 0)),
        "no regular volume",
    ),
    "slightly sheared": (lambda instances: moved(instances, lambda i: (0, 0.05 * i, 0)), "disagree by"),
    "mixed orientations": (
        changed("ImageOrientationPatient", list(phantoms.CORONAL)),
        "ImageOrientationPatient differs between its instances",
    ),
    "mixed frames of reference": (changed("FrameOfReferenceUID", "1.2.3"), "FrameOfReferenceUID differs"),
    "mixed rows": (changed("Rows", 19), "Rows differs"),
    "mixed columns": (changed("Columns", 23), "Columns differs"),
    "mixed pixel spacing": (changed("PixelSpacing", [2.0, 0.6]), "PixelSpacing differs"),
    "too few slices": (lambda instances: instances[:3], "3 slices are too few"),
    "one localizer among them": (changed("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "dicom2nifti refuses it"),
    "position of two values": (changed("ImagePositionPatient", [1, 2]), "ImagePositionPatient is not 3 numbers"),
    "position that is no number": (changed("ImagePositionPatient", ["nan", 0, 0]), "ImagePositionPatient is not 3"),
    "orientation of five values": (changed("ImageOrientationPatient", [1, 0, 0, 0, 1]), "is not 6 numbers"),
    "pixel spacing of one value": (changed("PixelSpacing", "1"), "PixelSpacing is not 2 numbers"),
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
def test_missing_attribute_is_named_with_its_instance(read, keyword, is_empty):
    """An attribute that geometry needs is never assumed: the refusal names it and the instance."""
    instances = phantoms.classic(SMALL)
    if is_empty:
        instances[2][keyword].value = None
    else:
        del instances[2][keyword]
    with pytest.raises(GeometryRefused, match=rf"instance {instances[2].SOPInstanceUID} has no {keyword}"):
        read(instances)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "FrameOfReferenceUID"])
def test_missing_attribute_of_an_enhanced_instance_is_named(read, keyword):
    """So it is for a multi-frame instance."""
    instance = phantoms.enhanced(SMALL)
    instance[keyword].value = None
    with pytest.raises(GeometryRefused, match=f"has no {keyword}"):
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
    "a frame without content": without_group("FrameContentSequence", frame=2),
    "position of two values": second_position([1, 2]),
    "position twice": second_position([8.25, -30.0, 1.5 + 6]),
    "slice spacing that contradicts the positions": spacing_of("SpacingBetweenSlices", 9),
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


def test_shuffled_frames_are_refused_or_read_exactly(read):
    """Frames in no order at all never give a wrong volume."""
    with pytest.raises(GeometryRefused):
        read([phantoms.enhanced(SMALL, frame_order=[3, 1, 0, 5, 2, 4])])


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
    with pytest.raises(InstanceRefused, match=f"pixel data of instance {instances[-1].SOPInstanceUID}") as refusal:
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


def test_inverted_grey_scale_is_refused(read):
    """MONOCHROME1 may mean an inverted signal, and the two readers take it differently: refused."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        instance.PhotometricInterpretation = "MONOCHROME1"
    with pytest.raises(GeometryRefused, match="differs in content"):
        read(instances)


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
