"""The receiver under fire: probes, peers that stop half-way, instances without end, full disks, many at once."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import struct
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
import structlog
from certificates import make_authority
from command_line import run_glionode
from faults import wait_until
from instances import SERIES, STUDY, data_set_bytes, encode_instance, make_instance, sop_instance_uid
from lab import find_program
from length import IS_FULL
from node_process import running_node, write_config
from pydicom import dcmread
from pydicom.uid import EnhancedMRImageStorage
from raw_peer import ABORT, PeerAbortedError, RawPeer, associate_rq, data_pdu, store_rq
from receiver_node import SECONDS, ReceiverNode, nothing_left
from small_disk import small_disk

from node.config_sections import TlsSection
from node.errors import ConfigError
from node.scu.store import echo
from node.study import TlsFiles

# what pydicom says of broken command sets is not an error, a thread that dies of them is
QUIET = pytest.mark.filterwarnings("ignore", "error::pytest.PytestUnhandledThreadExceptionWarning")
MEBIBYTE = 1 << 20
STUDY_UID, PIXELS = b"\x20\x00\x0d\x00", b"\xe0\x7f\x10\x00OW\0\0"


def large_data_set(number, size_bytes, study=STUDY):
    """An encoded data set of about ``size_bytes``."""
    data_set = make_instance(number, study_instance_uid=study)
    data_set.PixelData = bytes(size_bytes)
    return data_set_bytes(encode_instance(data_set))


def small_data_set(number, **more):
    """An encoded data set of half a kilobyte."""
    return data_set_bytes(encode_instance(make_instance(number, **more)))


@pytest.fixture
def run_node(tmp_path):
    with ExitStack() as stack:

        def run(**settings):
            node = ReceiverNode(tmp_path / "spool", **settings)
            stack.enter_context(node.receiver)
            return node

        yield run


def say(node, content, *, is_reset=False):
    """Connect, say ``content``, close; with a reset instead of an orderly end if so wanted."""
    with socket.create_connection((node.section.host, node.section.port), timeout=SECONDS) as connection:
        connection.sendall(content)
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def say_after_association(node, content):
    """Associate, say ``content``, and let the connection fall without release or abort."""
    with socket.create_connection((node.section.host, node.section.port), timeout=SECONDS) as connection:
        connection.sendall(associate_rq(node.section.ae_title))
        assert connection.recv(1) == b"\x02"
        connection.sendall(content)


def converse(node, *turns):
    """Say each of ``turns`` once the one before was answered, then listen until the node ends the connection."""
    address = (node.section.host, node.section.port)
    with socket.create_connection(address, timeout=SECONDS) as connection, suppress(ConnectionError):
        for turn in turns:
            connection.sendall(turn)
            if not connection.recv(65536):
                return
        while connection.recv(65536):
            pass


PROBES = {
    "nothing": b"",
    "garbage": bytes(range(256)),
    "HTTP": b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
    "TLS hello": bytes.fromhex("160301008a010000860303") + bytes(128),
    "half an A-ASSOCIATE-RQ": associate_rq("GLIONODE")[:60],
    "broken A-ASSOCIATE-RQ": b"\x01\x00\x00\x00\x00\x48" + b"\xff" * 72,
    "release before association": bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
    "data before association": data_pdu(bytes(40), is_command=True, is_last=True),
    "a PDU of four gigabytes": b"\x01\x00\xff\xff\xff\xff" + bytes(1000),
}


@pytest.mark.slow
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("probe", PROBES)
def test_probes_leave_nothing_behind(run_node, probe, is_reset):
    """Port scanners and load balancers, fifty in a row, leave no thread, no descriptor, and a node that answers."""
    node = run_node()
    say(node, PROBES[probe], is_reset=is_reset)
    with nothing_left(node):
        for _ in range(50):
            say(node, PROBES[probe], is_reset=is_reset)
    assert echo(node.destination, "SCANNER", SECONDS) is None


HALF_WAY = {
    "nothing": b"",
    "half a command": store_rq(sop_instance_uid(1))[:40],
    "a command without its data set": store_rq(sop_instance_uid(1)),
    "half a data set": store_rq(sop_instance_uid(1)) + data_pdu(bytes(5000), is_command=False, is_last=False),
    "half a PDU": store_rq(sop_instance_uid(1)) + data_pdu(bytes(5000), is_command=False, is_last=False)[:900],
    "a data set without command": data_pdu(bytes(50), is_command=False, is_last=True),
    "a command that is none": data_pdu(b"\xff" * 50, is_command=True, is_last=True),
    "an empty fragment": struct.pack(">BBLLB", 4, 0, 5, 1, 1),
    "another context": store_rq(sop_instance_uid(1)) + data_pdu(bytes(9), is_command=False, is_last=True, context_id=9),
    "an association request": associate_rq("GLIONODE"),
    "an unknown PDU": b"\x99\x00\x00\x00\x00\x04abcd",
    "a PDU of four gigabytes": b"\x04\x00\xff\xff\xff\xff" + bytes(1000),
}


@pytest.mark.slow
@QUIET
@pytest.mark.parametrize("content", HALF_WAY)
def test_peers_that_fall_silent_leave_nothing_behind(run_node, content, capfd):
    """An association that ends in the middle of anything leaves no thread, descriptor or file; no thread dies of it."""
    node = run_node()
    say_after_association(node, HALF_WAY[content])
    with nothing_left(node):
        for _ in range(20):
            say_after_association(node, HALF_WAY[content])
    assert echo(node.destination, "SCANNER", SECONDS) is None
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@QUIET
@pytest.mark.parametrize("is_patient", [True, False], ids=["waiting for answers", "all at once"])
@pytest.mark.parametrize("seed", range(2))
def test_broken_conversations_leave_nothing_behind(run_node, seed, is_patient, capfd):
    """Thirty whole conversations, each with a few bytes flipped anywhere, leave nothing behind and kill no thread."""
    node = run_node(network_timeout_seconds=0.3)
    release = bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0])
    store = store_rq(sop_instance_uid(1)) + data_pdu(small_data_set(1), is_command=False, is_last=True)
    turns = [associate_rq(node.section.ae_title), store, store, release]
    generator = random.Random(seed)
    patient = run_node()  # on a machine under load, 0.3 s may pass before a thread reads what it was sent
    converse(patient, *turns)
    assert patient.stored == [(STUDY, SERIES)] * 2
    with nothing_left(node):
        for _ in range(30):
            broken = [bytearray(turn) for turn in turns]
            for _ in range(generator.choice((1, 2, 5))):
                turn = generator.choice(broken)
                turn[generator.randrange(min(len(turn), 300))] = generator.randrange(256)
            converse(node, *(broken if is_patient else [b"".join(broken)]))
    # its time-out of 0.3 s may cut off an echo, too, on a machine under load
    wait_until(lambda: echo(node.destination, "SCANNER", SECONDS) is None)
    assert "Traceback" not in capfd.readouterr().err


def test_peer_that_stops_in_the_middle_is_let_go(run_node):
    """A peer that stops within a data set, its connection open, is let go after the time-out; nothing of it is left."""
    node = run_node(network_timeout_seconds=0.5)
    with nothing_left(node):
        peer = RawPeer(node.destination)
        peer.connection.sendall(store_rq(sop_instance_uid(1)) + data_pdu(bytes(99), is_command=False, is_last=False))
        wait_until(node.incoming)
        peer.wait_for_abort()
        peer.connection.close()


def test_peer_that_drips_is_let_go(run_node):
    """A PDU that comes byte by byte is not waited for longer than the time-out, however lively its peer."""
    node = run_node(network_timeout_seconds=0.5)
    with socket.create_connection((node.section.host, node.section.port), timeout=SECONDS) as connection:
        rest = iter(associate_rq(node.section.ae_title))

        def is_closed():
            try:
                connection.sendall(bytes([next(rest)]))
                connection.settimeout(0.05)
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_closed)


def test_abort_within_a_data_set_keeps_what_was_acknowledged(run_node):
    """An abort in the middle of a series keeps the instances before, and nothing of the one that was arriving."""
    node = run_node()
    with nothing_left(node):
        peer = RawPeer(node.destination)
        assert [peer.store(sop_instance_uid(number), small_data_set(number)) for number in (1, 2)] == [0, 0]
        peer.connection.sendall(store_rq(sop_instance_uid(3)) + data_pdu(bytes(99), is_command=False, is_last=False))
        wait_until(node.incoming)
        peer.connection.sendall(bytes([ABORT, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
        peer.connection.close()
    assert sorted(node.spool.folder.rglob("*.dcm")) == sorted(node.path(number) for number in (1, 2))


def test_two_studies_interleaved(run_node):
    """Two studies that come in turns over one association lie whole and apart, and each is reported."""
    node = run_node()
    studies = ("1.2.3.1", "1.2.3.2")
    with RawPeer(node.destination) as peer:
        for number in range(1, 9):
            for study in studies:
                uid = sop_instance_uid(number, f"{study}.1")
                data_set = small_data_set(number, study_instance_uid=study, series_instance_uid=f"{study}.1")
                assert peer.store(uid, data_set) == 0x0000
    for study in studies:
        assert all(node.path(number, f"{study}.1", study).exists() for number in range(1, 9))
    assert Counter(node.stored) == {(study, f"{study}.1"): 8 for study in studies}


def test_late_and_repeated_instances(run_node):
    """What comes again is answered with Success and kept once; what comes late is added; both are reported."""
    node = run_node()
    for numbers in ((1, 2), (1, 2), (2, 3)):
        with RawPeer(node.destination) as peer:
            assert [peer.store(sop_instance_uid(number), small_data_set(number)) for number in numbers] == [0, 0]
    assert node.files() == sorted(f"{STUDY}/{SERIES}/{sop_instance_uid(number)}.dcm" for number in (1, 2, 3))
    assert node.stored == [(STUDY, SERIES)] * 6


def test_messages_without_waiting_for_answers_are_bounded(run_node, monkeypatch):
    """A peer that goes on sending without waiting for answers is let go instead of filling memory and descriptors."""
    node = run_node()
    keep, is_held = node.spool.keep, True

    def slow(*arguments):
        wait_until(lambda: not is_held)
        return keep(*arguments)

    monkeypatch.setattr(node.spool, "keep", slow)
    with nothing_left(node), structlog.testing.capture_logs() as events:
        peer = RawPeer(node.destination)
        message = data_pdu(small_data_set(1), is_command=False, is_last=True)
        peer.connection.sendall((store_rq(sop_instance_uid(1)) + message) * 40)
        wait_until(lambda: [event for event in events if event["event"] == "association_aborted"])
        is_held = False
        peer.wait_for_abort()
        peer.connection.close()


def test_instance_beyond_the_limit_is_refused_for_good(run_node):
    """An instance that grows beyond max_instance_mebibytes is refused by its own status; the association goes on."""
    node = run_node(max_instance_mebibytes=1)
    with nothing_left(node), RawPeer(node.destination) as peer:
        assert peer.store(sop_instance_uid(1), large_data_set(1, MEBIBYTE + 2)) == 0xC020
        assert peer.store(sop_instance_uid(2), large_data_set(2, MEBIBYTE // 2)) == 0x0000
    assert node.files() == [f"{STUDY}/{SERIES}/{sop_instance_uid(2)}.dcm"]


@pytest.mark.slow
def test_instance_without_end_is_cut_off(run_node):
    """A peer that does not stop sending is aborted, cut off after the time-out, and the disk holds nothing of it."""
    node = run_node(max_instance_mebibytes=1, network_timeout_seconds=0.5)
    with nothing_left(node), structlog.testing.capture_logs() as events:
        peer = RawPeer(node.destination)
        peer.connection.sendall(store_rq(sop_instance_uid(1)))
        fragment = data_pdu(bytes(65536), is_command=False, is_last=False)

        def is_cut_off():
            try:
                peer.connection.sendall(fragment)
            except ConnectionError:
                return True
            return False

        wait_until(is_cut_off)
        peer.connection.close()
    assert "association_aborted" in [event["event"] for event in events]
    assert node.files() == []


def test_study_beyond_the_limit_is_refused(run_node, tmp_path):
    """Beyond max_study_mebibytes an instance is refused for good, one that is held already is not; a restart knows."""
    node = run_node(max_study_mebibytes=2)
    data_sets = [large_data_set(number, 600 * 1024) for number in range(1, 6)]
    with RawPeer(node.destination) as peer:
        answers = [peer.store(sop_instance_uid(number), data_sets[number - 1]) for number in range(1, 5)]
        assert answers == [0x0000, 0x0000, 0x0000, 0xC021]
        assert peer.store(sop_instance_uid(2), data_sets[1]) == 0x0000
        assert peer.store(sop_instance_uid(1), large_data_set(1, 600 * 1024 + 2)) == 0xC021  # other bytes: a conflict
    again = ReceiverNode(tmp_path / "spool", max_study_mebibytes=2)
    with again.receiver, RawPeer(again.destination) as peer:
        assert peer.store(sop_instance_uid(5), data_sets[4]) == 0xC021
        again.path(1).unlink()
        assert peer.store(sop_instance_uid(5), data_sets[4]) == 0x0000


def test_strangers_are_not_let_in(run_node):
    """An address outside allowed_addresses is cut off without an answer, and logged; 127.0.0.1 is served if listed."""
    with structlog.testing.capture_logs() as events:
        node = run_node(allowed_addresses=("10.1.2.0/24", "2001:db8::/32"))
        assert echo(node.destination, "SCANNER", SECONDS) is not None
    refused = [event for event in events if event["event"] == "connection_refused"]
    assert [(event["address"], event["reason"]) for event in refused] == [
        ("127.0.0.1", "not in scp.allowed_addresses")
    ] * len(refused)
    assert refused


def test_listed_networks_are_served(run_node):
    """An address of an allowed network is served."""
    node = run_node(allowed_addresses=("127.0.0.0/30",))
    assert echo(node.destination, "SCANNER", SECONDS) is None


@pytest.mark.slow
def test_connections_are_bounded(run_node):
    """However many connections are opened, only so many are held; when they end the node serves again."""
    node = run_node(max_associations=1)
    address = (node.section.host, node.section.port)
    with nothing_left(node), ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(address, timeout=SECONDS)) for _ in range(100)]
        assert opened[-1].recv(1) == b""
    assert echo(node.destination, "SCANNER", SECONDS) is None


@pytest.fixture
def authority(tmp_path):
    return make_authority(tmp_path / "authority")


def tls_section(files, *, is_ca=True):
    return TlsSection(
        certificate_file=files.certificate_file, key_file=files.key_file, ca_file=files.ca_file if is_ca else None
    )


def test_tls_with_client_certificates(run_node, authority, tmp_path):
    """With TLS and a CA file, DCMTK with a certificate stores; a peer without one, or without TLS, gets nothing."""
    mine, theirs = authority.sign("node"), authority.sign("scanner")
    node = run_node(tls=tls_section(mine))
    file = tmp_path / "instance.dcm"
    file.write_bytes(encode_instance(make_instance()))
    address = ("-aec", node.section.ae_title, node.section.host, str(node.section.port))

    def storescu(*options):
        command = [str(find_program("storescu")), "-R", *map(str, options), *address, str(file)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    with nothing_left(node):
        assert storescu("+tls", theirs.key_file, theirs.certificate_file, "+cf", authority.certificate_file) == 0
    assert node.path().exists()
    with nothing_left(node):
        assert storescu("+tla", "+cf", authority.certificate_file) != 0
        assert storescu() != 0


def test_tls_without_ca_file_takes_any_peer(run_node, authority):
    """Without a CA file the connection is encrypted, and peers need no certificate; TLS 1.1 is not spoken."""
    node = run_node(tls=tls_section(authority.sign("node"), is_ca=False))
    context = ssl.create_default_context(cafile=authority.certificate_file)
    with (
        socket.create_connection((node.section.host, node.section.port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(associate_rq(node.section.ae_title))
        assert connection.recv(1) == b"\x02"
        assert connection.version() in ("TLSv1.2", "TLSv1.3")


def test_tls_handshake_holds_up_nobody(run_node, authority):
    """Peers that connect to the TLS port and stay silent hold up neither others nor the stop of the receiver."""
    files = authority.sign("node")
    node = run_node(tls=tls_section(files))
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(socket.create_connection((node.section.host, node.section.port), timeout=SECONDS))
        peer = TlsFiles(files.certificate_file, files.key_file, authority.certificate_file)
        context = ssl.create_default_context(cafile=authority.certificate_file)
        context.load_cert_chain(peer.certificate_file, peer.key_file)
        with socket.create_connection((node.section.host, node.section.port), timeout=SECONDS) as plain:
            connection = stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            connection.sendall(associate_rq(node.section.ae_title))
            assert connection.recv(1) == b"\x02"
        node.receiver.stop()


@pytest.mark.parametrize("probe", ["nothing", "garbage", "HTTP", "half an A-ASSOCIATE-RQ"])
def test_probes_of_the_tls_port_leave_nothing_behind(run_node, authority, probe):
    """Probes of the TLS port leave no thread and no descriptor either."""
    node = run_node(tls=tls_section(authority.sign("node")))
    say(node, PROBES[probe])
    with nothing_left(node):
        for _ in range(20):
            say(node, PROBES[probe])


@pytest.mark.parametrize("key", ["certificate_file", "key_file", "ca_file"])
def test_unusable_tls_file_is_a_config_error(tmp_path, authority, key):
    """A TLS file that is none is a ConfigError that names its key, before anything listens."""
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    section = tls_section(authority.sign("node")).model_copy(update={key: broken})
    with pytest.raises(ConfigError, match=rf"tls\..*{key}"):
        ReceiverNode(tmp_path / "spool", tls=section).receiver.start()


def test_full_disk_is_survived(tmp_path):
    """ENOSPC in the middle of an instance is A700, and nothing half is kept; with room again, all is taken."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        node = ReceiverNode(disk / "spool")
        data_sets = [large_data_set(number, 3 * MEBIBYTE) for number in range(1, 5)]
        with node.receiver, structlog.testing.capture_logs() as events:
            with nothing_left(node), RawPeer(node.destination) as peer:
                answers = [peer.store(sop_instance_uid(number), data_sets[number - 1]) for number in range(1, 5)]
                assert answers == [0x0000, 0x0000, 0xA700, 0xA700]
            assert [dcmread(node.path(number)).InstanceNumber for number in (1, 2)] == [1, 2]
            assert len(node.files()) == 2
            node.path(1).unlink()
            with RawPeer(node.destination) as peer:
                assert peer.store(sop_instance_uid(3), data_sets[2]) == 0x0000
        assert len(dcmread(node.path(3)).PixelData) == 3 * MEBIBYTE
        names = [event["event"] for event in events]
        assert names.count("spool_out_of_resources") == 2
        assert names.count("spool_has_room_again") == 1
        assert {event["reason"] for event in events if event["event"] == "spool_out_of_resources"} == {
            "No space left on device"
        }


