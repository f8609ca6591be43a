"""The images of an instance: of a classic one, the instance itself; of an enhanced one, its frames (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag

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


def _frame_lookup(dataset: Dataset, common: dict[str, Dataset], groups: Dataset) -> Lookup:
    """Attributes of the frame's own functional groups, else of the shared ones, else of the instance."""
    holders = {**common, **macro_attributes(groups)}

    def lookup(keyword: str) -> Any:
        if keyword == "AcquisitionDateTime":
            return lookup("FrameAcquisitionDateTime") or dataset.get(keyword)
        return holders.get(keyword, dataset).get(keyword)

    return lookup


def macro_attributes(groups: Dataset) -> dict[str, Dataset]:
    """The item that holds each attribute of the functional group macros of one item; private macros are left out.

    Values are not read, so that a malformed one harms only those who ask for it.
    """
    holders: dict[str, Dataset] = {}
    for element in groups:
        if element.VR == "SQ" and not element.tag.is_private and element.value:
            item = element.value[0]
            holders.update(dict.fromkeys(_plain_keywords(item), item))
            if element.keyword == "MRDiffusionSequence":
                holders.setdefault("DiffusionBValue", item)
            if element.keyword == "DerivationImageSequence":
                holders["DerivationCodeSequence"] = item
    return holders


def _plain_keywords(item: Dataset) -> list[str]:
    """The keywords of the attributes of ``item`` that are no sequences."""
    found = ((keyword_for_tag(tag), tag) for tag in item.keys())  # noqa: SIM118 - iterating a data set reads values
    return [keyword for keyword, tag in found if keyword and dictionary_VR(tag) != "SQ"]
