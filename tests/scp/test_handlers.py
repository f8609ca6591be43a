"""The status of the response to each C-STORE request, and the files in the spool afterwards."""

from __future__ import annotations

import errno
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instances import (
    PATIENT_ID,
    PATIENT_NAME,
    PRIVATE_TRANSFER_SYNTAX,
    SERIES,
    STUDY,
    data_set_bytes,
    encode_instance,
    make_instance,
    sop_instance_uid,
)
from prometheus_client import generate_latest
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
)
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.sop_class import Verification
from rejection_notes import key_object_selection

from node.config_sections import ScpSection
from node.metrics import Metrics
from node.scp import handlers
from node.scp.arrival import ArrivingDataSet, StoreRequest
from node.scp.corrections import LOCK
from node.scp.handlers import StorageHandlers
from node.scp.instance_identity import read_identity
from node.scp.limits import MemoryBudget
from node.scp.spool import Spool

SOP = sop_instance_uid(1)
PLAIN = ExplicitVRLittleEndian
GOOD = encode_instance(make_instance())
HEAD_BYTES = len(GOOD) - len(data_set_bytes(GOOD))  # preamble and file meta


class Harness:
    """Handlers on a spool of their own, and the instances that they reported."""

    def __init__(self, folder, **settings):
        self.metrics = Metrics()
        self.spool = Spool(folder)
        self.stored = []
        self.section = ScpSection(**({"watermark_mebibytes": 1} | settings))
        self.handlers = StorageHandlers(
            self.spool, self.metrics, self.section, lambda study, series: self.stored.append((study, series))
        )

    def store(
        self,
        content,
        *,
        sop_instance_uid=SOP,
        sop_class=MRImageStorage,
        abstract_syntax=MRImageStorage,
        transfer_syntax=ExplicitVRLittleEndian,
    ):
        """The status of the response to a C-STORE of the data set in ``content``, which comes in two fragments."""
        request = StoreRequest(sop_class, sop_instance_uid, abstract_syntax, transfer_syntax)
        data_set = ArrivingDataSet(lambda: self.handlers.begin(request), MemoryBudget())
        encoded = data_set_bytes(content)
        for fragment in (encoded[:100], encoded[100:]):
            data_set.write(fragment)
        return self.handlers.handle_store(SimpleNamespace(request=SimpleNamespace(DataSet=data_set), assoc=None))

    def count(self, outcome):
        """The number of C-STORE requests with this outcome."""
        return self.metrics.registry.get_sample_value("glionode_instances_received_total", {"outcome": outcome})

    def files(self):
        """Every file below the spool."""
        return sorted(path.name for path in self.spool.folder.rglob("*") if path.is_file() and path.name != LOCK)


@pytest.fixture
def harness(tmp_path):
    return Harness(tmp_path / "spool")


def without(keyword):
    data_set = make_instance()
    delattr(data_set, keyword)
    return encode_instance(data_set)


def with_value(keyword, value):
    data_set = make_instance()
    with warnings.catch_warnings(action="ignore"):
        setattr(data_set, keyword, value)
        return encode_instance(data_set)


def test_instance_is_answered_with_success_and_reported(harness):
    """A valid instance is in the spool, reported with its study and series, counted, and gets Success."""
    content = encode_instance(make_instance())
    assert harness.store(content) == 0x0000
    stored = (harness.spool.folder / STUDY / SERIES / f"{SOP}.dcm").read_bytes()
    assert data_set_bytes(stored) == data_set_bytes(content)
    assert harness.stored == [(STUDY, SERIES)]
    assert harness.count("stored") == 1
    assert harness.metrics.registry.get_sample_value("glionode_received_bytes_total") == len(stored)
    assert harness.metrics.registry.get_sample_value("glionode_store_seconds_count") == 1
    assert harness.metrics.registry.get_sample_value("glionode_spool_free_bytes") > 0


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEGLosslessSV1,
        PRIVATE_TRANSFER_SYNTAX,
    ],
)
def test_identity_is_read_in_every_transfer_syntax(transfer_syntax):
    """The four UIDs are read in every transfer syntax, without decoding pixel data."""
    content = encode_instance(make_instance(transfer_syntax=transfer_syntax))
    identity = read_identity(BytesIO(data_set_bytes(content)), transfer_syntax)
    assert identity.sop_class_uid == MRImageStorage
    assert identity.sop_instance_uid == SOP
    assert (identity.study_instance_uid, identity.series_instance_uid) == (STUDY, SERIES)


