"""Values that a result copies: kept if allowed, repaired if certain, else left out; and what is told."""

from __future__ import annotations

import io
import re
import struct
import warnings

import pytest
from copied_values import item, set_bytes
from instances import make_instance
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from node.dicom.copied_modules import COPIED, IDENTIFYING, TYPE_2
from node.dicom.identity import checked_identities, checked_identity, with_emptied_identity
from node.errors import InstanceRefused

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, on the values that are the matter of these tests

ABSENT = None
CASES = [  # keyword, bytes, the values afterwards, and whether a caution tells of it
    ("PatientAge", b"045Y", "045Y", False),
    ("PatientAge", b"45Y", "045Y", True),
    ("PatientAge", b"045y", "045Y", True),
    ("PatientAge", b"45", ABSENT, True),
    ("PatientAge", b"45 years", ABSENT, True),
    ("PatientAge", b"", "", False),
    ("PatientWeight", b"70.5", "70.5", False),
    ("PatientWeight", b" 70.5 ", "70.5", False),
    ("PatientWeight", b"70,5", ABSENT, True),
    ("PatientWeight", b"70.123456789012345678", "70.1234567890124", True),
    ("PatientWeight", b"nan", ABSENT, True),
    ("PatientWeight", b"1e999", ABSENT, True),
    ("PatientWeight", b"70\\71", ABSENT, True),
    ("PatientWeight", b"70\\70", "70", True),
    ("PatientSize", b"1m75", ABSENT, True),
    ("PregnancyStatus", struct.pack("<H", 4), "4", False),
    ("PregnancyStatus", struct.pack("<H", 9), ABSENT, True),
    ("PregnancyStatus", b"\x04\x00\x00", ABSENT, True),
    ("LongitudinalTemporalOffsetFromEvent", struct.pack("<d", float("nan")), ABSENT, True),
    ("SmokingStatus", b"UNKNOWN", "UNKNOWN", False),
    ("SmokingStatus", b"unknown", "UNKNOWN", True),
    ("SmokingStatus", b"SOMETIMES", ABSENT, True),
    ("PatientSex", b"m", "M", True),
    ("PatientSex", b"male", "", True),
    ("PatientSexNeutered", b"NO", ABSENT, True),
    ("PatientBirthDate", b"1960.01.01", "19600101", True),
    ("PatientBirthDate", b"19600101\\19600101", "19600101", True),
    ("PatientBirthDate", b"19600101\\19610101", "", True),
    ("PatientBirthDate", b"01.01.1960", "", True),
    ("StudyDate", b"2024.01.02", "20240102", True),
    ("StudyTime", b"030405.1234567", "", True),
    ("StudyTime", b"03:04:05", "030405", True),
    ("AccessionNumber", b"A" * 16, "A" * 16, False),
    ("AccessionNumber", b"A" * 20, "", True),
    ("AccessionNumber", b"A\\B", "", True),
    ("AccessionNumber", b"A\\A", "A", True),
    ("AccessionNumber", b"A\x00", "A", False),
    ("AccessionNumber", b"A\nB", "", True),
    ("StudyID", b"1\\2", "", True),
    ("StudyID", b"C" * 20, "", True),
    ("ReferringPhysicianName", b"Dr^A\\Dr^B", "", True),
    ("ReferringPhysicianName", b"A" * 70, "A" * 64, True),
    ("PatientName", b"A" * 70 + b"^B", "A" * 64, True),
    ("PatientName", b"A^B^C^D^E^F", "A^B^C^D^E F", True),
    ("PatientName", b"A^B^^^^", "A^B", True),
    ("PatientName", b"A^B\\A^B", "A^B", True),
    ("PatientName", b"A^B\x00", "A^B", False),
    ("PatientID", b" 0815 ", "0815", False),
    ("PatientID", b"12\\12", "12", True),
    ("OtherPatientNames", b"A^B\\C^D", "A^B\\C^D", False),
    ("OtherPatientNames", b"A^B\\C=D=E=F", "A^B", True),
    ("StudyDescription", b"S" * 64, "S" * 64, False),
    ("StudyDescription", b"S" * 90, "S" * 64, True),
    ("StudyDescription", b"Kopf\\Hals", "Kopf/Hals", True),
    ("StudyDescription", b"Kopf\r\nHals", "Kopf Hals", True),
    ("StudyDescription", b"Kopf\x07Hals", ABSENT, True),
    ("Allergies", b"a\\b", "a\\b", False),
    ("PatientComments", b"a\\b\r\nc", "a\\b\r\nc", False),
    ("PatientComments", b"a" * 20000, "a" * 10240, True),
    ("PatientComments", b"a\x1bc", ABSENT, True),
    ("InstitutionName", b"I" * 80, "I" * 64, True),
    ("InstitutionAddress", b"I\nJ", "I\nJ", False),
    ("DeviceSerialNumber", b"7" * 80, ABSENT, True),
    ("SoftwareVersions", b"A\\\\B", "A\\\\B", False),
    ("AcquisitionDateTime", b"20240102030405.5+0100", "20240102030405.5+0100", False),
    ("AcquisitionDateTime", b"2024-01-02 03:04", ABSENT, True),
    ("AcquisitionDateTime", b"20240231", ABSENT, True),
    ("SliceThickness", b"5.0", "5.0", False),
    ("SliceThickness", b"5,0", ABSENT, True),
    ("SliceThickness", b"5\\5", "5", False),
    ("SliceThickness", b"5\\6", ABSENT, True),
    ("SliceThickness", b"", "", False),
    ("SliceThickness", b"-5", ABSENT, True),
    ("SliceThickness", b"0", ABSENT, True),
    ("PixelSpacing", b"0.93750000000000001\\0.93750000000000001", "0.9375\\0.9375", False),
    ("ImagePositionPatient", b"-119.99999999999999\\1.5\\2", "-120.00000000000\\1.5\\2", False),
    ("FrameOfReferenceUID", b"1.2.3.004", "1.2.3.004", False),
    ("PositionReferenceIndicator", b"X" * 70, "X" * 64, True),
    ("LossyImageCompression", b"YES", ABSENT, True),
    ("LossyImageCompressionRatio", b"1,5\\2.5", "2.5", True),
]
REFUSED = [
    ("PatientName", b"Meier^Anna\\Meier^Berta", "(0010,0010) Patient's Name has several values"),
    ("PatientName", b"Meier\x1b$BAnna", "(0010,0010) Patient's Name holds control characters"),
    ("PatientID", b"12\\34", "(0010,0020) Patient ID has several values"),
    ("PatientID", b"A" * 70, "(0010,0020) Patient ID has more than 64 characters"),
    ("PatientID", b"12\t34", "(0010,0020) Patient ID holds control characters"),
    ("FrameOfReferenceUID", b"1.2.3.x", "(0020,0052) Frame of Reference UID is not a valid UID"),
    ("FrameOfReferenceUID", b"1.2\\1.3", "(0020,0052) Frame of Reference UID has several values"),
    ("SeriesInstanceUID", b"1.2.3.x", "(0020,000E) Series Instance UID is not a valid UID"),
    ("SOPInstanceUID", b"1." * 40, "(0008,0018) SOP Instance UID is not a valid UID"),
]


