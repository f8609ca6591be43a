"""Character sets: what is decoded from a source is what an independent reader decodes, whatever else is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lab
import pydicom
import pytest
from character_sets_of_the_standard import NAMES, READ_BY_DCMTK, Name
from copied_values import item, make_results, set_bytes
from instances import make_instance, write_instance_file
from phantoms import IDENTITY
from pydicom import Dataset, charset

from node.dicom.character_sets import (
    is_written,
    legible,
    pydicom_tables_kept,
    terms_of,
    use_own_table,
    write_in_fitting_set,
)
from node.dicom.identity import checked_identity, differing_identity
from node.errors import InstanceRefused
from node.sr_writer.refusal import verify_refusal, write_refusal

pytestmark = pytest.mark.filterwarnings(
    "ignore:Unknown encoding",
    "ignore:Incorrect value for Specific",
    "ignore:Found unknown escape sequence",
    "ignore:Invalid value for VR CS",
)

IMPORTS = """
import importlib, json, sys
from pydicom import charset
tables = lambda: [dict(t) for t in (charset.python_encoding, charset.CODES_TO_ENCODINGS, charset.ENCODINGS_TO_CODES)]
before = tables()
for name in sys.argv[1:]:
    importlib.import_module(name)
changed = [key for old, new in zip(before, tables()) for key in {**old, **new} if old.get(key) != new.get(key)]
print(json.dumps(sorted(map(str, changed))))
"""


def changed_by_importing(*modules: str) -> list[str]:
    """The entries of pydicom's tables of character sets that importing ``modules`` changes in a fresh interpreter."""
    command = [sys.executable, "-c", IMPORTS, *modules]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return list(json.loads(done.stdout))


@pytest.mark.slow
def test_importing_the_converter_of_volumes_keeps_the_tables_of_pydicom() -> None:
    """The modules that read series leave each table of character sets as pydicom defines it."""
    assert changed_by_importing("node.segmentation.volume", "node.segmentation.seg_writer") == []


@pytest.mark.slow
def test_an_unprotected_import_of_dicom2nifti_changes_the_tables_of_pydicom() -> None:
    """The protection is needed: without it, dicom2nifti changes the sets of Chinese and supplementary Japanese."""
    assert {"ISO 2022 IR 58", "ISO 2022 IR 159"} <= set(changed_by_importing("dicom2nifti"))


@pytest.mark.parametrize("error", [None, ImportError])
def test_tables_of_pydicom_are_restored_in_place(error: type[Exception] | None) -> None:
    """A changed, an added and a deleted entry are restored in the same dictionary, also after an exception."""
    table, before = charset.python_encoding, dict(charset.python_encoding)

    def change() -> None:
        with pydicom_tables_kept():
            table["ISO 2022 IR 58"], table["ISO_IR 58"] = "GB2312", "GB2312"
            del table["ISO_IR 192"]
            if error is not None:
                raise error

    if error is None:
        change()
    else:
        with pytest.raises(error):
            change()
    assert charset.python_encoding is table
    assert table == before


def with_name(dataset: Dataset, name: Name) -> None:
    """Give the data set the name and its character set."""
    if name.terms:
        dataset.SpecificCharacterSet = list(name.terms)
    elif "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    set_bytes(dataset, "PatientName", "PN", name.encoded)


def name_by_dcmtk(file: Path) -> str:
    """Patient's Name as DCMTK converts it to UTF-8, with a table and a library of its own."""
    output = lab.run_program("dcmdump", "+U8", "+P", "0010,0010", "+L", file).stdout
    assert "PN [" in output, output
    return output.partition("PN [")[2].partition("]")[0].rstrip()


def name_by_glibc(file: Path, encoding: str, folder: Path) -> str:
    """Patient's Name as the C library converts it to UTF-8."""
    (folder / "name").write_bytes(pydicom.dcmread(file).get_item("PatientName").value)
    return lab.run_program("iconv", "-f", encoding, "-t", "UTF-8", folder / "name").stdout.rstrip()


