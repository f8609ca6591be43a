"""Storage commitment reports of a PACS: recorded, or refused with the right status."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, make_authority
from fake_archive import Reporter, report_data_set, send_report
from faults import free_port, wait_until
from instances import sop_instance_uid
from lab import needs
from pydicom import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE, build_context
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from structlog.testing import capture_logs

from node.config_sections import ScpSection, TlsSection
from node.dicom.commitment import CommitmentRequest, Commitments, read_report
from node.errors import CommitmentReportError, EngineError
from node.metrics import Metrics
from node.scp.commitment import CommitmentHandler
from node.scp.handlers import StorageHandlers
from node.scp.server import Receiver
from node.scp.spool import Spool
from node.scu.association import keep_responses

TRANSACTION, UNKNOWN = "2.25.4711", "2.25.4712"
SEG, SR = sop_instance_uid(1), sop_instance_uid(2)
REQUEST = CommitmentRequest("digest-pacs", "pacs", "PACS", "127.0.0.1", 104, ("127.0.0.1",), False, (SEG, SR))


class Recorder:
    """Records reports for workflows; ``error``: the exception that recording raises."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, dict[str, Any], str]] = []
        self.error: Exception | None = None

    def record(self, workflow_id: str, message: dict[str, Any], key: str) -> None:
        """Record the report, or raise ``error``."""
        if self.error:
            raise self.error
        self.recorded.append((workflow_id, message, key))


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def commitments(tmp_path: Path) -> Commitments:
    """Commitments with one transaction whose report is awaited."""
    found = Commitments(tmp_path / "commitments")
    found.expect(TRANSACTION, REQUEST)
    return found


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@contextmanager
def running(tmp_path: Path, handler: CommitmentHandler | None, tls: TlsSection | None = None) -> Iterator[int]:
    """Run the node's SCP, encrypted with the files of ``tls`` if given; yields its port."""
    settings = {"network_timeout_seconds": 20.0, "watermark_mebibytes": 1, "tls": tls is not None}
    section = ScpSection(port=free_port(), **settings)
    metrics = Metrics()
    storage = StorageHandlers(Spool(tmp_path / "spool"), metrics, section, lambda *_: None)
    with Receiver(section, storage, metrics, tls, handler):
        yield section.port


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def port(tmp_path: Path, commitments: Commitments, metrics: Metrics, recorder: Recorder) -> Iterator[int]:
    """The port of a node that accepts reports."""
    with running(tmp_path, CommitmentHandler(commitments, metrics, recorder.record)) as port:
        yield port


def answers(metrics: Metrics, status: str) -> float:
    """How many reports were answered with ``status``."""
    return metrics.registry.get_sample_value("glionode_commitment_reports_total", {"status": status}) or 0.0


@pytest.mark.parametrize("has_role", [True, False], ids=["role proposed", "default roles"])
def test_report_is_recorded_and_then_acknowledged(port, recorder, has_role):
    """A report on an awaited transaction is recorded for its workflow, with any roles that the PACS negotiates."""
    report = report_data_set(TRANSACTION, [SEG], {SR: 0x0112})
    assert send_report(port, "GLIONODE", report, has_role=has_role) == 0x0000
    message = {"transaction_uid": TRANSACTION, "committed": [SEG], "failed": {SR: 0x0112}}
    ((workflow_id, recorded, key),) = recorder.recorded
    assert (workflow_id, recorded) == ("digest-pacs", message)
    assert TRANSACTION not in key


def test_repeated_report_has_the_same_key(port, recorder):
    """A report that comes twice gets Success twice, and is recorded under the same key."""
    for _ in range(2):
        assert send_report(port, "GLIONODE", report_data_set(TRANSACTION, [SEG, SR], {})) == 0x0000
    assert len({key for _, _, key in recorder.recorded}) == 1


def test_unknown_transaction_is_refused(port, recorder, commitments):
    """A report that no workflow awaits, or no longer, gets status 0x0112 and is not recorded."""
    assert send_report(port, "GLIONODE", report_data_set(UNKNOWN, [SEG], {})) == 0x0112
    commitments.forget(TRANSACTION)
    assert send_report(port, "GLIONODE", report_data_set(TRANSACTION, [SEG], {})) == 0x0112
    assert recorder.recorded == []


# ---- whose report counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reporter", [Reporter("STRANGER"), Reporter("pacs"), Reporter(address="127.0.0.2")], ids=["AE", "case", "address"]
)
def test_report_of_another_peer_changes_nothing(port, recorder, metrics, reporter):
    """A peer with another AE title or address gets 0x0112, as for an invented transaction; the right one counts."""
    report = report_data_set(TRANSACTION, [SEG, SR], {})
    with capture_logs() as events:
        assert send_report(port, "GLIONODE", report, reporter) == 0x0112
    assert recorder.recorded == []
    assert answers(metrics, "0x0112") == 1
    (refused,) = [each for each in events if each["event"] == "commitment_report_refused"]
    assert (refused["calling_ae_title"], refused["address"]) == (reporter.ae_title, reporter.address)
    assert TRANSACTION not in str(events)
    assert send_report(port, "GLIONODE", report) == 0x0000
    assert answers(metrics, "0x0000") == 1


