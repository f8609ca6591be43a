"""Whether headers name one patient: differences that count, and those that scanners and worklists make."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from node.dicom.patient_match import differing_attributes, identity_of_patient

PATIENT = {
    "PatientID": "4711-a",
    "IssuerOfPatientID": "HOSPITAL",
    "PatientName": "Müller^Anna Maria^^Dr",
    "PatientBirthDate": "19600102",
    "PatientSex": "F",
}


def header(**attributes):
    """A header with the patient's attributes; ``None`` leaves one out."""
    found = Dataset()
    for keyword, value in {**PATIENT, **attributes}.items():
        if value is not None:
            setattr(found, keyword, value)
    return found


def differing(**attributes):
    return differing_attributes([identity_of_patient(header()), identity_of_patient(header(**attributes))])


@pytest.mark.parametrize(
    ("keyword", "value", "name"),
    [
        ("PatientID", "4712-a", "(0010,0020) Patient ID"),
        ("IssuerOfPatientID", "OTHER", "(0010,0021) Issuer of Patient ID"),
        ("PatientName", "Müller^Berta^^Dr", "(0010,0010) Patient's Name"),
        ("PatientBirthDate", "19600103", "(0010,0030) Patient's Birth Date"),
        ("PatientSex", "M", "(0010,0040) Patient's Sex"),
    ],
)
def test_another_value_is_another_patient(keyword, value, name):
    """The attribute is named with its tag, and nothing else."""
    assert differing(**{keyword: value}) == [name]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "4711-A"),
        ("PatientID", " 4711-a "),
        ("PatientID", ""),
        ("PatientID", None),
        ("IssuerOfPatientID", None),
        ("PatientName", "MÜLLER^ANNA MARIA^^DR"),
        ("PatientName", "Müller ^Anna  Maria^^Dr^"),
        ("PatientName", "Müller^Anna Maria^^Dr=王^小东"),
        ("PatientName", "=王^小东"),
        ("PatientName", ""),
        ("PatientBirthDate", "1960.01.02"),
        ("PatientBirthDate", ""),
        ("PatientBirthDate", "02.01.1960"),
        ("PatientSex", "f"),
        ("PatientSex", "0000"),
        ("PatientSex", None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_difference_of_writing_is_none(keyword, value):
    """Case, blanks, empty components, an empty value, and another representation of the name name the same patient."""
    assert differing(**{keyword: value}) == []


def test_several_differences_are_all_named():
    """In the order of the attributes, whatever the order of the headers."""
    other = {"PatientName": "A^B", "PatientID": "1"}
    assert differing(**other) == ["(0010,0020) Patient ID", "(0010,0010) Patient's Name"]


def test_empty_values_between_two_patients_hide_no_difference():
    """Two patients are two, also if a header without any value stands between them."""
    identities = [identity_of_patient(each) for each in (header(), header(PatientID=""), header(PatientID="2"))]
    assert differing_attributes(identities) == ["(0010,0020) Patient ID"]
