"""Small sources with given bytes in one attribute, and the results made of them, as the worker makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import phantoms
import pydicom
from phantoms import IDENTITY, Geometry
from pydicom import DataElement, Dataset, config
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.tag import Tag

from node.segmentation.seg_writer import verify_seg, write_seg
from node.segmentation.volume import read_volume
from node.sr_writer.codes import SEGMENTS
from node.sr_writer.report import ReportContent, verify_report, write_report
from node.study import Contrast, Selection

TINY = Geometry(size=(16, 14, 6), spacing_between_slices_mm=3.0, slice_thickness_mm=2.0)


def set_bytes(dataset: Dataset, keyword: str, vr: str, value: bytes) -> None:
    """Give an attribute exactly these bytes, padded to an even length, whatever the standard says of them.

    The character set is set before: pydicom writes elements as they were read only while that stays the same.
    """
    correct_ambiguous_vr(dataset, True)
    terms = dataset.get("SpecificCharacterSet")
    dataset.set_original_encoding(False, True, convert_encodings(terms) if terms else default_encoding)
    tag, padded = Tag(keyword), value + b" " * (len(value) % 2)
    dataset[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True)


def item(**values: object) -> Dataset:
    """An item of a sequence with these attributes, whether or not the standard allows the values."""
    dataset = Dataset()
    for keyword, value in values.items():
        vr = dictionary_VR(Tag(keyword))
        dataset[keyword] = DataElement(Tag(keyword), vr, value, validation_mode=config.IGNORE)
    return dataset


def make_results(
    folder: Path, change: Callable[[Dataset], object], lines: tuple[str, ...] = (), is_enhanced: bool = False
) -> tuple[Path, Path]:
    """Files of SEG and SR of a source with ``change`` in each of its instances, both read back and verified."""
    instances = [phantoms.enhanced(TINY)] if is_enhanced else phantoms.classic(TINY)
    for instance in instances:
        change(instance)
    source = read_volume(phantoms.write_series(folder / "source", instances))
    columns, rows, slices = TINY.size
    masks = {concept.region: np.zeros((slices, rows, columns), bool) for concept in SEGMENTS}
    masks["whole_tumour"][1:4, 3:9, 4:10] = True
    seg_file, sr_file = folder / "seg.dcm", folder / "sr.dcm"
    seg = write_seg(source, masks, IDENTITY)
    seg.save_as(seg_file, enforce_file_format=True)
    verify_seg(seg_file, source, masks)
    header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
    selection = Selection(source.series.study_instance_uid, {Contrast.T1C: source.series}, ())
    write_report(seg, ReportContent(selection, header, (), lines), IDENTITY).save_as(sr_file, enforce_file_format=True)
    verify_report(sr_file, seg, header)
    return seg_file, sr_file
