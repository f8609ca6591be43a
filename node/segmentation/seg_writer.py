"""The DICOM SEG on the grid of the T1c series, and its reading back by other means before it is sent."""

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

from node.errors import VerificationError
from node.identity import stamp, with_valid_identity
from node.segmentation.volume import SourceVolume
from node.sr_writer.codes import ARTIFICIAL_INTELLIGENCE, BRAIN, MORPHOLOGICALLY_ABNORMAL, SEGMENTS, SegmentConcept
from node.study import ResultIdentity
from node.uids import derived_uid

CENTROID_TOLERANCE_MM = 0.05
SERIES_NUMBER = 9801


def write_seg(
    source: SourceVolume, masks_zyx: Mapping[str, NDArray[np.bool_]], identity: ResultIdentity
) -> pydicom.Dataset:
    """Three nested BINARY segments on the grid of ``source`` (PS3.3 A.51).

    Args:
        masks_zyx: region to mask, ``[z, y, x]`` of ``source.image``.

    Returns:
        the SEG; each frame references its source instance; equal inputs give an equal data set.
    """
    datasets, pixels = _ordered(source, masks_zyx)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom repeats pydicom's remarks about the source's values
        seg: pydicom.Dataset = Segmentation(
            source_images=datasets,
            pixel_array=pixels,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(concept, source, identity) for concept in SEGMENTS],
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
    _make_deterministic(seg, identity)
    return seg


def _ordered(
    source: SourceVolume, masks_zyx: Mapping[str, NDArray[np.bool_]]
) -> tuple[list[pydicom.Dataset], NDArray[np.uint8]]:
    """Source data sets and [plane, row, column, segment] in the same order (frame order if multi-frame)."""
    stacked = np.stack([masks_zyx[concept.region] for concept in SEGMENTS], axis=-1).astype(np.uint8)
    files = [path for path, _ in source.sources]
    if len(set(files)) == len(files):
        return [with_valid_identity(pydicom.dcmread(path, stop_before_pixels=True)) for path in files], stacked
    by_frame = np.argsort([frame for _, frame in source.sources])
    return [with_valid_identity(pydicom.dcmread(files[0], stop_before_pixels=True))], stacked[by_frame]


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
    """The same region of the same study keeps its tracking UID over re-runs."""
    return derived_uid(study_instance_uid, concept.region, "tracking")


def _make_deterministic(seg: pydicom.Dataset, identity: ResultIdentity) -> None:
    """Replace what highdicom makes anew at each call: the dimension organization's UID and the times."""
    organization = derived_uid(identity.workflow_id, "dimension organization")
    for item in seg.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = organization
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = organization
    stamp(seg, identity.created)


def verify_seg(file: Path, source: SourceVolume, masks_zyx: Mapping[str, NDArray[np.bool_]]) -> None:
    """Read the SEG back from its bytes and compare with what was meant.

    Independent of its writing: pydicom only, every frame placed by its own ImagePositionPatient (PS3.3 C.7.6.2.1.1).

    Raises:
        VerificationError: voxel count or centroid (hence side) of a segment differ, or a frame references an instance
            that is not in the source.
    """
    dataset = pydicom.dcmread(file)
    known = {instance.sop_instance_uid for instance in source.series.instances}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            for reference in derivation.SourceImageSequence:
                if reference.ReferencedSOPInstanceUID not in known:
                    raise VerificationError(
                        f"SEG references {reference.ReferencedSOPInstanceUID}, not a source instance"
                    )
    points = _points_by_segment(dataset)
    for concept in SEGMENTS:
        _compare(concept, points[concept.number], source, masks_zyx)


def read_masks(file: Path, source: SourceVolume) -> dict[str, NDArray[np.bool_]]:
    """The segments of a SEG file on the grid of ``source``: region to mask, ``[z, y, x]``."""
    to_index = np.linalg.inv(source.affine_lps)
    masks = {}
    for number, points in _points_by_segment(pydicom.dcmread(file)).items():
        mask = np.zeros(source.image.GetSize()[::-1], bool)
        index_xyz = np.rint(points @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
        mask[tuple(index_xyz[:, ::-1].T)] = True
        masks[next(concept.region for concept in SEGMENTS if concept.number == number)] = mask
    return masks


def _points_by_segment(dataset: pydicom.Dataset) -> dict[int, NDArray[np.float64]]:
    """Segment number to its voxels' centres, [n, 3], LPS in mm."""
    frames = np.asarray(unpack_bits(dataset.PixelData))[: dataset.NumberOfFrames * dataset.Rows * dataset.Columns]
    frames = frames.reshape(dataset.NumberOfFrames, dataset.Rows, dataset.Columns)
    points: dict[int, list[NDArray[np.float64]]] = {concept.number: [np.empty((0, 3))] for concept in SEGMENTS}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
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


def _compare(
    concept: SegmentConcept,
    points: NDArray[np.float64],
    source: SourceVolume,
    masks_zyx: Mapping[str, NDArray[np.bool_]],
) -> None:
    index_xyz = np.argwhere(masks_zyx[concept.region])[:, ::-1]
    if len(index_xyz) != len(points):
        raise VerificationError(f"SEG segment '{concept.label}': {len(points)} voxels, meant {len(index_xyz)}")
    if len(points) == 0:
        return
    affine = source.affine_lps
    meant = affine[:3, :3] @ index_xyz.mean(axis=0) + affine[:3, 3]
    difference_mm = float(np.linalg.norm(points.mean(axis=0) - meant))
    if difference_mm > CENTROID_TOLERANCE_MM:
        raise VerificationError(f"SEG segment '{concept.label}': centroid is {difference_mm:.2f} mm off")
