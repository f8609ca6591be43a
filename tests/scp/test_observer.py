"""What an association brought is told once it has ended, once per study; peers that are not let in are told, too."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from faults import wait_until
from instances import PATIENT_ID, STUDY, data_set_bytes, encode_instance, make_instance, write_instance_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage, MRImageStorage
from pynetdicom import AE
from receiver_node import SECONDS, ReceiverNode
from rejection_notes import key_object_selection

from node.config_sections import ScpSection
from node.dicom.uids import derived_uid
from node.metrics import Metrics
from node.scp.arrival import ArrivingDataSet, StoreRequest
from node.scp.handlers import StorageHandlers
from node.scp.limits import MemoryBudget
from node.scp.observer import Observer
from node.scp.server import CALLED_WRONG, CALLING_NOT_ALLOWED
from node.scp.spool import Spool
from node.scu.store import echo, send_instances
from node.study import Peer, Transfer

OTHER_STUDY = derived_uid("test", "another study")
Told = list[tuple[Peer, Transfer]]


@pytest.fixture
def told() -> Told:
    """What was received."""
    return []


@pytest.fixture
def refused() -> list[tuple[Peer, str]]:
    """Who was refused, and why."""
    return []


@pytest.fixture
def run_node(tmp_path: Path, told: Told, refused: list[tuple[Peer, str]]) -> Iterator[Callable[..., ReceiverNode]]:
    """Starts a node that is observed."""
    with ExitStack() as stack:

        def run(**settings: object) -> ReceiverNode:
            observer = Observer(lambda *each: told.append(each), lambda *each: refused.append(each))
            node = ReceiverNode(tmp_path / "spool", observer=observer, **settings)
            stack.enter_context(node.receiver)
            return node

        yield run


def test_each_study_of_an_association_is_told_once(run_node, told, tmp_path):
    """Three instances of two studies on one association are told in two messages, with peer, patient and numbers."""
    node = run_node()
    instances = [make_instance(1), make_instance(2), make_instance(3, study_instance_uid=OTHER_STUDY)]
    files = [write_instance_file(tmp_path, each) for each in instances]
    send_instances(node.destination, "SCANNER", files, SECONDS)
    wait_until(lambda: len(told) == 2)
    peer = Peer("SCANNER", "127.0.0.1")
    assert told == [
        (peer, Transfer(STUDY, PATIENT_ID, {MRImageStorage: 2})),
        (peer, Transfer(OTHER_STUDY, PATIENT_ID, {MRImageStorage: 1})),
    ]


def test_instances_held_before_are_told_apart(run_node, told, tmp_path):
    """Duplicates are told as instances that the node held."""
    node = run_node()
    file = write_instance_file(tmp_path, make_instance())
    for _ in range(2):
        send_instances(node.destination, "SCANNER", [file], SECONDS)
    wait_until(lambda: len(told) == 2)
    assert [transfer.is_known for _, transfer in told] == [False, True]


def test_aborted_association_is_told_and_one_without_instances_is_not(run_node, told, tmp_path):
    """What was stored before an abort is told; a C-ECHO alone is not."""
    node = run_node()
    assert echo(node.destination, "SCANNER", SECONDS) is None
    ae = AE("SCANNER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate(node.section.host, node.section.port, ae_title=node.section.ae_title)
    association.send_c_store(make_instance())
    association.abort()
    wait_until(lambda: bool(told))
    assert [transfer.instances for _, transfer in told] == [{MRImageStorage: 1}]


def test_stop_tells_of_open_associations(run_node, told):
    """An association that is open when the node stops is told."""
    node = run_node()
    ae = AE("SCANNER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate(node.section.host, node.section.port, ae_title=node.section.ae_title)
    association.send_c_store(make_instance())
    assert told == []
    node.receiver.stop()
    assert [transfer.study_instance_uid for _, transfer in told] == [STUDY]
    wait_until(lambda: not association.is_alive())


def test_patient_is_the_one_who_arrived(run_node, told, tmp_path):
    """Another image under a known UID, under another patient, is told with that patient, not with who is held."""
    node = run_node()
    other = make_instance(pixel=7)
    other.PatientID, second = "OTHER", make_instance(2)
    for number, each in enumerate((make_instance(), other)):
        file = write_instance_file(tmp_path, each)
        send_instances(node.destination, "SCANNER", [file], SECONDS)
        wait_until(lambda wanted=number + 1: len(told) == wanted)
    assert [transfer.patient_id for _, transfer in told] == [PATIENT_ID, "OTHER"]
    second.PatientID = "THIRD"  # a study of two patients is told for each
    files = [write_instance_file(tmp_path, each) for each in (make_instance(3), second)]
    send_instances(node.destination, "SCANNER", files, SECONDS)
    wait_until(lambda: len(told) == 4)
    assert [transfer.patient_id for _, transfer in told[2:]] == [PATIENT_ID, "THIRD"]


def test_key_object_selection_is_told(run_node, told, tmp_path):
    """A rejection note is an instance that was transferred, too."""
    node = run_node()
    image = make_instance()
    file = write_instance_file(tmp_path, key_object_selection("113001", [image]))
    send_instances(node.destination, "PACS", [file], SECONDS)
    wait_until(lambda: bool(told))
    assert [transfer.instances for _, transfer in told] == [{KeyObjectSelectionDocumentStorage: 1}]


class Ended:
    """Stands in for an association."""

    requestor = SimpleNamespace(primitive=None, address="127.0.0.1")


def test_observer_inflates_nothing(tmp_path):
    """An instance that inflates a thousandfold, and is damaged at its end, is stored and told without that memory."""
    told: Told = []
    observer = Observer(lambda *each: told.append(each), pytest.fail)
    spool = Spool(tmp_path / "spool")
    handlers = StorageHandlers(spool, Metrics(), ScpSection(watermark_mebibytes=1), lambda *_: None, observer)
    large = make_instance(transfer_syntax=DeflatedExplicitVRLittleEndian)
    large.PixelData = bytes(64 << 20)
    data_set_on_wire = data_set_bytes(encode_instance(large))[:-8]
    request = StoreRequest(MRImageStorage, large.SOPInstanceUID, MRImageStorage, DeflatedExplicitVRLittleEndian)
    data_set = ArrivingDataSet(lambda: handlers.begin(request), MemoryBudget())
    data_set.write(data_set_on_wire)
    event = SimpleNamespace(request=SimpleNamespace(DataSet=data_set), assoc=Ended())
    tracemalloc.start()
    try:
        status = handlers.handle_store(event)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert status == 0x0000
    observer.association_ended(event.assoc)
    assert [transfer.patient_id for _, transfer in told] == [PATIENT_ID]
    assert peak_bytes < 48 << 20


def test_refused_peers_are_told_and_logged_with_the_reason(run_node, refused):
    """Wrong titles are told with peer and reason, and logged with it; one association too many is no such peer."""
    node = run_node(calling_ae_titles=("SCANNER",))
    with structlog.testing.capture_logs() as logs:
        echo(node.destination, "STRANGER", SECONDS)
        echo(replace(node.destination, ae_title="NOBODY"), "SCANNER", SECONDS)
        wait_until(lambda: len(refused) == 2)
    assert refused == [
        (Peer("STRANGER", "127.0.0.1"), CALLING_NOT_ALLOWED),
        (Peer("SCANNER", "127.0.0.1"), CALLED_WRONG),
    ]
    assert [each["reason"] for each in logs if each["event"] == "association_rejected"] == [
        CALLING_NOT_ALLOWED,
        CALLED_WRONG,
    ]


def test_addresses_that_are_not_allowed_are_told(run_node, refused):
    """A peer whose address is not in the list is told by its address."""
    node = run_node(allowed_addresses=("192.0.2.0/24",))
    assert echo(node.destination, "SCANNER", SECONDS)
    wait_until(lambda: bool(refused))
    assert refused[0] == (Peer("", "127.0.0.1"), "not in scp.allowed_addresses")


def test_full_node_is_no_alert(run_node, refused):
    """One association too many is rejected and logged with the limit, but is no question of who the peer is."""
    node = run_node(max_associations=1)
    ae = AE("SCANNER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate(node.section.host, node.section.port, ae_title=node.section.ae_title)
    with structlog.testing.capture_logs() as logs:
        assert echo(node.destination, "SECOND", SECONDS)
        wait_until(lambda: any(each["event"] == "association_rejected" for each in logs))
    association.release()
    assert [each["reason"] for each in logs if each["event"] == "association_rejected"] == [
        "scp.max_associations are open"
    ]
    assert refused == []
