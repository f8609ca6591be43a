"""The audit trail: messages by the schema, in files that survive, sent to a collector once it is there."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from audit_reader import Collector, read_line, read_trail
from certificates import Authority, make_authority, server_context
from faults import free_port, wait_until
from lab import needs

from node.audit.auditor import Auditor, _AlertLimit
from node.audit.opened import audit_trail
from node.audit.syslog import SyslogSender
from node.audit.trail import AuditTrail
from node.config_sections import AuditSection, NodeSection, TlsSection
from node.errors import ConfigError
from node.metrics import Metrics
from node.study import Destination, Peer, TlsFiles, Transfer, WebDestination

PEER = Peer("SCANNER", "10.0.0.7")
TRANSFER = Transfer("1.2.3", "PAT 7", {"1.2.840.10008.5.1.4.1.1.4": 3})
DESTINATION = Destination("pacs", "PACS", "pacs.example.org", 104)

OpenTrail = Callable[..., Auditor]


@pytest.fixture
def open_trail(tmp_path: Path) -> Iterator[OpenTrail]:
    """Opens trails in ``tmp_path/audit``; they end with the test, or with ``open_trail.close()``."""
    with ExitStack() as stack:

        def open_one(process: str = "host-receive-1", tls: TlsSection | None = None, **settings: object) -> Auditor:
            sections = (NodeSection(), AuditSection(enabled=True, **settings), tls or TlsSection())
            auditor = stack.enter_context(audit_trail(sections, tmp_path / "audit", process, "GLIONODE", Metrics()))
            assert auditor is not None
            return auditor

        open_one.close = stack.close  # type: ignore[attr-defined]
        yield open_one


def test_every_message_is_valid_and_says_what_happened(open_trail, tmp_path):
    """Each kind of message is valid by the schema and carries event, roles and objects as PS3.15 A.5.3 wants them."""
    auditor = open_trail()
    auditor.instances_received(PEER, TRANSFER)
    auditor.instances_received(PEER, replace(TRANSFER, is_known=True))
    auditor.sending(DESTINATION, TRANSFER)
    auditor.sent(DESTINATION, TRANSFER, None)
    auditor.sent(
        WebDestination("archive", "https://user:geheim@archive.example.org:8443/rs?key=geheim"),
        TRANSFER,
        "answered HTTP 500",
    )
    auditor.queried(DESTINATION, "1.2.840.10008.5.1.4.1.2.2.1", b"\x08\0\x52\0", None)
    auditor.peer_refused(Peer("", "10.0.0.9"), "not in scp.allowed_addresses")
    open_trail.close()
    told = read_trail(tmp_path / "audit")
    assert [each.event for each in told] == [
        ("110100", "110120", "E", "0"),
        ("110104", "", "C", "0"),
        ("110104", "", "R", "0"),
        ("110102", "", "E", "0"),
        ("110104", "", "C", "0"),
        ("110104", "", "C", "8"),
        ("110112", "", "E", "0"),
        ("110113", "110126", "E", "4"),
        ("110100", "110121", "E", "0"),
    ]
    received, begun, query, alert = told[1], told[3], told[6], told[7]
    assert received.objects == {"110180": "1.2.3", "2": "PAT 7"}
    assert received.counts == TRANSFER.instances
    source, own = received.participants
    assert (source["role"], source["AlternativeUserID"]) == ("110153", "AETITLES=SCANNER")
    assert (source["UserIsRequestor"], source["NetworkAccessPointID"]) == ("true", "10.0.0.7")
    assert (own["role"], own["UserID"], own["AlternativeUserID"]) == ("110152", str(os.getpid()), "AETITLES=GLIONODE")
    assert told[5].participants[1]["UserID"] == "https://archive.example.org:8443/rs"
    assert told[5].participants[1]["NetworkAccessPointID"] == "archive.example.org"
    assert [each["role"] for each in begun.participants] == ["110153", "110152"]
    assert query.query == b"\x08\0\x52\0"
    assert alert.objects == {"110182": "10.0.0.9"}
    assert alert.alert == "not in scp.allowed_addresses"


def test_messages_name_no_patient_beyond_the_id(open_trail, tmp_path):
    """With patient_id = false, a message names the study alone."""
    open_trail(patient_id=False).instances_received(PEER, TRANSFER)
    open_trail.close()
    assert read_trail(tmp_path / "audit")[1].objects == {"110180": "1.2.3"}


@pytest.mark.parametrize("text", ["A\nB", "x\0y\x1b", "<AuditMessage>&", "\ud800", "\uffff", "é" * 64, "\r\t "])
def test_whatever_a_peer_sends_leaves_one_valid_line(text, open_trail, tmp_path):
    """AE titles and Patient IDs with line breaks, control characters, markup or surrogates stay in one message."""
    auditor = open_trail()
    auditor.instances_received(Peer(text, "10.0.0.7"), replace(TRANSFER, patient_id=text))
    auditor.peer_refused(Peer(text, "10.0.0.7"), text)
    open_trail.close()
    assert len(read_trail(tmp_path / "audit")) == 4


def test_no_trail_unless_the_config_wants_one(tmp_path):
    """By default no folder is made and nobody is told."""
    sections = (NodeSection(), AuditSection(), TlsSection())
    with audit_trail(sections, tmp_path / "audit", "host", "GLIONODE", Metrics()) as auditor:
        assert auditor is None
    assert not (tmp_path / "audit").exists()


def test_collector_without_a_trail_is_a_config_error():
    """A collector that would get nothing, since the trail is off, is an error of the config."""
    with pytest.raises(ValueError, match="syslog_host is set, and enabled is false"):
        AuditSection(syslog_host="log.example.org")


def test_only_the_owner_reads_the_trail(open_trail, tmp_path):
    """Files and folder are for the node's user alone, whatever the umask."""
    before = os.umask(0)
    try:
        open_trail().application_started()
    finally:
        os.umask(before)
    (file,) = (tmp_path / "audit").glob("*.log")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_message_is_on_the_disk_before_the_node_goes_on(open_trail, tmp_path):
    """A message is in the file when the call returns: no thread, and no end in good order, is needed for it."""
    auditor = open_trail()
    for count in range(1, 20):
        auditor.instances_received(PEER, TRANSFER)
        assert len(read_trail(tmp_path / "audit")) == count + 1


