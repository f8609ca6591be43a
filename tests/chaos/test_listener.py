"""The receiver's own life: what must not end it, what must not leak, and who has a place."""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import structlog
from faults import wait_until
from instances import (
    SERIES,
    STUDY,
    data_set_bytes,
    encode_instance,
    make_instance,
    sop_instance_uid,
    write_instance_file,
)
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context
from pynetdicom.sop_class import Verification
from raw_peer import RawPeer, associate_rq, data_pdu, store_rq
from receiver_node import SECONDS, ReceiverNode, nothing_left

from node.scp.handlers import IMAGE_SOP_CLASSES
from node.scp.listener import ConnectionFilter
from node.scp.provider import StreamingProvider
from node.scu.association import keep_responses
from node.scu.store import echo, send_instances
from node.study import Destination

THREAD_DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def run_node(tmp_path):
    with ExitStack() as stack:

        def run(**settings):
            node = ReceiverNode(tmp_path / "spool", **settings)
            stack.enter_context(node.receiver)
            return node

        yield run


def small_data_set(number=1):
    """An encoded data set of half a kilobyte."""
    return data_set_bytes(encode_instance(make_instance(number)))


def connect(node):
    """A connection that has said nothing yet."""
    return socket.create_connection((node.section.host, node.section.port), timeout=SECONDS)


def names(events):
    """The events' names."""
    return [event["event"] for event in events]


@THREAD_DIES
def test_receiver_that_ends_unasked_says_so(run_node, monkeypatch):
    """A listener that an error ends is logged as such and no longer alive; it can still be stopped and started."""
    node = run_node()
    assert node.receiver.is_alive

    def fail():
        raise RuntimeError

    with structlog.testing.capture_logs() as events:
        monkeypatch.setattr(node.receiver._server, "_on_tick", fail)
        wait_until(lambda: not node.receiver.is_alive)
        node.receiver.stop()
    assert names(events) == ["receiver_not_listening", "receiver_stopped"]
    node.receiver.start()
    assert node.receiver.is_alive
    assert echo(node.destination, "SCANNER", SECONDS) is None


def test_receiver_that_is_stopped_says_nothing_else(run_node):
    """A stop that was asked for is no error."""
    node = run_node()
    with structlog.testing.capture_logs() as events:
        node.receiver.stop()
    assert names(events) == ["receiver_stopped"]
    assert not node.receiver.is_alive


def test_leftover_that_cannot_be_deleted_ends_nothing(run_node, monkeypatch):
    """A peer that drops half-way on a disk that has turned read-only leaves a file, and a receiver that listens."""
    node = run_node()
    unlink = Path.unlink

    def fail(path, **keywords):
        if ".incoming" in path.parts:
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, **keywords)

    with monkeypatch.context() as broken, structlog.testing.capture_logs() as events:
        broken.setattr(Path, "unlink", fail)
        peer = RawPeer(node.destination)
        peer.connection.sendall(store_rq(sop_instance_uid(1)) + data_pdu(bytes(99), is_command=False, is_last=False))
        wait_until(node.incoming)
        peer.connection.close()
        wait_until(lambda: "incoming_not_deleted" in names(events))
    assert node.receiver.is_alive
    with RawPeer(node.destination) as peer:
        assert peer.store(sop_instance_uid(1), small_data_set()) == 0x0000
    assert names(events).count("incoming_not_deleted") == 1


@pytest.mark.slow
@pytest.mark.parametrize("thread", ["pynetdicom.association.Association", "pynetdicom.dul.DULServiceProvider"])
def test_connections_without_threads_are_put_away(run_node, monkeypatch, thread, capfd):
    """Connections for which no thread can be started are closed and leave nothing, however many; then all is well."""
    node = run_node(max_associations=1)
    with nothing_left(node), monkeypatch.context() as broken, structlog.testing.capture_logs() as events:

        def fail(_thread):
            raise RuntimeError("can't start new thread")

        broken.setattr(f"{thread}.start", fail)
        for _ in range(70):
            with connect(node) as connection, suppress(ConnectionError):
                assert connection.recv(1) == b""
        wait_until(lambda: len(events) == 70)
    assert {(event["event"], event["reason"]) for event in events} == {("connection_failed", "RuntimeError")}
    assert echo(node.destination, "SCANNER", SECONDS) is None
    assert "Traceback" not in capfd.readouterr().err


def test_connection_without_descriptors_is_put_away(run_node, monkeypatch, capfd):
    """A connection that finds no more descriptors is closed, said once, and leaves no thread that dies."""
    node = run_node()
    with nothing_left(node), structlog.testing.capture_logs() as events, monkeypatch.context() as broken:

        def fail(*_arguments):
            raise OSError(errno.EMFILE, "Too many open files")

        broken.setattr("node.scp.connection.socket.socketpair", fail)
        with connect(node) as connection, suppress(ConnectionError):
            assert connection.recv(1) == b""
        wait_until(lambda: events)  # the peer sees the end of its connection before the node has said why
    assert names(events) == ["connection_failed"]
    assert echo(node.destination, "SCANNER", SECONDS) is None
    assert "Traceback" not in capfd.readouterr().err


