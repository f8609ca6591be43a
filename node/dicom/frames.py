"""The images of an instance: of a classic one, the instance itself; of an enhanced one, its frames (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydicom import Dataset

Lookup = Callable[[str], Any]
"""The value of an attribute by keyword; None if it is missing."""

ENHANCED_MR = frozenset(["1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3", "1.2.840.10008.5.1.4.1.1.4.4"])
"""Enhanced MR, Enhanced MR Color and Legacy Converted Enhanced MR Image Storage: images are frames."""


def image_lookups(dataset: Dataset, frames: Sequence[int] = ()) -> list[Lookup]:
    """Attribute by keyword for each image of ``dataset``, or for those with the numbers ``frames`` (from 1).

    The SOP class alone decides whether there are frames: classic instances may hold empty functional groups, too.
    """
    if str(dataset.get("SOPClassUID", "")) not in ENHANCED_MR:
        return [dataset.get]
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    common = macro_attributes(shared_groups(dataset))
    numbers = frames or range(1, len(groups) + 1)
    return [_frame_lookup(dataset, common, groups[number - 1]) for number in numbers if number <= len(groups)]


def shared_groups(dataset: Dataset) -> Dataset:
    """The item of Shared Functional Groups Sequence; empty if there is none."""
    items = dataset.get("SharedFunctionalGroupsSequence")
    groups: Dataset = items[0] if items else Dataset()
    return groups


def _frame_lookup(dataset: Dataset, common: dict[str, Any], groups: Dataset) -> Lookup:
    """Attributes of the frame's own functional groups, else of the shared ones, else of the instance."""
    values = {**common, **macro_attributes(groups)}
    values["AcquisitionDateTime"] = values.get("FrameAcquisitionDateTime") or dataset.get("AcquisitionDateTime")

    def lookup(keyword: str) -> Any:
        return values[keyword] if keyword in values else dataset.get(keyword)

    return lookup


def macro_attributes(groups: Dataset) -> dict[str, Any]:
    """Attributes of all functional group macros of one item, by keyword; private macros are left out."""
    values: dict[str, Any] = {}
    for element in groups:
        if element.VR == "SQ" and not element.tag.is_private and element.value:
            values.update({inner.keyword: inner.value for inner in element.value[0] if inner.VR != "SQ"})
            if element.keyword == "MRDiffusionSequence":
                values.setdefault("DiffusionBValue", element.value[0].get("DiffusionBValue"))
            if element.keyword == "DerivationImageSequence":
                values["DerivationCodeSequence"] = element.value[0].get("DerivationCodeSequence")
    return values
