"""The SEG: regions where they are in any orientation, by three readers; the right references; and a check that sees."""

import copy
import functools
from dataclasses import replace

import highdicom
import lab
import numpy as np
import phantoms
import pydicom
import pytest
import SimpleITK as sitk
from phantoms import GEOMETRIES, IDENTITY, Geometry
from pydicom.uid import EnhancedMRImageStorage

from node.dicom.uids import derived_uid
from node.errors import VerificationError
from node.segmentation.seg_writer import read_masks, tracking_uid, verify_seg, write_seg
from node.segmentation.volume import read_volume
from node.series.headers import read_study
from node.series.substacks import parts_of
from node.sr_writer.codes import BRAIN, MORPHOLOGICALLY_ABNORMAL, SEGMENTS
from node.sr_writer.measurements import measure

SMALL = Geometry(size=(48, 44, 20), spacing_between_slices_mm=3.0, centre_mm=(13, -11, 8))
IN_SEVERAL = ("one frame per instance", "two concatenated")
KINDS = ("classic", "enhanced", "enhanced, last frame first", "enhanced, geometry per frame")
FAST = ("axial-classic", "double oblique-classic", "double oblique-enhanced")
BY_NAME_AND_KIND = [
    pytest.param(geometry, kind, id=f"{name}-{kind}", marks=[pytest.mark.slow] * (f"{name}-{kind}" not in FAST))
    for name, geometry in GEOMETRIES.items()
    for kind in KINDS
]
TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
          "AccessionNumber", "ReferringPhysicianName")  # fmt: skip


def per_frame(instance):
    """Pixel measures and orientation moved from the shared groups into each frame's, as Philips writes them."""
    shared = instance.SharedFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        for group in instance.PerFrameFunctionalGroupsSequence:
            setattr(group, keyword, copy.deepcopy(shared[keyword].value))
        del shared[keyword]
    return instance


def another(instance, number):
    """``instance`` under another SOP Instance UID."""
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = derived_uid("part", str(number))
    return instance


