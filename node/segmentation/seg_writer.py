"""Write the DICOM SEG on the grid of the T1c series, and verify it by an independent reader before it is sent."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.pixels.utils import unpack_bits

from node.dicom.character_sets import write_in_fitting_set
from node.dicom.identity import differing_identity, stamp
from node.dicom.uids import derived_uid
from node.errors import VerificationError
from node.segmentation.seg_sources import image_references, restore_references, source_images
from node.segmentation.volume import SourceVolume
from node.series.stack import POSITION_TOLERANCE_MM
from node.sr_writer.codes import (
    ARTIFICIAL_INTELLIGENCE,
    BRAIN,
    MORPHOLOGICALLY_ABNORMAL,
    SegmentConcept,
    segment_number_of,
    segments_in,
    segments_of,
)
from node.study import ResultIdentity

SERIES_NUMBER = 9801

_IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID")


def write_seg(
    source: SourceVolume, masks_zyx: Mapping[str, NDArray[np.bool_]], identity: ResultIdentity
) -> pydicom.Dataset:
    """Nested BINARY segments, one for each region given, on the grid of ``source`` (PS3.3 A.51).

    Args:
        masks_zyx: region to mask, ``[z, y, x]`` of ``source.image``.

    Returns:
        the SEG, in which each frame references its source instance. Equal inputs give an equal data set.
    """
    segments = segments_of(masks_zyx)
    stacked = np.stack([masks_zyx[concept.region] for concept in segments], axis=-1).astype(np.uint8)
    datasets, order = source_images(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom repeats pydicom's warnings about values of the source
        seg: pydicom.Dataset = Segmentation(
            source_images=datasets,
            pixel_array=stacked[order],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(concept, source, identity) for concept in segments],
            series_instance_uid=derived_uid(identity.workflow_id, "seg series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=derived_uid(identity.workflow_id, "seg"),
            instance_number=1,
            manufacturer="glionode",
            manufacturer_model_name=identity.software.name,
            software_versions=(identity.node_version, identity.software.version),
            device_serial_number=identity.device_serial_number,
            content_description="Glioma regions, automatic",
            content_label="GLIOMA",
            omit_empty_frames=True,
            series_description="Glioma segmentation (automatic)",
        )
    restore_references(seg, source)
    _make_deterministic(seg, identity)
    write_in_fitting_set(seg)
    return seg


def _description(concept: SegmentConcept, source: SourceVolume, identity: ResultIdentity) -> SegmentDescription:
    software = identity.software
    description = SegmentDescription(
        segment_number=concept.number,
        segment_label=concept.label,
        segmented_property_category=MORPHOLOGICALLY_ABNORMAL,
        segmented_property_type=concept.property_type,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=software.name,
            family=ARTIFICIAL_INTELLIGENCE,
            version=software.version,
            parameters=dict(software.parameters),
        ),
        tracking_uid=tracking_uid(concept, source.series.study_instance_uid),
        tracking_id=concept.label,
        anatomic_regions=[BRAIN],
        display_color=highdicom.color.CIELabColor.from_rgb(*concept.rgb),
    )
    description.SegmentDescription = concept.description
    return description


def tracking_uid(concept: SegmentConcept, study_instance_uid: str) -> str:
    """The tracking UID of a region, which stays the same when a study is segmented again."""
    return derived_uid(study_instance_uid, concept.region, "tracking")


def _make_deterministic(seg: pydicom.Dataset, identity: ResultIdentity) -> None:
    """Replace the values that highdicom generates at each call: the Dimension Organization UID and the times."""
    organization = derived_uid(identity.workflow_id, "dimension organization")
    for item in seg.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = organization
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = organization
    stamp(seg, identity.created)


def verify_seg(file: Path, source: SourceVolume, masks_zyx: Mapping[str, NDArray[np.bool_]]) -> None:
    """Read the SEG file back and compare it with its source and masks.

    The check is independent of the writer: it uses only pydicom, and places every frame by its own
    ImagePositionPatient (PS3.3 C.7.6.2.1.1).

    Raises:
        VerificationError: patient, study, frame of reference or slice spacing differ from the source; a frame does not
            lie on a plane of the source, or references another plane; a segment differs from its mask.
    """
    dataset = pydicom.dcmread(file)
    header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
    keyword = differing_identity(dataset, header, _IDENTITY)
    if keyword:
        raise VerificationError(f"SEG: {keyword} is not that of its source")
    spacing_mm = float(dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices)
    if abs(spacing_mm - source.image.GetSpacing()[2]) > POSITION_TOLERANCE_MM:
        raise VerificationError(f"SEG: SpacingBetweenSlices is {spacing_mm} mm, its planes lie elsewhere")
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        _check_reference(number + 1, group, source)
    masks = _masks(dataset, source)
    if masks.keys() != masks_zyx.keys():
        raise VerificationError(f"SEG: holds {', '.join(masks)}, not {', '.join(masks_zyx)}")
    for concept in segments_of(masks_zyx):
        differing = int((masks[concept.region] != masks_zyx[concept.region]).sum())
        if differing:
            raise VerificationError(f"SEG segment '{concept.label}': {differing} voxels are not as meant")


def read_masks(file: Path, source: SourceVolume) -> dict[str, NDArray[np.bool_]]:
    """The segments of a SEG file on the grid of ``source``: region to mask, ``[z, y, x]``.

    Raises:
        VerificationError: a voxel does not lie on that grid.
    """
    return _masks(pydicom.dcmread(file), source)


def _check_reference(number: int, group: pydicom.Dataset, source: SourceVolume) -> None:
    """Check that the frame references exactly one source image: the plane on which it lies."""
    position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    z = _nearest_index(position[None], source)[0, 2]
    image = image_references(source)[z]
    found = [reference for item in group.get("DerivationImageSequence", ()) for reference in item.SourceImageSequence]
    meant = (image.sop_instance_uid, image.frame)
    if [(reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")) for reference in found] != [meant]:
        raise VerificationError(f"SEG frame {number} does not reference the source plane that it lies on")


def _nearest_index(points: NDArray[np.float64], source: SourceVolume) -> NDArray[np.int64]:
    """Voxels (x, y, z) of ``source`` whose centres lie at ``points``, [n, 3], LPS in mm.

    Raises:
        VerificationError: a point is not the centre of a voxel.
    """
    affine = source.affine_lps
    index_xyz = np.linalg.solve(affine[:3, :3], (points - affine[:3, 3]).T).T
    nearest: NDArray[np.int64] = np.rint(index_xyz).astype(np.int64)
    distance_mm = np.linalg.norm((index_xyz - nearest) @ affine[:3, :3].T, axis=1)
    is_inside = ((nearest >= 0) & (nearest < source.image.GetSize())).all()
    if not is_inside or (distance_mm > 2 * POSITION_TOLERANCE_MM).any():
        raise VerificationError(f"SEG: voxels off the source's grid, by up to {distance_mm.max():.2f} mm")
    return nearest


def _masks(dataset: pydicom.Dataset, source: SourceVolume) -> dict[str, NDArray[np.bool_]]:
    segments = segments_in(dataset)
    masks = {concept.region: np.zeros(source.image.GetSize()[::-1], bool) for concept in segments}
    points = _points_by_segment(dataset)
    for concept in segments:
        index_xyz = _nearest_index(points[concept.number], source)
        if len(np.unique(index_xyz, axis=0)) < len(index_xyz):
            raise VerificationError(f"SEG segment '{concept.label}': two frames lie on one plane")
        masks[concept.region][tuple(index_xyz[:, ::-1].T)] = True
    return masks


def _points_by_segment(dataset: pydicom.Dataset) -> dict[int, NDArray[np.float64]]:
    """Segment number to its voxels' centres, [n, 3], LPS in mm."""
    frames = np.asarray(unpack_bits(dataset.PixelData))[: dataset.NumberOfFrames * dataset.Rows * dataset.Columns]
    frames = frames.reshape(dataset.NumberOfFrames, dataset.Rows, dataset.Columns)
    numbers = [concept.number for concept in segments_in(dataset)]
    points: dict[int, list[NDArray[np.float64]]] = {number: [np.empty((0, 3))] for number in numbers}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = segment_number_of(group, dataset)
        points[number].append(_points_of(frame, group, dataset.SharedFunctionalGroupsSequence[0]))
    return {number: np.concatenate(parts) for number, parts in points.items()}


def _points_of(frame: NDArray[np.uint8], group: pydicom.Dataset, shared: pydicom.Dataset) -> NDArray[np.float64]:
    row_spacing, column_spacing = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    rows, columns = np.nonzero(frame)
    points: NDArray[np.float64] = (
        position + np.outer(columns * column_spacing, cosines[:3]) + np.outer(rows * row_spacing, cosines[3:])
    )
    return points
