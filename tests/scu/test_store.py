"""The sender with a PACS that follows the protocol, and with one that does not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from fake_archive import FakeArchive, Reaction
from faults import FakePacs, Fault, free_port, wait_until
from instances import data_set_bytes, make_instance, sop_instance_uid, write_instance_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
)
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from node.dicom.outgoing import read_outgoing
from node.errors import InstanceRefused
from node.scu.commitment import CommitmentState, request_commitment
from node.scu.query import QueryState, find_instances
from node.scu.store import classify_status, echo, send_instances
from node.study import Destination

SHORT_SECONDS = 1.0
LONG_SECONDS = 20.0


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write_instance_file(tmp_path, make_instance(number)) for number in (1, 2)]


@pytest.fixture(autouse=True)
def no_thread_left():
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


def send(pacs: FakePacs, files: list[Path], timeout_seconds: float = LONG_SECONDS):
    return send_instances(pacs.destination, "GLIONODE", files, timeout_seconds)


@pytest.mark.slow
@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEGLosslessSV1,
    ],
)
def test_data_sets_arrive_byte_for_byte(tmp_path, transfer_syntax):
    """The PACS receives the data set of the file, unchanged, in the file's transfer syntax."""
    file = write_instance_file(tmp_path, make_instance(transfer_syntax=transfer_syntax))
    with FakePacs(sop_classes=[MRImageStorage]) as pacs:
        (delivery,) = send(pacs, [file])
    assert delivery.is_delivered
    assert delivery.status == 0x0000
    (received,) = pacs.received
    assert received.transfer_syntax_uid == transfer_syntax
    assert received.data_set == data_set_bytes(file.read_bytes())


def test_all_files_go_over_one_association_in_order(files):
    """Two files are sent on one association, and the outcomes come in the order of the files."""
    with FakePacs(sop_classes=[MRImageStorage]) as pacs:
        deliveries = send(pacs, files)
    assert [delivery.sop_instance_uid for delivery in deliveries] == [sop_instance_uid(1), sop_instance_uid(2)]
    assert all(delivery.is_delivered for delivery in deliveries)
    assert [received.sop_instance_uid for received in pacs.received] == [sop_instance_uid(1), sop_instance_uid(2)]
    assert pacs.association_count == 1


@pytest.mark.parametrize(
    ("status", "is_delivered", "is_permanent"),
    [
        (0x0000, True, False),
        (0xB000, True, False),
        (0xB006, True, False),
        (0xB007, True, False),
        (0x0001, True, False),
        (0x0107, True, False),
        (0x0116, True, False),
        (0xB001, True, False),
        (0xBFFF, True, False),
        (0x0111, True, False),
        (0x0106, False, True),
        (0x0110, False, False),
        (0x0117, False, True),
        (0x0120, False, True),
        (0x0121, False, True),
        (0x0122, False, True),
        (0x0124, False, False),
        (0x0210, False, False),
        (0x0211, False, True),
        (0x0212, False, True),
        (0x0213, False, False),
        (0xA700, False, False),
        (0xA7FF, False, False),
        (0xA900, False, True),
        (0xA9FF, False, True),
        (0xC000, False, True),
        (0xCFFF, False, True),
        (0xFE00, False, False),
    ],
)
def test_statuses_are_classified(status, is_delivered, is_permanent):
    """Each status of a PACS is classified as delivered, permanently refused, or retryable."""
    delivery = classify_status("1.2.3", status)
    assert (delivery.status, delivery.is_delivered, delivery.is_permanent) == (status, is_delivered, is_permanent)
    assert f"0x{status:04X}" in delivery.reason


def test_first_accepted_second_refused(files):
    """If a PACS stores the first instance and refuses the second, one delivery succeeds and one is refused."""
    with FakePacs([0x0000, 0xA700], sop_classes=[MRImageStorage]) as pacs:
        first, second = send(pacs, files)
    assert first.is_delivered
    assert (second.is_delivered, second.is_permanent, second.status) == (False, False, 0xA700)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault.ABORT, Fault.HALF_ANSWER, Fault.STALL])
def test_no_answer_is_retryable(files, fault):
    """An abort, half a response or no response leaves the instance and those after it retryable."""
    with FakePacs([0x0000, fault], sop_classes=[MRImageStorage]) as pacs:
        first, second, third = send(pacs, [files[0], files[1], files[0]], SHORT_SECONDS)
    assert first.is_delivered
    for delivery in (second, third):
        assert (delivery.is_delivered, delivery.is_permanent, delivery.status) == (False, False, None)