@pytest.mark.slow
@lab.needs("dcmdump", "iconv")
@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_name_in_any_defined_set_reaches_seg_and_report_unchanged(tmp_path: Path, name: Name) -> None:
    """Each defined term of PS3.3 C.12.1.1.2, alone and with code extensions: results hold the text that the standard
    states, by their bytes, and by the reading of DCMTK, or of glibc where DCMTK does not know the set."""
    files = make_results(tmp_path, lambda instance: with_name(instance, name))
    for file in files:
        result = pydicom.dcmread(file)
        raw, terms = result.get_item("PatientName").value.rstrip(), terms_of(result)
        assert raw == (name.text.encode() if terms == ("ISO_IR 192",) else name.encoded)
        assert terms == ("ISO_IR 192",) or (terms == name.terms and is_written(terms))
    source = next((tmp_path / "source").iterdir())
    for file in (source, *files):
        if READ_BY_DCMTK.issuperset(terms_of(pydicom.dcmread(file))):
            assert name_by_dcmtk(file) == name.text
        elif name.iconv:
            assert name_by_glibc(file, name.iconv, tmp_path) == name.text


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_refusal_names_the_patient_in_any_defined_set(tmp_path: Path, name: Name) -> None:
    """A refusal copies the same name, also if its reason is in another script than the patient's name."""
    source = make_instance(1)
    with_name(source, name)
    header, file = pydicom.dcmread(write_instance_file(tmp_path, source)), tmp_path / "refusal.dcm"
    reason = "series 8 'T1 増強 größer' leaves it open"
    write_refusal(header, header.StudyInstanceUID, reason, IDENTITY).save_as(file, enforce_file_format=True)
    verify_refusal(file, header, reason)
    document = pydicom.dcmread(file)
    assert str(document.PatientName) == name.text
    assert any(reason in str(item.get("TextValue")) for item in document.ContentSequence)


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_names_are_read_right_with_a_changed_table(monkeypatch: pytest.MonkeyPatch, name: Name) -> None:
    """A process in which another library has changed pydicom's table reads the same names."""
    for term, codec in (("ISO 2022 IR 58", "GB2312"), ("ISO_IR 144", "latin_1"), ("ISO_IR 192", "latin_1")):
        monkeypatch.setitem(charset.python_encoding, term, codec)
    header = make_instance(1)
    with_name(header, name)
    assert str(checked_identity(header).header.PatientName).rstrip() == name.text


@pytest.mark.parametrize(
    ("terms", "encoded", "text", "read_as"),
    [
        ((), "Müller^Jörg".encode(), "Müller^Jörg", "UTF-8"),
        ((), b"M\xfcller^J\xf6rg", "Müller^Jörg", "Latin-1"),
        (("ISO_IR 6",), b"M\xfcller^J\xf6rg", "Müller^Jörg", "Latin-1"),
        (("ISO_IR 999",), b"M\xfcller^J\xf6rg", "Müller^Jörg", "Latin-1"),
        (("", "ISO 2022 IR 149"), b"\xc8\xab^\xb1\xe6\xb5\xbf", "홍^길동", "ISO 2022 IR 149"),
        (("ISO 2022 IR 6", "ISO 2022 IR 58"), b"\xd5\xc5^\xd0\xa1\xb6\xab", "张^小东", "ISO 2022 IR 58"),
        ((), b"Mueller^Joerg", "Mueller^Joerg", ""),
        (("ISO-8859-1",), b"M\xfcller^J\xf6rg", "Müller^Jörg", ""),
        (("UTF-8",), "Müller^Jörg".encode(), "Müller^Jörg", ""),
        (("ISO 2022 IR 100",), b"M\xfcller^J\xf6rg", "Müller^Jörg", ""),
        (("ISO IR 100",), b"M\xfcller^J\xf6rg", "Müller^Jörg", ""),
    ],
)
def test_a_set_that_is_not_named_is_assumed_and_told(
    tmp_path: Path, terms: tuple[str, ...], encoded: bytes, text: str, read_as: str
) -> None:
    """Bytes without a known set are read as UTF-8 if they are valid in it, else as Latin-1, and a caution says so."""
    name = Name(terms, encoded, text)
    header = make_instance(1)
    with_name(header, name)
    checked = checked_identity(header)
    assert (str(checked.header.PatientName), checked.read_as) == (text, read_as)
    assert any("character set" in caution for caution in checked.cautions) == bool(read_as)
    assert text not in str(checked.cautions)
    assert (checked.header.get("SpecificCharacterSet") == "ISO_IR 192") == (terms != () or not encoded.isascii())


