from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from node.series.classify import classify_description
from node.series.fact_reader import read_facts
from node.series.headers import read_study
from node.series.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
MR = "1.2.840.10008.5.1.4.1.1.4"


def code(value, scheme="DCM"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def equipment(purpose, manufacturer="Somebody"):
    item = Dataset()
    item.Manufacturer = manufacturer
    item.PurposeOfReferenceCodeSequence = [code(purpose)]
    return item


def judged(write, folder, **attributes):
    for index in range(10):
        place = {"ImagePositionPatient": [0, 0, index * 10], "SOPInstanceUID": f"1.2.3.1.{index + 1}"}
        write(folder / f"{index}", **place, **{"SeriesDescription": "FLAIR", **attributes})
    (series,) = read_study(folder).series
    return classify_description("FLAIR", read_facts(series), VOCABULARY)


@pytest.mark.parametrize(
    ("attributes", "evidence"),
    [
        ({"Manufacturer": "glionode"}, "Manufacturer is glionode: a result of this node"),
        ({"ManufacturerModelName": "GlioNode 3"}, "a result of this node"),
        ({"SyntheticData": "YES"}, "Synthetic Data (0008,001C) is YES"),
        ({"ContributingEquipmentSequence": [equipment("109102")]}, "is Processing Equipment (DCM 109102)"),
        ({"ContributingEquipmentSequence": [equipment("109103", "glionode")]}, "Contributing Equipment is glionode"),
        ({"DerivationCodeSequence": [code("113076")]}, "DCM 113076: result of software"),
        ({"DerivationCodeSequence": [code("113062")]}, "DCM 113062: subtraction"),
        ({"DerivationCodeSequence": [code("113072")]}, "DCM 113072: reformat"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ConversionType": "WSD"}, "Secondary Capture Image Storage"),
    ],
)
def test_what_software_made_is_no_input(write, tmp_path, attributes, evidence):
    """A result of this node or of another algorithm, by its header, is none of the four, and the evidence says why."""
    found = judged(write, tmp_path, **attributes)
    assert found.contrast is None
    assert evidence in found.evidence[0]


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D", "FIL"]},
        {"ImageType": ["DERIVED", "PRIMARY", "M", "NORM"]},
        {"ContributingEquipmentSequence": [equipment("109101"), equipment("109104"), equipment("109103")]},
        {"DerivationCodeSequence": [code("113040")]},
        {"DerivationCodeSequence": [code("113087")]},
        {"DerivationCodeSequence": [code("113076", "99LOCAL")]},
        {"SyntheticData": "NO"},
        {"DerivationDescription": "filtered"},
    ],
)
def test_what_a_scanner_does_to_its_images_passes(write, tmp_path, attributes):
    """Normalised, filtered, lossily compressed, de-identified images of a scanner remain input."""
    assert str(judged(write, tmp_path, **attributes).contrast) == "FLAIR"


def test_a_malformed_sequence_is_no_crash(write, tmp_path):
    """Empty sequences and codes tell nothing."""
    attributes = {"ContributingEquipmentSequence": [Dataset()], "DerivationCodeSequence": []}
    assert str(judged(write, tmp_path, **attributes).contrast) == "FLAIR"
