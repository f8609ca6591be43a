"""The sender over DICOM TLS: to pynetdicom, and to DCMTK's storescp."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority, make_authority, server_context
from faults import FakePacs, free_port, wait_until
from instances import data_set_bytes, make_instance, sop_instance_uid, write_instance_file
from lab import find_program, is_listening, needs, run_program
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from node.scu.store import echo, send_instances
from node.study import Destination, TlsFiles

SECONDS = 20.0

pytestmark = needs("openssl")


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The hospital's certificate authority."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> TlsFiles:
    """The node's key and certificate files."""
    return authority.sign("node")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One instance to be sent."""
    return write_instance_file(tmp_path, make_instance())


def encrypted(pacs: FakePacs, files: TlsFiles | None) -> Destination:
    """The PACS as a destination, with ``files``."""
    return replace(pacs.destination, tls=files)


def test_encrypted_delivery(authority, own, file):
    """Over TLS, with certificates on both sides, the data set arrives byte for byte, and C-ECHO is answered."""
    with FakePacs(sop_classes=[MRImageStorage], tls=server_context(authority.sign("pacs"))) as pacs:
        (delivery,) = send_instances(encrypted(pacs, own), "GLIONODE", [file], SECONDS)
        assert echo(encrypted(pacs, own), "GLIONODE", SECONDS) is None
    assert delivery.is_delivered
    assert pacs.received[0].data_set == data_set_bytes(file.read_bytes())


def test_name_in_the_certificate_counts(authority, own, file):
    """A PACS whose certificate is for another host gets no instance; the reason says so, and it is retryable."""
    tls = server_context(authority.sign("other", host="other.example.org"))
    with FakePacs(sop_classes=[MRImageStorage], tls=tls) as pacs:
        (delivery,) = send_instances(encrypted(pacs, own), "GLIONODE", [file], SECONDS)
    assert (delivery.is_delivered, delivery.is_permanent) == (False, False)
    assert "certificate is not valid for '127.0.0.1'" in delivery.reason
    assert pacs.received == []


def test_authority_of_the_certificate_counts(tmp_path, own, file):
    """A PACS whose certificate is from another authority gets no instance, and the reason says so."""
    stranger = make_authority(tmp_path / "stranger").sign("pacs")
    with FakePacs(sop_classes=[MRImageStorage], tls=server_context(stranger)) as pacs:
        reason = echo(encrypted(pacs, own), "GLIONODE", SECONDS)
    assert "TLS: the peer's certificate is not accepted: self-signed certificate in certificate chain" in str(reason)


def test_system_authorities_count_without_a_file(authority, own):
    """Without tls.ca_file, a PACS with a certificate of the hospital's own authority is not trusted."""
    with FakePacs(tls=server_context(authority.sign("pacs"))) as pacs:
        reason = echo(encrypted(pacs, replace(own, ca_file=None)), "GLIONODE", SECONDS)
    assert "TLS: " in str(reason)


def test_node_without_a_certificate_is_not_let_in(authority, own, file):
    """A PACS that asks for a certificate refuses a node without one; that is retryable."""
    files = replace(own, certificate_file=None, key_file=None)
    with FakePacs(sop_classes=[MRImageStorage], tls=server_context(authority.sign("pacs"))) as pacs:
        (delivery,) = send_instances(encrypted(pacs, files), "GLIONODE", [file], SECONDS)
    assert (delivery.is_delivered, delivery.is_permanent) == (False, False)


def test_peer_that_does_not_encrypt(own, file):
    """A peer that responds with an unencrypted A-ABORT gives a reason that names TLS and the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def abort() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x01")

        thread = threading.Thread(target=abort)
        thread.start()
        destination = Destination("pacs", "PACS", "127.0.0.1", port, own)
        (delivery,) = send_instances(destination, "GLIONODE", [file], SECONDS)
        thread.join()
    assert (delivery.is_delivered, delivery.is_permanent) == (False, False)
    assert f"127.0.0.1:{port}: TLS: the peer does not speak TLS" in delivery.reason


def test_encrypted_port_that_is_closed(own):
    """A closed port gives the same reason with TLS as without."""
    destination = Destination("pacs", "PACS", "127.0.0.1", free_port(), own)
    assert "cannot be reached" in str(echo(destination, "GLIONODE", 2.0))


def test_files_that_cannot_be_used_are_named(tmp_path, own):
    """A missing CA file, a missing certificate and a key that needs a pass phrase are named by their keys."""
    protected = tmp_path / "protected.key"
    done = run_program(
        "openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", str(own.key_file), "-out", protected
    )
    assert done.returncode == 0, done.stdout
    destination = Destination("pacs", "PACS", "127.0.0.1", free_port())
    for key, files in (
        ("tls.ca_file", replace(own, ca_file=tmp_path / "none.crt")),
        ("tls.certificate_file", replace(own, certificate_file=tmp_path / "none.crt")),
        ("tls.key_file", replace(own, key_file=protected)),
        ("tls.key_file", replace(own, key_file=own.certificate_file)),
    ):
        assert key in str(echo(replace(destination, tls=files), "GLIONODE", 2.0))


@needs("storescp")
def test_encrypted_delivery_to_dcmtk(tmp_path, authority, own, file):
    """DCMTK's storescp, with its default TLS profile (BCP 195), stores the instance."""
    program, theirs, port = find_program("storescp"), authority.sign("storescp"), free_port()
    folder = tmp_path / "received"
    folder.mkdir()
    tls = ("+tls", theirs.key_file, theirs.certificate_file, "+cf", authority.certificate_file)
    command = [program, *tls, "-aet", "PACS", "-od", folder, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_listening(port))
        (delivery,) = send_instances(Destination("pacs", "PACS", "127.0.0.1", port, own), "GLIONODE", [file], SECONDS)
    finally:
        process.terminate()
        process.wait()
    assert delivery.is_delivered, delivery.reason
    (stored,) = folder.iterdir()
    assert dcmread(stored, force=True).SOPInstanceUID == sop_instance_uid(1)
