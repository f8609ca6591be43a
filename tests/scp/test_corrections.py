"""Other bytes under a known SOP Instance UID: a correction takes their place, a conflict waits; no byte is lost."""

from __future__ import annotations

import os
import signal
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog
from instances import (
    SERIES,
    STUDY,
    data_set_bytes,
    encode_instance,
    make_instance,
    sop_instance_uid,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)
from spool_arrival import arrive

from node.dicom.same_image import Comparison, Likeness, compare
from node.scp.spool import Spool, StoreOutcome

SOP = sop_instance_uid(1)
FOLDERS = (".conflicts", ".superseded", ".dismissed")


def version(pixel: int = 0, syntax: str = ExplicitVRLittleEndian, **attributes: object) -> bytes:
    """The instance as a file, with other values."""
    instance = make_instance(pixel=pixel, transfer_syntax=syntax)
    for keyword, value in attributes.items():
        setattr(instance, keyword, value)
    return encode_instance(instance)


OLD, NEW = version(), version(PatientName="Right^Name", PatientID="RIGHT-1", AccessionNumber="A-1")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def keep(spool: Spool, content: bytes) -> StoreOutcome:
    """What the spool makes of the instance."""
    return arrive(spool, STUDY, content)


def in_use(spool: Spool) -> bytes:
    """The version that is input."""
    return (spool.folder / STUDY / SERIES / f"{SOP}.dcm").read_bytes()


def aside(spool: Spool, name: str) -> list[bytes]:
    """The versions kept in one of the folders."""
    return [path.read_bytes() for path in sorted((spool.folder / name).rglob("*.dcm"))]


def test_correction_takes_the_place_of_the_instance_in_use(spool: Spool) -> None:
    """The same image with another identity is used from now on; the old bytes are kept."""
    keep(spool, OLD)
    with structlog.testing.capture_logs() as events:
        assert keep(spool, NEW) is StoreOutcome.CORRECTION
    assert in_use(spool) == NEW
    assert [aside(spool, name) for name in FOLDERS] == [[], [OLD], []]
    assert [event["event"] for event in events] == ["instance_correction"]
    assert events[0]["differs"] == ["AccessionNumber", "PatientID", "PatientName"]
    assert "Right" not in str(events)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pixel": 1},
        {"PatientID": "RIGHT-1", "pixel": 1},
        {"PatientID": "RIGHT-1", "ImagePositionPatient": [0, 0, 9]},
        {"PatientID": "RIGHT-1", "EchoTime": 99},
        {"PatientID": "RIGHT-1", "PixelSpacing": [2, 2]},
        {"PatientID": "RIGHT-1", "FrameOfReferenceUID": "1.2.3"},
        {"PatientID": "RIGHT-1", "syntax": JPEGLosslessSV1},
    ],
    ids=lambda attributes: "-".join(attributes),
)
def test_other_image_under_the_uid_is_a_conflict(spool: Spool, attributes: dict) -> None:
    """Other pixels, geometry or acquisition wait for the administrator, whatever the identity says."""
    other = version(**attributes)
    keep(spool, OLD)
    assert keep(spool, other) is StoreOutcome.CONFLICT
    assert in_use(spool) == OLD
    assert [aside(spool, name) for name in FOLDERS] == [[other], [], []]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_same_image_and_identity_encoded_otherwise_changes_nothing(spool: Spool, syntax: str) -> None:
    """An archive that sends the instance in another transfer syntax neither corrects it nor makes a conflict."""
    other = version(syntax=syntax)
    keep(spool, OLD)
    assert keep(spool, other) is StoreOutcome.DISMISSED
    assert in_use(spool) == OLD
    assert [aside(spool, name) for name in FOLDERS] == [[], [], [other]]


def test_names_are_compared_decoded(spool: Spool) -> None:
    """The same name in another character set is no correction; another name in the same bytes is one."""
    latin = version(SpecificCharacterSet="ISO_IR 100", PatientName="M\u00fcller^Eva")
    keep(spool, latin)
    assert keep(spool, version(SpecificCharacterSet="ISO_IR 192", PatientName="M\u00fcller^Eva")) == "dismissed"
    greek = version(SpecificCharacterSet="ISO_IR 126", PatientName="M\u03cbller^Eva")
    assert greek.count(b"M\xfbller") == 1
    assert keep(spool, greek) is StoreOutcome.CORRECTION