def given(keyword: str, value: bytes) -> Dataset:
    """A header, as it is read from its bytes, with these bytes in one attribute."""
    header = make_instance(1)
    set_bytes(header, keyword, dictionary_VR(Tag(keyword)), value)
    return reread(header)


def reread(header: Dataset) -> Dataset:
    """The header as it is read from a file."""
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


def values_of(header: Dataset, keyword: str) -> str | None:
    """The value as the text that stands in a file, without padding; None if the attribute is absent."""
    if keyword not in header:
        return None
    value = header[keyword].value
    members = [] if value is None else list(value) if header[keyword].VM > 1 else [value]
    return "\\".join(str(member) for member in members).strip(" ")


@pytest.mark.parametrize(("keyword", "value", "expected", "is_told"), CASES)
def test_a_value_is_kept_repaired_or_left_out(keyword: str, value: bytes, expected: str | None, is_told: bool) -> None:
    """What the standard allows stays; what is certain is repaired; anything else is emptied or removed, and told."""
    header = given(keyword, value)
    checked = checked_identity(header)
    assert values_of(reread(checked.header), keyword) == expected
    assert checked.changed == ((keyword,) if is_told else ())
    assert [keyword in caution for caution in checked.cautions] == [True] * is_told
    again = checked_identity(checked.header)
    assert (again.changed, again.cautions) == ((), [])


@pytest.mark.parametrize(("keyword", "value", "reason"), REFUSED)
def test_a_source_of_an_uncertain_patient_or_image_is_refused(keyword: str, value: bytes, reason: str) -> None:
    """The refusal names the tag, never the value; a refusal report can still be written for the study."""
    with pytest.raises(InstanceRefused) as refused:
        checked_identity(given(keyword, value))
    assert str(refused.value).startswith(reason)
    assert value.decode() not in str(refused.value)
    header = with_emptied_identity(given(keyword, value))
    assert header.StudyInstanceUID == make_instance(1).StudyInstanceUID
    assert (header.get(keyword) in ("", None)) == keyword.startswith(("Patient", "Frame"))


