"""Attributes of an enhanced multi-frame instance, read by keyword from its functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

from node.series.stack import Lookup
from node.series.values import text

_PULSES = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}


def instance_lookup(dataset: Dataset) -> Lookup:
    """Attribute by keyword for an enhanced instance: of its top level, else its shared group, else its first frame."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    values = {**_flat(per_frame[0]), **_flat(shared[0])}
    values["EchoTime"] = values.get("EffectiveEchoTime")
    values["InversionTime"] = values.get("InversionTimes")
    pulse = _PULSES.get(text(dataset.get("EchoPulseSequence")) or "", [])
    values["ScanningSequence"] = pulse + (["EP"] if text(dataset.get("EchoPlanarPulseSequence")) == "YES" else [])
    values["SequenceName"] = dataset.get("PulseSequenceName")
    agents = dataset.get("ContrastBolusAgentSequence")
    is_given = text(values.get("ContrastBolusAgentAdministered")) != "NO"
    values["ContrastBolusAgent"] = agents[0].get("CodeMeaning") if agents and is_given else None

    def lookup(keyword: str) -> Any:
        value = dataset.get(keyword)
        return values.get(keyword) if value is None or value == "" else value

    return lookup


def frame_lookups(dataset: Dataset) -> list[Lookup]:
    """Attribute by keyword for each frame: of its own group, else of the shared group.

    Acquisition DateTime is the frame's, else the instance's.
    """
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    common = _flat(shared[0])
    lookups: list[Lookup] = []
    for frame in dataset.get("PerFrameFunctionalGroupsSequence") or []:
        values = {**common, **_flat(frame)}
        values["AcquisitionDateTime"] = values.get("FrameAcquisitionDateTime") or dataset.get("AcquisitionDateTime")
        lookups.append(values.get)
    return lookups


def mixture_of_frames(dataset: Dataset) -> str | None:
    """The frame types (PS3.3 C.8.13.5.1) or dimension stacks (C.7.6.16.2.2), if there is more than one; else None."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    common = _flat(shared[0])
    frames = [{**common, **_flat(frame)} for frame in dataset.get("PerFrameFunctionalGroupsSequence") or []]
    parts = []
    for keyword, name in (("FrameType", "frame types"), ("StackID", "dimension stacks")):
        found = sorted({value for value in (text(frame.get(keyword)) for frame in frames) if value})
        if len(found) > 1:
            parts.append(f"{len(found)} {name} ({', '.join(found)})")
    return f"holds {' and '.join(parts)}" if parts else None


def _flat(groups: Dataset) -> dict[str, Any]:
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