def test_comparison_holds_little_in_memory(spool: Spool) -> None:
    """Neither a deflated image that inflates a thousandfold nor a huge value in a header is held as a whole."""
    deflated = {"syntax": DeflatedExplicitVRLittleEndian, "PixelData": bytes(64 << 20)}
    first, corrected = version(**deflated), version(PatientID="RIGHT-1", **deflated)
    other = version(**(deflated | {"PixelData": bytes((64 << 20) - 1) + b"1"}))
    begin = OLD.index(b"\x10\x00\x10\x00PN")
    private = b"\x09\x00\x10\x10OB\0\0" + (48 << 20).to_bytes(4, "little") + bytes(48 << 20)
    huge = OLD[:begin] + private + OLD[begin:]
    tracemalloc.start()
    try:
        assert compare_bytes(spool, first, corrected).likeness is Likeness.CORRECTED
        assert compare_bytes(spool, first, other).differs == ("pixel data",)
        assert compare_bytes(spool, first, first[:-8]).likeness is Likeness.OTHER
        assert compare_bytes(spool, OLD, huge).differs == ("cannot be compared (ValueError)",)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 60 << 20


def compare_bytes(spool: Spool, *contents: bytes) -> Comparison:
    """Compare the contents of two files."""
    files = [spool.folder.parent / name for name in ("one", "other")]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return compare(*files)


def test_compressed_image_is_corrected_in_its_own_transfer_syntax(spool: Spool) -> None:
    """Encapsulated pixel data are compared as they are."""
    keep(spool, version(syntax=JPEGLosslessSV1))
    assert keep(spool, version(syntax=JPEGLosslessSV1, PatientID="RIGHT-1")) is StoreOutcome.CORRECTION
    assert keep(spool, version(syntax=JPEGLosslessSV1, PatientID="RIGHT-1", pixel=3)) is StoreOutcome.CONFLICT


def test_superseded_bytes_never_come_back_by_themselves(spool: Spool) -> None:
    """What a correction superseded becomes a conflict once; after the administrator kept it out it is only kept."""
    for content in (OLD, NEW):
        keep(spool, content)
    assert [keep(spool, OLD) for _ in range(2)] == [StoreOutcome.CONFLICT] * 2
    (conflict,) = spool.corrections.open_conflicts(STUDY)
    assert conflict.is_returned
    assert conflict.differs == ("AccessionNumber", "PatientID", "PatientName")
    spool.corrections.keep(conflict.version)
    assert keep(spool, OLD) is StoreOutcome.DISMISSED
    assert in_use(spool) == NEW
    assert spool.corrections.open_conflicts() == []


@pytest.mark.parametrize("is_known", [True, False])
def test_superseded_identity_in_other_bytes_is_told_once(spool: Spool, is_known: bool) -> None:
    """A second archive encodes the superseded instance otherwise: whether it sent that before or not, it is no news."""
    other = version(syntax=ImplicitVRLittleEndian)
    outcomes = [keep(spool, each) for each in (OLD, *[other] * is_known, NEW)]
    assert outcomes == ["stored", *["dismissed"] * is_known, "correction"]
    assert [keep(spool, other) for _ in range(2)] == [StoreOutcome.CONFLICT] * 2
    (conflict,) = spool.corrections.open_conflicts(STUDY)
    assert conflict.differs == ("AccessionNumber", "PatientID", "PatientName")
    spool.corrections.keep(conflict.version)
    assert keep(spool, other) is StoreOutcome.DISMISSED
    assert in_use(spool) == NEW
    assert spool.corrections.open_conflicts() == []


