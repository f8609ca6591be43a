"""The spool: acknowledged instances survive, and no file is overwritten."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog
from instances import SERIES, STUDY, data_set_bytes, encode_instance, make_instance, sop_instance_uid

from node.errors import ConfigError, InstanceRefused
from node.scp.corrections import LOCK
from node.scp.incoming import length_of_head
from node.scp.spool import Spool, StoreOutcome
from node.scp.study_sizes import StudySizes

SOP = sop_instance_uid(1)
BAD_UIDS = [
    "",
    "../../etc/passwd",
    "1.2/../3",
    "/1.2",
    "1." * 32 + "1",
    "1.2.",
    "1",
    "1.2\n",
    "1.2\0",
    ".incoming",
]


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "var" / "spool")


def write_instance(spool, study, series, sop, content):
    """Write an instance (a whole DICOM file) in two fragments, and keep it."""
    head_bytes = length_of_head(content)
    incoming = spool.open_incoming(content[:head_bytes])
    try:
        for fragment in (content[head_bytes : head_bytes + 100], content[head_bytes + 100 :]):
            incoming.write(fragment)
        return spool.keep(study, series, sop, incoming)
    finally:
        incoming.discard()


def instance_files(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def with_other_meta(content):
    """The same data set with the file meta of another implementation."""
    data_set = make_instance()
    data_set.file_meta.ImplementationVersionName = "ANOTHER"
    other = encode_instance(data_set)
    assert other != content
    assert data_set_bytes(other) == data_set_bytes(content)
    return other


def test_instance_lies_under_its_study_and_series(spool):
    """An instance is stored byte for byte at study/series/sop.dcm, and no other file is left."""
    content = encode_instance(make_instance())
    assert write_instance(spool, STUDY, SERIES, SOP, content) is StoreOutcome.STORED
    assert instance_files(spool.folder) == [f"{STUDY}/{SERIES}/{SOP}.dcm"]
    assert (spool.folder / STUDY / SERIES / f"{SOP}.dcm").read_bytes() == content


def test_same_instance_is_kept_once(spool):
    """The same data set again is a duplicate, even when its file meta names another implementation."""
    content = encode_instance(make_instance())
    write_instance(spool, STUDY, SERIES, SOP, content)
    assert write_instance(spool, STUDY, SERIES, SOP, content) is StoreOutcome.DUPLICATE
    assert write_instance(spool, STUDY, SERIES, SOP, with_other_meta(content)) is StoreOutcome.DUPLICATE
    assert instance_files(spool.folder) == [f"{STUDY}/{SERIES}/{SOP}.dcm"]
    assert (spool.folder / STUDY / SERIES / f"{SOP}.dcm").read_bytes() == content


def test_other_bytes_are_kept_aside(spool):
    """Other bytes under a known UID are kept as a conflict, once each, logged, and never replace the first instance."""
    first, second, third = (encode_instance(make_instance(pixel=pixel)) for pixel in (1, 2, 3))
    write_instance(spool, STUDY, SERIES, SOP, first)
    with structlog.testing.capture_logs() as events:
        outcomes = [write_instance(spool, STUDY, SERIES, SOP, content) for content in (second, third, second)]
    assert outcomes == [StoreOutcome.CONFLICT] * 3
    digests = [hashlib.sha256(data_set_bytes(content)).hexdigest() for content in (second, third)]
    aside = [f".conflicts/{STUDY}/{SERIES}/{SOP}.{digest[:16]}.dcm" for digest in digests]
    assert instance_files(spool.folder) == sorted([*aside, f"{STUDY}/{SERIES}/{SOP}.dcm"])
    assert (spool.folder / STUDY / SERIES / f"{SOP}.dcm").read_bytes() == first
    assert [(spool.folder / name).read_bytes() for name in aside] == [second, third]
    assert [event["event"] for event in events] == ["instance_conflict"] * 3


@pytest.mark.parametrize("uid", BAD_UIDS)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_invalid_uid_never_becomes_a_path(spool, tmp_path, uid, position):
    """A UID that is invalid by PS3.5 is refused with its tag but not its value, and no file is created anywhere."""
    tags = ("(0020,000D)", "(0020,000E)", "(0008,0018)")
    uids = [STUDY, SERIES, SOP]
    uids[position] = uid
    with pytest.raises(InstanceRefused) as refusal:
        write_instance(spool, *uids, encode_instance(make_instance()))
    assert str(refusal.value).startswith(tags[position])
    assert "passwd" not in str(refusal.value)
    assert instance_files(tmp_path) == []


def test_folder_of_an_invalid_study_uid_is_refused(spool):
    """Asking for the folder of an invalid study UID is refused as well."""
    with pytest.raises(InstanceRefused, match="0020,000D"):
        spool.study_folder("../other")


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM", bytes(200)])
def test_content_without_file_meta_is_refused(spool, content):
    """Bytes without file meta are refused, and no file is left."""
    with pytest.raises(InstanceRefused, match="0002,0000"):
        write_instance(spool, STUDY, SERIES, SOP, content)
    assert instance_files(spool.folder) == []


def test_many_threads_with_the_same_instance(spool):
    """Of eight threads that write the same instance at once, one stores it and seven find a duplicate."""
    content = encode_instance(make_instance())
    barrier = threading.Barrier(8)

    def write(_number):
        barrier.wait()
        return write_instance(spool, STUDY, SERIES, SOP, content)

    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(pool.map(write, range(8)))
    assert outcomes == {StoreOutcome.STORED: 1, StoreOutcome.DUPLICATE: 7}
    assert instance_files(spool.folder) == [f"{STUDY}/{SERIES}/{SOP}.dcm"]


def test_many_threads_with_other_bytes(spool):
    """Of eight threads that write eight versions at once, one stores and seven are conflicts; none is lost."""
    versions = [encode_instance(make_instance(pixel=pixel)) for pixel in range(8)]
    barrier = threading.Barrier(8)

    def write(content):
        barrier.wait()
        return write_instance(spool, STUDY, SERIES, SOP, content)

    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(pool.map(write, versions))
    assert outcomes == {StoreOutcome.STORED: 1, StoreOutcome.CONFLICT: 7}
    assert {(spool.folder / name).read_bytes() for name in instance_files(spool.folder)} == set(versions)


def test_durable_in_the_right_order(spool, monkeypatch):
    """The file is synced before it is linked, and the folders that hold the link are synced before `keep` returns."""
    steps = []
    fsync, link = os.fsync, os.link

    def record_fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(
            "file" if path.parent == spool.folder / ".incoming" / "receiver" else os.path.relpath(path, spool.folder)
        )
        fsync(descriptor)

    spool.rehearse()  # its own folders are made before
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", lambda source, target: (steps.append("link"), link(source, target)))
    write_instance(spool, STUDY, SERIES, SOP, encode_instance(make_instance(1)))
    assert steps == ["file", STUDY, ".", "link", f"{STUDY}/{SERIES}"]
    steps.clear()
    write_instance(spool, STUDY, SERIES, sop_instance_uid(2), encode_instance(make_instance(2)))
    assert steps == ["file", "link", f"{STUDY}/{SERIES}"]


def test_disk_that_fails_leaves_nothing(spool, monkeypatch):
    """A disk error while writing is raised, and no part of the instance is left."""

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_instance(spool, STUDY, SERIES, SOP, encode_instance(make_instance()))
    assert instance_files(spool.folder) == []


def test_study_may_come_again_after_its_removal(spool):
    """A study whose folder was removed is received again."""
    content = encode_instance(make_instance())
    write_instance(spool, STUDY, SERIES, SOP, content)
    (spool.folder / STUDY / SERIES / f"{SOP}.dcm").unlink()
    (spool.folder / STUDY / SERIES).rmdir()
    (spool.folder / STUDY).rmdir()
    assert write_instance(spool, STUDY, SERIES, SOP, content) is StoreOutcome.STORED


def test_spool_lists_what_was_received(spool):
    """Studies and series are listed by their UIDs, without the spool's own folders."""
    for study, series in (("1.2.3", "1.2.3.1"), ("1.2.3", "1.2.3.2"), ("1.2.4", "1.2.4.1")):
        write_instance(spool, study, series, SOP, encode_instance(make_instance()))
    write_instance(spool, "1.2.3", "1.2.3.1", SOP, encode_instance(make_instance(pixel=1)))
    assert spool.studies() == ["1.2.3", "1.2.4"]
    assert [folder.name for folder in spool.series_folders("1.2.3")] == ["1.2.3.1", "1.2.3.2"]
    assert spool.series_folders("1.2.5") == []
    assert spool.study_folder("1.2.3") == spool.folder / "1.2.3"
    assert spool.free_bytes() > 0


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from node.scp.spool import Spool
spool = Spool(Path(sys.argv[1]))
content = Path(sys.argv[2]).read_bytes()
os.link = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
incoming = spool.open_incoming(content[:400])
incoming.write(content[400:])
spool.keep(sys.argv[3], sys.argv[4], sys.argv[5], incoming)
"""


def test_kill_between_write_and_naming_leaves_no_half_instance(spool, tmp_path):
    """After kill -9 before the link, the study has no file, and the next start deletes the temporary file."""
    content = encode_instance(make_instance())
    source = tmp_path / "source.dcm"
    source.write_bytes(content)
    arguments = [str(spool.folder), str(source), STUDY, SERIES, SOP]
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, *arguments], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert list((spool.folder / STUDY / SERIES).iterdir()) == []
    assert len(instance_files(spool.folder / ".incoming")) == 1
    assert spool.begin() == 1
    assert not [name for name in instance_files(spool.folder) if name not in (".incoming/receiver/lock", ".spool-id")]
    assert write_instance(spool, STUDY, SERIES, SOP, content) is StoreOutcome.STORED
    spool.end()


def make_old(path):
    """Set the time of ``path`` to two days ago."""
    before = time.time() - 2 * 86400
    os.utime(path, (before, before))


def test_leftovers_of_other_receivers(tmp_path):
    """At its start a receiver deletes its own temporary files, and old ones of receivers that do not run."""
    spools = {name: Spool(tmp_path / "spool", name) for name in ("mine", "running", "killed", "gone")}
    incoming = tmp_path / "spool" / ".incoming"
    for name, spool in spools.items():
        spool.begin()
        for number in range(2):
            (incoming / name / str(number)).touch()
        if name != "running":
            spool.end()
    make_old(incoming / "running" / "0")
    make_old(incoming / "killed" / "0")
    for path in (incoming / "gone").iterdir():
        make_old(path)
    with structlog.testing.capture_logs() as events:
        assert spools["mine"].begin() == 2 + 1 + 2
    left = [name.removeprefix(".incoming/") for name in instance_files(tmp_path / "spool") if name != ".spool-id"]
    assert left == ["killed/1", "killed/lock", "mine/lock", "running/0", "running/1", "running/lock"]
    assert not (incoming / "gone").exists()
    assert events == []
    for spool in spools.values():
        spool.end()


def test_one_receiver_at_a_time_in_one_place(spool):
    """A second receiver of the same name gets a ConfigError and deletes nothing, until the first has ended."""
    spool.begin()
    arriving = spool.open_incoming(b"head")
    second = Spool(spool.folder)
    with pytest.raises(ConfigError, match=r"node\.folder: the receiver receiver runs already"):
        second.begin()
    assert arriving.path.exists()
    spool.end()
    assert second.begin() == 1
    second.end()
    second.end()
    arriving.discard()


def test_file_system_without_locks_is_received_to(spool, monkeypatch):
    """If files cannot be locked, this is logged, and instances are received all the same."""

    def fail(*_arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with structlog.testing.capture_logs() as events:
        assert spool.begin() == 0
    assert [event["event"] for event in events] == ["spool_not_locked"]
    assert write_instance(spool, STUDY, SERIES, SOP, encode_instance(make_instance())) is StoreOutcome.STORED
    spool.end()


def test_receiver_that_was_tidied_away_goes_on(tmp_path):
    """A receiver whose folder another one deleted, because it saw no lock there, stores the next instance."""
    idle, busy = Spool(tmp_path / "spool", "idle"), Spool(tmp_path / "spool", "busy")
    idle.begin()
    idle.end()
    assert busy.begin() == 0
    busy.end()
    assert not (tmp_path / "spool" / ".incoming" / "idle").exists()
    assert write_instance(idle, STUDY, SERIES, SOP, encode_instance(make_instance())) is StoreOutcome.STORED


def test_who_only_looks_changes_nothing(tmp_path):
    """Reading an absent spool finds it empty and does not create it; free space is that of the disk it will be on."""
    spool = Spool(tmp_path / "var" / "spool")
    assert spool.studies() == []
    assert spool.study_bytes(STUDY) == 0
    assert spool.free_bytes() > 0
    assert list(tmp_path.iterdir()) == []


def test_rehearsal_leaves_no_file(spool, monkeypatch):
    """Trying the operations that receiving needs leaves no file, on a disk with hard links and on one without."""
    spool.rehearse()

    def fail(*_arguments):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", fail)
    with pytest.raises(OSError, match="not permitted"):
        spool.rehearse()
    assert instance_files(spool.folder) == []


@pytest.mark.parametrize("content", [b"", b"no DICOM", encode_instance(make_instance())[:300]])
def test_broken_file_under_the_name_of_an_instance(spool, content):
    """A file under an instance's name that is no such instance stays, and the instance is a conflict, kept once."""
    path = spool.folder / STUDY / SERIES / f"{SOP}.dcm"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    good = encode_instance(make_instance())
    with structlog.testing.capture_logs() as events:
        outcomes = [write_instance(spool, STUDY, SERIES, SOP, good) for _ in range(2)]
    assert outcomes == [StoreOutcome.CONFLICT] * 2
    assert [event["event"] for event in events] == ["instance_conflict"] * 2
    assert path.read_bytes() == content
    (aside,) = (spool.folder / ".conflicts").rglob("*.dcm")
    assert aside.read_bytes() == good