def test_full_disk_is_counted_and_leaves_no_half_message(tmp_path, monkeypatch):
    """If a message does not fit, it is counted and told once; no half of it stays, and the next ones are whole."""
    metrics = Metrics()
    trail = AuditTrail(tmp_path, "host", metrics)
    real = os.write
    with structlog.testing.capture_logs() as logs:
        trail.write(b"<first/>", datetime.now(UTC))
        monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:9]))
        trail.write(b"<lost/>", datetime.now(UTC))

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", fail)
        trail.write(b"<lost/>", datetime.now(UTC))
        monkeypatch.undo()
        trail.write(b"<last/>", datetime.now(UTC))
    (file,) = tmp_path.glob("*.log")
    assert [line.rpartition(b"\xbf")[2] for line in file.read_bytes().splitlines()] == [b"<first/>", b"<last/>"]
    assert metrics.registry.get_sample_value("glionode_audit_messages_lost_total") == 2
    assert [each["event"] for each in logs] == ["audit_messages_lost", "audit_messages_written_again"]
    trail._close()


def test_each_day_has_a_file(tmp_path):
    """Messages go to the file of their day, in UTC."""
    trail = AuditTrail(tmp_path, "host", Metrics())
    for day in (1, 2):
        trail.write(b"<a/>", datetime(2026, 3, day, 12, tzinfo=UTC))
    assert [file.name for file in sorted(tmp_path.glob("*"))] == ["2026-03-01-host.log", "2026-03-02-host.log"]
    trail._close()


