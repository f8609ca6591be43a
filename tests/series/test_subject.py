"""Whom or what an exam shows, by its headers: animals and phantoms are refused, children and surgery are told."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pydicom import Dataset

from node.series.subject import remarks
from node.series.subject_words import phantom_word, surgery_word


def header(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "meaning"
    return [item]


def outcome(dataset):
    """("refused", "caution" or "silent") by the remarks on a header."""
    found = [each.is_refusal for each in remarks(dataset)]
    return "refused" if any(found) else "caution" if found else "silent"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PatientSpeciesDescription": "Canis lupus familiaris"}, "refused"),
        ({"PatientSpeciesCodeSequence": code("448771007")}, "refused"),
        ({"ResponsiblePersonRole": "OWNER"}, "refused"),
        ({"PatientBreedDescription": "Beagle"}, "caution"),
        ({"PatientSpeciesDescription": "Homo sapiens"}, "silent"),
        ({"PatientSpeciesCodeSequence": code("337915000"), "PatientSpeciesDescription": "H. s."}, "silent"),
        ({"ResponsiblePersonRole": "PARENT", "PatientSpeciesDescription": ""}, "silent"),
    ],
)
def test_animal_is_refused(values, expected):
    """Another species than homo sapiens, by text or code, or an owner; a breed alone is a doubt."""
    assert outcome(header(**values)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PatientAge": "014Y"}, "caution"),
        ({"PatientAge": "018Y"}, "silent"),
        ({"PatientAge": "011M"}, "refused"),
        ({"PatientAge": "003W"}, "refused"),
        ({"PatientAge": "000Y"}, "silent"),
        ({"PatientBirthDate": "20120630", "StudyDate": "20200101"}, "caution"),
        ({"PatientBirthDate": "20190630", "StudyDate": "20200101"}, "refused"),
        ({"PatientBirthDate": "20190630", "StudyDate": "20200101", "PatientAge": "045Y"}, "caution"),
        ({"PatientBirthDate": "20080822", "StudyDate": "20080819"}, "silent"),
        ({"PatientBirthDate": "20200101", "StudyDate": "20200101"}, "silent"),
        ({"PatientBirthDate": "19490301", "StudyDate": "20061201"}, "silent"),
    ],
)
def test_child_is_told_and_infant_refused(values, expected):
    """By age or birth; what de-identification leaves (age 0, birth on or after the day of the study) says nothing."""
    assert outcome(header(**values)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"StudyDescription": "QA Phantom daily"}, "refused"),
        ({"ProtocolName": "ACR_phantom_T1"}, "refused"),
        ({"QualityControlImage": "YES"}, "refused"),
        ({"QualityControlImage": "NO"}, "silent"),
        ({"PatientName": "PHANTOM^ACR"}, "caution"),
        ({"StudyDescription": "MR head, phantom limb pain"}, "silent"),
    ],
)
def test_phantom_is_refused(values, expected):
    """A phantom by description or by Quality Control Image; by its patient's name alone it is a doubt."""
    assert outcome(header(**values)) == expected


@pytest.mark.parametrize(
    "text",
    ["MRT Schädel postoperativ", "POSTOP AX T1", "s/p left frontal craniotomy", "Z.n. Resektion", "nach OP",
     "status post resection", "Resektionshöhle", "resection cavity", "post-surgical follow up",
     "contrôle post-opératoire", "control posoperatorio", "Kontrolle nach OP", "intraoperative MRI",
     "St.n. Resektion", "esiti di resezione", "kontrola po operaci", "stan po operacji", "estado tras resección",
     "после операции", "術後", "prior craniotomy", "history of resection", "Zustand nach Tumorexstirpation"],
)  # fmt: skip
def test_surgery_in_the_past_is_told(text):
    """Words for surgery that has taken place, in several languages, give a caution wherever they stand."""
    for keyword in ("StudyDescription", "SeriesDescription", "ProtocolName", "ReasonForTheRequestedProcedure"):
        assert outcome(header(**{keyword: text})) == "caution"


def test_surgery_in_the_meaning_of_a_code_is_told():
    """Procedures, reasons and diagnoses may be codes only: their meanings are read like texts."""
    for keyword in (
        "ProcedureCodeSequence",
        "AdmittingDiagnosesCodeSequence",
        "ReasonForRequestedProcedureCodeSequence",
    ):
        items = code("1")
        items[0].CodeMeaning = "Status post craniotomy"
        (found,) = remarks(header(**{keyword: items}))
        assert "craniotom" in found.text


@pytest.mark.parametrize(
    "text",
    ["T1 post Gd", "T1 nach KM", "pre-op planning", "planned resection", "no craniotomy", "vor OP",
     "OP-Planung", "postprocessing", "postero-anterior", "no prior surgery",
     "no evidence of prior resection", "prior to resection", "no history of surgery", "scheduled for craniotomy",
     "comparison with prior", "status post stroke", "MR brain pre and post contrast",
     "Ax T1 mDIXON TSE_OP", "for resection", ""],
)  # fmt: skip
def test_contrast_agent_and_surgery_ahead_are_no_surgery(text):
    """ "Post" and "nach" mostly mean contrast agent, and an operation may lie ahead or be denied."""
    assert surgery_word(text) is None


def test_no_invented_description_is_taken_for_surgery_or_phantom():
    """1,529 descriptions of ordinary series hold no word for surgery or for a phantom."""
    file = Path(__file__).parent / "invented_descriptions.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        texts = [row["description"] for row in csv.DictReader(stream)]
    assert len(texts) > 1000
    assert not [text for text in texts if surgery_word(text) or phantom_word(text)]


def test_remarks_hold_no_value_of_the_header():
    """Reasons name the attribute by name and tag, and words of our own; never what identifies a patient."""
    dataset = header(
        PatientName="Secret^Phantom", PatientBirthDate="20120630", StudyDate="20200101", PatientAge="007Y",
        PatientSpeciesDescription="Rattus secretus", StudyDescription="Secret postop",
    )  # fmt: skip
    texts = " ".join(each.text for each in remarks(dataset))
    assert "(0010,1010)" in texts
    assert "(0008,1030)" in texts
    for value in ("Secret", "secretus", "2012", "007", "2020"):
        assert value not in texts
