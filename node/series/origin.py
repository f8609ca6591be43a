"""Whether software made the images of a series: results of this node or of other algorithms are never input.

Processing by the scanner (filters, normalisation, distortion correction, lossy compression) does not exclude a series.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.uid import UID

from node.dicom.frames import Lookup
from node.series.values import text

OWN_NAME = "glionode"
MR_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.4{end}" for end in ("", ".1", ".3", ".4"))
"""MR, Enhanced MR, Enhanced MR Color, Legacy Converted Enhanced MR Image Storage (PS3.4 B.5)."""

RESULT = "result of software"
_PURPOSES = {"109102": "Processing Equipment", "109100": "Synthesizing Equipment"}  # PS3.16 CID 7005
_DERIVATIONS = {  # codes of PS3.16 CID 7203 whose result is no longer one of the four contrasts as acquired
    "113041": "diffusion",
    "113050": RESULT,
    "113062": "subtraction",
    "113072": "reformat",
    "113073": "reformat",
    "113074": "projection",
    "113075": "projection",
    "113076": RESULT,
    "113077": RESULT,
    "113078": "projection",
    "113079": "projection",
    "125027": RESULT,
    "129104": "perfusion",
    "129105": "diffusion",
    "129106": "diffusion",
}


def made_by_software(lookup: Lookup, sop_class_uid: str) -> tuple[str, str] | None:
    """(kind, evidence) if the header says that the images are not as a scanner acquired them; else None.

    ``lookup``: attribute by keyword. Sources: PS3.3 C.7.5.1 (equipment), C.12.1 (Contributing Equipment, Synthetic
    Data), C.7.6.1.1.3 (Derivation Code), A.8 (Secondary Capture).
    """
    if sop_class_uid not in MR_CLASSES:
        return RESULT, f"its instances are {UID(sop_class_uid).name}, not MR images"
    for keyword, name in (("Manufacturer", "Manufacturer"), ("ManufacturerModelName", "Manufacturer's Model Name")):
        if OWN_NAME in (text(lookup(keyword)) or "").casefold():
            return RESULT, f"{name} is {OWN_NAME}: a result of this node"
    if (text(lookup("SyntheticData")) or "").upper() == "YES":
        return RESULT, "Synthetic Data (0008,001C) is YES"
    for equipment in _items(lookup("ContributingEquipmentSequence")):
        if OWN_NAME in (text(equipment.get("Manufacturer")) or "").casefold():
            return RESULT, f"Contributing Equipment is {OWN_NAME}: a result of this node"
        for code in _codes(equipment.get("PurposeOfReferenceCodeSequence")):
            if code in _PURPOSES:
                return RESULT, f"Contributing Equipment (0018,A001) is {_PURPOSES[code]} (DCM {code})"
    for code in _codes(lookup("DerivationCodeSequence")):
        if code in _DERIVATIONS:
            return _DERIVATIONS[code], f"Derivation Code (0008,9215) is DCM {code}: {_DERIVATIONS[code]}"
    return None


def _items(sequence: object) -> Iterable[Dataset]:
    return [item for item in sequence if isinstance(item, Dataset)] if isinstance(sequence, Iterable) else []


def _codes(sequence: object) -> list[str]:
    """Code values of the scheme DCM."""
    items = [item for item in _items(sequence) if text(item.get("CodingSchemeDesignator")) == "DCM"]
    return [code for code in (text(item.get("CodeValue")) for item in items) if code]
