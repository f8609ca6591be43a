"""A corpus of broken MR instances, built the same each time from one that is whole."""

from __future__ import annotations

import copy
import random
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from instances import data_set_bytes, encode_instance
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from small_study import all_instances, make_small_study

from node.study import Series

FLIPS = 400
OTHER_SLICES = 8  # of each series that is left whole: the fewest that are selected
_STUDY = "1.2.826.0.1.3680043.10.1462.7.1000"  # all of one length, so that one replaces another in encoded bytes
_PIXEL_DATA = Tag("PixelData")
_LONG_VRS = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"UC")
_EDITED = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "Modality",
    "SeriesDescription", "PatientName", "EchoTime", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "Rows", "PixelSpacing", "BitsAllocated",
    "PixelData",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """One broken instance: what is sent, and the study that it claims to belong to unless that is what is broken."""

    name: str
    study_instance_uid: str
    sop_instance_uid: str
    data_set: bytes
    transfer_syntax: str = ExplicitVRLittleEndian


@dataclass(frozen=True, slots=True)
class _Base:
    """The whole instance, as a data set and encoded, and the rest of its study by path below the study's folder."""

    instance: Dataset
    encoded: bytes
    others: dict[str, bytes]


@cache
def _base() -> _Base:
    small = make_small_study("fuzz")
    study = {contrast: small[contrast] if contrast == "T1c" else small[contrast][:OTHER_SLICES] for contrast in small}
    for instance in all_instances(study):
        instance.StudyInstanceUID = _STUDY
        instance.SpecificCharacterSet = "ISO_IR 100"
    broken = study["T1c"][5]
    others = {
        f"{each.SeriesInstanceUID}/{each.SOPInstanceUID}.dcm": encode_instance(each)
        for each in all_instances(study)
        if each is not broken
    }
    return _Base(broken, data_set_bytes(encode_instance(broken)), others)


def _study(number: int) -> str:
    return f"{_STUDY[:-4]}{1000 + number}"


def rest_of_study(study_instance_uid: str) -> Iterator[tuple[str, bytes]]:
    """The whole instances that belong to a variant's study: path below the study's folder, and file."""
    for path, content in _base().others.items():
        yield path, content.replace(_STUDY.encode(), study_instance_uid.encode())


def is_untouched(series: Series) -> bool:
    """True if the series is one of those that are left whole, and nothing was added to it."""
    theirs = {path for path in _base().others if path.startswith(f"{series.series_instance_uid}/")}
    mine = {f"{series.series_instance_uid}/{instance.path.name}" for instance in series.instances}
    return mine == theirs and series.series_instance_uid != _base().instance.SeriesInstanceUID


def variants(kind: str) -> Iterator[Variant]:
    """All variants of one of `KINDS`, each of a study of its own."""
    sop_instance_uid = str(_base().instance.SOPInstanceUID)
    for number, (name, data_set, *transfer_syntax) in enumerate(KINDS[kind]()):
        study = _study(number)
        yield Variant(
            f"{kind}: {name}",
            study,
            sop_instance_uid,
            data_set.replace(_STUDY.encode(), study.encode()),
            *transfer_syntax,
        )