CODE = {"CodeValue": "1", "CodingSchemeDesignator": "99X", "CodeMeaning": "Head"}
REFERENCE = {"ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1", "ReferencedSOPInstanceUID": "1.2.3"}
ITEMS = [  # sequence, items, what is left of each, whether it is told
    ("ProcedureCodeSequence", [CODE], [CODE], False),
    ("ProcedureCodeSequence", [], None, False),
    ("ProcedureCodeSequence", [{}], None, True),
    ("ProcedureCodeSequence", [{}, CODE], [CODE], True),
    ("ProcedureCodeSequence", [CODE | {"CodeMeaning": ""}], None, True),
    ("ProcedureCodeSequence", [CODE | {"CodingSchemeDesignator": ""}], None, True),
    ("ProcedureCodeSequence", [CODE | {"CodeMeaning": "x" * 70}], [CODE | {"CodeMeaning": "x" * 64}], True),
    (
        "ProcedureCodeSequence",
        [CODE | {"CodeValue": "1" * 20}],
        [{"LongCodeValue": "1" * 20, "CodingSchemeDesignator": "99X", "CodeMeaning": "Head"}],
        True,
    ),
    ("ProcedureCodeSequence", [CODE | {"ContextGroupExtensionFlag": "X"}], [CODE], True),
    ("ProcedureCodeSequence", [CODE | {"ContextGroupExtensionFlag": "N"}], [CODE | {"ContextGroupExtensionFlag": "N"}],
     False),
    ("ProcedureCodeSequence", [CODE | {"ContextIdentifier": "101"}], [CODE], True),
    ("ReferencedStudySequence", [REFERENCE], [REFERENCE], False),
    ("ReferencedStudySequence", [REFERENCE | {"ReferencedSOPInstanceUID": "1.2.03"}], None, True),
    ("OtherPatientIDsSequence", [{"PatientID": "X9", "TypeOfPatientID": "TEXT"}],
     [{"PatientID": "X9", "TypeOfPatientID": "TEXT"}], False),
    ("OtherPatientIDsSequence", [{"PatientID": "X\\9", "TypeOfPatientID": "TEXT"}], None, True),
    ("OtherPatientIDsSequence", [{"PatientID": "X9"}], None, True),
    ("IssuerOfAccessionNumberSequence", [{"LocalNamespaceEntityID": "A"}], [{"LocalNamespaceEntityID": "A"}], False),
    ("IssuerOfAccessionNumberSequence", [{"LocalNamespaceEntityID": "A"}, {"LocalNamespaceEntityID": "B"}], None, True),
    ("IssuerOfAccessionNumberSequence", [{"UniversalEntityID": "1.2.3"}], None, True),
    ("ReferringPhysicianIdentificationSequence", [{"PersonIdentificationCodeSequence": [item(**CODE)]}], None, True),
]  # fmt: skip


@pytest.mark.parametrize(("keyword", "items", "expected", "is_told"), ITEMS)
def test_an_item_without_what_the_standard_requires_is_left_out(
    keyword: str, items: list[dict[str, object]], expected: list[dict[str, object]] | None, is_told: bool
) -> None:
    """Complete items stay, incomplete ones go, and with the last one the sequence."""
    header = make_instance(1)
    setattr(header, keyword, [item(**values) for values in items])
    checked = checked_identity(reread(header))
    assert checked.changed == ((keyword,) if is_told else ())
    if expected is None:
        assert keyword not in checked.header
    else:
        assert list(checked.header[keyword].value) == [item(**values) for values in expected]
    assert checked_identity(checked.header).changed == ()


MODULES = [  # what a header has, and what of it is left
    ({"PatientIdentityRemoved": "YES"}, set()),
    ({"PatientIdentityRemoved": "NO"}, {"PatientIdentityRemoved"}),
    ({"PatientIdentityRemoved": "YES", "DeidentificationMethod": "x"},
     {"PatientIdentityRemoved", "DeidentificationMethod"}),
    ({"ClinicalTrialProtocolID": "P"}, set()),
    ({"ClinicalTrialProtocolID": "P", "ClinicalTrialSponsorName": "S", "ClinicalTrialSubjectID": "1"},
     {"ClinicalTrialProtocolID", "ClinicalTrialSponsorName", "ClinicalTrialSubjectID", "ClinicalTrialProtocolName",
      "ClinicalTrialSiteID", "ClinicalTrialSiteName"}),
    ({"ClinicalTrialTimePointDescription": "x"}, {"ClinicalTrialTimePointDescription", "ClinicalTrialTimePointID"}),
    ({"ClinicalTrialTimePointID": "1", "LongitudinalTemporalOffsetFromEvent": 2.0}, {"ClinicalTrialTimePointID"}),
    ({"PatientBirthDateInAlternativeCalendar": "x"}, set()),
    ({"ResponsiblePerson": "A^B"}, set()),
    ({"ContainerIdentifier": "x"}, set()),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), MODULES)
