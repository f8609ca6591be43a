"""What SEG and SR copy from their source: which attributes, and that faults in them are not repeated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lab
import pydicom
import pytest
from copied_values import TINY, item, make_results, set_bytes
from highdicom.base_content import ContributingEquipment
from pydicom import Dataset
from pydicom.datadict import DicomDictionary
from pydicom.tag import Tag

from node.dicom.copied_modules import (
    CLINICAL_TRIAL_STUDY,
    CLINICAL_TRIAL_SUBJECT,
    ENUMERATED,
    EQUIPMENT,
    FRAME_OF_REFERENCE,
    GENERAL_STUDY,
    PATIENT,
    PATIENT_STUDY,
    SPECIMEN,
)
from node.errors import InstanceRefused

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, on the values that are the matter of these tests

CODE = {"CodeValue": "1", "CodingSchemeDesignator": "99X", "CodeMeaning": "Head"}
SAMPLES: dict[str, Callable[[int], object]] = {  # a valid value of each VR that no writer would give by itself
    "LO": lambda tag: f"text {tag:08X}", "SH": lambda tag: f"sh {tag:08X}", "UC": lambda tag: f"text {tag:08X}",
    "ST": lambda tag: f"text {tag:08X}", "LT": lambda tag: f"text {tag:08X}", "UT": lambda tag: f"text {tag:08X}",
    "PN": lambda tag: f"Name^{tag:08X}", "CS": lambda tag: f"CS {tag:08X}", "DA": lambda tag: "19990807",
    "TM": lambda tag: "070605", "DT": lambda tag: "19990807070605", "AS": lambda tag: "033Y", "DS": lambda tag: "33.25",
    "IS": lambda tag: "3333", "UI": lambda tag: f"1.2.3.{tag}", "US": lambda tag: 3, "FD": lambda tag: 33.25,
    "SQ": lambda tag: [item(**CODE)],
}  # fmt: skip
# groups that hold pixels and their description, geometry, or private data
NOT_SAMPLED = (0x0000, 0x0002, 0x0004, 0x0028, 0x0048, 0x0062, 0x5200, 0x7FE0)
GEOMETRY = ("ImageOrientationSlide", "ImageCenterPointCoordinatesSequence")
"""With these the instance would be one of a microscope's slide."""


def with_all_attributes(instance: Dataset) -> None:
    """Give the instance every attribute of the dictionary that it lacks, each with a valid value of its own."""
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        is_sampled = keyword and not retired and tag >> 16 not in NOT_SAMPLED and vr in SAMPLES
        if is_sampled and keyword not in instance and keyword not in GEOMETRY and keyword not in ENUMERATED:
            instance.add_new(tag, vr, SAMPLES[vr](tag))
    instance.PatientSexNeutered, instance.SmokingStatus, instance.PregnancyStatus = "UNALTERED", "UNKNOWN", 2
    instance.QualityControlSubject, instance.PatientIdentityRemoved = "NO", "NO"
    instance.OtherPatientIDsSequence = [item(PatientID="X", TypeOfPatientID="TEXT")]