def test_administrator_takes_superseded_bytes_back(spool: Spool) -> None:
    """The correction itself may have been the error; it can be undone, and made again."""
    for content in (OLD, NEW, OLD):
        keep(spool, content)
    (conflict,) = spool.corrections.open_conflicts()
    spool.corrections.take(conflict.version)
    spool.corrections.take(conflict.version)
    assert in_use(spool) == OLD
    assert [aside(spool, name) for name in FOLDERS] == [[], [NEW], []]
    assert keep(spool, version(PatientID="RIGHT-2")) is StoreOutcome.CORRECTION
    assert sorted(aside(spool, ".superseded")) == sorted([NEW, OLD])


def test_taken_image_is_told_from_a_correction(spool: Spool) -> None:
    """Where the administrator took other pixels, the name of the file aside says so."""
    other = version(pixel=5)
    for content in (OLD, other):
        keep(spool, content)
    (conflict,) = spool.corrections.open_conflicts()
    assert conflict.differs == ("pixel data",)
    spool.corrections.take(conflict.version)
    assert in_use(spool) == other
    (superseded,) = spool.corrections.corrections()
    assert superseded.version.is_other_image
    assert superseded.version.sop_instance_uid == SOP


def test_corrections_of_many_threads_lose_no_version(spool: Spool) -> None:
    """Eight corrections at once, from two objects as of two receivers: one is in use, all others are kept aside."""
    keep(spool, OLD)
    contents = [version(PatientID=f"RIGHT-{number}") for number in range(8)]
    others = [spool, Spool(spool.folder, "another")]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda each: keep(others[each[0] % 2], each[1]), enumerate(contents)))
    assert outcomes == [StoreOutcome.CORRECTION] * 8
    assert sorted([in_use(spool), *aside(spool, ".superseded")]) == sorted([OLD, *contents])