@pytest.mark.parametrize(
    ("terms", "encoded", "problem"),
    [
        (("ISO_IR 192",), b"M\xfcller^J\xf6rg", "does not define"),
        (("ISO_IR 109",), b"M\xa5ller", "does not define"),
        (("ISO_IR 100",), b"Yamada^Tarou=\x1b$B;3ED\x1b(B", "escape sequences"),
        (("ISO_IR 100",), b"M\x81ller", "control characters"),
        ((), b"Meier\x07^Anna", "control characters"),
        (("GB18030",), b"Wang\xff", "does not define"),
        ((), b"Meier^Anna\\Meier^Berta", "several values"),
        ((), b"A=B=C=D", "component groups"),
    ],
)
def test_a_name_that_cannot_be_read_for_certain_is_refused_with_its_tag(
    tmp_path: Path, terms: tuple[str, ...], encoded: bytes, problem: str
) -> None:
    """Wrong letters, control characters or two names may mean another patient; the refusal itself can be written."""
    source = make_instance(1)
    with_name(source, Name(terms, encoded, ""))
    file = write_instance_file(tmp_path, source)
    with pytest.raises(InstanceRefused, match=problem) as refused:
        checked_identity(pydicom.dcmread(file))
    assert str(refused.value).startswith("(0010,0010) Patient's Name ")
    assert "ller" not in str(refused.value)
    assert "Meier" not in str(refused.value)
    header, refusal = pydicom.dcmread(file), tmp_path / "refusal.dcm"
    write_refusal(header, header.StudyInstanceUID, str(refused.value), IDENTITY).save_as(refusal)
    verify_refusal(refusal, pydicom.dcmread(file), str(refused.value))
    assert pydicom.dcmread(refusal).PatientName == ""


@pytest.mark.parametrize(
    ("terms", "text", "expected"),
    [
        ([], "T1 Schaedel", None),
        ([], "T1 Schädel", "ISO_IR 192"),
        (["ISO_IR 100"], "T1 Schädel", "ISO_IR 100"),
        (["ISO_IR 100"], "T1 größer ≥ 3", "ISO_IR 192"),
        (["ISO_IR 144"], "Т1 с контрастом", "ISO_IR 144"),
        (["ISO_IR 144"], "T1 Schädel", "ISO_IR 192"),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "造影 T1", ["ISO 2022 IR 6", "ISO 2022 IR 87"]),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "T1 Schädel", "ISO_IR 192"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "~T1", "ISO_IR 192"),
        (["ISO 2022 IR 100", "ISO 2022 IR 87"], "T1", "ISO_IR 192"),
        (["ISO_IR 192"], "造影 T1", "ISO_IR 192"),
        (["GB18030"], "造影 T1", "GB18030"),
        (["GBK"], "T1 Шlüß", "ISO_IR 192"),
    ],
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_result_is_written_in_utf_8_if_a_text_does_not_fit(
    tmp_path: Path, terms: list[str], text: str, expected: str | list[str] | None, is_nested: bool
) -> None:
    """No text of a result becomes question marks, at its top or in an item; a set that holds all texts is kept."""
    result = make_instance(1)
    if terms:
        result.SpecificCharacterSet = terms
    if is_nested:
        result.ContentSequence = [item(TextValue=text, PersonName="A^B")]
    else:
        result.StudyDescription = text
    write_in_fitting_set(result)
    read = pydicom.dcmread(write_instance_file(tmp_path, result))
    assert read.get("SpecificCharacterSet") == expected
    assert (read.ContentSequence[0].TextValue if is_nested else read.StudyDescription) == text


def test_lines_of_a_report_hold_neither_escape_sequences_nor_question_marks(tmp_path: Path) -> None:
    """A series description in another script, or with control characters, is legible in the report."""
    lines = ("T2: series 4 'T2 größer ≥ 造影'", "T1: series 3 '\x1b$)A小东\tT1'")
    _, file = make_results(tmp_path, lambda instance: None, lines)
    texts = [str(each.get("TextValue")) for each in pydicom.dcmread(file).ContentSequence]
    assert [lines[0], "T1: series 3 '小东 T1'"] == [text for text in texts if text.startswith("T")]
    assert legible("a\x1b(Bb\x00c") == "ab c"