def test_what_cannot_be_deleted_is_said_once(spool, monkeypatch):
    """A temporary file that cannot be deleted is logged once, and raises no error."""
    incoming = spool.open_incoming(b"head")

    def fail(*_arguments, **_keywords):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as broken, structlog.testing.capture_logs() as events:
        broken.setattr(Path, "unlink", fail)
        incoming.discard()
        incoming.discard()
    assert [(event["event"], event["reason"]) for event in events] == [
        ("incoming_not_deleted", "Read-only file system")
    ]


def test_same_data_set_is_known_to_be_held(spool):
    """The spool holds an instance if it has the same data set under its UIDs, whatever its file meta."""
    content = encode_instance(make_instance())
    other = encode_instance(make_instance(pixel=9))
    write_instance(spool, STUDY, SERIES, SOP, content)
    for candidate, is_held in ((with_other_meta(content), True), (other, False)):
        head_bytes = length_of_head(candidate)
        incoming = spool.open_incoming(candidate[:head_bytes])
        incoming.write(candidate[head_bytes:])
        incoming.sync()
        assert spool.holds(STUDY, SERIES, SOP, incoming) is is_held
        assert not spool.holds(STUDY, SERIES, sop_instance_uid(2), incoming)
        incoming.discard()


def test_changes_of_any_receiver_are_seen(spool):
    """An instance stored by another receiver changes its series and no other; a duplicate changes no series."""
    assert spool.changes(STUDY) == {}
    for number, series in ((1, SERIES), (2, f"{SERIES}.2")):
        write_instance(spool, STUDY, series, sop_instance_uid(number), encode_instance(make_instance(number)))
    for folder in spool.series_folders(STUDY):
        os.utime(folder, (1e9, 1e9))  # clocks tick coarsely: so that a change shows
    before = spool.changes(STUDY)
    assert set(before) == {SERIES, f"{SERIES}.2"}
    assert spool.changes(STUDY) == before
    other = Spool(spool.folder, "another")
    write_instance(other, STUDY, SERIES, sop_instance_uid(2), encode_instance(make_instance(2)))
    after = spool.changes(STUDY)
    assert after[SERIES] != before[SERIES]
    assert after[f"{SERIES}.2"] == before[f"{SERIES}.2"]
    write_instance(other, STUDY, SERIES, sop_instance_uid(2), encode_instance(make_instance(2)))
    assert spool.changes(STUDY) == after


