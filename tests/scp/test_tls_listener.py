"""The node's TLS port under a scanner: exactly what PS3.15 B.12 (or B.10) and RFC 9325 allow, and nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from certificates import Authority, curve, make_authority
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from faults import FakePacs, wait_until
from instances import make_instance, write_instance_file
from lab import needs, run_program
from pydicom.uid import MRImageStorage
from receiver_node import SECONDS, ReceiverNode
from tls_scan import accepted, offered_suites, s_client, s_client_output

from node.config_sections import TlsSection
from node.dicom import tls_profile
from node.scp.observer import Observer
from node.scu.store import echo, send_instances
from node.study import Peer, TlsFiles

GROUP = Path(tls_profile.__file__).with_name("ffdhe3072.pem")

pytestmark = needs("openssl")

OF_1_3 = {
    ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
}
OF_RSA = {("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"), ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256")}
OF_ECDSA = {("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"), ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")}
OF_B_10 = {("TLSv1.2", "DHE-RSA-AES256-GCM-SHA384"), ("TLSv1.2", "DHE-RSA-AES128-GCM-SHA256")}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The hospital's certificate authority."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def rsa_files(authority: Authority) -> TlsFiles:
    """The node's files with an RSA key."""
    return authority.issue("rsa")


@pytest.fixture(scope="module")
def ec_files(authority: Authority) -> TlsFiles:
    """The node's files with an elliptic curve."""
    return authority.issue("ec", key=curve(ec.SECP256R1))


@pytest.fixture
def run_node(tmp_path: Path) -> Iterator[Callable[..., ReceiverNode]]:
    """Starts nodes, with TLS if they get files."""
    with ExitStack() as stack:

        def run(files: TlsFiles | None, *, is_mutual: bool = False) -> ReceiverNode:
            section = None
            if files:
                section = TlsSection(
                    profile=files.profile,
                    certificate_file=files.certificate_file,
                    key_file=files.key_file,
                    ca_file=files.ca_file if is_mutual else None,
                )
            node = ReceiverNode(tmp_path / "spool", tls=section)
            stack.enter_context(node.receiver)
            return node

        yield run


@contextmanager
def lax_listener(files: TlsFiles) -> Iterator[int]:
    """A listener that takes whatever OpenSSL has, old versions included; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.load_cert_chain(files.certificate_file or "", files.key_file)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with suppress(OSError), context.wrap_socket(connection, server_side=True) as encrypted:
                        encrypted.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_scanner_finds_what_is_weak(rsa_files: TlsFiles) -> None:
    """The scanner finds CBC suites, key transport by RSA, TLS 1.0 and 1.1 at a listener that takes them."""
    suites = offered_suites()
    assert len(suites) > 100
    with lax_listener(rsa_files) as port:
        found = accepted(port, ["AES128-SHA", "ECDHE-RSA-AES256-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"])
    assert {("TLSv1.2", "AES128-SHA"), ("TLSv1.2", "ECDHE-RSA-AES256-SHA384")} <= found
    assert {"TLSv1", "TLSv1.1"} <= {version for version, _ in found}


@pytest.mark.parametrize(
    ("kind", "profile", "expected"),
    [
        ("rsa_files", "bcp195", OF_1_3 | OF_RSA),
        ("ec_files", "bcp195", OF_1_3 | OF_ECDSA),
        ("rsa_files", "bcp195-non-downgrading", OF_1_3 | OF_RSA | OF_B_10),
    ],
)
def test_listener_takes_exactly_the_profile(kind, profile, expected, run_node, request):
    """Of all versions and suites that OpenSSL can offer, the listener takes those of the profile and no other."""
    node = run_node(replace(request.getfixturevalue(kind), profile=profile))
    assert accepted(node.section.port, offered_suites()) == expected


def test_groups_are_strong(rsa_files, run_node):
    """Curves of 256 bits and more are taken, smaller ones are not, in both versions; Diffie-Hellman has 3072 bits."""
    port = run_node(replace(rsa_files, profile="bcp195-non-downgrading")).section.port
    curves = ("-tls1_2", "-cipher", "ECDHE:@SECLEVEL=0", "-groups")
    for group in ("P-256", "P-384", "P-521", "X25519", "X448"):
        assert s_client(port, *curves, group), group
        assert s_client(port, "-tls1_3", "-groups", group), group
    for group in ("P-192", "P-224", "secp160r1"):
        assert not s_client(port, *curves, group), group
    assert "Server Temp Key: DH, 3072 bits" in s_client_output(port, "-tls1_2", "-cipher", "DHE:@SECLEVEL=0")


def test_signatures_are_strong(rsa_files, run_node):
    """A peer that can only check signatures made with SHA-1 is not served; one with SHA-256 is."""
    port = run_node(rsa_files).section.port
    assert not s_client(port, "-tls1_2", "-sigalgs", "RSA+SHA1")
    assert s_client(port, "-tls1_2", "-sigalgs", "RSA+SHA256")


def test_nothing_is_compressed_renegotiated_or_resumed_by_ticket(rsa_files, run_node):
    """The listener gives no ticket, compresses nothing, and ends a connection that wants to renegotiate."""
    port = run_node(rsa_files).section.port
    output = s_client_output(port, "-tls1_2", talk="R\nQ\n")
    assert "Compression: NONE" in output
    assert "TLS session ticket:" not in output
    assert "no renegotiation" in output.lower()
    with (
        socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
        client(rsa_files).wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"\xff" * 6)  # no PDU: the node answers, and whatever else it would send has come before
        assert connection.recv(1)
        assert connection.version() == "TLSv1.3"
        assert connection.session is None or not connection.session.has_ticket


@pytest.mark.parametrize(
    "make_key", [lambda: curve(ec.SECP224R1), lambda: rsa.generate_private_key(65537, 1024)], ids=["224", "1024"]
)
def test_peer_with_a_weak_certificate_is_not_let_in(make_key, authority, rsa_files, run_node):
    """Where peers must show a certificate, one with a curve of 224 or an RSA key of 1024 bits opens no association."""
    peer = authority.issue("weak", key=make_key())
    node = run_node(rsa_files, is_mutual=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(peer.certificate_file or "", peer.key_file)
    with structlog.testing.capture_logs() as logs:
        talk_tls(node.section.port, context)
        wait_until(lambda: bool(reasons(logs)))
    assert reasons(logs)


def reasons(logs: list) -> list[str]:
    """The reasons of failed handshakes in the log, and of TLS at the plain port."""
    return [each["reason"] for each in logs if each["event"] in ("tls_handshake_failed", "peer_speaks_tls")]


def talk_tls(port: int, context: ssl.SSLContext) -> None:
    """Do a handshake, listen for the end."""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.recv(1)


def client(files: TlsFiles, *, has_certificate: bool = True) -> ssl.SSLContext:
    """A peer that trusts the hospital's authority."""
    context = ssl.create_default_context(cafile=files.ca_file)
    if has_certificate:
        context.load_cert_chain(files.certificate_file or "", files.key_file)
    return context


