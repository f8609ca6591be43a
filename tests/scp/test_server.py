"""The receiver on a real socket, with DCMTK, the node's own sender, and peers that violate the protocol."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from faults import wait_until
from instances import (
    PRIVATE_TRANSFER_SYNTAX,
    SERIES,
    STUDY,
    data_set_bytes,
    encode_instance,
    make_instance,
    sop_instance_uid,
    write_instance_file,
)
from lab import find_program
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    MRImageStorage,
)
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import Verification
from receiver_node import SECONDS, ReceiverNode

from node.errors import ConfigError
from node.scu.association import keep_responses
from node.scu.store import echo, send_instances


@pytest.fixture(autouse=True)
def no_thread_left():
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def run_node(tmp_path):
    with ExitStack() as stack:

        def run(**settings):
            node = ReceiverNode(tmp_path / "spool", **settings)
            stack.enter_context(node.receiver)
            return node

        yield run


@pytest.fixture
def node(run_node):
    return run_node()


@contextmanager
def associate(node, *contexts, handlers=()):
    """An association with the node, released or aborted at the end."""
    ae = AE("SCANNER")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = SECONDS
    association = ae.associate(
        node.section.host,
        node.section.port,
        contexts=list(contexts) or [build_context(MRImageStorage, ExplicitVRLittleEndian)],
        ae_title=node.section.ae_title,
        evt_handlers=list(handlers),
    )
    keep_responses(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.ident is not None:
            association.join()


def run_dcmtk(tool, node, *arguments, called=None):
    """Run a DCMTK tool against the node; returns its exit code and output."""
    command = [
        str(find_program(tool)),
        "-v",
        "-aet",
        "SCANNER",
        "-aec",
        called or node.section.ae_title,
        *map(str, arguments),
    ]
    address = [node.section.host, str(node.section.port)]
    files = [argument for argument in command if argument.endswith(".dcm")]
    options = [argument for argument in command if argument not in files]
    done = subprocess.run(
        [*options, *address, *files],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_echoscu(node):
    """A C-ECHO of DCMTK gets Success."""
    assert run_dcmtk("echoscu", node)[0] == 0


def test_wrong_called_ae_title_is_rejected(node):
    """An association for another AE title is rejected with that diagnostic."""
    code, output = run_dcmtk("echoscu", node, called="SOMEONE")
    assert code != 0
    assert "Called AE Title Not Recognized" in output


def test_only_listed_peers_may_call(run_node):
    """With a list of calling AE titles, an association of any other is rejected with that diagnostic."""
    node = run_node(calling_ae_titles=("SCANNER",))
    assert echo(node.destination, "SCANNER", SECONDS) is None
    assert "Calling AE title not recognised" in str(echo(node.destination, "STRANGER", SECONDS))


def test_storescu_series(node, tmp_path):
    """A series sent by DCMTK is complete in its study's folder, each instance reported once and in order."""
    files = [write_instance_file(tmp_path, make_instance(number)) for number in range(1, 11)]
    code, output = run_dcmtk("storescu", node, *files)
    assert (code, output.count("(Success)")) == (0, 10), output
    assert node.stored == [(STUDY, SERIES)] * 10
    assert [dcmread(node.path(number)).InstanceNumber for number in range(1, 11)] == list(range(1, 11))


@pytest.mark.parametrize(
    ("option", "transfer_syntax"),
    [("-xs", JPEGLosslessSV1), ("-xd", DeflatedExplicitVRLittleEndian), ("-xb", ExplicitVRBigEndian)],
)
def test_storescu_transfer_syntaxes(node, tmp_path, option, transfer_syntax):
    """The transfer syntax that DCMTK proposes first, compressed or not, is the one stored."""
    file = write_instance_file(tmp_path, make_instance(transfer_syntax=transfer_syntax))
    code, output = run_dcmtk("storescu", node, option, file)
    assert code == 0, output
    stored = dcmread(node.path())
    assert stored.file_meta.TransferSyntaxUID == transfer_syntax
    assert stored.SOPInstanceUID == sop_instance_uid(1)


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
def test_bytes_are_kept_as_received(node, tmp_path, transfer_syntax):
    """The data set is stored byte for byte in every transfer syntax, private ones included."""
    file = write_instance_file(tmp_path, make_instance(transfer_syntax=transfer_syntax))
    (delivery,) = send_instances(node.destination, "SCANNER", [file], SECONDS)
    assert delivery.is_delivered
    stored = node.path().read_bytes()
    assert data_set_bytes(stored) == data_set_bytes(file.read_bytes())
    assert dcmread(node.path(), stop_before_pixels=True).file_meta.TransferSyntaxUID == transfer_syntax