def test_folder_that_cannot_be_made_stops_the_start(tmp_path):
    """A node that is to keep a trail does not start without its folder; the error names it."""
    (tmp_path / "file").write_text("")
    sections = (NodeSection(), AuditSection(enabled=True), TlsSection())
    with (
        pytest.raises(ConfigError, match=r"node\.folder: .*/file/audit: cannot be made"),
        audit_trail(sections, tmp_path / "file" / "audit", "host", "GLIONODE", Metrics()),
    ):
        pass


def test_one_alert_of_a_kind_in_a_minute():
    """A peer that is refused again and again is told once a minute, with the number left out; others are told."""
    now = [0.0]
    limit = _AlertLimit(lambda: now[0])
    assert [limit.left_out("10.0.0.7", "why") for _ in range(5)] == [0, None, None, None, None]
    assert limit.left_out("10.0.0.8", "why") == 0
    now[0] = 61.0
    assert limit.left_out("10.0.0.7", "why") == 4
    for number in range(1500):
        limit.left_out(f"10.1.{number >> 8}.{number & 255}", "why")
    assert len(limit._told) <= 1024


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The hospital's certificate authority."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> TlsFiles:
    """The node's files."""
    return authority.issue("node")


def section_of(files: TlsFiles) -> TlsSection:
    """The files as a section of the config."""
    return TlsSection(certificate_file=files.certificate_file, key_file=files.key_file, ca_file=files.ca_file)


@needs("openssl")
def test_collector_gets_every_message_once(authority, own, open_trail, tmp_path):
    """A collector over TLS, with certificates on both sides, gets each message as the file holds it; a restart sends
    none twice.
    """
    with Collector(server_context(authority.issue("collector"))) as collector:
        where = {"syslog_host": "127.0.0.1", "syslog_port": collector.port}
        open_trail(tls=section_of(own), **where).instances_received(PEER, TRANSFER)
        open_trail.close()
        open_trail(tls=section_of(own), **where)
        open_trail.close()
    (file,) = (tmp_path / "audit").glob("*.log")
    assert collector.messages == file.read_bytes().splitlines()
    assert [read_line(each).event[0] for each in collector.messages] == ["110100", "110104", *["110100"] * 3]


@needs("openssl")
def test_collector_that_is_away_misses_nothing(authority, own, tmp_path):
    """While the collector is away, or breaks the connection, messages wait in the file; then all are sent, in order."""
    port, context = free_port(), server_context(authority.issue("collector"))
    metrics = Metrics()
    trail = AuditTrail(tmp_path, "host", metrics, SyslogSender("127.0.0.1", port, own))
    with structlog.testing.capture_logs() as logs:
        trail.write(b"<a/>", datetime.now(UTC))
        trail._tick()
        assert metrics.registry.get_sample_value("glionode_audit_unsent_bytes") > 0
        with Collector(context, port) as collector:
            collector.is_rude = True
            trail._tick()
            trail.write(b"<b/>", datetime.now(UTC))
            collector.is_rude = False
            trail._tick()
            wait_until(lambda: len(collector.messages) == 2)
    assert [each.rpartition(b"\xbf")[2] for each in collector.messages] == [b"<a/>", b"<b/>"]
    assert metrics.registry.get_sample_value("glionode_audit_unsent_bytes") == 0
    assert [each["event"] for each in logs] == ["audit_not_sent", "audit_sent_again"]
    trail._close()


