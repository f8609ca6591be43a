"""What C-STORE is answered with, and what it leaves behind."""

from __future__ import annotations

import warnings
from io import BytesIO
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
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
)
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from node.metrics import Metrics
from node.scp.arrival import ArrivingDataSet, StoreRequest
from node.scp.handlers import StorageHandlers
from node.scp.instance_identity import read_identity
from node.scp.spool import Spool
from node.sections import ScpSection

SOP = sop_instance_uid(1)
PLAIN = ExplicitVRLittleEndian
GOOD = encode_instance(make_instance())
HEAD_BYTES = len(GOOD) - len(data_set_bytes(GOOD))  # preamble and file meta


class Harness:
    """Handlers on a spool of their own, and what they reported."""

    def __init__(self, folder, **settings):
        self.metrics = Metrics()
        self.spool = Spool(folder)
        self.stored = []
        self.section = ScpSection(**({"watermark_mebibytes": 1} | settings))
        self.handlers = StorageHandlers(
            self.spool, self.metrics, self.section, lambda study, series: self.stored.append((study, series))
        )

    def store(
        self, content, *, sop_instance_uid=SOP, abstract_syntax=MRImageStorage, transfer_syntax=ExplicitVRLittleEndian
    ):
        """The status answered to a C-STORE of the data set in ``content``, which comes in two fragments."""
        request = StoreRequest(MRImageStorage, sop_instance_uid, abstract_syntax, transfer_syntax)
        data_set = ArrivingDataSet(lambda: self.handlers.begin(request))
        encoded = data_set_bytes(content)
        for fragment in (encoded[:100], encoded[100:]):
            data_set.write(fragment)
        return self.handlers.handle_store(SimpleNamespace(request=SimpleNamespace(DataSet=data_set)))

    def count(self, outcome):
        """How many C-STORE requests had this outcome."""
        return self.metrics.registry.get_sample_value("glionode_instances_received_total", {"outcome": outcome})

    def files(self):
        """Every file below the spool."""
        return sorted(path.name for path in self.spool.folder.rglob("*") if path.is_file())


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
    """A good instance is in the spool, reported with its study and series, counted, and answered with Success."""
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
    """The four UIDs are found whatever the encoding, without decoding a pixel."""
    content = encode_instance(make_instance(transfer_syntax=transfer_syntax))
    identity = read_identity(BytesIO(data_set_bytes(content)), transfer_syntax)
    assert identity.sop_class_uid == MRImageStorage
    assert identity.sop_instance_uid == SOP
    assert (identity.study_instance_uid, identity.series_instance_uid) == (STUDY, SERIES)


def test_duplicate_is_success_and_kept_once(harness):
    """The same instance again is Success, kept once, and reported: its sender is still at work."""
    content = encode_instance(make_instance())
    assert [harness.store(content), harness.store(content)] == [0x0000, 0x0000]
    assert harness.files() == [f"{SOP}.dcm"]
    assert harness.stored == [(STUDY, SERIES)] * 2
    assert harness.count("duplicate") == 1


def test_conflict_is_success_and_not_part_of_the_study(harness):
    """Other bytes under the same UID are safe aside, so Success, but they are no arrival of the study."""
    harness.store(encode_instance(make_instance()))
    assert harness.store(encode_instance(make_instance(pixel=7))) == 0x0000
    assert len(harness.files()) == 2
    assert harness.stored == [(STUDY, SERIES)]
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
    """A data set with a missing, contradicting or unreadable identity is refused by its own status; nothing is kept."""
    assert harness.store(content) == status
    assert harness.files() == []
    assert harness.stored == []
    assert harness.count("refused") == 1


def test_deflated_data_set_that_does_not_inflate_is_refused(harness):
    """A data set sent as deflated that is not deflated cannot be understood."""
    assert harness.store(GOOD, transfer_syntax=DeflatedExplicitVRLittleEndian) == 0xC000
    assert harness.files() == []


@pytest.mark.parametrize("uid", ["", "../x", "1." * 32 + "1"])
def test_bad_uid_in_the_request_is_refused(harness, uid):
    """A request whose own SOP Instance UID is none is refused before anything is read."""
    assert harness.store(encode_instance(make_instance()), sop_instance_uid=uid) == 0xC011
    assert harness.files() == []