def _edited(edit: Callable[[Dataset], None], transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    instance = copy.deepcopy(_base().instance)
    instance.file_meta.TransferSyntaxUID = transfer_syntax
    with warnings.catch_warnings(action="ignore"):
        edit(instance)
        return data_set_bytes(encode_instance(instance))


def _with(**values: Any) -> bytes:
    def edit(instance: Dataset) -> None:
        for keyword, value in values.items():
            setattr(instance, keyword, value)

    return _edited(edit)


def _place(keyword: str) -> int:
    """Where the element begins in the encoded base."""
    tag = Tag(keyword)
    found = re.search(re.escape(struct.pack("<HH", tag.group, tag.element)) + rb"[A-Z]{2}", _base().encoded)
    assert found
    return found.start()


def _spliced(keyword: str, value: bytes) -> bytes:
    """The element's value replaced by bytes that pydicom would not write."""
    encoded, place = _base().encoded, _place(keyword)
    (length,) = struct.unpack_from("<H", encoded, place + 6)
    value += b"\0" * (len(value) % 2)
    return encoded[: place + 6] + struct.pack("<H", len(value)) + value + encoded[place + 8 + length :]


def _truncated() -> Iterator[tuple[str, bytes]]:
    encoded = _base().encoded
    for end in sorted({0, 1, 2, 7, 8, 9, *range(0, len(encoded), max(len(encoded) // 60, 1)), len(encoded) - 1}):
        yield f"at {end}", encoded[:end]


def _wrong_vrs() -> Iterator[tuple[str, bytes]]:
    encoded = _base().encoded
    for keyword in _EDITED:
        place = _place(keyword) + 4
        for vr in (b"XX", b"\0\0", b"SQ", b"OB", b"UN", b"FD", b"US", b"AT"):
            yield f"{keyword} {vr!r}", encoded[:place] + vr + encoded[place + 2 :]


def _hostile_uids() -> Iterator[tuple[str, bytes]]:
    values = (
        b"", b"../../../../tmp/evil", b"/etc/passwd", b"..", b".", b"1." * 32 + b"1", b"1" * 65, b"1.02.3", b"1.2.",
        b".1.2", b"1..2", b"1.2.3\0/x", b"\0", b"1.2.3\\1.2.4", b"1.2.3 ", b" 1.2.3", b"1.2.a", b"\xff\xfe", b"%s%n",
        b"1.2.3\n", b"con.1", b"1.2.3;rm",
    )  # fmt: skip
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID"):
        for value in values:
            yield f"{keyword} {value!r}", _spliced(keyword, value)


def _character_sets() -> Iterator[tuple[str, bytes]]:
    described = _spliced("SeriesDescription", b"T1 SE \xe4\xff\x1b$B tra nach KM")
    place = _place("SpecificCharacterSet")
    (length,) = struct.unpack_from("<H", _base().encoded, place + 6)
    values = (
        b"ISO 2022 IR 100/6", b"ISO 2022 IR 100", b"ISO_IR 999", b"", b"\\ISO 2022 IR 87", b"UTF8", b"ISO_IR 192",
        b"ISO 2022 IR 6\\ISO 2022 IR 159", b"ISO_IR 100\\ISO_IR 100", b"\xff\xff", b"X" * 300, b"GB18030", b"\\\\\\",
        b"latin_1", b"iso-8859-1", b"ISO 2022 IR 87\\ISO_IR 192", b"rot13", b"idna", b"unicode_escape", b"hex",
    )  # fmt: skip
    for value in values:
        padded = value + b" " * (len(value) % 2)
        head = described[: place + 6] + struct.pack("<H", len(padded)) + padded
        yield repr(value), head + described[place + 8 + length :]


def _deflated() -> Iterator[tuple[str, bytes, str]]:
    encoded = _base().encoded

    def deflate(content: bytes) -> bytes:
        deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        return deflater.compress(content) + deflater.flush()

    def bomb() -> bytes:
        return struct.pack("<HH2sHL", 8, 1, b"OB", 0, 32 << 20) + bytes(32 << 20)

    forms: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
        ("good", deflate),
        ("odd end", lambda content: deflate(content) + bytes(1 + len(deflate(content)) % 2)),
        ("half", lambda content: deflate(content)[: len(deflate(content)) // 2]),
        ("flipped at 40", lambda content: deflate(content)[:40] + b"\x55" + deflate(content)[41:]),
        ("flipped at 300", lambda content: deflate(content)[:300] + b"\x55" + deflate(content)[301:]),
        ("not deflated", lambda content: content),
        ("with zlib's header", zlib.compress),
        ("a bomb behind", lambda content: deflate(content + bomb())),
        ("a bomb before", lambda content: deflate(bomb() + content)),
        ("empty", lambda _: b""),
        ("two bytes", lambda _: b"\x03\x00"),
    )
    for number, (name, form) in enumerate(forms):  # deflated text hides the placeholder of the study
        content = encoded.replace(_STUDY.encode(), _study(number).encode())
        yield name, form(content), DeflatedExplicitVRLittleEndian


def _pixel_data() -> Iterator[tuple[str, bytes, str]]:
    encoded, place = _base().encoded, _place("PixelData")
    native = (
        ("zero length", _with(PixelData=b"")),
        ("absent", _edited(lambda instance: instance.__delitem__("PixelData"))),
        ("one byte short", encoded[:-1]),
        ("a pixel short", _with(PixelData=bytes(30))),
        ("a pixel long", _with(PixelData=bytes(34))),
        ("of odd length", encoded[: place + 8] + struct.pack("<L", 31) + bytes(31)),
        ("of undefined length", encoded[: place + 8] + b"\xff\xff\xff\xff" + bytes(32)),
        ("twice", encoded + encoded[place:]),
        ("float", encoded[:place] + struct.pack("<HH2sHL", 0x7FE0, 8, b"OF", 0, 64) + bytes(64)),
        ("for 65535 rows", _with(Rows=65535, Columns=65535)),
        ("for no rows", _with(Rows=0)),
        ("of 13 bits", _with(BitsAllocated=13)),
        ("of 0 bits", _with(BitsAllocated=0, BitsStored=0)),
        ("of 64 bits", _with(BitsAllocated=64, BitsStored=64, HighBit=63)),
        ("of 3 samples", _with(SamplesPerPixel=3)),
        ("of no samples", _with(SamplesPerPixel=0)),
        ("in colour", _with(PhotometricInterpretation="PALETTE COLOR")),
        ("of unknown colour", _with(PhotometricInterpretation="RAINBOW")),
        ("of 99999999 frames", _with(NumberOfFrames="99999999")),
        ("of -1 frames", _with(NumberOfFrames="-1")),
        ("of x frames", _spliced("InstanceNumber", b"x")),
    )
    for name, data_set in native:
        yield name, data_set, ExplicitVRLittleEndian
    head = encoded[:place] + struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    item, end = struct.pack("<HHL", 0xFFFE, 0xE000, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    fragment = struct.pack("<HHL", 0xFFFE, 0xE000, 8) + b"\xff\x00\xff\x00garb"
    for name, tail in (
        ("no item", end), ("no fragment", item + end), ("garbage", item + fragment + end), ("no end", item + fragment),
        ("an item beyond", item + struct.pack("<HHL", 0xFFFE, 0xE000, 0x7FFFFFFF)), ("nothing", b""),
    ):  # fmt: skip
        yield f"encapsulated, {name}", head + tail, RLELossless


def _wrong_lengths() -> Iterator[tuple[str, bytes]]:
    encoded = _base().encoded
    for keyword in _EDITED:
        place = _place(keyword)
        if encoded[place + 4 : place + 6] in _LONG_VRS:
            lengths, form, place = (0, 1, 31, 33, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF), "<L", place + 8
        else:
            lengths, form, place = (0, 1, 3, 0x7FFF, 0xFFFE, 0xFFFF), "<H", place + 6
        for length in lengths:
            field = struct.pack(form, length)
            yield f"{keyword} {length:#x}", encoded[:place] + field + encoded[place + len(field) :]


def _nested() -> Iterator[tuple[str, bytes]]:
    encoded = _base().encoded
    item, item_end = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF), struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    places = (
        ("before", 0, (0x0008, 0x0006)),
        ("within", _place("PatientName"), (0x0008, 0x1140)),
        ("among", _place("Rows"), (0x0020, 0x9116)),
        ("behind", _place("PixelData"), (0x0040, 0x0275)),
    )
    for where, place, tag in places:
        begin = struct.pack("<HH2sHL", *tag, b"SQ", 0, 0xFFFFFFFF) + item
        for depth in (1, 30, 300, 3000, 20000):
            for is_closed in (True, False):
                nested = begin * depth + (item_end + end) * (depth if is_closed else 0)
                name = f"{depth} deep, {where}, {'closed' if is_closed else 'open'}"
                yield name, encoded[:place] + nested + encoded[place:]


def _wrong_values() -> Iterator[tuple[str, bytes]]:
    texts: dict[str, tuple[bytes, ...]] = {
        "PixelSpacing": (b"", b"0\\0", b"nan\\nan", b"-1\\1", b"1e400\\1", b"1", b"1\\1\\1", b"a\\b", b"1,5\\1,5"),
        "ImagePositionPatient": (
            b"", b"0\\0", b"nan\\0\\0", b"1e308\\1e308\\1e308", b"x\\y\\z", b"0\\0\\0\\0", b"inf\\0\\0",
        ),
        "ImageOrientationPatient": (
            b"", b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0", b"2\\0\\0\\0\\2\\0", b"1\\0\\0", b"nan\\0\\0\\0\\1\\0",
        ),
        "EchoTime": (b"", b"abc", b"-1", b"1e999", b"1\\2", b"nan"),
        "InstanceNumber": (b"", b"99999999999999999999", b"1.5", b"one", b"-1"),
        "StudyDate": (b"", b"20241332", b"yesterday", b"2024.01.01", b"\xff" * 8),
        "ImageType": (b"", b"\\", b"ORIGINAL", b"A" * 200, b"\\\\\\\\"),
        "SeriesDescription": (b"", b"\0\0", b"\\" * 40, b"T1" * 500, b"\xed\xa0\x80", b"\x1b" * 9, b"%s{}" * 9),
        "PatientName": (b"", b"=" * 9, b"^" * 200, b"\\" * 50, b"A=B=C=D=E"),
        "Modality": (b"", b"CT", b"mr", b"MR\\CT", b"\0\0"),
        "Rows": (b"", b"\0", b"\1\0\1\0", b"abc"),
    }  # fmt: skip
    for keyword, values in texts.items():
        for value in values:
            yield f"{keyword} {value[:20]!r}", _spliced(keyword, value)


def _other_encodings() -> Iterator[tuple[str, bytes, str]]:
    forms = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    for said in (*forms, "1.2.826.0.1.3680043.10.1462.1"):
        for written in forms[:3]:
            yield f"{written} as {said}", _edited(lambda _: None, written), said


def _flips() -> Iterator[tuple[str, bytes]]:
    generator = random.Random(20260101)
    for number in range(FLIPS):
        encoded = bytearray(_base().encoded)
        for _ in range(generator.choice((1, 1, 2, 4, 8, 32))):
            encoded[generator.randrange(len(encoded))] = generator.randrange(256)
        yield str(number), bytes(encoded)


KINDS: dict[str, Callable[[], Iterator[tuple[Any, ...]]]] = {
    "truncated": _truncated,
    "wrong VR": _wrong_vrs,
    "hostile UID": _hostile_uids,
    "character set": _character_sets,
    "deflated": _deflated,
    "pixel data": _pixel_data,
    "wrong length": _wrong_lengths,
    "nested": _nested,
    "wrong value": _wrong_values,
    "other encoding": _other_encodings,
    "flipped bytes": _flips,
}
