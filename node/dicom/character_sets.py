"""Specific Character Set (PS3.3 C.12.1.1.2): how texts are decoded, and in which set a result is written.

Texts are decoded by the table below, not by pydicom's, which other libraries change and which lacks ISO IR 203.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pydicom
from pydicom import charset
from pydicom.charset import decode_bytes, encode_string
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, TEXT_VR_DELIMS

UNICODE = "ISO_IR 192"
"""The set in which a result is written if another one may not hold all its texts."""

_DEFAULT = "iso8859"  # pydicom's name for the default repertoire; bytes outside ASCII have no meaning in it
_SINGLE_BYTE = {  # Python's codec of each single-byte set that is registered in ISO 2375 (PS3.3 Tables C.12-2, C.12-3)
    "13": "shift_jis", "100": "latin_1", "101": "iso8859_2", "109": "iso8859_3", "110": "iso8859_4",
    "126": "iso_ir_126", "127": "iso_ir_127", "138": "iso_ir_138", "144": "iso_ir_144", "148": "iso_ir_148",
    "166": "iso_ir_166", "203": "iso8859_15",
}  # fmt: skip
_MULTI_BYTE = {"58": "iso_ir_58", "87": "iso2022_jp", "149": "euc_kr", "159": "iso2022_jp_2"}  # PS3.3 Table C.12-4
_WITHOUT_EXTENSIONS = {UNICODE: "UTF8", "GB18030": "GB18030", "GBK": "GBK"}  # PS3.3 Table C.12-5
_WRITTEN_ALONE = {f"ISO_IR {number}" for number in _SINGLE_BYTE} - {"ISO_IR 203"} | set(_WITHOUT_EXTENSIONS)
# with code extensions only the Japanese ones: highdicom refuses IR 58 and 149, and pydicom ends an ideograph of JIS X
# 0208 by a wrong escape sequence if the first set is another one
_WRITTEN_FIRST = {"ISO 2022 IR 6", "ISO 2022 IR 13"}
_WRITTEN_LATER = _WRITTEN_FIRST | {"ISO 2022 IR 87", "ISO 2022 IR 159"}
_DELIMITERS = {*TEXT_VR_DELIMS, *b"^=\\"}
# the escape sequences to ISO IR 58 and 203 (PS3.3 Tables C.12-3, C.12-4), which pydicom leaves in the text
_ESCAPE_58 = "\x1b$)A"
_PART_IN_203 = re.compile(rb"(\x1b-b[^\x1b^=\\\t\n\f\r]*)")  # a delimiter ends it (PS3.5 6.1.2.5.3)
_ESCAPE = re.compile(r"\x1b[ -/]*[0-~]")  # ISO 2022
_MISSPELT = re.compile(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?([0-9]+)", re.IGNORECASE)
_FOREIGN_NAMES = {  # names of other registers that stand in headers, and the defined term that is meant
    "UTF-8": UNICODE, "UTF8": UNICODE, "LATIN1": "ISO_IR 100", "LATIN-1": "ISO_IR 100",
    **{f"ISO{dash}8859-{part}": f"ISO_IR {number}" for dash in ("-", "_", " ", "") for part, number in (
        (1, 100), (2, 101), (3, 109), (4, 110), (5, 144), (6, 127), (7, 126), (8, 138), (9, 148), (11, 166), (15, 203)
    )},
}  # fmt: skip


@contextmanager
def pydicom_tables_kept() -> Iterator[None]:
    """Restore pydicom's tables of character sets after the block, also if the block raises.

    Importing some libraries changes these tables for the whole process, after which names in ISO 2022 IR 58 and IR 159
    are decoded to other characters. The tables are restored in place, since other modules hold references to them.
    """
    tables: list[dict[Any, Any]] = [charset.python_encoding, charset.CODES_TO_ENCODINGS, charset.ENCODINGS_TO_CODES]
    kept = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, before in zip(tables, kept, strict=True):
            table.clear()
            table.update(before)


def terms_of(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """The values of Specific Character Set without padding; empty if there is none."""
    value = dataset.get("SpecificCharacterSet")
    values = [*value] if isinstance(value, MultiValue) else [value]
    terms = tuple(str(each or "").strip(" \0") for each in values)
    return terms if any(terms) else ()


def codec_of(term: str) -> str | None:
    """Python's codec for a defined term, or for what is certainly meant by a misspelt one; None: unknown."""
    term = _FOREIGN_NAMES.get(term.upper(), term)
    if term in _WITHOUT_EXTENSIONS:
        return _WITHOUT_EXTENSIONS[term]
    found = _MISSPELT.fullmatch(term)
    number = "6" if not term else found[2] if found else ""
    if number == "6":
        return _DEFAULT
    return _WITHOUT_EXTENSIONS[UNICODE] if number == "192" else {**_SINGLE_BYTE, **_MULTI_BYTE}.get(number)


def is_defined(terms: Sequence[str]) -> bool:
    """True if ``terms`` are defined terms of PS3.3 C.12.1.1.2 in a combination that it allows, or none."""
    if len(terms) <= 1:
        alone = {f"ISO_IR {number}" for number in ("6", *_SINGLE_BYTE)} | set(_WITHOUT_EXTENSIONS)
        return not terms or terms[0] in alone
    first = {"", *(f"ISO 2022 IR {number}" for number in ("6", *_SINGLE_BYTE))}
    later = first | {f"ISO 2022 IR {number}" for number in _MULTI_BYTE}
    return terms[0] in first and later.issuperset(terms[1:])