def old_client(version: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
    """A peer of former years."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


def test_failed_handshakes_are_told_in_words(authority, rsa_files, run_node, tmp_path):
    """The log gives the peer's address and a plain reason for each way in which a handshake fails."""
    node = run_node(rsa_files, is_mutual=True)
    port = node.section.port
    stranger = make_authority(tmp_path / "stranger").issue("stranger")
    peers = {
        "the peer does not speak TLS": lambda: echo(node.destination, "SCANNER", SECONDS),
        "the peer speaks neither TLS 1.2 nor 1.3": lambda: talk_tls(port, old_client(ssl.TLSVersion.TLSv1_1, "ALL")),
        "the peer offers no cipher suite": lambda: talk_tls(port, old_client(ssl.TLSVersion.TLSv1_2, "AES128-SHA")),
        "the peer sent no certificate, and tls.ca_file asks for one": lambda: talk_tls(
            port, client(rsa_files, has_certificate=False)
        ),
        "the peer's certificate is not accepted: certificate signature failure": lambda: talk_tls(
            port, client(replace(stranger, ca_file=rsa_files.ca_file))
        ),
        "the peer's certificate is not accepted: certificate has expired": lambda: talk_tls(
            port, client(authority.issue("expired", days=(-9, -2)))
        ),
        "the peer does not accept the node's certificate": lambda: talk_tls(
            port, client(replace(authority.issue("peer"), ca_file=stranger.ca_file))
        ),
        "the peer ended the connection in the handshake": lambda: socket.create_connection(("127.0.0.1", port)).close(),
    }
    for words, connect in peers.items():
        with structlog.testing.capture_logs() as logs:
            connect()
            wait_until(lambda: bool(reasons(logs)))
        assert reasons(logs)[0].startswith(words)
        assert {each["address"] for each in logs if each["event"] == "tls_handshake_failed"} == {"127.0.0.1"}


def test_peer_that_fails_the_handshake_is_told_to_the_observer(rsa_files, tmp_path):
    """A peer that fails the handshake is a peer not let in, with its address and the reason."""
    refused: list[tuple[Peer, str]] = []
    observer = Observer(lambda *_: None, lambda *each: refused.append(each))
    section = TlsSection(certificate_file=rsa_files.certificate_file, key_file=rsa_files.key_file)
    node = ReceiverNode(tmp_path / "spool", tls=section, observer=observer)
    with node.receiver:
        echo(node.destination, "SCANNER", SECONDS)
        wait_until(lambda: bool(refused))
    assert refused[0][0] == Peer("", "127.0.0.1")
    assert refused[0][1].startswith("TLS: the peer does not speak TLS")


def test_tls_at_the_plain_port_is_told_in_words(authority, rsa_files, run_node):
    """A peer that speaks TLS to a node without it is named in the log, with the setting; the peer is told the same."""
    node = run_node(None)
    with structlog.testing.capture_logs() as logs:
        reason = echo(replace(node.destination, tls=rsa_files), "SCANNER", SECONDS)
        wait_until(lambda: bool(reasons(logs)))
    assert reasons(logs) == ["scp.tls is off"]
    assert "TLS: the peer " in str(reason)


def test_sender_without_tls_is_given_a_hint(rsa_files, run_node):
    """A sender without TLS at a TLS port is asked whether the peer expects TLS; at a closed port it is not."""
    node = run_node(rsa_files)
    assert "does it expect TLS (destination.tls)?" in str(echo(node.destination, "SCANNER", SECONDS))
    node.receiver.stop()
    assert "TLS" not in str(echo(node.destination, "SCANNER", SECONDS))


def test_sender_whose_certificate_is_refused_is_told(authority, rsa_files, run_node):
    """A sender without a certificate, where one is asked for, learns that its certificate is the reason."""
    node = run_node(rsa_files, is_mutual=True)
    files = replace(rsa_files, certificate_file=None, key_file=None)
    assert "the peer does not accept the node's certificate" in str(
        echo(replace(node.destination, tls=files), "SCANNER", SECONDS)
    )


def test_expiry_is_logged_at_the_start(authority, run_node):
    """A node whose certificate ends soon says so when it starts, with the file."""
    with structlog.testing.capture_logs() as logs:
        run_node(authority.issue("ending", days=(-1, 9)))
    (told,) = [each for each in logs if each["event"] == "certificate"]
    assert told["key"] == "tls.certificate_file"
    assert "have it renewed" in told["reason"]


@needs("storescu")
@pytest.mark.parametrize(
    ("profile", "options", "is_taken"),
    [
        ("bcp195", ("--profile-bcp195-nd",), True),
        ("bcp195", ("--profile-bcp195",), True),
        ("bcp195", ("--profile-bcp195-ex",), True),
        ("bcp195", ("--profile-aes",), False),
        ("bcp195", ("--profile-null",), False),
        ("bcp195", ("--cipher", "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"), True),
        ("bcp195-non-downgrading", ("--profile-bcp195-nd",), True),
        ("bcp195-non-downgrading", ("--profile-aes",), False),
    ],
)
def test_dcmtk_stores_by_each_profile_that_is_still_good(
    profile, options, is_taken, authority, rsa_files, run_node, tmp_path
):
    """DCMTK's storescu stores over TLS by each profile with AEAD; by the retired AES and NULL profiles nothing."""
    node = run_node(replace(rsa_files, profile=profile), is_mutual=True)
    peer = authority.issue("storescu")
    file = write_instance_file(tmp_path, make_instance())
    tls = ("+tls", peer.key_file, peer.certificate_file, "+cf", authority.certificate_file, *options)
    address = ("-aec", node.section.ae_title, node.section.host, str(node.section.port))
    done = run_program("storescu", "-R", *map(str, tls), *address, file)
    assert (done.returncode == 0) is is_taken, done.stdout
    assert node.path().exists() is is_taken


def test_node_sends_to_a_peer_with_dhe_by_the_profile_that_has_it(authority, rsa_files, tmp_path):
    """A peer with nothing but DHE gets instances by the non-downgrading profile; by the other one, no common suite."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_dh_params(str(GROUP))
    context.set_ciphers("DHE-RSA-AES128-GCM-SHA256")
    context.load_cert_chain(rsa_files.certificate_file or "", rsa_files.key_file)
    file = write_instance_file(tmp_path, make_instance())
    with FakePacs(sop_classes=[MRImageStorage], tls=context) as pacs:
        for profile, is_taken in (("bcp195", False), ("bcp195-non-downgrading", True)):
            tls = replace(rsa_files, profile=profile)
            (delivery,) = send_instances(replace(pacs.destination, tls=tls), "GLIONODE", [file], SECONDS)
            assert delivery.is_delivered is is_taken, delivery.reason
