"""Graphic overlay planes (PS3.3 C.9.2), by which some scanners mark a series as acquired after contrast agent."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.filereader import dcmread
from pydicom.tag import BaseTag

from node.study import Instance

OVERLAY_DATA: list[BaseTag | int] = [(group << 16) | 0x3000 for group in range(0x6000, 0x6020, 2)]


def has_overlay(first: Dataset, instances: Sequence[Instance]) -> bool:
    """True if the first, middle or last image has an overlay with a set bit. ``first``: the first image's header."""
    others = {instances[len(instances) // 2], instances[-1]} - {instances[0]}
    return _is_marked(first) or any(
        _is_marked(dcmread(one.path, stop_before_pixels=True, specific_tags=OVERLAY_DATA)) for one in others
    )


def _is_marked(dataset: Dataset) -> bool:
    """True if an overlay plane has a set bit."""
    planes = (dataset[tag].value for tag in OVERLAY_DATA if tag in dataset)
    return any(isinstance(data, bytes) and any(data) for data in planes)