@needs("openssl")
def test_two_trails_of_one_name_send_each_message_once(authority, own, tmp_path):
    """Two processes of one name, as two ``glionode send``, write into one file; the collector gets no message twice,
    and none is missing once both have ended.
    """
    with Collector(server_context(authority.issue("collector"))) as collector:
        senders = [SyslogSender("127.0.0.1", collector.port, own) for _ in range(2)]
        trails = [AuditTrail(tmp_path, "host-send", Metrics(), sender) for sender in senders]
        for number in range(20):
            trails[number % 2].write(b"<m%d/>" % number, datetime.now(UTC))
        with trails[0]._turn_to_send():
            trails[1]._tick()
            assert collector.messages == []
        for trail in trails:
            trail._tick()
            trail._close()
    assert [each.rpartition(b"\xbf")[2] for each in collector.messages] == [b"<m%d/>" % number for number in range(20)]


def test_half_a_line_is_removed_before_another_process_appends(tmp_path, monkeypatch):
    """When the disk takes only a part of a line, that part is removed while no other process of the name can append."""
    trail = AuditTrail(tmp_path, "host-send", Metrics())
    trail.write(b"<before/>", datetime.now(UTC))
    (file,) = tmp_path.glob("*.log")
    write, refused = os.write, []

    def cut(descriptor: int, content: bytes) -> int:
        written = write(descriptor, content[:10])
        with file.open("ab") as of_another_process:
            try:
                fcntl.flock(of_another_process, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refused.append(written)
        return written

    monkeypatch.setattr(os, "write", cut)
    trail.write(b"<cut/>", datetime.now(UTC))
    trail._close()
    assert refused == [10]
    assert [each.rpartition(b"\xbf")[2] for each in file.read_bytes().splitlines()] == [b"<before/>"]


@needs("openssl")
def test_collector_of_a_stranger_gets_nothing(own, tmp_path):
    """A collector whose certificate is not of the authority gets no message, and the reason is told in words."""
    stranger = make_authority(tmp_path / "stranger").issue("collector")
    with Collector(server_context(stranger)) as collector:
        sender = SyslogSender("127.0.0.1", collector.port, own)
        assert "certificate is not accepted" in str(sender.probe())
        trail = AuditTrail(tmp_path / "audit", "host", Metrics(), sender)
        (tmp_path / "audit").mkdir()
        trail.write(b"<a/>", datetime.now(UTC))
        trail._tick()
        trail._close()
    assert collector.messages == []
    broken = SyslogSender("127.0.0.1", collector.port, replace(own, ca_file=tmp_path / "none.crt"))
    assert str(broken.probe()).startswith(f"tls.ca_file: {tmp_path}/none.crt: cannot be read")


@needs("openssl")
def test_long_trails_are_sent_in_pieces(authority, own, tmp_path, monkeypatch):
    """A trail longer than one connection may carry, and a message longer than that, arrive whole and in order."""
    monkeypatch.setattr("node.audit.syslog._MOST_BYTES", 2000)
    with Collector(server_context(authority.issue("collector"))) as collector:
        trail = AuditTrail(tmp_path, "host", Metrics(), SyslogSender("127.0.0.1", collector.port, own))
        bodies = [b"<%d/>" % number + b" " * (50 + 5000 * (number == 7)) for number in range(30)]
        for body in bodies:
            trail.write(body, datetime.now(UTC))
        trail._tick()
        trail._close()
    assert [each.rpartition(b"\xbf")[2] for each in collector.messages] == bodies


@needs("openssl")
@pytest.mark.parametrize("round_trip", range(5))
def test_collector_that_refuses_the_node_has_got_nothing(round_trip, authority, own, tmp_path):
    """A collector that wants a certificate, which the node does not show, gets no message, and none counts as sent."""
    files = replace(own, certificate_file=None, key_file=None)
    with Collector(server_context(authority.issue("collector"))) as collector:
        sender = SyslogSender("127.0.0.1", collector.port, files)
        assert sender.probe()
        trail = AuditTrail(tmp_path, "host", Metrics(), sender)
        trail.write(b"<a/>", datetime.now(UTC))
        trail._tick()
        trail._close()
    assert collector.messages == []
    assert sender.unsent_bytes(list(tmp_path.glob("*.log"))) > 0
