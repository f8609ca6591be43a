"""Wrong values of one attribute as raw bytes, by its value representation (PS3.5 6.2): what real headers hold."""

from __future__ import annotations

import struct
import warnings

from pydicom.dataset import Dataset

MARK = "Quagga"
"""Part of every wrong text, so that a reason which repeats a header's value is seen."""

Wrong = bytes | list[Dataset] | None
"""Raw value, or the items of a sequence; None: the attribute is missing."""

_TEXT: dict[str, Wrong] = {
    "missing": None,
    "empty": b"",
    "blank": b"    ",
    "nulls": b"\0\0\0\0",
    "other text": f"Zebra {MARK}".encode(),
    "lone backslash": b"\\ ",
    "control characters": f"{MARK}\x07\x01".encode(),
    "line break": f"{MARK}\r\nx ".encode(),
    "letters of Latin-1 without a character set": f"{MARK} ä ".encode("latin-1"),
    "letters of UTF-8 without a character set": f"{MARK} 脑 é".encode(),
    "escape sequence": f"\x1b$)C{MARK} ".encode(),
    "too long": f"{MARK} ".encode() * 60,
    "odd length": f"{MARK}!!!".encode()[:7],
    "lower case": MARK.lower().encode(),
}
_DECIMALS: dict[str, Wrong] = {
    "comma": b"5,0 ",
    "not a number": b"nan ",
    "infinite": b"inf ",
    "out of range": b"1e400 ",
    "beyond float32": b"1e39",
    "negative": b"-1",
    "zero": b"0 ",
    "huge": b"9999999999999999",
    "two points": b"1.2.3 ",
    "blank inside": b"1 5 ",
    "hexadecimal": b"0x10",
    "underscore": b"1_0 ",
    "of 30 digits": b"1.00000000000000000000000000000",
    "with a unit": b"5 mm",
    "fraction": b"1.5 ",
}
_MOMENTS: dict[str, Wrong] = {
    "dotted date": b"2024.01.02",
    "dashed date": b"2024-01-02",
    "impossible date": b"20241340",
    "range of dates": b"20240101-20240102 ",
    "two-digit year": b"240102",
    "date of zeros": b"00000000",
    "clock with colons": b"12:00:00",
    "impossible clock": b"256199",
    "nine digits of a second": b"120000.123456789",
    "hour alone": b"12",
    "leap second": b"235960",
    "date and clock": b"20240101120000",
}
_UIDS: dict[str, Wrong] = {
    "leading zero": b"1.2.03",
    "of letters": b"1.2.a.4 ",
    "of 65 digits": b"1." + b"9" * 64,
    "empty component": b"1..2",
    "ends with a dot": b"1.2.",
    "one component": b"12",
    "blank at its end": b"1.2.3.4 ",
    "another": b"1.2.3.45",
}
_CODES: dict[str, Wrong] = {
    "seventeen letters": b"ABCDEFGHIJKLMNOPQ ",
    "hyphen": b"NOT-ALLOWED ",
    "another code": b"OTHER ",
    "three codes": b"A\\B\\C ",
}


def _words(form: str) -> dict[str, Wrong]:
    """Binary numbers of format ``form`` (struct), and values of a wrong length."""
    size = struct.calcsize("<" + form)
    bits = size * 8
    ends = [0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 100, (1 << (bits - 1)) - 1]
    ends += [-1, -(1 << (bits - 1))] if form.islower() else [1 << (bits - 1), (1 << bits) - 1]
    values: dict[str, Wrong] = {f"{end}": struct.pack("<" + form, end) for end in ends}
    return values | {
        "missing": None,
        "empty": b"",
        "two values": struct.pack("<2" + form, 1, 1),
        "three values": struct.pack("<3" + form, 5, 6, 7),
        "one byte": b"\x05",
        "a byte too many": struct.pack("<" + form, 5) + b"\x01",
        "a byte too few": struct.pack("<2" + form, 5, 6)[:-1],
        "text": MARK.encode(),
    }


def _floats(form: str) -> dict[str, Wrong]:
    inf, nan = float("inf"), float("nan")
    values: dict[str, Wrong] = {str(each): struct.pack("<" + form, each) for each in (0, 1, -1, 1e30, 1e-30, inf, nan)}
    return values | {
        "missing": None,
        "empty": b"",
        "two values": struct.pack("<2" + form, 1, 1),
        "one byte": b"\x05",
        "a byte too many": struct.pack("<" + form, 5) + b"\x01",
        "text": MARK.encode() * 2,
    }


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says of each that it is wrong
        for keyword, value in attributes.items():
            setattr(item, keyword, value)
    return item


_SEQUENCES: dict[str, Wrong] = {
    "missing": None,
    "empty": [],
    "an empty item": [_item()],
    "two empty items": [_item(), _item()],
    "empty code": [_item(CodeValue="", CodingSchemeDesignator="", CodeMeaning="")],
    "code without scheme": [_item(CodeValue=MARK, CodeMeaning=MARK)],
    "code without meaning": [_item(CodeValue="1", CodingSchemeDesignator="99X")],
    "long code": [_item(CodeValue=MARK * 10, CodingSchemeDesignator="99X", CodeMeaning=MARK * 20)],
    "reference without instance": [_item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1")],
    "reference of letters": [_item(ReferencedSOPClassUID="1.2.a", ReferencedSOPInstanceUID="x")],
    "other elements": [_item(PatientComments=MARK, SliceThickness="5")],
}


def wrong_values(vr: str, own: bytes) -> dict[str, Wrong]:
    """What stands in place of ``own``, the right value of an attribute with value representation ``vr``; by name."""
    if vr in ("US", "SS", "UL", "SL"):
        return _words({"US": "H", "SS": "h", "UL": "I", "SL": "i"}[vr])
    if vr in ("FD", "FL"):
        return _floats({"FD": "d", "FL": "f"}[vr])
    if vr == "SQ":
        return _SEQUENCES
    names: dict[str, Wrong] = {
        "six components": b"A^B^C^D^E^F ",
        "five groups": b"A=B=C=D=",
        "blanks within": b"A  ^  B ",
        "ideograms alone": b"==A^B ",
        "carets alone": b"^^^^",
    }
    others: dict[str, Wrong] = {
        "sixty-five letters": b"L" * 66,
        "digits": b"0042",
        "another": b"Other value ",
        "caret": b"A^B ",
    }
    ages: dict[str, Wrong] = {"years alone": b"64", "unit": b"64 years", "1000 years": b"999Y", "negative": b"-10Y"}
    special = {
        "DS": _DECIMALS, "IS": _DECIMALS, "DA": _MOMENTS, "TM": _MOMENTS, "DT": _MOMENTS, "UI": _UIDS, "CS": _CODES,
        "AS": ages, "PN": names,
    }.get(vr, others)  # fmt: skip
    stripped = own.rstrip(b" \0")
    again = stripped + b"\\" + (stripped or b"x")
    return _TEXT | special | {"two values": again + b" " * (len(again) % 2)}