def test_a_module_is_copied_whole_or_not_at_all(values: dict[str, object], expected: set[str]) -> None:
    """An optional attribute whose required partner is missing goes; what may be empty (type 2) is added."""
    header = make_instance(1)
    before = set(header.dir())
    header.update(item(**values))
    checked = checked_identity(reread(header))
    assert set(checked.header.dir()) - before - set(TYPE_2) == expected
    assert set(checked.changed) == set(values) - expected


def test_a_wrong_value_representation_is_corrected() -> None:
    """A text in another VR than the dictionary's is written in the right one: silently only if it was unknown."""
    for vr, is_told in (("UN", False), ("LO", True)):
        header = make_instance(1)
        set_bytes(header, "PatientWeight", vr, b"70.5")
        checked = checked_identity(reread(header))
        assert (checked.header["PatientWeight"].VR, checked.header.PatientWeight) == ("DS", 70.5)
        assert checked.changed == (("PatientWeight",) if is_told else ())


def test_a_number_in_the_form_of_a_text_is_left_out() -> None:
    """The bytes of a binary number that has another VR than the dictionary's are not certain."""
    header = make_instance(1)
    set_bytes(header, "PregnancyStatus", "LO", b"4 ")
    checked = checked_identity(reread(header))
    assert (checked.changed, "PregnancyStatus" in checked.header) == (("PregnancyStatus",), False)


def test_warnings_stay_as_they_are_set_after_a_refusal() -> None:
    """A refusal in the middle of a header does not leave pydicom's warnings switched off."""
    before = list(warnings.filters)
    with pytest.raises(InstanceRefused):
        checked_identity(given("PatientID", b"1\\2"))
    assert list(warnings.filters) == before


MUTATIONS = (
    b"", b" ", b"\x00", b"\\", b"\\\\", b"A\\B", b"5,0", b"nan", b"-1", b"1e400", b"0" * 20, b"x" * 70, b"x" * 11000,
    b"\xff\xfe", b"\x1b$B;3", b"a\tb\r\n", b"1.2.003", b"2024.01.02", b"99999999", b"M\xfcller", b"a=b=c=d", b"^^^^^^^",
    b"\xe5\xb1\xb1", b"25:61:61",
)  # fmt: skip


def is_right(keyword: str, value: bytes, terms: str | list[str] | None, vr: str) -> bool:
    """True if a header with these bytes in one attribute is cleaned for good, or refused with the tag."""
    header = make_instance(1)
    if terms:
        header.SpecificCharacterSet = terms
    set_bytes(header, keyword, vr or dictionary_VR(Tag(keyword)), value)
    try:
        checked = checked_identity(header)
    except InstanceRefused as error:
        return keyword in IDENTIFYING and str(error).startswith(str(Tag(keyword)))
    return checked_identity(reread(checked.header)).changed == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terms", "vr"),
    [(None, ""), (["ISO 2022 IR 6", "ISO 2022 IR 87"], ""), ("ISO_IR 192", "UN")],
    ids=["no set", "Japanese", "unknown VR"],
)
def test_each_mutation_of_a_copied_attribute_is_cleaned_or_refused_with_its_tag(
    terms: str | list[str] | None, vr: str
) -> None:
    """Any bytes in any copied attribute: a header that stays clean, or a refusal by the tag; no other error."""
    mutations = [(keyword, value) for keyword in COPIED for value in MUTATIONS]
    wrong = [(keyword, value) for keyword, value in mutations if not is_right(keyword, value, terms, vr)]
    assert wrong == []
    assert len(mutations) > 2000


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "StudyInstanceUID"])
def test_a_series_of_two_patients_is_refused_with_the_tag(keyword: str) -> None:
    """The instances of a series name one patient and one study, or whose images they are is uncertain."""
    headers = [make_instance(number) for number in (1, 2, 3)]
    assert checked_identities(headers).changed == ()
    setattr(headers[2], keyword, "1.2.3")
    with pytest.raises(InstanceRefused, match=rf"{re.escape(str(Tag(keyword)))} .* differs between its instances"):
        checked_identities(headers)


def test_cautions_of_a_series_name_each_attribute_once() -> None:
    """An attribute with a forbidden value in several instances, or in one only, is named once."""
    headers = [given("PatientAge", b"45"), given("PatientAge", b"45"), given("PatientWeight", b"70,5")]
    (caution,) = checked_identities(headers).cautions
    assert caution.endswith(": PatientAge, PatientWeight")
