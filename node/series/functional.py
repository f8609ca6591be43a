"""Attributes of an enhanced multi-frame instance, read by keyword from its functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

from node.dicom.frames import Lookup, macro_attributes, shared_groups
from node.series.values import text

_NAMES = {"EchoTime": "EffectiveEchoTime", "InversionTime": "InversionTimes"}  # keywords of classic and enhanced MR
_PULSES = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}


def instance_lookup(dataset: Dataset, frames: Sequence[int] = ()) -> Lookup:
    """Attribute by keyword for an enhanced instance: of its top level, else its shared group, else its first frame.

    ``frames``: the numbers of the frames that count; empty for all.
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    holders = {**macro_attributes(per_frame[min(frames, default=1) - 1]), **macro_attributes(shared_groups(dataset))}

    def of_macros(keyword: str) -> Any:
        name = _NAMES.get(keyword, keyword)
        return holders[name].get(name) if name in holders else None

    values: dict[str, Any] = {}
    pulse = _PULSES.get(text(dataset.get("EchoPulseSequence")) or "", [])
    values["ScanningSequence"] = pulse + (["EP"] if text(dataset.get("EchoPlanarPulseSequence")) == "YES" else [])
    values["SequenceName"] = dataset.get("PulseSequenceName")
    agents = dataset.get("ContrastBolusAgentSequence")
    is_given = text(of_macros("ContrastBolusAgentAdministered")) != "NO"
    values["ContrastBolusAgent"] = agents[0].get("CodeMeaning") if agents and is_given else None

    def lookup(keyword: str) -> Any:
        value = dataset.get(keyword)
        if value is not None and value != "":
            return value
        return values[keyword] if keyword in values else of_macros(keyword)

    return lookup


def mixture_of_frames(images: Sequence[Lookup]) -> str | None:
    """The frame types (PS3.3 C.8.13.5.1) or dimension stacks (C.7.6.16.2.2), if there is more than one; else None."""
    parts = []
    for keyword, name in (("FrameType", "frame types"), ("StackID", "dimension stacks")):
        found = sorted({value for value in (text(image(keyword)) for image in images) if value})
        if len(found) > 1:
            parts.append(f"{len(found)} {name} ({', '.join(found)})")
    return f"holds {' and '.join(parts)}" if parts else None