def test_sending_again_after_a_lost_answer(files):
    """An instance that the PACS stored without responding is delivered by sending it again."""
    with FakePacs([Fault.TAKE_AND_ABORT], sop_classes=[MRImageStorage]) as pacs:
        (lost,) = send(pacs, files[:1])
        (again,) = send(pacs, files[:1])
    assert not lost.is_delivered
    assert again.is_delivered
    assert [received.sop_instance_uid for received in pacs.received] == [sop_instance_uid(1)] * 2


@pytest.mark.slow
def test_pacs_that_stops_reading_is_retryable(tmp_path):
    """A PACS that accepts the association and then stops reading does not block the sender for ever."""
    large = make_instance()
    large.PixelData = bytes(32 << 20)
    file = write_instance_file(tmp_path, large)
    with FakePacs(sop_classes=[MRImageStorage], is_deaf=True) as pacs:
        (delivery,) = send(pacs, [file], SHORT_SECONDS)
    assert (delivery.is_delivered, delivery.is_permanent) == (False, False)


def test_pacs_down_is_retryable(files):
    """A closed port leaves every file retryable."""
    destination = Destination("pacs", "PACS", "127.0.0.1", free_port())
    deliveries = send_instances(destination, "GLIONODE", files, SHORT_SECONDS)
    assert [(delivery.is_delivered, delivery.is_permanent) for delivery in deliveries] == [(False, False)] * 2


def test_host_without_address_is_retryable(files):
    """A host name that does not resolve leaves the file retryable, and the reason names the host."""
    destination = Destination("pacs", "PACS", "no-such-host.invalid", 104)
    deliveries = send_instances(destination, "GLIONODE", files, SHORT_SECONDS)
    assert all(not delivery.is_delivered and not delivery.is_permanent for delivery in deliveries)
    assert "no-such-host.invalid" in deliveries[0].reason


def test_rejected_association_is_retryable(files):
    """A rejected association is retryable; the reason quotes the diagnostic."""
    with FakePacs(sop_classes=[MRImageStorage], is_rejecting=True) as pacs:
        deliveries = send(pacs, files)
    assert all(not delivery.is_delivered and not delivery.is_permanent for delivery in deliveries)
    assert "Calling AE title not recognised" in deliveries[0].reason


def test_rejected_presentation_context_is_permanent(tmp_path, files):
    """Only the instance whose presentation context is rejected is refused permanently; the other is delivered."""
    enhanced = make_instance(3)
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    enhanced_file = write_instance_file(tmp_path, enhanced)
    with FakePacs(sop_classes=[MRImageStorage]) as pacs:
        refused, delivered = send(pacs, [enhanced_file, files[0]])
    assert (refused.is_delivered, refused.is_permanent) == (False, True)
    assert EnhancedMRImageStorage in refused.reason
    assert delivered.is_delivered


def test_every_presentation_context_rejected_is_permanent(files):
    """A PACS that supports none of the SOP classes refuses all instances permanently."""
    with FakePacs() as pacs:
        deliveries = send(pacs, files)
    assert [(delivery.is_delivered, delivery.is_permanent) for delivery in deliveries] == [(False, True)] * 2


def test_file_that_is_no_dicom_is_refused(tmp_path):
    """A file without file meta is refused before any association, and the file is named."""
    file = tmp_path / "notes.dcm"
    file.write_bytes(b"no DICOM")
    with FakePacs(sop_classes=[MRImageStorage]) as pacs, pytest.raises(InstanceRefused, match=r"notes\.dcm"):
        send(pacs, [file])
    assert pacs.association_count == 0


@pytest.fixture
def stolen_responses(monkeypatch) -> list[object]:
    """The responses that pynetdicom's reactor, slow to pause, takes from the queue."""
    run_reactor, get_msg = Association._run_reactor, DIMSEServiceProvider.get_msg
    get_valid_context = Association._get_valid_context
    taken_by_reactor = []

    def run_slow_reactor(association):
        wait = association._reactor_checkpoint.wait
        if association.is_requestor:
            association._reactor_checkpoint.wait = lambda: (wait(), time.sleep(0.3))
        run_reactor(association)

    def record_what_is_taken(dimse, block=False):
        if dimse.assoc.is_requestor and block:
            time.sleep(0.5)
        context_id, message = get_msg(dimse, block)
        if message is not None and dimse.assoc.is_requestor and not block:
            taken_by_reactor.append(message)
        return context_id, message

    def send_once_the_reactor_loops(association, *arguments, **options):
        time.sleep(0.1)
        return get_valid_context(association, *arguments, **options)

    monkeypatch.setattr(Association, "_get_valid_context", send_once_the_reactor_loops)
    monkeypatch.setattr(DIMSEServiceProvider, "get_msg", record_what_is_taken)
    monkeypatch.setattr(Association, "_run_reactor", run_slow_reactor)
    return taken_by_reactor