def test_first_proposed_transfer_syntax_wins(node):
    """In each presentation context the transfer syntax that the sender proposes first is accepted."""
    first, second = JPEG2000Lossless, ImplicitVRLittleEndian
    contexts = [build_context(MRImageStorage, syntaxes) for syntaxes in ([first, second], [second, first])]
    with associate(node, *contexts, build_context(CTImageStorage), build_context(Verification)) as association:
        accepted = [(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts]
        assert accepted[:2] == [(MRImageStorage, first), (MRImageStorage, second)]
        assert [abstract_syntax for abstract_syntax, _ in accepted[2:]] == [Verification]
        assert [context.abstract_syntax for context in association.rejected_contexts] == [CTImageStorage]


def test_success_is_answered_after_the_file_exists(node):
    """When the response arrives, the instance has its final name in the spool."""
    existed = []
    watch = (evt.EVT_DIMSE_RECV, lambda _event: existed.append(node.path().exists()))
    with associate(node, handlers=[watch]) as association:
        assert association.send_c_store(make_instance()).Status == 0x0000
    assert existed == [True]


def test_duplicate_and_conflict_over_the_network(node, tmp_path):
    """An instance sent again is kept once; sent again with other pixels, both versions are kept."""
    for pixel in (1, 1, 2):
        file = write_instance_file(tmp_path, make_instance(pixel=pixel))
        assert send_instances(node.destination, "SCANNER", [file], SECONDS)[0].is_delivered
    assert data_set_bytes(node.path().read_bytes()) == data_set_bytes(encode_instance(make_instance(pixel=1)))
    assert len(list((node.spool.folder / ".conflicts").rglob("*.dcm"))) == 1
    assert node.stored == [(STUDY, SERIES)] * 3


def test_below_the_watermark_the_sender_may_try_again(run_node, tmp_path):
    """Below the watermark storescu is refused with A700, and the spool stays empty."""
    node = run_node(watermark_mebibytes=1 << 40)
    file = write_instance_file(tmp_path, make_instance())
    (delivery,) = send_instances(node.destination, "SCANNER", [file], SECONDS)
    assert (delivery.status, delivery.is_permanent) == (0xA700, False)
    assert "OutOfResources" in run_dcmtk("storescu", node, file)[1]
    assert node.spool.studies() == []


@pytest.mark.filterwarnings("ignore:.* VR UI")
@pytest.mark.parametrize("uid", ["../../../../tmp/evil", "1." * 32 + "1", ""])
def test_hostile_uid_never_becomes_a_path(node, tmp_path, uid):
    """A study UID with ../, with 65 characters or empty is refused permanently, and no file is created anywhere."""
    data_set = make_instance()
    data_set.StudyInstanceUID = uid
    file = write_instance_file(tmp_path, data_set)
    (delivery,) = send_instances(node.destination, "SCANNER", [file], SECONDS)
    assert delivery.status in (0xC010, 0xC011)
    assert delivery.is_permanent
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.filterwarnings("ignore:.* VR UI")
def test_hostile_uid_in_the_request(node, tmp_path):
    """An invalid SOP Instance UID in both request and data set is refused, and no file is created anywhere."""
    data_set = make_instance()
    data_set.SOPInstanceUID = "../../../../tmp/evil"
    with associate(node) as association:
        answer = association.send_c_store(data_set)
    assert answer.Status == 0xC011
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_two_series_interleaved_over_two_associations(node):
    """Two series, each sent in turns over two associations, are stored complete and separate."""
    series = ("1.2.3.1", "1.2.3.2")
    with associate(node) as one, associate(node) as other:
        wait_until(lambda: node.open_associations() == 2)
        for number in range(1, 9):
            for turn, uid in enumerate(series):
                association = (one, other)[(number + turn) % 2]
                assert association.send_c_store(make_instance(number, series_instance_uid=uid)).Status == 0x0000
    for uid in series:
        assert sorted(path.stem for path in (node.spool.folder / STUDY / uid).iterdir()) == sorted(
            sop_instance_uid(number, uid) for number in range(1, 9)
        )
    wait_until(lambda: node.open_associations() == 0)


def test_many_associations_at_once(node, tmp_path):
    """Sixteen senders at once lose no instance."""
    files = [write_instance_file(tmp_path, make_instance(number)) for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda file: send_instances(node.destination, "SCANNER", [file], SECONDS), files))
    assert all(delivery.is_delivered for (delivery,) in outcomes)
    assert all(node.path(number).exists() for number in range(16))