def test_sop_class_of_another_context_is_refused(harness):
    """A request for a SOP class other than the presentation context's is refused as not supported."""
    assert harness.store(encode_instance(make_instance()), abstract_syntax=CTImageStorage) == 0x0122


def test_below_the_watermark_nothing_is_taken(tmp_path):
    """Below the watermark the answer is A700, loudly logged, and the disk is left alone."""
    harness = Harness(tmp_path / "spool", watermark_mebibytes=1 << 40)
    with structlog.testing.capture_logs() as events:
        assert harness.store(encode_instance(make_instance())) == 0xA700
    assert harness.files() == []
    assert harness.stored == []
    assert harness.count("out_of_resources") == 1
    assert [(event["event"], event["log_level"]) for event in events] == [("spool_out_of_resources", "error")]


def test_disk_error_is_out_of_resources(harness, monkeypatch):
    """An error of the disk is answered with A700 and never with Success."""

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", fail)
    assert harness.store(encode_instance(make_instance())) == 0xA700
    assert harness.files() == []
    assert harness.stored == []


def test_no_patient_data_in_log_or_metrics(harness):
    """Neither name nor id of the patient appears in any event or metric, whatever becomes of the instance."""
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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(start=st.integers(HEAD_BYTES, len(GOOD)), noise=st.binary(max_size=40), cut=st.booleans())
def test_mutilated_instances_are_answered(harness, start, noise, cut):
    """Whatever bytes come, the handler answers with a status of its table instead of raising."""
    content = GOOD[:start] + noise + (b"" if cut else GOOD[start + len(noise) :])
    assert harness.store(content) in (0x0000, 0xA900, 0xC000, 0xC010, 0xC011)


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_file_meta_is_what_pynetdicom_would_write(uid):
    """Preamble and file meta, written out here for speed, are byte for byte those of pynetdicom."""
    request = StoreRequest(MRImageStorage, uid, MRImageStorage, PRIVATE_TRANSFER_SYNTAX)
    meta = create_file_meta(sop_class_uid=MRImageStorage, sop_instance_uid=uid, transfer_syntax=PRIVATE_TRANSFER_SYNTAX)
    assert request.head() == bytes(128) + b"DICM" + encode_file_meta(meta)


def test_store_without_data_set_is_refused(harness):
    """A C-STORE without any data set is refused."""
    request = StoreRequest(MRImageStorage, SOP, MRImageStorage, PLAIN)
    data_set = ArrivingDataSet(lambda: harness.handlers.begin(request))
    assert harness.handlers.handle_store(SimpleNamespace(request=SimpleNamespace(DataSet=data_set))) == 0xC010
    assert harness.files() == []


def test_identity_behind_a_large_private_element_is_found(harness):
    """An instance whose UIDs lie behind a megabyte of private data is stored like any other."""
    data_set = make_instance()
    data_set.private_block(0x0009, "TEST", create=True).add_new(0x10, "OB", bytes(1 << 20))
    assert harness.store(encode_instance(data_set)) == 0x0000


def test_deflated_bomb_is_refused(tmp_path):
    """A deflated instance that inflates beyond max_instance_mebibytes is refused for good; any other is kept."""
    harness = Harness(tmp_path / "spool", max_instance_mebibytes=1)
    bomb, good = make_instance(transfer_syntax=DeflatedExplicitVRLittleEndian), make_instance(2)
    bomb.PixelData = bytes(2 << 20)
    good.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert harness.store(encode_instance(bomb), transfer_syntax=DeflatedExplicitVRLittleEndian) == 0xC020
    assert harness.files() == []
    number = {"sop_instance_uid": sop_instance_uid(2), "transfer_syntax": DeflatedExplicitVRLittleEndian}
    assert harness.store(encode_instance(good), **number) == 0x0000


def test_disk_that_fails_while_an_instance_arrives(harness, monkeypatch):
    """An error of the disk in the middle of a data set is answered with A700 after its end; then all is well again."""

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
