"""What peers can make the receiver hold in memory: each limit, and all of them together."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack

import pytest
import structlog
from faults import wait_until
from glionode_bench.attack import bound_mebibytes, measure
from glionode_bench.receiver_process import receiver_section, running
from instances import data_set_bytes, encode_instance, make_instance, sop_instance_uid
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.sop_class import StorageCommitmentPushModelInstance
from raw_peer import ABORT, ASSOCIATE_AC, RawPeer, command, data_pdu, store_rq
from receiver_node import SECONDS, ReceiverNode, nothing_left

from node.config_sections import ScpSection
from node.scp.limits import (
    ASSOCIATE_RQ_BYTES,
    COMMAND_SET_BYTES,
    PDU_VALUES,
    REPORT_BYTES,
    REPORTS_BYTES,
    MemoryBudget,
    most_bytes,
)

ECHO_RQ, REPORT_RQ, REPORT_RSP, FIND_RSP, ACTION_RQ, SET_RQ = 0x0030, 0x0100, 0x8100, 0x8020, 0x0130, 0x0120
HAS_DATA_SET = 0x0001
FRAGMENT_BYTES = 16 << 10

ATTACKS_MEASURED = ("reports without end", "PDUs full of empty values", "A-ASSOCIATE-RQ without their last byte")
"""Those that take most memory; ``bench receive`` measures all."""


@pytest.fixture
def run_node(tmp_path):
    with ExitStack() as stack:

        def run(**settings):
            node = ReceiverNode(tmp_path / "spool", **settings)
            stack.enter_context(node.receiver)
            return node

        yield run


def request(command_field):
    """The command set of a message that announces a data set, in one PDU."""
    content = command(
        command_field,
        HAS_DATA_SET,
        AffectedSOPClassUID=MRImageStorage,
        AffectedSOPInstanceUID=StorageCommitmentPushModelInstance,
        EventTypeID=1,
    )
    return data_pdu(content, is_command=True, is_last=True)


def item(kind, content):
    """An item of an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def association_request(contexts=1, transfer_syntaxes=1, more_contexts=b"", more_information=b""):
    """An A-ASSOCIATE-RQ PDU of the size that is wanted."""
    syntaxes = b"".join(
        item(0x40, ExplicitVRLittleEndian.encode() if number == 0 else f"1.2.840.10008.1.2.4.{number}".encode())
        for number in range(transfer_syntaxes)
    )
    titles = b"".join(title.ljust(16) for title in (b"GLIONODE", b"SCANNER"))
    content = struct.pack(">HH32s32x", 1, 0, titles) + item(0x10, b"1.2.840.10008.3.1.1.1")
    for number in range(contexts):
        head = struct.pack(">BBBB", 2 * number + 1, 0, 0, 0)
        content += item(0x20, head + item(0x30, MRImageStorage.encode()) + syntaxes)
    information = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.826.0.1.3680043.10.1462.9")
    content += more_contexts + item(0x50, information + more_information)
    return struct.pack(">BBL", 1, 0, len(content)) + content


def ask(node, pdu):
    """The type of the PDU that answers ``pdu``; 0 if the connection is closed."""
    with socket.create_connection((node.section.host, node.section.port), timeout=SECONDS) as connection:
        connection.sendall(pdu)
        answer = connection.recv(1)
        return answer[0] if answer else 0


def aborted(peer, *pdus):
    """True if the node aborts after ``pdus``; ``peer`` must have sent them without an answer."""
    for pdu in pdus:
        peer.connection.sendall(pdu)
    return peer.read_pdu()[0] == ABORT


def reasons(events):
    """Why associations were aborted."""
    return [event["reason"] for event in events if event["event"] == "association_aborted"]


@pytest.mark.parametrize("command_field", [ECHO_RQ, REPORT_RSP, FIND_RSP, ACTION_RQ, SET_RQ])
def test_message_without_data_set_ends_at_its_first_fragment(run_node, command_field):
    """A data set that comes with any message but an instance or a report aborts the association at once."""
    node = run_node()
    with structlog.testing.capture_logs() as events, nothing_left(node):
        peer = RawPeer(node.destination)
        assert aborted(peer, request(command_field), data_pdu(bytes(8), is_command=False, is_last=False))
        peer.connection.close()
    assert reasons(events) == ["a data set with a message that has none"]


