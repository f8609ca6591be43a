"""UIDs with leading zeros, of old archives: refused, or kept as they are, by ``scp.uid_repair``."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from instances import data_set_bytes, encode_instance, make_instance, write_instance_file
from pydicom import Dataset
from receiver_node import ReceiverNode

from node.dicom.uids import is_usable_uid, is_valid_uid
from node.scp.removal import contents, remove_study, studies_held, take_up_leftovers
from node.scp.spool import Spool
from node.scu.store import send_instances
from node.series.headers import read_study

pytestmark = pytest.mark.filterwarnings("ignore:.*nvalid value for VR UI:UserWarning")  # the node's log drops them, too

STUDY, SERIES, SOP = "1.2.840.01.5", "1.2.840.01.6", "1.2.840.01.007"
KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
SECONDS = 20.0


def instance_with(*uids: str, pixel: int = 0) -> Dataset:
    """An instance under these Study, Series and SOP Instance UIDs."""
    instance = make_instance(pixel=pixel)
    for keyword, uid in zip(KEYWORDS, uids, strict=True):
        setattr(instance, keyword, uid)
    instance.FrameOfReferenceUID = "1.2.840.01.08"
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    return instance


def store(node: ReceiverNode, folder: Path, instance: Dataset) -> tuple[int | None, Path]:
    """The status of the response to a real C-STORE request, and the file that was sent."""
    folder.mkdir(exist_ok=True)
    file = folder / "instance.dcm"
    file.write_bytes(encode_instance(instance))
    (delivery,) = send_instances(node.destination, "ARCHIVE", [file], SECONDS)
    return delivery.status, file


@pytest.mark.parametrize("position", [0, 1, 2])
def test_leading_zeros_are_refused_unless_they_are_to_be_mapped(tmp_path, position):
    """By default, such a UID is refused with 0xC011; the log says because of what, and which setting takes it."""
    uids = ["1.2.840.1.5", "1.2.840.1.6", "1.2.840.1.7"]
    uids[position] = (STUDY, SERIES, SOP)[position]
    node = ReceiverNode(tmp_path / "spool")
    with node.receiver, structlog.testing.capture_logs() as events:
        status, _ = store(node, tmp_path / "sent", instance_with(*uids))
    assert status == 0xC011
    assert node.files() == [".spool-id"] or not any(name.endswith(".dcm") for name in node.files())
    (event,) = [event for event in events if event["event"] == "instance_refused"]
    assert event["reason"].endswith("is not a valid UID because of leading zeros (scp.uid_repair)")


@pytest.mark.parametrize("position", [0, 1, 2])
def test_mapped_instance_is_stored_unchanged_under_its_own_uids(tmp_path, position):
    """With "map" it is answered with Success, and lies byte for byte under the UIDs that the archive gave it."""
    uids = ["1.2.840.1.5", "1.2.840.1.6", "1.2.840.1.7"]
    uids[position] = (STUDY, SERIES, SOP)[position]
    node = ReceiverNode(tmp_path / "spool", uid_repair="map")
    with node.receiver:
        status, file = store(node, tmp_path / "sent", instance_with(*uids))
    assert status == 0x0000
    stored = node.spool.folder / uids[0] / uids[1] / f"{uids[2]}.dcm"
    assert data_set_bytes(stored.read_bytes()) == data_set_bytes(file.read_bytes())
    assert node.stored == [(uids[0], uids[1])]
    assert node.spool.studies() == [uids[0]]


def test_uids_that_differ_by_zeros_are_different(tmp_path):
    """1.02.3 and 1.2.3 are two studies, two series and two instances; none is taken for a duplicate of the other."""
    node = ReceiverNode(tmp_path / "spool", uid_repair="map")
    uids = [("1.02.3", "1.02.4", "1.02.5"), ("1.2.3", "1.2.4", "1.2.5"), ("1.02.3", "1.2.4", "1.2.5"),
            ("1.02.3", "1.2.4", "1.2.05"), ("1.2.3", "1.2.4", "1.2.0005")]  # fmt: skip
    with node.receiver:
        for number, each in enumerate(uids):
            assert store(node, tmp_path / str(number), instance_with(*each, pixel=number))[0] == 0x0000
    assert node.spool.studies() == ["1.02.3", "1.2.3"]
    instances = sorted(tuple(Path(name).with_suffix("").parts) for name in node.files() if name.endswith(".dcm"))
    assert instances == sorted(uids)


def test_duplicates_and_conflicts_are_found_also_after_a_restart(tmp_path):
    """The same instance again is kept once, other bytes under its UID are kept aside, by a receiver started anew."""
    for pixel, expected in ((0, 1), (0, 1), (1, 2), (1, 2)):
        node = ReceiverNode(tmp_path / "spool", uid_repair="map")
        with node.receiver:
            assert store(node, tmp_path / "sent", instance_with(STUDY, SERIES, SOP, pixel=pixel))[0] == 0x0000
        files = [name for name in node.files() if name.endswith(".dcm")]
        assert len(files) == expected
        assert f"{STUDY}/{SERIES}/{SOP}.dcm" in files
        assert all(name.startswith((f"{STUDY}/{SERIES}/", f".conflicts/{STUDY}/{SERIES}/{SOP}.")) for name in files)
    assert [folder.name for folder in node.spool.series_folders(STUDY)] == [SERIES]
    assert list(node.spool.changes(STUDY)) == [SERIES]


HOSTILE = [
    "1.2/../3",
    "../1.2",
    "1..2",
    ".1.2",
    "1.2.",
    "1.2.0x3",
    "007",
    "1." + "0" * 63,
    "1.²",
    "1.٠2",
    "1.2\n",
    "",
    "..",
    "1.-2",
]


@pytest.mark.parametrize("uid", HOSTILE)
def test_only_digits_and_dots_are_ever_mapped(uid, tmp_path):
    """Anything else that is no UID stays refused, and is no name of a study."""
    assert not is_usable_uid(uid)
    if uid and uid.isascii() and "\n" not in uid:
        node = ReceiverNode(tmp_path / "spool", uid_repair="map")
        with node.receiver:
            status, _ = store(node, tmp_path / "sent", instance_with(uid, SERIES, SOP))
        assert status == 0xC011
        assert not any(name.endswith(".dcm") for name in node.files())


@pytest.mark.parametrize("uid", ["1.02.3", "01.2", "1.00", "2.25.0001", "1.2.3", "0.0"])
def test_leading_zeros_are_all_that_may_be_wrong(uid):
    """A text is usable if it is a UID without its leading zeros."""
    without = ".".join(str(int(part)) for part in uid.split("."))
    assert is_usable_uid(uid)
    assert is_valid_uid(without)


def test_headers_keep_the_uids_of_the_archive(tmp_path):
    """What selection reads from the spool are the original UIDs; a SOP class with leading zeros is still refused."""
    instance = instance_with(STUDY, SERIES, SOP)
    write_instance_file(tmp_path, instance)
    instance = instance_with(STUDY, SERIES, "1.2.3")
    instance.SOPClassUID = "1.2.840.10008.5.1.4.1.1.04"
    write_instance_file(tmp_path, instance)
    study = read_study(tmp_path)
    (series,) = study.series
    assert (study.study_instance_uid, series.series_instance_uid) == (STUDY, SERIES)
    assert [each.sop_instance_uid for each in series.instances] == [SOP]
    assert [reason for _, reason in study.unreadable] == ["SOPClassUID is no valid UID"]


def test_study_is_removed_whatever_the_setting_is_then(tmp_path):
    """Retention lists and deletes such a study, and ends a deletion that a crash interrupted."""
    node = ReceiverNode(tmp_path / "spool", uid_repair="map")
    with node.receiver:
        for number in (1, 2):
            store(node, tmp_path / "sent", instance_with(f"{STUDY}.{number}", SERIES, SOP))
    folder = node.spool.folder
    assert studies_held(folder) == [f"{STUDY}.1", f"{STUDY}.2"]
    assert remove_study(folder, f"{STUDY}.1", contents(folder, f"{STUDY}.1"), lambda _: False)
    (folder / ".deleting").mkdir(exist_ok=True)
    (folder / f"{STUDY}.2").rename(folder / ".deleting" / f"{STUDY}.2")
    assert take_up_leftovers(folder) == 1
    assert Spool(folder).studies() == [f"{STUDY}.2"]