def test_duplicate_is_success_and_kept_once(harness):
    """The same instance again gets Success, is kept once, and is reported: its sender is still sending."""
    content = encode_instance(make_instance())
    assert [harness.store(content), harness.store(content)] == [0x0000, 0x0000]
    assert harness.files() == [f"{SOP}.dcm"]
    assert harness.stored == [(STUDY, SERIES)] * 2
    assert harness.count("duplicate") == 1


def test_conflict_is_success_and_reported(harness):
    """Other pixels under the same UID are kept as a conflict, get Success, and are reported, so that they are told."""
    harness.store(encode_instance(make_instance()))
    assert harness.store(encode_instance(make_instance(pixel=7))) == 0x0000
    assert len(harness.files()) == 2
    assert harness.stored == [(STUDY, SERIES)] * 2
    assert harness.count("conflict") == 1


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (without("StudyInstanceUID"), 0xC010),
        (without("SeriesInstanceUID"), 0xC010),
        (without("SOPInstanceUID"), 0xC010),
        (without("SOPClassUID"), 0xC010),
        (with_value("StudyInstanceUID", ""), 0xC010),
        (with_value("StudyInstanceUID", "../../../tmp/x"), 0xC011),
        (with_value("SeriesInstanceUID", "1." * 32 + "1"), 0xC011),
        (with_value("SeriesInstanceUID", ["1.2.3", "1.2.4"]), 0xC011),
        (with_value("SOPInstanceUID", "1.2.3"), 0xA900),
        (with_value("SOPClassUID", CTImageStorage), 0xA900),
        (GOOD[:HEAD_BYTES], 0xC010),
        (GOOD.replace(STUDY.encode(), b"\xff" * len(STUDY)), 0xC000),
    ],
)
def test_bad_data_set_is_refused(harness, content, status):
    """A data set whose UIDs are missing, contradictory or unreadable gets the status for that; nothing is kept."""
    assert harness.store(content) == status
    assert harness.files() == []
    assert harness.stored == []
    assert harness.count("refused") == 1


def test_deflated_data_set_that_does_not_inflate_is_refused(harness):
    """A data set in the deflated transfer syntax that is not deflated gets 'cannot understand'."""
    assert harness.store(GOOD, transfer_syntax=DeflatedExplicitVRLittleEndian) == 0xC000
    assert harness.files() == []


@pytest.mark.parametrize("uid", ["", "../x", "1." * 32 + "1"])
def test_bad_uid_in_the_request_is_refused(harness, uid):
    """A request with an invalid SOP Instance UID is refused before its data set is read."""
    assert harness.store(encode_instance(make_instance()), sop_instance_uid=uid) == 0xC011
    assert harness.files() == []


def test_sop_class_of_another_context_is_refused(harness):
    """A request for a SOP class other than the presentation context's is refused as not supported."""
    assert harness.store(encode_instance(make_instance()), abstract_syntax=CTImageStorage) == 0x0122


def test_below_the_watermark_nothing_is_taken(tmp_path):
    """Below the watermark the status is A700, an error is logged, and nothing is written to the disk."""
    harness = Harness(tmp_path / "spool", watermark_mebibytes=1 << 40)
    with structlog.testing.capture_logs() as events:
        assert harness.store(encode_instance(make_instance())) == 0xA700
    assert harness.files() == []
    assert harness.stored == []
    assert harness.count("out_of_resources") == 1
    assert [(event["event"], event["log_level"]) for event in events] == [("spool_out_of_resources", "error")]