def test_a_result_in_which_escape_sequences_are_left_is_not_taken_for_the_source() -> None:
    """Compared with a source of the same wrong name, a result is refused with the tag of the name."""
    with_escape = Name(("ISO_IR 100",), b"Zhang=\x1b$)A\xd5\xc5\x1b$B", "")
    result, source = make_instance(1), make_instance(1)
    for dataset in (result, source):
        with_name(dataset, with_escape)
    with pytest.raises(InstanceRefused, match=r"^\(0010,0010\) .* escape sequences"):
        differing_identity(result, source, ("PatientName",))


def test_the_identity_of_a_result_is_compared_as_text() -> None:
    """The same name in two character sets is one name; another name, or none, is told by its keyword."""
    result, source = make_instance(1), make_instance(1)
    with_name(result, Name(("ISO_IR 192",), "Müller^Jörg".encode(), ""))
    with_name(source, Name(("ISO_IR 100",), b"M\xfcller^J\xf6rg", ""))
    assert differing_identity(result, source, ("PatientID", "PatientName")) == ""
    for other in ("Muller^Jorg", ""):
        result.PatientName = other
        assert differing_identity(result, source, ("PatientID", "PatientName")) == "PatientName"


@pytest.mark.parametrize(
    ("terms", "encoded", "text"),
    [
        ((), "T1 größer".encode(), "T1 größer"),
        ((), b"T1 gr\xf6\xdfer", "T1 größer"),
        (("ISO_IR 203",), b"\xa4", "€"),
        (("UTF-8",), "T1 増強".encode(), "T1 増強"),
        (("ISO_IR 144",), b"\xbb\xee\xda", "Люк"),
    ],
)
def test_a_description_is_decoded_by_the_same_rule_as_names(
    tmp_path: Path, terms: tuple[str, ...], encoded: bytes, text: str
) -> None:
    """A header whose texts are read one by one gives them as they would be copied."""
    source = make_instance(1)
    if terms:
        source.SpecificCharacterSet = list(terms)
    set_bytes(source, "SeriesDescription", "LO", encoded)
    header = pydicom.dcmread(write_instance_file(tmp_path, source))
    use_own_table(header)
    assert header.SeriesDescription == text


@pytest.mark.parametrize(
    "terms", [b"", b" ", b"\\", b"ISO_IR 100\\ISO_IR 144", b"ISO_IR 192\\ISO 2022 IR 87", b"GBK\\GB18030", b"\xff",
              b"rot13", b"utf-16", b"hex", b"ISO 2022 IR 6\\\\", b"ISO 2022 IR 87", b"ISO_IR 58", b"x" * 40]
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [b"Mueller^Joerg", b"M\xfcller^J\xf6rg", "山^田".encode(), b"\x1b$B;3\x1b(B"])
def test_any_character_set_gives_a_clean_name_or_a_refusal_with_the_tag(
    tmp_path: Path, terms: bytes, name: bytes
) -> None:
    """Whatever Specific Character Set holds: the name is readable, in UTF-8, or refused; never another error."""
    source = make_instance(1)
    placeholder = b"ISO_IR 100".ljust(48)
    for keyword, vr, value in (("SpecificCharacterSet", "CS", placeholder), ("PatientName", "PN", name)):
        set_bytes(source, keyword, vr, value)
    file = write_instance_file(tmp_path, source)
    file.write_bytes(file.read_bytes().replace(placeholder, terms.ljust(48)))
    try:
        checked = checked_identity(pydicom.dcmread(file))
    except InstanceRefused as error:
        refusal = str(error)
    else:
        refusal = ""
        write_in_fitting_set(checked.header)
        read = pydicom.dcmread(write_instance_file(tmp_path, checked.header))
        assert str(read.PatientName).isprintable()
        assert "\ufffd" not in str(read.PatientName)
    assert not refusal or refusal.startswith("(0010,0010) ")