def is_written(terms: Sequence[str]) -> bool:
    """True if highdicom and pydicom write texts in this set right; results of other sources are written in UTF-8."""
    if len(terms) <= 1:
        return not terms or terms[0] in _WRITTEN_ALONE
    return terms[0] in _WRITTEN_FIRST and _WRITTEN_LATER.issuperset(terms[1:])


def codecs_for(terms: Sequence[str], values: Iterable[bytes]) -> tuple[tuple[str, ...], bool]:
    """The codecs of texts with the bytes ``values``, and whether they are assumed since ``terms`` do not name them.

    Bytes outside ASCII without a known set are read as UTF-8 if all of them are valid UTF-8, which other texts hardly
    are by chance; else as Latin-1, which most scanners mean. A set that is named, but not designated by an escape
    sequence (PS3.5 6.1.2.5.3), is read as if it were: many Korean and Chinese scanners leave the sequence out.
    """
    codecs = [codec_of(term) for term in terms]
    if codecs and None not in codecs and (len(codecs) > 1 or codecs[0] != _DEFAULT):
        known = tuple(codec for codec in codecs if codec is not None)
        without_escape = b"".join(value.partition(b"\x1b")[0] for value in values)
        designated_by_none = [codec for codec in known[1:] if codec in (_MULTI_BYTE["58"], _MULTI_BYTE["149"])]
        if known[0] == _DEFAULT and not without_escape.isascii():
            return (designated_by_none[0] if designated_by_none else "latin_1", *known[1:]), True
        return known, False
    texts = [value for value in values if not value.isascii()]
    if not texts:
        return (_DEFAULT,), False
    return ("UTF8" if all(_is_valid(text, "UTF8") for text in texts) else "latin_1",), True


def use_own_table(dataset: pydicom.Dataset) -> None:
    """Let pydicom decode the texts of a data set that was just read by the codecs of this module, when they are asked.

    Texts without a named set are decoded as `codecs_for` says.
    """
    tags = list(dataset.keys())  # iterating over the data set itself would decode it
    stored = [cast(DataElement | RawDataElement, dataset.get_item(tag)) for tag in tags]
    values = [raw.value or b"" for raw in stored if isinstance(raw, RawDataElement) and _has_text(raw)]
    codecs, _ = codecs_for(terms_of(dataset), values)
    is_implicit, is_little_endian = dataset.original_encoding
    dataset.set_original_encoding(is_implicit, is_little_endian, list(codecs))


def _has_text(raw: RawDataElement) -> bool:
    vr = raw.VR or (dictionary_VR(raw.tag) if dictionary_has_tag(raw.tag) else "UN")
    return vr in CUSTOMIZABLE_CHARSET_VR


def _is_valid(value: bytes, codec: str) -> bool:
    try:
        value.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def decoded(value: bytes, codecs: Sequence[str]) -> str:
    """``value`` as text, all its values and component groups together; U+FFFD for bytes that are not of the codecs.

    The bytes are decoded before they are split: in GB18030, GBK and JIS X 0208 the codes of ``\\``, ``=`` and ``^``
    are also parts of ideographs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings repeat what U+FFFD says
        parts = _PART_IN_203.split(value) if _SINGLE_BYTE["203"] in codecs else [value]
        return "".join(
            part[3:].decode(_SINGLE_BYTE["203"])
            if part.startswith(b"\x1b-b")
            else decode_bytes(part, codecs, _DELIMITERS).replace(_ESCAPE_58, "")
            for part in parts
        )


def legible(text: str) -> str:
    """``text`` of a header for a sentence in a result: without escape sequences, and a blank for control characters."""
    without_escapes = _ESCAPE.sub("", text)
    return "".join(" " if unicodedata.category(each) == "Cc" else each for each in without_escapes)


def write_in_fitting_set(dataset: pydicom.Dataset) -> None:
    """Change the Specific Character Set of a result to UTF-8 unless its set holds each text of the result.

    The one rule for all results: a text outside the source's set would be written as question marks.
    """
    terms = terms_of(dataset)
    codecs = tuple(codec for term in terms or ("",) if (codec := codec_of(term)) is not None)
    if not is_written(terms) or not all(_fits(text, codecs) for text in _texts(dataset)):
        for item in _with_items(dataset):
            for element in item:  # pydicom decodes each value by the set that it was read in, before that is changed
                if element.VR == "PN" and element.value:
                    names = [str(name) for name in _members(element.value)]
                    element.value = names if len(names) > 1 else names[0]
            if "SpecificCharacterSet" in item:
                del item.SpecificCharacterSet
        dataset.SpecificCharacterSet = UNICODE


def _fits(text: str, codecs: Sequence[str]) -> bool:
    """True if ``text``, encoded in ``codecs``, is read as the same text."""
    if codecs[0] == _SINGLE_BYTE["13"] and {"\\", "~"} & set(text):
        return False  # JIS X 0201 holds yen and overline at their codes
    if text.isascii():
        return True
    if codecs[0] == _DEFAULT and (len(codecs) == 1 or any("\x80" <= letter <= "\xff" for letter in text)):
        return False  # pydicom would write the letters of Latin-1 in the default repertoire, which has none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return decoded(encode_string(text, codecs), codecs) == text
        except UnicodeError:
            return False


def _with_items(dataset: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _with_items(item)


def _texts(dataset: pydicom.Dataset) -> Iterator[str]:
    """Each value with a text VR (PS3.5 6.1.2.2) in ``dataset`` and its items."""
    for item in _with_items(dataset):
        for element in item:
            if element.VR in CUSTOMIZABLE_CHARSET_VR and element.value:
                yield from (str(value) for value in _members(element.value))


def _members(value: object) -> list[object]:
    return list(value) if isinstance(value, MultiValue | list) else [value]