def test_waiting_connections_without_descriptors_do_not_spin(run_node, monkeypatch):
    """While connections cannot be taken, the listener rests between its tries and says so once; then it takes them."""
    node = run_node()
    rests, tries = [], []
    sleep = time.sleep

    def rest(seconds):
        if threading.current_thread().name == "receiver":
            rests.append(seconds)
        sleep(seconds)

    def fail(_server):
        tries.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    with structlog.testing.capture_logs() as events:
        with monkeypatch.context() as broken:
            broken.setattr("node.scp.listener.time.sleep", rest)
            broken.setattr("pynetdicom.transport.AssociationServer.get_request", fail)
            waiting = connect(node)
            wait_until(lambda: len(tries) >= 3)
        waiting.sendall(associate_rq(node.section.ae_title))
        assert waiting.recv(1) == b"\x02"
        waiting.close()
    assert names(events) == ["connections_cannot_be_taken"]
    assert len(rests) >= len(tries) - 1


@THREAD_DIES
def test_association_whose_thread_dies_leaves_nothing(run_node, monkeypatch):
    """Whatever kills an association's thread, its connection ends, though the peer stays, and nothing is left."""
    node = run_node()

    def fail(*_arguments):
        raise RuntimeError

    with nothing_left(node):
        monkeypatch.setattr("node.scp.provider.StreamingProvider.get_msg", fail)
        peer = RawPeer(node.destination)
        peer.wait_for_abort()
        peer.connection.close()


def test_silent_connections_take_no_place(run_node):
    """Connections that never ask for an association keep nobody out, though there are more than max_associations."""
    node = run_node(max_associations=2)
    with ExitStack() as stack:
        for sent in (b"", b"\x01\x00\x00\x00\x01\x00half") * 3:
            stack.enter_context(connect(node)).sendall(sent)
        wait_until(lambda: len(node.receiver._open) == 6)
        with RawPeer(node.destination) as one, RawPeer(node.destination) as other:
            assert [peer.echo() for peer in (one, other)] == [0x0000, 0x0000]
            assert "Local limit exceeded" in str(echo(node.destination, "SCANNER", SECONDS))


@pytest.mark.parametrize("sent", [b"", b"\x01\x00\x00\x00\x01\x00half of an A-ASSOCIATE-RQ"])
def test_connection_that_does_not_ask_is_closed_early(run_node, monkeypatch, sent):
    """A connection that has not asked for its association in its own short time is closed long before the time-out."""
    monkeypatch.setattr("node.scp.server.REQUEST_SECONDS", 0.2)
    node = run_node(network_timeout_seconds=10 * SECONDS)
    with nothing_left(node), connect(node) as connection:
        connection.sendall(sent)
        with suppress(ConnectionError):
            while connection.recv(100):
                pass
    assert echo(node.destination, "SCANNER", SECONDS) is None


def test_last_place_is_given_once(run_node):
    """Of many peers that ask at once for the only place exactly one gets it; when it goes, the place is free again."""
    node = run_node(max_associations=1)
    answers, barrier = [], threading.Barrier(9)

    def ask():
        with connect(node) as connection:
            barrier.wait(SECONDS)
            connection.sendall(associate_rq(node.section.ae_title))
            answers.append(connection.recv(1))
            barrier.wait(SECONDS)  # nobody leaves before all are answered

    peers = [threading.Thread(target=ask) for _ in range(8)]
    for peer in peers:
        peer.start()
    barrier.wait(SECONDS)
    wait_until(lambda: len(answers) == 8)
    barrier.wait(SECONDS)
    for peer in peers:
        peer.join()
    assert sorted(answers) == [b"\x02"] + [b"\x03"] * 7
    wait_until(lambda: echo(node.destination, "SCANNER", SECONDS) is None)


@pytest.mark.slow
def test_slow_disk_is_no_silent_peer(run_node, monkeypatch):
    """A disk that takes longer than the network time-out is answered for, and the association goes on."""
    node = run_node(network_timeout_seconds=0.3)
    keep = node.spool.keep

    def keep_slowly(*arguments):
        wait_until(lambda: all(each.dul.idle_timer_expired() for each in node.receiver._open))
        return keep(*arguments)

    monkeypatch.setattr(node.spool, "keep", keep_slowly)
    with RawPeer(node.destination) as peer:
        for number in (1, 2, 3):
            assert peer.store(sop_instance_uid(number), small_data_set(number)) == 0x0000


@pytest.fixture
def looks(monkeypatch):
    """Grows whenever an association looked for what there is to do, its time-out included."""
    seen = []
    get_msg = StreamingProvider.get_msg

    def watched(provider, block=False):
        seen.append(1)
        return get_msg(provider, block)

    monkeypatch.setattr(StreamingProvider, "get_msg", watched)
    return seen