def test_size_of_a_study_counts_what_is_kept_aside(spool):
    """The size of a study is that of all its files, conflicts included; an unknown study has size 0."""
    first, second = encode_instance(make_instance()), encode_instance(make_instance(pixel=1))
    for series, content in ((SERIES, first), ("1.2.3", first), (SERIES, second)):
        write_instance(spool, STUDY, series, SOP, content)
    write_instance(spool, "1.2.4", SERIES, SOP, first)
    assert spool.study_bytes(STUDY) == 2 * len(first) + len(second)
    assert spool.study_bytes("1.2.5") == 0


def test_study_sizes_are_measured_once_and_again_before_a_refusal(spool, monkeypatch):
    """Added bytes are counted without reading the disk; before an instance is refused, the study is measured."""
    content = encode_instance(make_instance())
    sizes = StudySizes(spool, 3 * len(content))
    looks = []
    study_bytes = spool.study_bytes
    monkeypatch.setattr(spool, "study_bytes", lambda study: (looks.append(study), study_bytes(study))[1])
    for number in (1, 2, 3):
        assert sizes.fits(STUDY, len(content))
        write_instance(spool, STUDY, SERIES, sop_instance_uid(number), content)
        sizes.add(STUDY, len(content))
    assert looks == [STUDY]
    assert not sizes.fits(STUDY, 1)
    (spool.folder / STUDY / SERIES / f"{SOP}.dcm").unlink()
    assert sizes.fits(STUDY, len(content))
    assert looks == [STUDY] * 3