def test_disk_error_is_out_of_resources(harness, monkeypatch):
    """A disk error gives status A700, never Success."""

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", fail)
    assert harness.store(encode_instance(make_instance())) == 0xA700
    assert harness.files() == []
    assert harness.stored == []


def test_no_patient_data_in_log_or_metrics(harness):
    """Neither name nor ID of the patient is in any log event or metric, whatever the status of the instance."""
    contents = [
        encode_instance(make_instance()),
        encode_instance(make_instance(pixel=1)),
        without("StudyInstanceUID"),
        with_value("StudyInstanceUID", PATIENT_NAME),
        with_value("SOPInstanceUID", PATIENT_ID),
        GOOD[:HEAD_BYTES],
    ]
    with structlog.testing.capture_logs() as events:
        for content in contents:
            harness.store(content)
    text = repr(events) + generate_latest(harness.metrics.registry).decode()
    assert len(events) == 5
    assert PATIENT_NAME not in text
    assert PATIENT_ID not in text


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(start=st.integers(HEAD_BYTES, len(GOOD)), noise=st.binary(max_size=40), cut=st.booleans())
def test_mutilated_instances_are_answered(harness, start, noise, cut):
    """For any bytes the handler returns a status of its table and raises nothing."""
    content = GOOD[:start] + noise + (b"" if cut else GOOD[start + len(noise) :])
    assert harness.store(content) in (0x0000, 0xA900, 0xC000, 0xC010, 0xC011)


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_file_meta_is_what_pynetdicom_would_write(uid):
    """Preamble and file meta, encoded by the node for speed, are byte for byte those of pynetdicom."""
    request = StoreRequest(MRImageStorage, uid, MRImageStorage, PRIVATE_TRANSFER_SYNTAX)
    meta = create_file_meta(sop_class_uid=MRImageStorage, sop_instance_uid=uid, transfer_syntax=PRIVATE_TRANSFER_SYNTAX)
    assert request.head() == bytes(128) + b"DICM" + encode_file_meta(meta)


@pytest.mark.parametrize("title", ["PACS", "EMERGENCY_MR_10"])
def test_file_meta_names_the_sender(title):
    """The calling AE title stands in the file as Sending Application Entity Title (PS3.10 7.1)."""
    request = StoreRequest(MRImageStorage, SOP, MRImageStorage, PLAIN, title)
    meta = create_file_meta(sop_class_uid=MRImageStorage, sop_instance_uid=SOP, transfer_syntax=PLAIN)
    meta.SendingApplicationEntityTitle = title
    assert request.head() == bytes(128) + b"DICM" + encode_file_meta(meta)


def test_store_without_data_set_is_refused(harness):
    """A C-STORE without any data set is refused."""
    request = StoreRequest(MRImageStorage, SOP, MRImageStorage, PLAIN)
    data_set = ArrivingDataSet(lambda: harness.handlers.begin(request), MemoryBudget())
    assert (
        harness.handlers.handle_store(SimpleNamespace(request=SimpleNamespace(DataSet=data_set), assoc=None)) == 0xC010
    )
    assert harness.files() == []


def test_identity_behind_a_large_private_element_is_found(harness):
    """An instance whose UIDs lie behind a megabyte of private data is stored like any other."""
    data_set = make_instance()
    data_set.private_block(0x0009, "TEST", create=True).add_new(0x10, "OB", bytes(1 << 20))
    assert harness.store(encode_instance(data_set)) == 0x0000


def with_private(bytes_before_patient, transfer_syntax=PLAIN):
    """An encoded instance with so many bytes in a private element before the patient and series attributes."""
    data_set = make_instance(transfer_syntax=transfer_syntax)
    data_set.private_block(0x0009, "TEST", create=True).add_new(0x10, "OB", bytes(bytes_before_patient))
    return encode_instance(data_set)