@pytest.mark.parametrize("addresses", [("127.0.0.0/30",), ("10.1.2.3", "127.0.0.2")], ids=["network", "list"])
def test_pacs_that_reports_from_elsewhere_can_be_named(port, recorder, commitments, addresses):
    """The AE title and the addresses that the config names for reports count, in place of those of the destination."""
    commitments.expect(TRANSACTION, replace(REQUEST, ae_title="PACS_SCU", addresses=addresses))
    report = report_data_set(TRANSACTION, [SEG, SR], {})
    assert send_report(port, "GLIONODE", report, Reporter("PACS_SCU", "127.0.0.2")) == 0x0000
    assert len(recorder.recorded) == 1


def test_report_on_an_instance_that_was_not_asked_for_changes_nothing(port, recorder, metrics):
    """A report that names one more instance gets 0x0115, and counts for none of the others, either."""
    for report in (
        report_data_set(TRANSACTION, [SEG, SR, "1.2.3"], {}),
        report_data_set(TRANSACTION, [], {"1.2.3": 1}),
    ):
        assert send_report(port, "GLIONODE", report) == 0x0115
    assert recorder.recorded == []
    assert answers(metrics, "0x0115") == 2


def test_second_report_with_other_contents_is_recorded_too(port, recorder):
    """A PACS that reports on some instances now and on others later is heard both times."""
    for report in (report_data_set(TRANSACTION, [SEG], {}), report_data_set(TRANSACTION, [], {SR: 0x0112})):
        assert send_report(port, "GLIONODE", report) == 0x0000
    assert len({key for _, _, key in recorder.recorded}) == 2


OF_0_1_0 = '{"workflow_id": "digest-pacs"}'


@pytest.mark.parametrize(
    "content",
    [OF_0_1_0, "", "{", "[]", "null", "\0" * 99, json.dumps(asdict(REQUEST) | {"addresses": ["any"]})],
    ids=["of 0.1.0", "empty", "half", "list", "null", "zeros", "no address"],
)
def test_report_on_a_record_that_does_not_say_whom_was_asked_does_not_count(tmp_path, port, recorder, content):
    """A record of glionode 0.1.0, or a damaged one, commits nothing: the report gets 0x0112."""
    (tmp_path / "commitments" / f"{TRANSACTION}.json").write_text(content)
    assert send_report(port, "GLIONODE", report_data_set(TRANSACTION, [SEG], {})) == 0x0112
    assert recorder.recorded == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The hospital's certificate authority."""
    return make_authority(tmp_path_factory.mktemp("authority"))


def reporter(authority: Authority, host: str) -> Reporter:
    """The PACS with a certificate of the hospital's authority, for ``host``."""
    files = authority.sign(f"pacs-{host}", host=host)
    tls = ssl.create_default_context(cafile=files.ca_file)
    tls.load_cert_chain(files.certificate_file, files.key_file)
    return Reporter(tls=tls)


@needs("openssl")
@pytest.mark.parametrize("is_encrypted", [True, False], ids=["asked over TLS", "asked without"])
def test_certificate_of_a_reporting_peer_names_the_destination(
    tmp_path, commitments, recorder, authority, is_encrypted
):
    """Over TLS only the certificate of the destination's host counts, not any other one of the hospital's authority."""
    own = authority.sign("node")
    tls = TlsSection(certificate_file=own.certificate_file, key_file=own.key_file, ca_file=own.ca_file)
    commitments.expect(TRANSACTION, replace(REQUEST, is_encrypted=is_encrypted))
    report = report_data_set(TRANSACTION, [SEG, SR], {})
    with running(tmp_path, CommitmentHandler(commitments, Metrics(), recorder.record), tls) as port:
        for host in ("127.0.0.9", "scanner.example.org"):
            assert send_report(port, "GLIONODE", report, reporter(authority, host)) == 0x0112
        assert recorder.recorded == []
        assert send_report(port, "GLIONODE", report, reporter(authority, "127.0.0.1")) == 0x0000
    assert len(recorder.recorded) == 1


def test_destination_asked_over_tls_must_report_over_tls(port, recorder, commitments):
    """A report that comes unencrypted, although the destination was asked over TLS, does not count."""
    commitments.expect(TRANSACTION, replace(REQUEST, is_encrypted=True))
    assert send_report(port, "GLIONODE", report_data_set(TRANSACTION, [SEG, SR], {})) == 0x0112
    assert recorder.recorded == []


@pytest.mark.parametrize(
    ("address", "is_one"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("10.1.2.4", False), ("fe80::1%eth0", True), ("fe80::2", False)],
)
def test_addresses_are_compared_as_addresses(address, is_one):
    """An IPv4 address that comes as an IPv6 one is the same, and so is one with the name of an interface."""
    assert replace(REQUEST, addresses=("10.1.2.3", "fe80::1")).comes_from(address) is is_one