def test_watermark_is_kept_and_left_by_itself(tmp_path):
    """Below the watermark the answer is A700 before anything is written; above it again, Success."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        node = ReceiverNode(disk / "spool", watermark_mebibytes=4)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(5 * MEBIBYTE))
        with node.receiver, RawPeer(node.destination) as peer:
            assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0xA700
            assert node.files() == []
            assert peer.echo() == 0x0000
            ballast.unlink()
            assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0x0000


@pytest.mark.slow
def test_large_instance_goes_to_the_disk_as_it_arrives(run_node):
    """Of an Enhanced MR instance of 64 MiB nearly all lies in the spool before its last fragment was sent."""
    node = run_node()
    size_bytes, fragment_bytes = 64 * MEBIBYTE, 1 << 16
    instance = make_instance()
    instance.SOPClassUID = EnhancedMRImageStorage
    data_set = data_set_bytes(encode_instance(instance))
    head = data_set[: data_set.index(PIXELS) + len(PIXELS)] + struct.pack("<L", size_bytes)
    content = head + random.Random(1).randbytes(size_bytes)
    with RawPeer(node.destination, sop_class=EnhancedMRImageStorage) as peer:
        peer.connection.sendall(store_rq(sop_instance_uid(1), EnhancedMRImageStorage))
        last = len(content) - fragment_bytes
        for start in range(0, last, fragment_bytes):
            fragment = content[start : min(start + fragment_bytes, last)]
            peer.connection.sendall(data_pdu(fragment, is_command=False, is_last=False))
        arrived = last - fragment_bytes  # a file's buffer holds back less than a fragment
        wait_until(lambda: sum((node.spool.folder / name).stat().st_size for name in node.incoming()) > arrived)
        assert node.stored == []
        peer.connection.sendall(data_pdu(content[last:], is_command=False, is_last=True))
        assert peer.read_status() == 0x0000
    assert node.incoming() == []
    assert data_set_bytes(node.path().read_bytes()) == content
    assert node.stored == [(STUDY, SERIES)]


@pytest.mark.slow
def test_many_large_instances_keep_the_watermark(tmp_path):
    """Instances that arrive at once on a disk that fills overshoot the watermark by little; what fits is taken."""
    with small_disk(tmp_path / "disk", "64m") as disk:
        node = ReceiverNode(disk / "spool", watermark_mebibytes=32)
        data_sets = [large_data_set(number, 12 * MEBIBYTE) for number in range(6)]
        free_bytes = []
        with node.receiver, nothing_left(node), ExitStack() as stack:
            peers = [stack.enter_context(RawPeer(node.destination)) for _ in data_sets]
            for number, peer in enumerate(peers):
                peer.connection.sendall(store_rq(sop_instance_uid(number)))
            step = (1 << 17) - 6  # with its head, a PDU as long as negotiated
            for start in range(0, len(data_sets[0]), step):
                for peer, data_set in zip(peers, data_sets, strict=True):
                    is_last = start + step >= len(data_set)
                    peer.connection.sendall(data_pdu(data_set[start : start + step], is_command=False, is_last=is_last))
                free_bytes.append(shutil.disk_usage(disk).free)
            answers = Counter(peer.read_status() for peer in peers)
        assert set(answers) == {0x0000, 0xA700}
        assert answers[0x0000] >= 2  # two fit together, whoever they are
        assert len(list(node.spool.folder.rglob("*.dcm"))) == answers[0x0000]
        assert min(free_bytes) >= (32 - 8 - 1) * MEBIBYTE


def send_series(node, number, count):
    """Send one series of ``count`` instances over one association: the answers."""
    series = f"1.2.3.{number + 1}"
    with RawPeer(node.destination) as peer:
        return Counter(
            peer.store(
                sop_instance_uid(each, series),
                small_data_set(each, study_instance_uid=f"1.2.4.{number + 1}", series_instance_uid=series),
            )
            for each in range(count)
        )


@pytest.mark.parametrize(("associations", "count"), [(16, 10), (64, 200 if IS_FULL else 20)])
@pytest.mark.slow
def test_many_associations_at_once_without_an_error(tmp_path, associations, count):
    """Many associations at once, each with a series of its own: every instance is acknowledged, and lies on disk."""
    with running_node(write_config(tmp_path), role="receive") as node, ThreadPoolExecutor(associations) as pool:
        answers = pool.map(lambda number: send_series(node, number, count), range(associations))
        assert sum(answers, Counter()) == {0x0000: associations * count}
        assert len(list(node.config.spool_folder.rglob("*.dcm"))) == associations * count
        assert node.events("study_not_handed_over") == []


@QUIET
def test_aborted_peer_is_told(run_node):
    """A command set that is none ends the association with A-ABORT, not with silence."""
    node = run_node()
    peer = RawPeer(node.destination)
    peer.connection.sendall(data_pdu(b"\xff" * 50, is_command=True, is_last=True))
    assert peer.read_pdu()[0] == ABORT
    peer.connection.close()
    with RawPeer(node.destination) as other:
        assert other.echo() == 0x0000
    with pytest.raises(PeerAbortedError):
        _store_in_a_context_that_was_not_accepted(node)


def _store_in_a_context_that_was_not_accepted(node):
    peer = RawPeer(node.destination)
    try:
        peer.connection.sendall(
            store_rq(sop_instance_uid(1)).replace(b"\x01\x03", b"\x09\x03", 1)
            + data_pdu(small_data_set(1), is_command=False, is_last=True, context_id=9)
        )
        peer.read_status()
    finally:
        peer.connection.close()


@pytest.mark.slow
def test_bench_prints_every_table(monkeypatch):
    """``bench receive`` compares each receiver over one and four associations, and shows memory at five points, at
    one large instance, and under attack."""
    monkeypatch.setattr("glionode_bench.receive.SLICES", 12)
    monkeypatch.setattr("glionode_bench.attack.ATTACKS", ("PDUs without their last byte",))
    result = run_glionode("bench", "receive", "--instances", "40", "--mebibytes", "5")
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert len([row for row in rows if "storescp" in row]) == len([row for row in rows if "glionode" in row]) >= 2
    first = [row.split("│")[1].strip() for row in rows]
    assert "40" in first
    assert "5" in first
    assert "PDUs without their last byte" in first
    assert "bound: 280 MiB" in result.stdout