def killed_at(spool: Spool, number: int) -> bool:
    """Whether a process that keeps `NEW` is killed before its flush, link, rename or deletion of this number."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    left = number

    def mortal(call: Callable[..., object]) -> Callable[..., object]:
        def die(*arguments: object, **keywords: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        return die

    for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink")):
        setattr(owner, name, mortal(getattr(owner, name)))
    keep(spool, NEW)
    os._exit(0)


def test_kill_between_any_two_steps_leaves_old_or_new(spool: Spool) -> None:
    """SIGKILL before each flush, link, rename and deletion: old or new is in use, and the next try ends well."""
    seen, number = set(), 1
    while True:
        fresh = Spool(spool.folder.with_name(f"spool{number}"))
        keep(fresh, OLD)
        is_killed = killed_at(fresh, number)
        assert in_use(fresh) in (OLD, NEW)
        assert OLD in [in_use(fresh), *aside(fresh, ".superseded")]
        seen.add(in_use(fresh))
        if not is_killed:
            break
        assert keep(fresh, NEW) in (StoreOutcome.CORRECTION, StoreOutcome.DUPLICATE)
        assert in_use(fresh) == NEW
        assert aside(fresh, ".superseded") == [OLD]
        number += 1
    assert number > 6
    assert seen == {OLD, NEW}


def test_file_that_retention_moved_away_is_not_corrected_in_its_place(spool: Spool) -> None:
    """If the study is moved away between comparison and rename, the correction fails and is sent again."""
    keep(spool, OLD)
    replace = Path.replace

    def moved_first(path: Path, target: Path) -> Path:
        (spool.folder / STUDY).rename(spool.folder / "away")
        return replace(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", moved_first)
        with pytest.raises(FileNotFoundError):
            keep(spool, NEW)
    (kept,) = (spool.folder / "away").rglob("*.dcm")
    assert data_set_bytes(kept.read_bytes()) == data_set_bytes(OLD)


def changed(before: dict[str, object], at: str = "20240102030405", system: str = "PACS") -> Dataset:
    """An item of Original Attributes Sequence: what a system changed, with the values before."""
    change, earlier = Dataset(), Dataset()
    for keyword, value in before.items():
        setattr(earlier, keyword, value)
    change.ModifiedAttributesSequence = [earlier]
    change.AttributeModificationDateTime, change.ModifyingSystem = at, system
    return change


WRONG = {"PatientName": "Wrong^Name", "PatientID": "WRONG-1"}
RIGHT = {"PatientName": "Right^Name", "PatientID": "RIGHT-1"}
THIRD = {"PatientName": "Third^Name", "PatientID": "THIRD-1"}
AT_NOON = changed({"PatientID": "ELSE"}, "20240102120000")
AT_ONE = changed({"PatientID": "ELSE"}, "20240102130000")
AT_ONE_ELSEWHERE = changed({"PatientID": "ELSE"}, "20240102130000", "ARCHIVE")


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (RIGHT | {"OriginalAttributesSequence": [changed(WRONG)]}, WRONG),
        (RIGHT | {"AccessionNumber": "A-1", "OriginalAttributesSequence": [changed(WRONG)]}, WRONG),
        (RIGHT | {"OriginalAttributesSequence": [changed(WRONG, "1999"), changed(THIRD, "2001")]}, WRONG),
        (RIGHT | {"OriginalAttributesSequence": [changed(THIRD, "2001"), changed(WRONG, "1999")]}, THIRD),
        (RIGHT | {"OriginalAttributesSequence": [AT_ONE]}, WRONG | {"OriginalAttributesSequence": [AT_NOON]}),
    ],
    ids=["the values before", "an added attribute", "two changes", "the last of two changes", "changed last"],
)
def test_older_version_that_arrives_after_its_correction_waits_for_a_decision(
    spool: Spool, newer: dict, older: dict
) -> None:
    """The header of the correction tells what it corrected: it stays in use, and the older bytes are kept and told."""
    late = version(**older)
    keep(spool, version(**newer))
    assert [keep(spool, late) for _ in range(2)] == [StoreOutcome.CONFLICT] * 2
    assert in_use(spool) == version(**newer)
    assert [aside(spool, name) for name in FOLDERS] == [[late], [], []]
    (conflict,) = spool.corrections.open_conflicts(STUDY)
    assert (conflict.is_older, conflict.is_returned) == (True, False)
    spool.corrections.keep(conflict.version)
    assert keep(spool, late) is StoreOutcome.DISMISSED


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (WRONG, RIGHT | {"OriginalAttributesSequence": [changed(WRONG)]}),
        (RIGHT | {"OriginalAttributesSequence": [changed(THIRD)]}, WRONG),
        (RIGHT | {"OriginalAttributesSequence": [changed({"PatientName": "Wrong^Name"})]}, WRONG),
        (RIGHT | {"OriginalAttributesSequence": [AT_ONE_ELSEWHERE]}, WRONG | {"OriginalAttributesSequence": [AT_NOON]}),
        (RIGHT | {"OriginalAttributesSequence": [AT_ONE]}, WRONG | {"OriginalAttributesSequence": [AT_ONE]}),
        (RIGHT | {"InstanceCreationDate": "20240103"}, WRONG | {"InstanceCreationDate": "20240101"}),
    ],
    ids=["the correction", "other values before", "one value of two", "two systems", "one moment", "creation"],
)
def test_version_that_arrives_last_is_in_use_unless_a_header_tells_that_it_is_older(
    spool: Spool, first: dict, last: dict
) -> None:
    """What is no proof changes nothing: clocks of two systems, part of the values, or when the image was made."""
    keep(spool, version(**first))
    assert keep(spool, version(**last)) is StoreOutcome.CORRECTION
    assert in_use(spool) == version(**last)
    assert aside(spool, ".superseded") == [version(**first)]


def test_original_attributes_that_cannot_be_read_tell_nothing(spool: Spool) -> None:
    """A damaged moment or value is no reason to refuse a correction, nor to believe one."""
    damaged = version(**RIGHT, OriginalAttributesSequence=[changed(WRONG, "20240102030405")])
    damaged = damaged.replace(b"20240102030405", b"not a moment!!").replace(b"Wrong^Name", b"Other^Name")
    keep(spool, damaged)
    assert keep(spool, version(**WRONG, OriginalAttributesSequence=[AT_NOON])) is StoreOutcome.CORRECTION