def instances_of(kind, geometry):
    """The phantom as instances of that kind."""
    if kind == "classic":
        return phantoms.classic(geometry)
    count = geometry.size[2]
    if kind == "one frame per instance":
        return [another(phantoms.enhanced(geometry, frame_order=[index]), index) for index in range(count)]
    if kind == "two concatenated":
        halves = (range(count // 2), range(count // 2, count))
        return [another(phantoms.enhanced(geometry, frame_order=half), half[0]) for half in halves]
    if kind == "enhanced, geometry per frame":
        return [per_frame(phantoms.enhanced(geometry))]
    order = range(geometry.size[2])
    return [phantoms.enhanced(geometry, frame_order=order[::-1] if "last" in kind else order)]


@pytest.fixture
def save(tmp_path):
    def to_file(seg, name="seg.dcm"):
        seg.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return to_file


@pytest.fixture(scope="module")
def written(tmp_path_factory, segmented):
    """Source, masks and SEG file of a phantom, made once for all tests of it."""

    @functools.cache
    def written_for(geometry, kind):
        folder = tmp_path_factory.mktemp("seg")
        source = read_volume(phantoms.write_series(folder / "source", instances_of(kind, geometry)))
        masks = segmented(source)
        write_seg(source, masks, IDENTITY).save_as(folder / "seg.dcm", enforce_file_format=True)
        return source, masks, folder / "seg.dcm"

    return written_for


@pytest.fixture
def small(read):
    """A small source with a mask of its own for each region, none of them symmetric."""
    source = read(phantoms.classic(SMALL))
    masks = {region: np.zeros(source.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    masks["whole_tumour"][4:12, 10:30, 20:40] = True
    masks["whole_tumour"][12, 10:20, 20:30] = True
    masks["tumour_core"][5:9, 12:25, 24:36] = True
    masks["enhancing_tumour"][6, 14:20, 25:30] = True
    return source, masks


def ellipsoid_ml(region):
    return phantoms.REGIONS[region].volume_ml


def check_region(region, points_mm, volume_ml):
    """The phantom's region: its centroid, its side, its volume."""
    centroid = points_mm.mean(axis=0)
    assert np.linalg.norm(centroid - phantoms.REGIONS[region].centre_mm) < 0.5
    assert centroid[0] > 0
    assert volume_ml == pytest.approx(ellipsoid_ml(region), rel=0.1)


def points_of(image, mask_zyx):
    index_xyz = np.argwhere(mask_zyx)[:, ::-1]
    direction = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    return index_xyz @ direction.T + image.GetOrigin()


def read_with_highdicom(file):
    """Each segment's voxel centres (LPS mm) and volume in mL as highdicom reads them."""
    seg = highdicom.seg.segread(file)
    for concept in SEGMENTS:
        volume = seg.get_volume(segment_numbers=[concept.number], combine_segments=True, relabel=True)
        index = np.argwhere(volume.array > 0)
        points = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        yield concept.region, points, len(index) * abs(np.linalg.det(volume.affine[:3, :3])) / 1000


@pytest.mark.slow
@pytest.mark.parametrize(("geometry", "kind"), BY_NAME_AND_KIND)
def test_regions_lie_where_they_are_by_highdicoms_reading(written, geometry, kind):
    """Any orientation, classic or multi-frame: centroid within 0.5 mm, left is left, volume that of the ellipsoid."""
    _, _, file = written(geometry, kind)
    for region, points, volume_ml in read_with_highdicom(file):
        check_region(region, points, volume_ml)


@pytest.mark.slow
@lab.needs("segimage2itkimage")
@pytest.mark.parametrize(("geometry", "kind"), BY_NAME_AND_KIND)
def test_regions_lie_where_they_are_by_dcmqis_reading(written, tmp_path, geometry, kind):
    """So another library, built on ITK and DCMTK, reads it, too."""
    _, masks, file = written(geometry, kind)
    images = lab.read_seg_with_dcmqi(file, tmp_path / "dcmqi")
    assert sorted(images) == [1, 2, 3]
    for concept in SEGMENTS:
        image = images[concept.number]
        mask = sitk.GetArrayFromImage(image) > 0
        assert mask.sum() == masks[concept.region].sum()
        check_region(concept.region, points_of(image, mask), mask.sum() * np.prod(image.GetSpacing()) / 1000)


@pytest.mark.parametrize(("geometry", "kind"), BY_NAME_AND_KIND)
def test_good_seg_passes_its_check_and_gives_its_masks_back(written, geometry, kind):
    """What was written is verified, and read back voxel for voxel."""
    source, masks, file = written(geometry, kind)
    verify_seg(file, source, masks)
    back = read_masks(file, source)
    for region, mask in masks.items():
        np.testing.assert_array_equal(back[region], mask)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *IN_SEVERAL])
def test_each_frame_references_the_plane_it_lies_on(read, segmented, kind):
    """The SOP instance (and frame) referenced has the position of the SEG's frame, and is the only one."""
    geometry = GEOMETRIES["double oblique"]
    instances = instances_of(kind, geometry)
    source = read(instances)
    place = {}
    for instance in instances:
        groups = instance.get("PerFrameFunctionalGroupsSequence")
        positions = [g.PlanePositionSequence[0].ImagePositionPatient for g in groups or ()]
        for frame, position in enumerate(positions, start=1):
            place[(instance.SOPInstanceUID, frame if len(positions) > 1 else None)] = position
        if not positions:
            place[(instance.SOPInstanceUID, None)] = instance.ImagePositionPatient
    seg = write_seg(source, segmented(source), IDENTITY)
    for group in seg.PerFrameFunctionalGroupsSequence:
        (derivation,) = group.DerivationImageSequence
        (reference,) = derivation.SourceImageSequence
        position = place[(reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber"))]
        meant = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(np.array(position, float), meant, atol=1e-6)
    series = {item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence}
    assert series == {source.series.series_instance_uid}
    held = [item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence]
    assert sorted(held) == sorted(instance.SOPInstanceUID for instance in instances)


def test_identity_is_that_of_the_source(small):
    """Patient, study and frame of reference are the source's; series and instance are its own."""
    source, masks = small
    seg = write_seg(source, masks, IDENTITY)
    header = pydicom.dcmread(source.sources[0][0])
    for keyword in (*TYPE_2[:-1], "StudyInstanceUID", "FrameOfReferenceUID", "SpecificCharacterSet"):
        assert seg[keyword].value == header[keyword].value
    assert seg.SeriesInstanceUID != header.SeriesInstanceUID
    assert (seg.Rows, seg.Columns) == (header.Rows, header.Columns)
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == header.PixelSpacing


@pytest.mark.slow
@pytest.mark.parametrize("keyword", TYPE_2)
def test_identity_that_an_anonymiser_removed_is_empty(read, save, keyword):
    """A type 2 attribute that the source lacks is present and empty in the SEG; nothing is made up."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        del instance[keyword]
    source = read(instances)
    masks = {region: np.ones(source.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    file = save(write_seg(source, masks, IDENTITY))
    verify_seg(file, source, masks)
    assert not pydicom.dcmread(file)[keyword].value


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:Incorrect value for Specific Character Set")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PatientSex": "W"}, {"PatientSex": ""}),
        ({"StudyTime": "03:04:05"}, {"StudyTime": "030405"}),
        ({"StudyTime": "25h"}, {"StudyTime": ""}),
        ({"PatientBirthDate": "unknown"}, {"PatientBirthDate": ""}),
        ({"PatientName": "Müller^Jürgen"}, {"PatientName": "Müller^Jürgen"}),
        (
            {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
            {"PatientName": "Yamada^Tarou=山田^太郎"},
        ),
        (
            {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞=홍^길동"},
            {"PatientName": "Hong^Gildong=洪^吉洞=홍^길동"},
        ),
        (
            {"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东"},
            {"PatientName": "Wang^XiaoDong=王^小东"},
        ),
        ({"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люкceмбypг"}, {"PatientName": "Люкceмбypг"}),
        ({"SpecificCharacterSet": "ISO-IR 100", "PatientName": "Müller"}, {"PatientName": "Müller"}),
        ({"SpecificCharacterSet": "ISO_IR 6", "PatientName": "Miller"}, {"PatientName": "Miller"}),
        ({"SpecificCharacterSet": "", "PatientName": "Miller"}, {"PatientName": "Miller"}),
    ],
    ids=lambda value: "-".join(f"{v}" for v in value.values()),
)
def test_odd_values_of_the_source_do_not_stop_a_seg(read, save, values, expected):
    """What the standard forbids is left empty, and names keep their letters whatever the character set."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        for keyword, value in values.items():
            setattr(instance, keyword, value)
    source = read(instances)
    masks = {region: np.ones(source.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    file = save(write_seg(source, masks, IDENTITY))
    verify_seg(file, source, masks)
    seg = pydicom.dcmread(file)
    assert {keyword: str(seg[keyword].value) for keyword in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["-9", "0", "1.5", "", None])
@pytest.mark.parametrize("thickness", ["", None, "5"])
def test_voxel_volume_follows_the_planes_whatever_the_header_says(read, spacing, thickness):
    """A Spacing Between Slices that is missing or something else does not change the volume that is reported."""
    instances = phantoms.classic(SMALL)
    for instance in instances:
        for keyword, value in (("SpacingBetweenSlices", spacing), ("SliceThickness", thickness)):
            if value is None:
                del instance[keyword]
            else:
                setattr(instance, keyword, value)
    source = read(instances)
    masks = {region: np.zeros(source.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    masks["whole_tumour"][[3, 8]] = True  # two planes that are not neighbours
    seg = write_seg(source, masks, IDENTITY)
    assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices) == 3.0
    assert measure(seg)[0].volume_ml == pytest.approx(2 * 48 * 44 * 3.0 / 1000)


def test_cosines_rounded_differently_do_not_stop_a_seg(read, save):
    """A last digit that differs between instances is no other orientation."""
    instances = phantoms.classic(SMALL)
    instances[3].ImageOrientationPatient = ["1", "0", "0.000001", "0", "1", "0"]
    source = read(instances)
    masks = {region: np.ones(source.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    verify_seg(save(write_seg(source, masks, IDENTITY)), source, masks)


@pytest.mark.parametrize("present", [(), ("whole_tumour",), ("whole_tumour", "tumour_core")], ids=["none", "1", "1 2"])
def test_empty_regions_give_a_valid_object_of_three_segments(small, save, present):
    """No tumour, or none that enhances: all three segments are described, the empty ones measure 0 mL."""
    source, masks = small
    masks = {region: mask & (region in present) for region, mask in masks.items()}
    file = save(write_seg(source, masks, IDENTITY))
    verify_seg(file, source, masks)
    seg = pydicom.dcmread(file)
    assert [item.SegmentNumber for item in seg.SegmentSequence] == [1, 2, 3]
    assert [each.volume_ml > 0 for each in measure(seg)] == [region in present for region in masks]
    for region, mask in read_masks(file, source).items():
        assert mask.sum() == masks[region].sum()


def test_same_inputs_give_the_same_bytes(small, save):
    """Written twice, it is the same file; another workflow is another instance, with the same tracking UIDs."""
    source, masks = small
    first, second = (save(write_seg(source, masks, IDENTITY), name) for name in ("1.dcm", "2.dcm"))
    assert first.read_bytes() == second.read_bytes()
    other = write_seg(source, masks, replace(IDENTITY, workflow_id="another"))
    same = pydicom.dcmread(first)
    assert other.SOPInstanceUID != same.SOPInstanceUID
    assert other.SeriesInstanceUID != same.SeriesInstanceUID
    assert [s.TrackingUID for s in other.SegmentSequence] == [s.TrackingUID for s in same.SegmentSequence]


def test_segments_say_what_the_table_says(small):
    """Number, label, codes, colour order and algorithm of each segment are those of the table and the pack."""
    source, masks = small
    seg = write_seg(source, masks, IDENTITY)
    assert seg.SegmentationType == "BINARY"
    for item, concept in zip(seg.SegmentSequence, SEGMENTS, strict=True):
        assert (item.SegmentNumber, item.SegmentLabel) == (concept.number, concept.label)
        assert item.SegmentDescription == concept.description
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        for sequence, code in (
            (item.SegmentedPropertyTypeCodeSequence, concept.property_type),
            (item.SegmentedPropertyCategoryCodeSequence, MORPHOLOGICALLY_ABNORMAL),
            (item.AnatomicRegionSequence, BRAIN),
        ):
            (found,) = sequence
            assert (found.CodeValue, found.CodingSchemeDesignator, found.CodeMeaning) == (
                code.value, code.scheme_designator, code.meaning,
            )  # fmt: skip
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Phantom method", "1.2")
        assert item.TrackingUID == tracking_uid(concept, phantoms.STUDY)
    assert len({item.TrackingUID for item in seg.SegmentSequence}) == 3


# ---- the check before sending --------------------------------------------------------------------------------------


def mirrored(frames):
    return frames[:, :, ::-1]


def upside_down(frames):
    return frames[:, ::-1]


def without_one_voxel(frames):
    changed = frames.copy()
    changed[tuple(np.argwhere(frames)[0])] = 0
    return changed


def with_one_voxel_elsewhere(frames):
    changed = without_one_voxel(frames)
    changed[0, 0, 0] = 1
    return changed


def repacked(seg, change):
    """The SEG with other voxels."""
    count, rows, columns = seg.NumberOfFrames, seg.Rows, seg.Columns
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[: count * rows * columns]
    packed = np.packbits(change(bits.reshape(count, rows, columns)).ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)


def frame(seg, number):
    return seg.PerFrameFunctionalGroupsSequence[number]


def shift_frame(seg):
    position = frame(seg, 4).PlanePositionSequence[0]
    x, y, z = (float(value) for value in position.ImagePositionPatient)
    position.ImagePositionPatient = [x, y, z + 1.0]


def swap_frames(seg):
    one, other = (frame(seg, i).PlanePositionSequence[0] for i in (2, 8))
    one.ImagePositionPatient, other.ImagePositionPatient = other.ImagePositionPatient, one.ImagePositionPatient


def put_frames_on_one_plane(seg):
    frame(seg, 3).PlanePositionSequence = frame(seg, 4).PlanePositionSequence
    frame(seg, 3).DerivationImageSequence = frame(seg, 4).DerivationImageSequence


def set_reference(uid):
    def change(seg):
        frame(seg, 4).DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = uid

    return change


def reference_neighbour(seg):
    frame(seg, 4).DerivationImageSequence = copy.deepcopy(frame(seg, 5).DerivationImageSequence)


def drop_reference(seg):
    del frame(seg, 4).DerivationImageSequence


def give_to_other_segment(seg):
    frame(seg, 4).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 3


def set_shared(sequence, keyword, value):
    def change(seg):
        setattr(seg.SharedFunctionalGroupsSequence[0][sequence].value[0], keyword, value)

    return change


BROKEN = {
    "mirrored": lambda seg: repacked(seg, mirrored),
    "upside down": lambda seg: repacked(seg, upside_down),
    "frames in reverse": lambda seg: repacked(seg, lambda frames: frames[::-1]),
    "one voxel lost": lambda seg: repacked(seg, without_one_voxel),
    "one voxel elsewhere": lambda seg: repacked(seg, with_one_voxel_elsewhere),
    "a frame shifted": shift_frame,
    "two frames swapped": swap_frames,
    "two frames on one plane": put_frames_on_one_plane,
    "foreign reference": set_reference("1.2.3.4"),
    "reference to the neighbour": reference_neighbour,
    "no reference": drop_reference,
    "a frame of another segment": give_to_other_segment,
    "pixel spacing": set_shared("PixelMeasuresSequence", "PixelSpacing", [1.1, 1]),
    "slice spacing": set_shared("PixelMeasuresSequence", "SpacingBetweenSlices", 5),
    "row cosine negated": set_shared("PlaneOrientationSequence", "ImageOrientationPatient", [-1, 0, 0, 0, 1, 0]),
    "other patient": lambda seg: setattr(seg, "PatientID", "OTHER"),
    "other name": lambda seg: setattr(seg, "PatientName", "Other^Person"),
    "other study": lambda seg: setattr(seg, "StudyInstanceUID", "1.2.3"),
    "other frame of reference": lambda seg: setattr(seg, "FrameOfReferenceUID", "1.2.3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN)
def test_broken_seg_is_never_sent(small, save, break_it):
    """A SEG that is not what was meant fails its check, whatever is wrong with it."""
    source, masks = small
    seg = write_seg(source, masks, IDENTITY)
    break_it(seg)
    with pytest.raises(VerificationError) as failure:
        verify_seg(save(seg), source, masks)
    assert "Other" not in str(failure.value)
    assert phantoms.PATIENT_ID not in str(failure.value)


def test_mirrored_mask_is_seen_even_if_its_centroid_stays(small, save):
    """Two lesions mirrored about their own middle keep count and centroid, and are seen all the same."""
    source, masks = small
    mask = np.zeros_like(masks["whole_tumour"])
    mask[5, 10, 20:24] = mask[5, 30, 20:24] = True
    mask[5, 10, 10:14] = mask[5, 20, 30:34] = mask[5, 40, 20:24] = True
    centre = np.argwhere(mask).mean(axis=0)
    mirrored_mask = np.zeros_like(mask)
    mirrored_mask[tuple(np.rint(2 * centre - np.argwhere(mask)).astype(int).T)] = True
    assert (mirrored_mask != mask).any()
    np.testing.assert_allclose(np.argwhere(mirrored_mask).mean(axis=0), centre)
    empty = np.zeros_like(mask)
    meant = {"whole_tumour": mask, "tumour_core": empty, "enhancing_tumour": empty}
    file = save(write_seg(source, {**meant, "whole_tumour": mirrored_mask}, IDENTITY))
    with pytest.raises(VerificationError, match="voxels"):
        verify_seg(file, source, meant)


@pytest.mark.parametrize("kind", IN_SEVERAL)
def test_volume_of_several_enhanced_instances_has_a_true_seg(read, segmented, save, kind):
    """The SEG passes its check, gives its masks back, and references the true SOP class."""
    source = read(instances_of(kind, SMALL))
    masks = segmented(source)
    file = save(write_seg(source, masks, IDENTITY))
    verify_seg(file, source, masks)
    back = read_masks(file, source)
    assert all(np.array_equal(back[region], mask) for region, mask in masks.items())
    reference = frame(pydicom.dcmread(file), 2).DerivationImageSequence[0].SourceImageSequence[0]
    assert reference.ReferencedSOPClassUID == EnhancedMRImageStorage


def test_part_of_an_enhanced_instance_is_referenced_by_its_frames(tmp_path, segmented, save):
    """Of an instance with two echoes only the frames of the chosen one are read and referenced, by their numbers."""
    count = SMALL.size[2]
    instance = phantoms.enhanced(SMALL, frame_order=[z for z in range(count) for _ in "ab"])
    for number, group in enumerate(instance.PerFrameFunctionalGroupsSequence):
        echo = pydicom.Dataset()
        echo.EffectiveEchoTime = 90.0 if number % 2 else 15.0
        group.MREchoSequence = [echo]
    first, second = parts_of(phantoms.write_series(tmp_path / "source", [instance]))
    assert (first.series.part, second.series.part) == ("echo time 15 ms", "echo time 90 ms")
    source = read_volume(second.series)
    assert [number for _, number in source.sources] == [2 * (z + 1) for z in range(count)]
    masks = segmented(source)
    file = save(write_seg(source, masks, IDENTITY))
    verify_seg(file, source, masks)
    seg = pydicom.dcmread(file)
    for group in seg.PerFrameFunctionalGroupsSequence:
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == instance.SOPInstanceUID
        assert reference.ReferencedFrameNumber % 2 == 0
    (held,) = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert held.ReferencedSOPInstanceUID == instance.SOPInstanceUID


@pytest.mark.parametrize("kind", [*KINDS[1:], "two concatenated"])
def test_reference_to_another_frame_is_seen(read, segmented, save, kind):
    """In a multi-frame source, the frame number counts."""
    source = read(instances_of(kind, SMALL))
    masks = segmented(source)
    seg = write_seg(source, masks, IDENTITY)
    reference = frame(seg, 4).DerivationImageSequence[0].SourceImageSequence[0]
    reference.ReferencedFrameNumber = reference.ReferencedFrameNumber % SMALL.size[2] + 1
    with pytest.raises(VerificationError, match="frame 5"):
        verify_seg(save(seg), source, masks)


# ---- validators -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@lab.needs("dciodvfy")
@pytest.mark.parametrize("kind", [*KINDS, *IN_SEVERAL])
@pytest.mark.parametrize("is_empty", [False, True], ids=["tumour", "no tumour"])
def test_validator_finds_no_error(read, segmented, save, kind, is_empty):
    """dciodvfy says nothing against the SEG, of a classic or multi-frame source, with tumour or without."""
    source = read(instances_of(kind, GEOMETRIES["double oblique"]))
    masks = {region: mask & (not is_empty) for region, mask in segmented(source).items()}
    assert lab.dciodvfy_errors(save(write_seg(source, masks, IDENTITY))) == []


REAL = {  # folder, and which part of a series that holds several volumes
    "Philips, oblique coronal": ("brainix/801", None),
    "Philips, enhanced": ("stress/philips_enhanced_t1/In/Philips/401_T1W_FFE_Sno_CS2", None),
    "Siemens, sagittal, prone": ("vendors/siemens_prone_sag_t1", None),
    "Siemens, sagittal, decubitus": ("vendors/siemens_decubitus_sag_t1", None),
    "GE, 3-D": ("vendors/ge_mprage", None),
    "Philips, second echo's magnitude": ("vendors/philips_dual_echo", 1),
}


@pytest.mark.slow
@lab.needs("dciodvfy", "segimage2itkimage")
@pytest.mark.parametrize(("folder", "part"), REAL.values(), ids=REAL)
def test_real_source_gives_a_valid_seg(data_folder, save, tmp_path, folder, part):
    """On a real series of any vendor and position the SEG is valid, and dcmqi finds its voxels where they are meant."""
    (series,) = read_study(data_folder / folder).series
    source = read_volume(parts_of(series)[part].series if part is not None else series)
    masks = {region: np.zeros(source.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    columns, rows, slices = source.image.GetSize()
    masks["whole_tumour"][slices // 5 : slices // 2, rows // 4 : rows // 3, columns // 2 : columns * 2 // 3] = True
    masks["tumour_core"][slices // 4 : slices // 3, rows // 4 : rows // 3, columns // 2 : columns * 3 // 5] = True
    file = save(write_seg(source, masks, IDENTITY))
    verify_seg(file, source, masks)
    assert lab.dciodvfy_errors(file) == []
    images = lab.read_seg_with_dcmqi(file, tmp_path / "dcmqi")
    for concept in SEGMENTS[:2]:
        image = images[concept.number]
        found = points_of(image, sitk.GetArrayFromImage(image) > 0)
        meant = points_of(source.image, masks[concept.region])
        assert len(found) == len(meant)
        np.testing.assert_allclose(found.mean(axis=0), meant.mean(axis=0), atol=0.05)