def test_report_beyond_its_size_is_aborted(run_node):
    """A report of storage commitment that grows beyond what the node can have asked for ends at the limit."""
    node = run_node()
    fragments = [data_pdu(bytes(FRAGMENT_BYTES), is_command=False, is_last=False)] * (REPORT_BYTES // FRAGMENT_BYTES)
    with structlog.testing.capture_logs() as events, nothing_left(node):
        peer = RawPeer(node.destination)
        assert aborted(peer, request(REPORT_RQ), *fragments, data_pdu(b"\0\0", is_command=False, is_last=False))
        peer.connection.close()
    assert reasons(events) == ["a report larger than any that was asked for"]
    assert node.receiver._report_memory.held_bytes == 0


def test_reports_share_one_budget(run_node):
    """However many associations hold unfinished reports, together they hold one budget at most; then it is free."""
    node = run_node()
    whole = [data_pdu(bytes(FRAGMENT_BYTES), is_command=False, is_last=False)] * (REPORT_BYTES // FRAGMENT_BYTES)
    most = REPORTS_BYTES // REPORT_BYTES
    with structlog.testing.capture_logs() as events, nothing_left(node), ExitStack() as stack:
        peers = [RawPeer(node.destination) for _ in range(most + 4)]
        for peer in peers:
            stack.callback(peer.connection.close)
            peer.connection.sendall(request(REPORT_RQ) + b"".join(whole))
        # those that ask at one time may end more often than need be: what they held is free a moment later
        memory = node.receiver._report_memory
        wait_until(lambda: memory.held_bytes == (len(peers) - len(reasons(events))) * REPORT_BYTES)
        assert len(reasons(events)) >= 4
        assert memory.held_bytes <= REPORTS_BYTES
    assert set(reasons(events)) == {"too many reports at once"}
    assert node.receiver._report_memory.held_bytes == 0


def test_answered_report_gives_its_memory_back(run_node):
    """Reports that are answered, one after the other on one association, take no more memory than one."""
    node = run_node()
    last = data_pdu(bytes(FRAGMENT_BYTES - 8), is_command=False, is_last=True)
    with RawPeer(node.destination) as peer:
        for _ in range(REPORTS_BYTES // FRAGMENT_BYTES + 2):
            peer.connection.sendall(request(REPORT_RQ) + last)
            assert peer.read_status() != 0x0000  # nothing was asked for
    assert node.receiver._report_memory.held_bytes == 0


def test_command_set_without_end_is_aborted(run_node):
    """A command set that is larger than any of the standard aborts the association, finished or not."""
    node = run_node()
    with structlog.testing.capture_logs() as events, nothing_left(node):
        peer = RawPeer(node.destination)
        assert aborted(peer, data_pdu(bytes(COMMAND_SET_BYTES + 1), is_command=True, is_last=False))
        peer.connection.close()
    assert reasons(events) == ["too much at once"]


def test_message_in_memory_that_drips_is_aborted(run_node):
    """A command set whose fragments come too slowly is not waited for, though the peer is lively; an instance is."""
    node = run_node(network_timeout_seconds=0.5)
    drop = data_pdu(b"\0", is_command=True, is_last=False)
    data_set = data_set_bytes(encode_instance(make_instance()))
    begun = time.monotonic()
    with structlog.testing.capture_logs() as events, RawPeer(node.destination) as patient:
        patient.connection.sendall(store_rq(sop_instance_uid(1)))
        hasty = RawPeer(node.destination)

        def is_over():
            hasty.connection.setblocking(False)
            try:
                hasty.connection.send(drop)
                return hasty.connection.recv(1) in (b"", bytes([ABORT]))
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            finally:
                patient.connection.sendall(data_pdu(b"", is_command=False, is_last=False))

        wait_until(is_over)
        hasty.connection.close()
        wait_until(lambda: reasons(events) == ["a message that is not whole in time"])
        assert time.monotonic() - begun > 0.5
        patient.connection.sendall(data_pdu(data_set, is_command=False, is_last=True))
        assert patient.read_status() == 0x0000


def test_pdu_beyond_the_negotiated_length_ends_the_connection(run_node):
    """A P-DATA-TF longer than the node announced ends the connection before its bytes are read; one as long is read."""
    node = run_node(max_pdu_bytes=4096)
    with structlog.testing.capture_logs() as events, nothing_left(node):
        peer = RawPeer(node.destination)
        peer.connection.sendall(store_rq(sop_instance_uid(1)))
        peer.connection.sendall(data_pdu(bytes(4096 - 6), is_command=False, is_last=False))
        wait_until(node.incoming)
        peer.connection.sendall(struct.pack(">BBL", 4, 0, 4097))
        peer.wait_for_abort()
        peer.connection.close()
    assert [event["announced_bytes"] for event in events if event["event"] == "pdu_too_large"] == [4097]


def test_pdu_full_of_values_is_aborted(run_node):
    """A P-DATA-TF of many empty values, each of which would become an object, is refused unread; a few are no fault."""
    node = run_node()
    value = struct.pack(">LBB", 2, 1, 0)
    with structlog.testing.capture_logs() as events, nothing_left(node):
        peer = RawPeer(node.destination)
        peer.connection.sendall(store_rq(sop_instance_uid(1)))
        some, many = (value * count for count in (PDU_VALUES, PDU_VALUES + 1))
        peer.connection.sendall(struct.pack(">BBL", 4, 0, len(some)) + some)
        assert aborted(peer, struct.pack(">BBL", 4, 0, len(many)) + many)
        peer.connection.close()
    assert reasons(events) == ["a P-DATA-TF with too many values"]


def test_association_requests_of_any_honest_size_are_taken(run_node):
    """128 presentation contexts with 20 transfer syntaxes each, or a user identity of 60,000 bytes, are accepted."""
    node = run_node()
    assert ask(node, association_request(contexts=128, transfer_syntaxes=20)) == ASSOCIATE_AC
    identity = item(0x58, struct.pack(">BBH", 1, 0, 60_000) + b"x" * 60_000 + b"\0\0")
    assert ask(node, association_request(more_information=identity)) == ASSOCIATE_AC


OVERFULL = {
    "transfer syntaxes": association_request(contexts=128, transfer_syntaxes=40),
    "presentation contexts": association_request(more_contexts=item(0x20, b"\1\0\0\0") * 5000),
    "user information": association_request(more_information=item(0x55, b"") * 5000),
}


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("what", OVERFULL)
def test_association_request_full_of_items_is_aborted(run_node, what):
    """An A-ASSOCIATE-RQ with more items than honest peers propose is aborted before it becomes objects."""
    node = run_node()
    assert len(OVERFULL[what]) < ASSOCIATE_RQ_BYTES
    with structlog.testing.capture_logs() as events, nothing_left(node):
        assert ask(node, OVERFULL[what]) == ABORT
    assert reasons(events) == ["an A-ASSOCIATE-RQ with too many items"]


def test_association_request_beyond_its_size_ends_the_connection(run_node):
    """A connection whose first PDU is announced with more bytes than an A-ASSOCIATE-RQ may have is closed unread."""
    node = run_node(max_pdu_bytes=1048576)
    with structlog.testing.capture_logs() as events, nothing_left(node):
        assert ask(node, struct.pack(">BBL", 1, 0, ASSOCIATE_RQ_BYTES + 1)) == 0
    assert [event["event"] for event in events] == ["pdu_too_large"]


def test_budget_is_shared_and_given_back_once():
    """A budget refuses what goes beyond it, takes nothing then, and gives back all of a holder, once."""
    budget = MemoryBudget(100)
    one, other = object(), object()
    assert budget.take(one, 60)
    assert not budget.take(other, 41)
    assert budget.take(other, 40)
    assert budget.held_bytes == 100
    budget.release(one)
    budget.release(one)
    assert budget.held_bytes == 40


def test_bound_grows_with_what_the_config_allows():
    """The bound for the default config is far below 1 GiB, and grows with associations and PDU length."""
    bounds = [most_bytes(ScpSection(**more)) for more in ({}, {"max_associations": 128}, {"max_pdu_bytes": 1048576})]
    assert bounds[0] < 300 << 20
    assert bounds[0] < min(bounds[1:])


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS_MEASURED)
def test_growth_under_attack_stays_below_the_bound(tmp_path, attack):
    """A receiver in a process of its own, with as many associations as it takes, grows by less than the bound."""
    with running(None, tmp_path) as (port, pid):
        held = measure(attack, port, pid, receiver_section(port), 3 << 20)
    assert held.growth_mebibytes < bound_mebibytes(receiver_section(port)) / 2
