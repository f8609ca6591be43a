"""The source images of a SEG: their headers for highdicom, and the references to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat

from node.dicom.frames import ENHANCED_MR, image_lookups
from node.dicom.identity import with_valid_identity
from node.dicom.uids import derived_uid
from node.segmentation.volume import SourceVolume

_OF_MULTI_FRAME = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames",
    "DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType", "ConcatenationUID",
    "SOPInstanceUIDOfConcatenationSource", "InConcatenationNumber", "InConcatenationTotalNumber",
    "ConcatenationFrameOffsetNumber",
)  # fmt: skip
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_OF_ITS_OWN = ("SOPClassUID", "SOPInstanceUID", *_GEOMETRY)


def source_images(source: SourceVolume) -> tuple[list[pydicom.Dataset], list[int]]:
    """Headers of the source images as highdicom takes them, and the slice z of each plane of theirs, in their order.

    highdicom takes single-frame instances, or all frames of one multi-frame instance. Frames of several enhanced
    instances, or some of one, are given as single-frame images; `restore_references` then names the true ones.
    """
    files = [path for path, _ in source.sources]
    if _is_whole_multi_frame(source):
        dataset = with_valid_identity(pydicom.dcmread(files[0], stop_before_pixels=True))
        _share_geometry(dataset, source)
        return [dataset], [int(z) for z in np.argsort([frame for _, frame in source.sources])]
    if source.series.instances[0].sop_class_uid in ENHANCED_MR:
        datasets = _frames_as_images(source)
    else:
        datasets = [with_valid_identity(pydicom.dcmread(path, stop_before_pixels=True)) for path in files]
    for dataset in datasets:
        # some scanners round them differently per instance, but highdicom requires them to be identical
        dataset.ImageOrientationPatient = datasets[0].ImageOrientationPatient
        _correct_measures(dataset, source)
    return datasets, list(range(len(datasets)))


def _is_whole_multi_frame(source: SourceVolume) -> bool:
    only = source.series.instances[0]
    return len(source.series.instances) == 1 and only.sop_class_uid in ENHANCED_MR and not only.frames


def _frames_as_images(source: SourceVolume) -> list[pydicom.Dataset]:
    """Each frame of an enhanced source as a single-frame header: the instance's modules and the frame's geometry."""
    read: dict[Path, pydicom.Dataset] = {}
    images = []
    for z, (path, number) in enumerate(source.sources):
        if path not in read:
            read[path] = with_valid_identity(pydicom.dcmread(path, stop_before_pixels=True))
        frame = image_lookups(read[path], (number,))[0]
        image = pydicom.Dataset()
        image.update({each.tag: each for each in read[path] if each.keyword not in (*_OF_MULTI_FRAME, *_OF_ITS_OWN)})
        image.file_meta = read[path].file_meta
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, _stand_in(z)
        for keyword in _GEOMETRY:
            setattr(image, keyword, frame(keyword))
        images.append(image)
    return images


def _stand_in(z: int) -> str:
    return derived_uid("stand-in of a frame", str(z))


@dataclass(frozen=True, slots=True)
class ImageReference:
    """How a source image is referenced: ``frame`` is None if the instance holds no other frame (PS3.3 10.3)."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None


def image_references(source: SourceVolume) -> list[ImageReference]:
    """The reference to the source image of each slice z."""
    instances = {instance.path: instance for instance in source.series.instances}
    slices = Counter(path for path, _ in source.sources)
    return [
        ImageReference(
            instances[path].sop_class_uid,
            instances[path].sop_instance_uid,
            frame if slices[path] > 1 or instances[path].frames else None,
        )
        for path, frame in source.sources
    ]


def restore_references(seg: pydicom.Dataset, source: SourceVolume) -> None:
    """Replace stand-ins of `source_images` in ``seg``, in place, by the instances and frames that they stand for."""
    meant = {_stand_in(z): reference for z, reference in enumerate(image_references(source))}
    for group in seg.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", ()):
            for item in derivation.SourceImageSequence:
                reference = meant.get(item.ReferencedSOPInstanceUID)
                if reference:
                    _refer(item, reference)
                    if reference.frame is not None:
                        item.ReferencedFrameNumber = reference.frame
    if "SourceImageSequence" in seg:
        seg.SourceImageSequence = _instances(seg.SourceImageSequence, meant)
    for series in seg.get("ReferencedSeriesSequence", ()):
        series.ReferencedInstanceSequence = _instances(series.ReferencedInstanceSequence, meant)


def _refer(item: pydicom.Dataset, reference: ImageReference) -> None:
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid


def _instances(items: Iterable[pydicom.Dataset], meant: Mapping[str, ImageReference]) -> list[pydicom.Dataset]:
    """``items`` with the true instances, each once."""
    found: dict[str, pydicom.Dataset] = {}
    for item in items:
        reference = meant.get(item.ReferencedSOPInstanceUID)
        if reference:
            _refer(item, reference)
        found.setdefault(item.ReferencedSOPInstanceUID, item)
    return list(found.values())


def _share_geometry(dataset: pydicom.Dataset, source: SourceVolume) -> None:
    """Copy the geometry of a multi-frame source, in place, to its shared functional groups, where highdicom reads it.

    Some scanners (e.g. Philips) repeat it in each frame. All frames have the same geometry, or `read_volume` would have
    refused the series.
    """
    if not dataset.get("SharedFunctionalGroupsSequence"):
        dataset.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if keyword not in shared:
            shared[keyword] = dataset.PerFrameFunctionalGroupsSequence[0][keyword]
    _correct_measures(shared.PixelMeasuresSequence[0], source)


def _correct_measures(measures: pydicom.Dataset, source: SourceVolume) -> None:
    """Set Spacing Between Slices, in place, to the distance of the planes; the header's value is optional and often
    another one.

    If the source has no Slice Thickness, it is set to the same distance.
    """
    spacing_between_slices = DSfloat(source.image.GetSpacing()[2], auto_format=True)
    measures.SpacingBetweenSlices = spacing_between_slices
    if not measures.get("SliceThickness"):
        measures.SliceThickness = spacing_between_slices