@pytest.mark.parametrize("hours", [-24, 24])
def test_clock_that_jumps_ends_no_association(run_node, monkeypatch, looks, hours):
    """When the wall clock jumps, an open association goes on."""
    node = run_node()
    clock = time.time
    with RawPeer(node.destination) as peer:
        assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0x0000
        monkeypatch.setattr(time, "time", lambda: clock() + 3600 * hours)
        before = len(looks)
        wait_until(lambda: len(looks) > before + 2)
        assert peer.store(sop_instance_uid(2), small_data_set(2)) == 0x0000


def test_clock_that_is_put_back_keeps_no_silent_peer(run_node, monkeypatch):
    """When the wall clock is put back, a silent association, and a silent connection, are let go in time."""
    node = run_node(network_timeout_seconds=0.5)
    clock = time.time
    peer = RawPeer(node.destination)
    with nothing_left(node), connect(node) as connection:
        wait_until(lambda: len(node.receiver._open) == 2)
        monkeypatch.setattr(time, "time", lambda: clock() - 86400)
        peer.wait_for_abort()
        with suppress(ConnectionError):
            assert connection.recv(1) == b""
    peer.connection.close()


@pytest.mark.parametrize("sop_class", [CTImageStorage, Verification, "1.2.3.4"])
def test_instance_of_another_class_than_its_context(run_node, sop_class):
    """A C-STORE of a class other than its presentation context's is refused as such, known or not; all goes on."""
    node = run_node()
    with nothing_left(node), structlog.testing.capture_logs() as events, RawPeer(node.destination) as peer:
        assert peer.store(sop_instance_uid(1), small_data_set(), sop_class) == 0x0122
        assert peer.store(sop_instance_uid(1), small_data_set()) == 0x0000
        assert peer.echo() == 0x0000
    assert [(event["event"], event.get("status")) for event in events] == [("instance_refused", "0x0122")]


@pytest.mark.parametrize("sop_class", [MRImageStorage, Verification])
def test_instance_in_the_context_of_verification(run_node, sop_class):
    """A C-STORE in the presentation context of Verification is refused as not supported, and nothing is left of it."""
    node = run_node()
    with nothing_left(node), RawPeer(node.destination) as peer:
        command = store_rq(sop_instance_uid(1), sop_class).replace(b"\x01\x03", b"\x03\x03", 1)
        data_set = data_pdu(small_data_set(), is_command=False, is_last=True, context_id=3)
        peer.connection.sendall(command + data_set)
        assert peer.read_status() == 0x0122
        assert peer.echo() == 0x0000
    assert node.files() == []


@pytest.mark.parametrize("sop_class", IMAGE_SOP_CLASSES, ids=lambda sop_class: sop_class.keyword)
def test_every_class_of_mr_is_stored(run_node, tmp_path, sop_class):
    """MR, Enhanced MR, Enhanced MR Color and Legacy Converted Enhanced MR images are taken alike."""
    node = run_node()
    instance = make_instance()
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = sop_class
    file = write_instance_file(tmp_path, instance)
    (delivery,) = send_instances(node.destination, "SCANNER", [file], SECONDS)
    assert delivery.is_delivered
    assert data_set_bytes(node.path().read_bytes()) == data_set_bytes(file.read_bytes())
    assert node.stored == [(STUDY, SERIES)]


@pytest.mark.parametrize("max_pdu_bytes", [4096, 131072, 1048576])
def test_largest_pdu_is_announced(run_node, max_pdu_bytes):
    """The peer is told max_pdu_bytes, and an instance sent in PDUs of that size is stored."""
    node = run_node(max_pdu_bytes=max_pdu_bytes)
    instance = make_instance()
    instance.PixelData = bytes(3 << 20)
    ae = AE("SCANNER")
    context = build_context(MRImageStorage, ExplicitVRLittleEndian)
    association = ae.associate(node.section.host, node.section.port, [context], ae_title=node.section.ae_title)
    keep_responses(association)
    assert association.acceptor.maximum_length == max_pdu_bytes
    assert association.send_c_store(instance).Status == 0x0000
    association.release()
    association.join()
    assert node.path().stat().st_size > 3 << 20


@pytest.mark.parametrize(
    ("address", "is_let_in"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.1.3.1", False),
        ("::ffff:10.1.3.1", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("fe80::1%eth0", False),
    ],
)
def test_allowed_addresses_of_both_kinds(address, is_let_in):
    """Networks of IPv4 and IPv6 stand side by side in the list; IPv4 over IPv6 counts as IPv4."""
    connection_filter = ConnectionFilter(("10.1.2.0/24", "2001:db8::/32"), 1, lambda: 0)
    assert (connection_filter.reason_to_refuse(address) is None) is is_let_in


def has_ipv6():
    """True if this machine has a loopback of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6")
@pytest.mark.parametrize(("network", "is_let_in"), [("::1/128", True), ("2001:db8::/32", False), ("127.0.0.1", False)])
def test_peers_over_ipv6(run_node, network, is_let_in):
    """A node that listens on an IPv6 address serves the peers that the list names, and only these."""
    node = run_node(host="::1", allowed_addresses=(network,))
    reason = echo(Destination("node", node.section.ae_title, "::1", node.section.port), "SCANNER", SECONDS)
    assert (reason is None) is is_let_in