def test_abort_keeps_what_was_acknowledged(node):
    """An abort within a series keeps the acknowledged instances, and leaves no partial file."""
    with associate(node) as association:
        for number in (1, 2):
            assert association.send_c_store(make_instance(number)).Status == 0x0000
        association.abort()
    wait_until(lambda: node.open_associations() == 0)
    assert sorted(path.name for path in node.spool.folder.rglob("*.dcm")) == sorted(
        node.path(number).name for number in (1, 2)
    )


def test_one_association_too_many(run_node):
    """Beyond max_associations an association is rejected (transient), and accepted once another is released."""
    node = run_node(max_associations=1)
    with associate(node):
        assert "Local limit exceeded" in str(echo(node.destination, "SCANNER", SECONDS))
    wait_until(lambda: echo(node.destination, "SCANNER", SECONDS) is None)


@pytest.mark.parametrize("sent", [b"", b"\x01\x00\x00\x00\x01\x00half of an A-ASSOCIATE-RQ", b"GET / HTTP/1.1\r\n\r\n"])
def test_silent_connection_is_dropped(run_node, sent):
    """A connection that sends nothing, half a PDU or no valid PDU is closed after the network time-out."""
    node = run_node(network_timeout_seconds=0.3)
    with socket.create_connection((node.section.host, node.section.port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        while connection.recv(100):
            pass
    assert echo(node.destination, "SCANNER", SECONDS) is None


def test_silent_association_is_aborted(run_node):
    """An association without messages is aborted after the network time-out."""
    node = run_node(network_timeout_seconds=0.3)
    with associate(node) as association:
        wait_until(lambda: association.is_aborted)


def test_stop_ends_every_thread_and_frees_the_port(node):
    """Stopping aborts associations, cuts other connections, and leaves neither a thread nor a bound port."""
    before = set(threading.enumerate())
    with associate(node) as association, ExitStack() as stack:
        for sent in (b"", b"\x01\x00\x00\x00\x01\x00half"):
            address = (node.section.host, node.section.port)
            stack.enter_context(socket.create_connection(address, timeout=SECONDS)).sendall(sent)
        wait_until(lambda: node.open_associations() == 1 and len(threading.enumerate()) >= len(before) + 6)
        node.receiver.stop()
        wait_until(lambda: association.is_aborted)
    left = [thread.name for thread in set(threading.enumerate()) & before if thread is not threading.main_thread()]
    assert not [name for name in left if name == "receiver" or name.startswith("Acceptor")]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((node.section.host, node.section.port))
    assert node.open_associations() == 0


def test_receiver_starts_again_on_its_port(node):
    """After a stop the same receiver starts again on the same port; a second stop is no error."""
    node.receiver.stop()
    node.receiver.stop()
    node.receiver.start()
    assert echo(node.destination, "SCANNER", SECONDS) is None


def test_taken_port_is_a_config_error(node, tmp_path):
    """A port in use is a ConfigError that names scp.port."""
    other = ReceiverNode(tmp_path / "other", port=node.section.port)
    with pytest.raises(ConfigError, match=rf"scp\.port.*{node.section.port}"):
        other.receiver.start()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_foreign_host_is_a_config_error(tmp_path, host):
    """A host that is no address of this machine is a ConfigError that names scp.host."""
    with pytest.raises(ConfigError, match=r"scp\.host"):
        ReceiverNode(tmp_path / "spool", host=host).receiver.start()