@pytest.mark.parametrize("transfer_syntax", [PLAIN, DeflatedExplicitVRLittleEndian])
def test_series_is_never_cut(transfer_syntax):
    """A Series Instance UID around the end of the first 64 KiB, the limit of the first try, is read in full."""
    plain = data_set_bytes(with_private(1 << 16))
    begin = (1 << 16) - (plain.index(SERIES.encode()) - (1 << 16))  # bytes that put the UID at the border
    for less in range(-4, 72, 2):
        content = data_set_bytes(with_private(begin - less, transfer_syntax))
        assert read_identity(BytesIO(content), transfer_syntax).series_instance_uid == SERIES, less


@pytest.mark.parametrize("transfer_syntax", [PLAIN, DeflatedExplicitVRLittleEndian])
def test_data_set_that_ends_within_a_value_is_refused(harness, transfer_syntax):
    """A data set that ends within a UID, or within a value before it, gets 'cannot understand'; nothing is kept."""
    whole = data_set_bytes(GOOD)
    uid = whole.index(SERIES.encode())
    date = whole.index(b"20240101")
    ends = (uid + 1, uid + 20, uid + len(SERIES) - 1, date + 3)
    for end in ends:
        content = whole[:end]
        if transfer_syntax == DeflatedExplicitVRLittleEndian:
            deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            content = deflater.compress(content) + deflater.flush()
        assert harness.store(GOOD[:HEAD_BYTES] + content, transfer_syntax=transfer_syntax) == 0xC000
    assert harness.store(GOOD[:HEAD_BYTES] + whole[: uid + len(SERIES) + len(SERIES) % 2]) == 0x0000
    assert harness.count("refused") == len(ends)


def test_identity_behind_many_mebibytes_is_found(harness):
    """A private element of 17 MiB before the UIDs is skipped without reading, and the instance is stored."""
    assert harness.store(with_private(17 << 20)) == 0x0000


def test_endless_sequence_before_the_identity_is_refused(harness):
    """Reading up to the UIDs is limited: 17 MiB in a sequence of undefined length are too much."""
    data_set = make_instance()
    item = Dataset()
    item.private_block(0x0009, "TEST", create=True).add_new(0x10, "OB", bytes(17 << 20))
    data_set.private_block(0x0009, "TEST", create=True).add_new(0x10, "SQ", [item])
    data_set[0x0009, 0x1010].is_undefined_length = True
    assert harness.store(encode_instance(data_set)) == 0xC000
    assert harness.files() == []


def test_disk_that_does_not_give_back_what_it_took(harness, monkeypatch):
    """A disk error while the UIDs are read is out of resources, not an error of the data set."""

    class Broken(BytesIO):
        def read(self, *_arguments):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("node.scp.incoming.IncomingFile.open_data_set", lambda _file: Broken(bytes(100)))
    assert harness.store(GOOD) == 0xA700
    assert harness.files() == []


def test_disk_that_does_not_tell_free_space(harness, monkeypatch):
    """If free space cannot be read, before or after the data set, the status is A700; the metric is 0."""

    def fail(*_arguments):
        raise OSError(errno.ESTALE, "Stale file handle")

    def fail_and_stay_silent(*_arguments):
        monkeypatch.setattr("shutil.disk_usage", fail)
        fail()

    with structlog.testing.capture_logs() as events:
        with monkeypatch.context() as broken:
            broken.setattr("shutil.disk_usage", fail)
            assert harness.store(GOOD) == 0xA700
            assert harness.metrics.registry.get_sample_value("glionode_spool_free_bytes") == 0
        monkeypatch.setattr(harness.spool, "keep", fail_and_stay_silent)
        assert harness.store(GOOD) == 0xA700
    assert [(event["event"], event["free_bytes"]) for event in events] == [("spool_out_of_resources", None)] * 2
    assert {event["reason"] for event in events} == {"Stale file handle"}
    assert harness.files() == []


@pytest.mark.parametrize("is_kept", [True, False])
def test_disk_that_does_not_delete_changes_no_answer(harness, monkeypatch, is_kept):
    """If the temporary file cannot be deleted, a kept instance gets Success all the same, and another one A700."""
    unlink = Path.unlink

    def fail(path, **keywords):
        if ".incoming" in path.parts:
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, **keywords)

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "unlink", fail)
    if not is_kept:
        monkeypatch.setattr("node.scp.incoming.IncomingFile.write", full)
    assert harness.store(GOOD) == (0x0000 if is_kept else 0xA700)
    assert harness.stored == [(STUDY, SERIES)] * is_kept