# ---- what is no report ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [EngineError("engine.database: down"), OSError(28, "No space left on device")])
def test_report_that_is_not_recorded_is_not_acknowledged(port, recorder, error):
    """A report that cannot be recorded gets status 0x0110, and Success when it is sent again."""
    recorder.error = error
    assert send_report(port, "GLIONODE", report_data_set(TRANSACTION, [SEG], {})) == 0x0110
    recorder.error = None
    assert send_report(port, "GLIONODE", report_data_set(TRANSACTION, [SEG], {})) == 0x0000


def test_event_type_is_checked(port, recorder):
    """An event type other than 1 and 2 gets status 0x0113."""
    assert send_report(port, "GLIONODE", report_data_set(TRANSACTION, [SEG], {}), event_type=3) == 0x0113
    assert recorder.recorded == []


def test_report_without_a_transaction_is_refused(port, recorder):
    """A report without Transaction UID gets status 0x0115."""
    report = report_data_set(TRANSACTION, [SEG], {})
    del report.TransactionUID
    assert send_report(port, "GLIONODE", report) == 0x0115
    assert recorder.recorded == []


def test_other_instance_of_the_class_is_refused(port, recorder):
    """A report on another SOP instance than the well-known one gets status 0x0112."""
    ae = AE("PACS")
    association = ae.associate("127.0.0.1", port, [build_context(StorageCommitmentPushModel)], "GLIONODE")
    keep_responses(association)
    information = report_data_set(TRANSACTION, [SEG], {})
    answer, _ = association.send_n_event_report(information, 1, StorageCommitmentPushModel, "1.2.3")
    association.release()
    association.join()
    assert answer.Status == 0x0112
    assert recorder.recorded == []


def test_other_class_is_refused(port, recorder):
    """An event of another SOP class, in a presentation context that is not for reports, gets status 0x0118."""
    association = AE("PACS").associate("127.0.0.1", port, [build_context(MRImageStorage)], "GLIONODE")
    keep_responses(association)
    information = report_data_set(TRANSACTION, [SEG], {})
    answer, _ = association.send_n_event_report(information, 1, MRImageStorage, "1.2.3")
    assert answer.Status == 0x0118
    association.release()
    association.join()
    assert association.is_released
    assert recorder.recorded == []


def test_node_itself_commits_to_nothing(port):
    """A storage commitment request to the node does not get Success."""
    ae = AE("PACS")
    association = ae.associate("127.0.0.1", port, [build_context(StorageCommitmentPushModel)], "GLIONODE")
    keep_responses(association)
    information = Dataset()
    information.TransactionUID = UNKNOWN
    answer, _ = association.send_n_action(
        information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    association.join()
    assert answer.get("Status", -1) != 0x0000


def test_context_is_rejected_if_nobody_takes_reports(tmp_path):
    """A receiver without a handler for reports rejects their presentation context, and accepts the others."""
    with running(tmp_path, None) as port:
        contexts = [build_context(StorageCommitmentPushModel), build_context(Verification)]
        association = AE("PACS").associate("127.0.0.1", port, contexts, "GLIONODE")
        association.release()
        association.join()
    assert [context.abstract_syntax for context in association.accepted_contexts] == [Verification]


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "1.2.03", "1." * 32 + "1"])
def test_hostile_uids_are_no_report(uid):
    """A Transaction UID or instance UID that is invalid by PS3.5 9.1 is refused before it can become a path."""
    for report in (report_data_set("2.25.1", [SEG], {}), report_data_set("2.25.1", [], {SR: 0x0112})):
        assert read_report(report).transaction_uid == "2.25.1"
        items = report.get("ReferencedSOPSequence") or report.FailedSOPSequence
        items[0]["ReferencedSOPInstanceUID"]._value = uid
        with pytest.raises(CommitmentReportError, match="0008,1155"):
            read_report(report)
    report = report_data_set("2.25.1", [SEG], {})
    report["TransactionUID"]._value = uid
    with pytest.raises(CommitmentReportError, match="0008,1195"):
        read_report(report)


def test_failed_wins_over_committed():
    """An instance that a report lists as both committed and failed is failed."""
    report = read_report(report_data_set("2.25.1", [SEG, SR], {SR: 0x0213}))
    assert (report.committed, report.failed) == ((SEG,), {SR: 0x0213})


def test_expected_transactions_are_files(tmp_path):
    """An awaited transaction is one file that other processes can read, and is deleted when it is forgotten."""
    folder = tmp_path / "new" / "commitments"
    assert Commitments(folder).workflow_of(TRANSACTION) is None
    for _ in range(2):
        Commitments(folder).expect(TRANSACTION, REQUEST)
    assert Commitments(folder).request_of(TRANSACTION) == REQUEST
    assert folder.stat().st_mode & 0o077 == 0
    assert Commitments(folder).workflow_of(TRANSACTION) == "digest-pacs"
    assert [file.name for file in folder.iterdir()] == [f"{TRANSACTION}.json"]
    for _ in range(2):
        Commitments(folder).forget(TRANSACTION)
    assert list(folder.iterdir()) == []