@pytest.mark.slow
def test_no_attribute_is_copied_that_is_not_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a source with every attribute of the standard, SEG and SR hold those of the named modules and no others."""
    asked: list[set[str]] = []
    for_image = ContributingEquipment.for_image_acquisition

    def recorded(source: Dataset) -> ContributingEquipment:
        made = for_image(source)
        asked.append({keyword for keyword in made.dir() if keyword in source and made[keyword] == source[keyword]})
        return made

    monkeypatch.setattr(ContributingEquipment, "for_image_acquisition", recorded)
    seg, sr = make_results(tmp_path, with_all_attributes)
    source = pydicom.dcmread(next((tmp_path / "source").iterdir()))
    modules = {*PATIENT, *CLINICAL_TRIAL_SUBJECT, *GENERAL_STUDY, *PATIENT_STUDY, *CLINICAL_TRIAL_STUDY}
    for file, more in ((seg, {*SPECIMEN, *FRAME_OF_REFERENCE}), (sr, set())):
        result = pydicom.dcmread(file)
        pairs = {keyword: (result[keyword], source.get(keyword)) for keyword in result.dir() if keyword in source}
        same = {
            keyword
            for keyword, (mine, copied) in pairs.items()
            if mine.tag.group != 0x0028 and str(mine.value) == str(copied) != ""
        }
        assert same - {"SpecificCharacterSet", "InstanceNumber"} <= modules | more
        assert len(same & modules) > 60  # the samples did arrive
    assert asked[0]
    assert asked[0] <= set(EQUIPMENT)


def fault(keyword: str, vr: str, value: bytes) -> Callable[[Dataset], None]:
    """These bytes in one attribute."""
    return lambda instance: set_bytes(instance, keyword, vr, value)


def attributes(**values: object) -> Callable[[Dataset], None]:
    """These attributes, in place of those that the instance has."""
    return lambda instance: instance.update(item(**values))


def long_position(instance: Dataset) -> None:
    """A position with more digits than a decimal string has."""
    position = [float(value) + 0.0123456789012 for value in instance.ImagePositionPatient]
    set_bytes(instance, "ImagePositionPatient", "DS", "\\".join(f"{value:.17f}" for value in position).encode())


COSINES = b"1.00000000000000000\\0.00000000000000000\\0.00000000000000000\\0.00000000000000000\\1.000000000\\0.0"
FAULTY_SOURCES: dict[str, Callable[[Dataset], None]] = {
    "age without unit": fault("PatientAge", "AS", b"45"),
    "age with two digits": fault("PatientAge", "AS", b"45Y"),
    "weight with comma": fault("PatientWeight", "DS", b"70,5"),
    "weight too long": fault("PatientWeight", "DS", b"70.123456789012345678"),
    "weight not a number": fault("PatientWeight", "DS", b"nan"),
    "weight in another VR": fault("PatientWeight", "LO", b"70.5"),
    "size in words": fault("PatientSize", "DS", b"1m75"),
    "two sizes": fault("PatientSize", "DS", b"1.75\\1.76"),
    "series number with a point": fault("SeriesNumber", "IS", b"4.1"),
    "instance number with a point": fault("InstanceNumber", "IS", b"1.5"),
    "instance number empty": fault("InstanceNumber", "IS", b""),
    "instance number too large": fault("InstanceNumber", "IS", b"99999999999"),
    "pregnancy status 9": fault("PregnancyStatus", "US", b"\x09\x00"),
    "smoking status in small letters": fault("SmokingStatus", "CS", b"unknown"),
    "ethnic group too long": fault("EthnicGroup", "SH", b"x" * 40),
    "two referring physicians": fault("ReferringPhysicianName", "PN", b"Dr^A\\Dr^B"),
    "two study IDs": fault("StudyID", "SH", b"1\\2"),
    "study ID too long": fault("StudyID", "SH", b"C" * 20),
    "two accession numbers": fault("AccessionNumber", "SH", b"A\\B"),
    "accession number too long": fault("AccessionNumber", "SH", b"B" * 20),
    "two equal birth dates": fault("PatientBirthDate", "DA", b"19600101\\19600101"),
    "birth date in another order": fault("PatientBirthDate", "DA", b"01.01.1960"),
    "study date with points": fault("StudyDate", "DA", b"2024.01.02"),
    "study time too long": fault("StudyTime", "TM", b"030405.1234567"),
    "sex in small letters": fault("PatientSex", "CS", b"m"),
    "sex in words": fault("PatientSex", "CS", b"female"),
    "study description too long": fault("StudyDescription", "LO", b"S" * 90),
    "study description with backslash": fault("StudyDescription", "LO", b"Kopf\\Hals"),
    "comments with backslash and lines": fault("PatientComments", "LT", b"a\\b\r\nc"),
    "comments with escape": fault("PatientComments", "LT", b"a\x1bb"),
    "name too long": fault("PatientName", "PN", b"A" * 70 + b"^B"),
    "name of six components": fault("PatientName", "PN", b"A^B^C^D^E^F"),
    "blanks in the ID": fault("PatientID", "LO", b" 0815 "),
    "nothing known of the patient": attributes(
        PatientName="", PatientID="", PatientBirthDate="", StudyDate="", StudyTime=""
    ),
    "slice thickness empty": fault("SliceThickness", "DS", b""),
    "two slice thicknesses": fault("SliceThickness", "DS", b"5\\6"),
    "slice thickness with comma": fault("SliceThickness", "DS", b"5,0"),
    "slice thickness negative": fault("SliceThickness", "DS", b"-5"),
    "pixel spacing too long": fault("PixelSpacing", "DS", b"1.00000000000000001\\1.00000000000000001"),
    "position too long": long_position,
    "orientation too long": fault("ImageOrientationPatient", "DS", COSINES),
    "position reference too long": fault("PositionReferenceIndicator", "LO", b"X" * 70),
    "institution too long": fault("InstitutionName", "LO", b"I" * 80),
    "institution with control characters": fault("InstitutionName", "LO", b"I\x01"),
    "address too long": fault("InstitutionAddress", "ST", b"I" * 2000),
    "serial number too long": fault("DeviceSerialNumber", "LO", b"7" * 80),
    "acquisition time in another form": fault("AcquisitionDateTime", "DT", b"2024-01-02 03:04"),
    "compression ratio with comma": fault("LossyImageCompressionRatio", "DS", b"1,5"),
    "code without attributes": attributes(ProcedureCodeSequence=[Dataset()]),
    "code without meaning": attributes(ProcedureCodeSequence=[item(CodeValue="1", CodingSchemeDesignator="L")]),
    "code too long": attributes(ProcedureCodeSequence=[item(**CODE | {"CodeValue": "1" * 20})]),
    "code of an incomplete context": attributes(ProcedureCodeSequence=[item(**CODE, ContextIdentifier="101")]),
    "request without attributes": attributes(RequestAttributesSequence=[Dataset()]),
    "no referenced study": attributes(ReferencedStudySequence=[]),
    "reference without instance": attributes(ReferencedPatientSequence=[item(ReferencedSOPClassUID="1.2.3")]),
    "other ID without type": attributes(OtherPatientIDsSequence=[item(PatientID="X9", IssuerOfPatientID="N")]),
    "issuer without type": attributes(IssuerOfAccessionNumberSequence=[item(UniversalEntityID="1.2.3")]),
    "physician without institution": attributes(
        ReferringPhysicianIdentificationSequence=[item(PersonIdentificationCodeSequence=[item(**CODE)])]
    ),
    "de-identified without a method": attributes(PatientIdentityRemoved="YES"),
    "trial without sponsor": attributes(ClinicalTrialProtocolID="P"),
    "trial without subject": attributes(ClinicalTrialProtocolID="P", ClinicalTrialSponsorName="S"),
    "trial time point without ID": attributes(ClinicalTrialTimePointDescription="x"),
    "offset without event": attributes(ClinicalTrialTimePointID="1", LongitudinalTemporalOffsetFromEvent=2.0),
    "calendar not named": attributes(PatientBirthDateInAlternativeCalendar="x"),
    "responsible person without role": attributes(ResponsiblePerson="A^B"),
    "specimen without description": attributes(ContainerIdentifier="x"),
    "character set unknown": attributes(SpecificCharacterSet="ISO_IR 999"),
    "character set of another register": attributes(SpecificCharacterSet="ISO-8859-1"),
}


@pytest.mark.slow
@lab.needs("dciodvfy")
@pytest.mark.parametrize("name", FAULTY_SOURCES)
def test_a_fault_of_the_source_is_no_error_of_seg_and_report(tmp_path: Path, name: str) -> None:
    """SEG and SR of a source with one forbidden value are written, verified, and faultless to dciodvfy."""
    seg, sr = make_results(tmp_path, FAULTY_SOURCES[name])
    assert {file.name: lab.dciodvfy_errors(file) for file in (seg, sr)} == {"seg.dcm": [], "sr.dcm": []}
    assert pydicom.dcmread(seg).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness > 0


@pytest.mark.slow
@lab.needs("dciodvfy")
@pytest.mark.parametrize("value", ["5,0", "5\\6", "-5", "5.00000000000000001"])
def test_a_wrong_slice_thickness_in_functional_groups_is_not_copied(tmp_path: Path, value: str) -> None:
    """In an enhanced instance, too, a thickness that is no length is replaced by the distance of the planes."""

    def change(instance: Dataset) -> None:
        measures = instance.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        set_bytes(measures, "SliceThickness", "DS", value.encode())

    seg, sr = make_results(tmp_path, change, is_enhanced=True)
    assert [lab.dciodvfy_errors(file) for file in (seg, sr)] == [[], []]
    measures = pydicom.dcmread(seg).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == (5 if value.startswith("5.0") else TINY.spacing_between_slices_mm)


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("PatientName", "PN", b"Meier\\Anna"),
        ("PatientID", "LO", b"12\\34"),
        ("PatientID", "LO", b"A" * 70),
        ("FrameOfReferenceUID", "UI", b"1.2.3.x"),
    ],
)
def test_results_under_a_guessed_identity_are_not_written(tmp_path: Path, keyword: str, vr: str, value: bytes) -> None:
    """A source whose patient or frame of reference is uncertain is refused with the tag, not with the value."""
    with pytest.raises(InstanceRefused) as refused:
        make_results(tmp_path, fault(keyword, vr, value))
    assert str(Tag(keyword)) in str(refused.value)
    assert value.decode() not in str(refused.value)


@pytest.mark.parametrize("character_set", ["ISO_IR 100", ""])
def test_texts_in_items_are_converted_with_the_result(tmp_path: Path, character_set: str) -> None:
    """If SEG or SR is written in UTF-8, so are names and meanings that it copies in items of sequences."""

    def change(instance: Dataset) -> None:
        instance.SpecificCharacterSet = character_set
        set_bytes(instance, "PatientName", "PN", b"M\xfcller^J\xf6rg")
        code, other = item(CodeValue="1", CodingSchemeDesignator="99X"), item(TypeOfPatientID="TEXT")
        set_bytes(code, "CodeMeaning", "LO", b"MR Sch\xe4del")
        set_bytes(other, "PatientID", "LO", b"M\xfc-1")
        instance.ProcedureCodeSequence, instance.OtherPatientIDsSequence = [code], [other]
        instance.set_original_encoding(False, True, "latin_1" if character_set else "iso8859")

    seg, sr = map(pydicom.dcmread, make_results(tmp_path, change, ("T2: series 4 'T2 造影'",)))
    assert seg.SpecificCharacterSet == (character_set or "ISO_IR 192")
    assert sr.SpecificCharacterSet == "ISO_IR 192"
    for result in (seg, sr):
        assert result.PatientName == "Müller^Jörg"
        assert result.ProcedureCodeSequence[0].CodeMeaning == "MR Schädel"
        assert result.OtherPatientIDsSequence[0].PatientID == "Mü-1"
    assert b"Sch\xc3\xa4del" in (tmp_path / "sr.dcm").read_bytes()