@pytest.mark.parametrize("content", [b"", b"no DICOM"])
def test_broken_file_under_the_name_is_a_conflict(harness, content):
    """A valid instance gets Success and is kept as a conflict if the file under its name is no valid instance."""
    path = harness.spool.folder / STUDY / SERIES / f"{SOP}.dcm"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert harness.store(GOOD) == 0x0000
    assert harness.count("conflict") == 1
    assert path.read_bytes() == content


def test_sop_class_that_is_not_stored_is_refused(harness):
    """A C-STORE in a presentation context of another service, Verification, is refused as not supported."""
    request = StoreRequest(Verification, SOP, Verification, PLAIN)
    data_set = ArrivingDataSet(lambda: harness.handlers.begin(request), MemoryBudget())
    data_set.write(data_set_bytes(GOOD))
    assert (
        harness.handlers.handle_store(SimpleNamespace(request=SimpleNamespace(DataSet=data_set), assoc=None)) == 0x0122
    )
    assert harness.files() == []


def test_deflated_bomb_is_refused(tmp_path):
    """A deflated instance that inflates beyond max_instance_mebibytes is refused permanently; a smaller one is kept."""
    harness = Harness(tmp_path / "spool", max_instance_mebibytes=1)
    bomb, good = make_instance(transfer_syntax=DeflatedExplicitVRLittleEndian), make_instance(2)
    bomb.PixelData = bytes(2 << 20)
    good.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert harness.store(encode_instance(bomb), transfer_syntax=DeflatedExplicitVRLittleEndian) == 0xC020
    assert harness.files() == []
    number = {"sop_instance_uid": sop_instance_uid(2), "transfer_syntax": DeflatedExplicitVRLittleEndian}
    assert harness.store(encode_instance(good), **number) == 0x0000


def test_deflated_document_has_the_limit_of_documents(harness):
    """A Key Object Selection is read as a whole: what inflates beyond 16 MiB is refused before that."""
    document = key_object_selection("113001", [make_instance()])
    document.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    document.add_new(0x00711010, "OB", bytes(17 << 20))
    kinds = {"sop_class": KeyObjectSelectionDocumentStorage, "abstract_syntax": KeyObjectSelectionDocumentStorage}
    names = {"sop_instance_uid": document.SOPInstanceUID, "transfer_syntax": DeflatedExplicitVRLittleEndian}
    assert harness.store(encode_instance(document), **kinds, **names) == 0xC020
    del document[0x00711010]
    assert harness.store(encode_instance(document), **kinds, **names) == 0x0000


def test_what_inflates_too_far_is_refused(harness, monkeypatch):
    """A deflated image has a limit of its own, however large other instances may be."""
    monkeypatch.setattr(handlers, "_MOST_INFLATED_BYTES", 1 << 20)
    image = make_instance(transfer_syntax=DeflatedExplicitVRLittleEndian)
    image.PixelData = bytes(2 << 20)
    assert harness.store(encode_instance(image), transfer_syntax=DeflatedExplicitVRLittleEndian) == 0xC020
    assert harness.files() == []


def test_disk_that_fails_while_an_instance_arrives(harness, monkeypatch):
    """A disk error within a data set gives A700 after its last fragment; later instances are stored."""

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken, structlog.testing.capture_logs() as events:
        broken.setattr("node.scp.incoming.IncomingFile.write", fail)
        assert harness.store(encode_instance(make_instance())) == 0xA700
    assert harness.files() == []
    with structlog.testing.capture_logs() as more:
        assert harness.store(encode_instance(make_instance())) == 0x0000
        assert harness.store(encode_instance(make_instance(2)), sop_instance_uid=sop_instance_uid(2)) == 0x0000
    assert [event["event"] for event in (*events, *more)] == ["spool_out_of_resources", "spool_has_room_again"]