@pytest.mark.slow
def test_response_taken_by_the_reactor_is_not_lost(files, stolen_responses):
    """Every instance is delivered although pynetdicom's reactor, slow to pause, takes responses from the queue."""
    with FakePacs(sop_classes=[MRImageStorage]) as pacs:
        deliveries = send(pacs, files, timeout_seconds=5.0)
    assert [delivery.is_delivered for delivery in deliveries] == [True] * 2
    assert stolen_responses


@pytest.mark.slow
@pytest.mark.parametrize(("where", "state"), [("same", "reported"), ("nowhere", "asked")])
def test_commitment_survives_the_reactor(files, stolen_responses, where, state):
    """An N-ACTION response that the reactor takes is not lost; a report on that association gets a response."""
    with FakeArchive(reactions=[Reaction(where)]) as pacs:
        outgoing = [read_outgoing(file) for file in files]
        outcome = request_commitment(pacs.destination, "GLIONODE", "2.25.1", outgoing, 5.0)
    assert outcome.state == state
    assert pacs.report_answers == ([0x0000] if where == "same" else [])
    assert stolen_responses


@pytest.mark.slow
def test_query_survives_the_reactor(files, stolen_responses):
    """A match that the reactor takes is not lost, and does not come after the last response."""
    with FakeArchive() as pacs:
        send(pacs, files)
        outcome = find_instances(pacs.destination, "GLIONODE", [read_outgoing(file) for file in files], 5.0)
    assert (outcome.state, outcome.held) == (QueryState.ANSWERED, {sop_instance_uid(1), sop_instance_uid(2)})
    assert stolen_responses


def test_query_lists_only_what_was_asked_for(files):
    """Only an instance that the PACS lists under its own UID counts as held."""
    with FakeArchive() as pacs:
        send(pacs, files[:1])
        outcome = find_instances(pacs.destination, "GLIONODE", [read_outgoing(file) for file in files], LONG_SECONDS)
    assert outcome.held == {sop_instance_uid(1)}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["down", "rejecting", "unsupported"])
def test_commitment_and_query_say_what_is_wrong(files, trouble):
    """A PACS that is down or rejects the association is retryable; one without the service is unsupported."""
    outgoing = [read_outgoing(file) for file in files]
    with FakePacs(is_rejecting=trouble == "rejecting") as pacs:
        if trouble == "down":
            pacs._ae.shutdown()
        commitment = request_commitment(pacs.destination, "GLIONODE", "2.25.1", outgoing, SHORT_SECONDS)
        query = find_instances(pacs.destination, "GLIONODE", outgoing, SHORT_SECONDS)
    expected = "unsupported" if trouble == "unsupported" else "unanswered"
    assert (commitment.state, query.state) == (expected, expected)
    assert commitment.reason
    assert query.reason


@pytest.mark.slow
def test_foreign_report_on_the_association_is_refused(files):
    """A report on another transaction, on the association of the request, is refused and changes nothing."""
    with FakeArchive(reactions=[Reaction("same")]) as pacs:
        pacs.report_transaction = "2.25.99"
        outgoing = [read_outgoing(file) for file in files]
        outcome = request_commitment(pacs.destination, "GLIONODE", "2.25.1", outgoing, LONG_SECONDS)
        wait_until(lambda: pacs.report_answers)
    assert outcome.state is CommitmentState.ASKED
    assert pacs.report_answers == [0x0112]


def test_echo_is_answered():
    """C-ECHO to a running PACS gives no reason."""
    with FakePacs() as pacs:
        assert echo(pacs.destination, "GLIONODE", LONG_SECONDS) is None


def test_echo_says_why_not():
    """C-ECHO to a PACS that rejects, is down, or has no address gives the reason."""
    with FakePacs(is_rejecting=True) as pacs:
        assert "rejected the association" in str(echo(pacs.destination, "GLIONODE", LONG_SECONDS))
    assert "cannot be reached" in str(echo(pacs.destination, "GLIONODE", SHORT_SECONDS))
    nowhere = Destination("pacs", "PACS", "no-such-host.invalid", 104)
    assert "no-such-host.invalid" in str(echo(nowhere, "GLIONODE", SHORT_SECONDS))
