"""The sender by DICOMweb with a service on a real socket that responds well, badly, or not at all."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from certificates import make_authority
from faults import free_port, wait_until
from instances import PATIENT_ID, PATIENT_NAME, SERIES, STUDY, make_instance, sop_instance_uid, write_instance_file
from lab import needs
from pydicom import Dataset
from pydicom.uid import MRImageStorage
from structlog.testing import capture_logs

from node.errors import InstanceRefused
from node.scu.stow import probe, store_instances
from node.study import WebDestination

SECONDS = 20.0
SHORT_SECONDS = 0.5
FIRST, SECOND = sop_instance_uid(1), sop_instance_uid(2)
JSON, XML = "application/dicom+json", "application/dicom+xml"


def stored(uid: str, **more: Any) -> dict[str, Any]:
    """A Store Instances Response Module that lists ``uid`` as stored."""
    return _module("ReferencedSOPSequence", uid, more)


def failed(uid: str, reason: int) -> dict[str, Any]:
    """A Store Instances Response Module that lists ``uid`` as failed."""
    return _module("FailedSOPSequence", uid, {"FailureReason": reason})


def found(uid: str) -> Answer:
    """The response to a query that lists ``uid``."""
    match = Dataset()
    match.SOPInstanceUID = uid
    return Answer(200, [match.to_json_dict()])


def _module(sequence: str, uid: str, more: dict[str, Any]) -> dict[str, Any]:
    item, answer = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, uid
    for keyword, value in more.items():
        setattr(item, keyword, value)
    setattr(answer, sequence, [item])
    return answer.to_json_dict()


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP response to one POST; with ``content`` None, the instance is stored and listed."""

    status: int = 200
    content: Any = None
    media_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Service(ThreadingHTTPServer):
    """A DICOMweb service. The n-th POST gets the n-th response of ``plan``; a callable in it is called instead."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, plan: list[Answer | Callable[[], None]], query: Answer, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.plan, self.query = list(plan), query
        self.posted: list[bytes] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a peer that refuses the service's certificate."""


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(("GET", self.path, dict(self.headers)))
        self._answer(self.server.query)

    def do_POST(self) -> None:
        self.server.requests.append(("POST", self.path, dict(self.headers)))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = message_from_bytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body)
        parts = [part.get_payload(decode=True) for part in message.get_payload()]
        self.server.posted += parts
        answer = self.server.plan.pop(0) if self.server.plan else Answer()
        if callable(answer):
            answer()
            return
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        content = answer.content
        if content is None and self.command == "POST":
            content = stored([FIRST, SECOND][len(self.server.posted) - 1])
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode() if content else b""
        self.send_response(answer.status)
        for key, value in ({"Content-Type": answer.media_type} | answer.headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two instances."""
    return [write_instance_file(tmp_path, make_instance(number)) for number in (1, 2)]


@contextmanager
def service(
    plan: list[Answer | Callable[[], None]] | None = None,
    query: Answer | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Service]:
    """A running service. ``query``: the response to a GET; by default an empty list."""
    server = Service(plan or [], query or Answer(204, b""))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def destination(server: Service, **more: Any) -> WebDestination:
    """The service as a destination."""
    return WebDestination("archive", f"http://127.0.0.1:{server.server_port}/dicom-web/", **more)


def test_files_arrive_byte_for_byte(files):
    """Each file is posted as it is, one request each, and counts as delivered when the answer lists it."""
    with service() as server:
        deliveries = store_instances(destination(server), files, SECONDS)
    assert server.posted == [file.read_bytes() for file in files]
    assert [(each.sop_instance_uid, each.status, each.is_delivered) for each in deliveries] == [
        (FIRST, 0x0000, True),
        (SECOND, 0x0000, True),
    ]
    assert [(method, path) for method, path, _ in server.requests] == [("POST", "/dicom-web/studies")] * 2
    headers = server.requests[0][2]
    assert headers["Accept"] == JSON
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"')
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert "Transfer-Encoding" not in headers


STORED_XML = f"""\
<NativeDicomModel><DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence"><Item number="1">
<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID"><Value number="1">{FIRST}</Value>
</DicomAttribute></Item></DicomAttribute></NativeDicomModel>""".encode()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, stored(FIRST), "application/dicom+json; charset=utf-8"),
        Answer(200, stored(FIRST), "application/json"),
        Answer(200, STORED_XML, XML),
        Answer(202, stored(FIRST, WarningReason=0xB000)),
    ],
    ids=["with a character set", "plain JSON", "XML", "warning"],
)
def test_answers_that_say_stored(files, answer):
    """An instance that a successful response lists is delivered, in every media type of the response."""
    with service([answer]) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert delivery.is_delivered, delivery.reason


@pytest.mark.parametrize(
    ("reason", "is_delivered", "is_permanent"),
    [
        (0xA700, False, False),
        (0x0110, False, False),
        (0xA900, False, True),
        (0xC000, False, True),
        (0x0122, False, True),
        (0x0111, False, False),
        (0xB000, False, False),
        (0xB007, False, False),
    ],
)
@pytest.mark.parametrize("status", [200, 202, 409])
def test_failure_reasons_decide(files, status, reason, is_delivered, is_permanent):
    """A failure reason is a failure, whatever the HTTP status is and a query would find; a warning's code is none."""
    is_held = reason != 0x0111
    with service([Answer(status, failed(FIRST, reason))], found(FIRST) if is_held else None) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert (delivery.is_delivered, delivery.is_permanent) == (is_delivered, is_permanent)
    assert f"0x{reason:04X}" in delivery.reason


@pytest.mark.parametrize("reason", [0x0111, 0xB00E])
@pytest.mark.parametrize("status", [202, 409])
def test_instance_that_was_stored_before_is_looked_for(files, status, reason):
    """A failure whose reason is that the service has the instance counts as delivered if a query finds it there."""
    with service([Answer(status, failed(FIRST, reason))], found(FIRST)) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert (delivery.is_delivered, delivery.status) == (True, 0x0111)


def test_failed_wins_over_stored(files):
    """An instance that a response lists both as stored and as failed is failed, also if a query finds it."""
    with service([Answer(202, stored(FIRST) | failed(FIRST, 0x0110))], found(FIRST)) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert (delivery.is_delivered, delivery.status) == (False, 0x0110)


def test_failure_without_a_name_is_that_of_the_instance_sent(files):
    """Other Failures Sequence (PS3.18 I.2) tells of an instance whose UIDs the service could not read."""
    unnamed = {"0008119A": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}
    with service([Answer(202, unnamed)], found(FIRST)) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert (delivery.is_delivered, delivery.status) == (False, 0xA700)


@pytest.mark.parametrize("is_held", [True, False])
def test_http_failure_that_lists_the_instance_as_stored_is_checked(files, is_held):
    """A response that contradicts itself counts only if a query finds the instance."""
    with service([Answer(500, stored(FIRST))], found(FIRST) if is_held else None) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert delivery.is_delivered is is_held


@pytest.mark.parametrize(
    ("status", "is_permanent"),
    [
        (400, True),
        (401, False),
        (403, False),
        (404, False),
        (408, False),
        (409, True),
        (413, True),
        (415, True),
        (429, False),
        (500, False),
        (501, True),
        (503, False),
        (599, False),
    ],
)
def test_http_statuses_are_told_apart(files, status, is_permanent):
    """An HTTP status that remains for the same request is permanent; a temporary one is retryable."""
    with service([Answer(status, b"<html>no</html>", "text/html")]) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert (delivery.is_delivered, delivery.is_permanent, delivery.status) == (False, is_permanent, None)
    assert f"answered HTTP {status}" in delivery.reason


def test_first_refused_second_stored(files):
    """The response for one file does not change the delivery of the other."""
    with service([Answer(409, failed(FIRST, 0xA900)), Answer()]) as server:
        first, second = store_instances(destination(server), files, SECONDS)
    assert first.is_permanent
    assert second.is_delivered


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_no_success(files, status):
    """A redirect, which a client would follow with a successful GET, delivers nothing."""
    with service([Answer(status, b"", headers={"Location": "/dicom-web/studies"})], Answer(200, [])) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
        assert [method for method, _, _ in server.requests] == ["POST"]
    assert (delivery.is_delivered, delivery.is_permanent) == (False, False)
    assert f"HTTP {status}" in delivery.reason


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b""),
        Answer(200, b"{", JSON),
        Answer(200, b"<", XML),
        Answer(200, b"<html>welcome</html>", "text/html"),
        Answer(200, stored(SECOND)),
        Answer(200, {"00081199": {"vr": "SQ", "Value": "?"}}),
        Answer(409, b""),
    ],
    ids=["empty", "half JSON", "half XML", "HTML", "another instance", "no sequence", "conflict"],
)
@pytest.mark.parametrize("is_held", [True, False])
def test_answer_that_does_not_say_stored_is_checked(files, answer, is_held):
    """An instance that the response does not list is delivered only if a query finds it."""
    with service([answer], found(FIRST) if is_held else None) as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert delivery.is_delivered is is_held
    (query,) = [path for method, path, _ in server.requests if method == "GET"]
    assert query == f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances?SOPInstanceUID={FIRST}"


def test_names_and_addresses_of_an_answer_are_not_followed(files, tmp_path, monkeypatch):
    """A file name, a path or an address in an answer, or an entity of its XML, is neither written nor asked for."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    secret = tmp_path / "secret"
    secret.write_text("hunter2", encoding="utf-8")
    headers = {
        "Content-Disposition": 'attachment; filename="../HOLE"',
        "Content-Location": secret.as_uri(),
        "Link": f"<{secret.as_uri()}>; rel=next",
    }
    entity = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]><NativeDicomModel>&x;</NativeDicomModel>'
    answers = [
        Answer(200, stored(FIRST, RetrieveURL=secret.as_uri()), JSON, headers),
        Answer(200, entity.encode(), XML, headers),
    ]
    with service(answers) as server, capture_logs() as events:
        one, other = store_instances(destination(server), files, SECONDS)
    assert (one.is_delivered, other.is_delivered) == (True, False)
    assert "hunter2" not in f"{other.reason} {events}"
    assert {path.partition("?")[0] for _, path, _ in server.requests} == {
        "/dicom-web/studies",
        f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances",
    }
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not list(tmp_path.rglob("HOLE*"))


def test_service_down_is_retryable(files):
    """A closed port leaves every file retryable, and the reason names the host, not the URL."""
    url = f"http://user:geheim@127.0.0.1:{free_port()}/secret-path"
    deliveries = store_instances(WebDestination("archive", url), files, SECONDS)
    assert [(each.is_delivered, each.is_permanent) for each in deliveries] == [(False, False)] * 2
    assert "archive at 127.0.0.1:" in deliveries[0].reason
    assert "cannot be reached" in deliveries[0].reason
    assert "geheim" not in deliveries[0].reason
    assert "secret-path" not in deliveries[0].reason


def test_service_that_is_silent_is_retryable(files):
    """If a service does not respond in time, the files that follow are not sent."""
    released = threading.Event()
    with service([lambda: released.wait(SECONDS) and None]) as server:
        deliveries = store_instances(destination(server), files, SHORT_SECONDS)
        released.set()
    assert [(each.is_delivered, each.is_permanent) for each in deliveries] == [(False, False)] * 2
    assert "does not answer" in deliveries[0].reason
    assert len(server.posted) == 1


def test_sending_again_after_a_lost_answer(files):
    """An instance that the service stored without responding is sent again, byte-identical, and delivered."""
    with service([lambda: None]) as server:
        (lost,) = store_instances(destination(server), files[:1], SECONDS)
        server.plan = [Answer(200, stored(FIRST))]
        (again,) = store_instances(destination(server), files[:1], SECONDS)
    assert not lost.is_delivered
    assert again.is_delivered
    assert server.posted == [files[0].read_bytes()] * 2


def test_basic_authentication(tmp_path, files):
    """User and password, which is read from its file at each delivery, are sent with every request."""
    password = tmp_path / "password"
    with service() as server:
        for secret in ("geheim", "näher"):
            password.write_text(secret + "\n", encoding="utf-8")
            store_instances(destination(server, user="node", password_file=password), files[:1], SECONDS)
            sent = server.requests[-1][2]["Authorization"]
            assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"node:{secret}"


def test_bearer_token_wins(tmp_path, files):
    """A bearer token is sent instead of user and password."""
    token = tmp_path / "token"
    token.write_text("abc.def\n")
    with service() as server:
        store_instances(destination(server, user="node", token_file=token), files[:1], SECONDS)
    assert server.requests[0][2]["Authorization"] == "Bearer abc.def"


def test_environment_does_not_count(files, monkeypatch, tmp_path):
    """Proxies and a .netrc of the environment are ignored."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login stranger password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with service() as server:
        (delivery,) = store_instances(destination(server), files[:1], SECONDS)
    assert delivery.is_delivered
    assert "Authorization" not in server.requests[0][2]


@pytest.mark.parametrize("key", ["password_file", "token_file", "ca_file"])
def test_file_that_cannot_be_read_is_named(tmp_path, files, key):
    """A missing credential file leaves every file retryable; the reason names its key, not its content."""
    with service() as server:
        more: dict[str, Any] = {"user": "node", key: tmp_path / "missing"}
        deliveries = store_instances(destination(server, **more), files, SECONDS)
    assert [(each.is_delivered, each.is_permanent) for each in deliveries] == [(False, False)] * 2
    assert key in deliveries[0].reason
    assert "cannot be read" in deliveries[0].reason


def test_secrets_and_patients_stay_out_of_the_log(tmp_path, files):
    """The log of a refusal holds neither a credential nor patient data that the service repeats."""
    password = tmp_path / "password"
    password.write_text("geheim")
    content = f"{PATIENT_NAME} {PATIENT_ID} already exists".encode()
    with service([Answer(400, content, "text/plain")]) as server, capture_logs() as logs:
        (delivery,) = store_instances(destination(server, user="node", password_file=password), files[:1], SECONDS)
    assert logs
    text = f"{logs} {delivery}"
    assert not [secret for secret in ("geheim", PATIENT_NAME, PATIENT_ID) if secret in text]


def test_file_that_is_no_dicom_is_refused(tmp_path):
    """A file without file meta is refused before any request, and the file is named."""
    file = tmp_path / "notes.dcm"
    file.write_bytes(b"no DICOM")
    with service() as server, pytest.raises(InstanceRefused, match=r"notes\.dcm"):
        store_instances(destination(server), [file], SECONDS)
    assert server.requests == []


@needs("openssl")
@pytest.mark.parametrize("is_known", [True, False])
def test_certificate_is_checked(tmp_path, files, is_known):
    """Over https, a service with a certificate of the given authority gets the instance; any other does not."""
    authority, stranger = make_authority(tmp_path / "a"), make_authority(tmp_path / "b")
    theirs = authority.sign("archive")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(theirs.certificate_file or "", theirs.key_file)
    ca_file = (authority if is_known else stranger).certificate_file
    with service(tls=tls) as server:
        url = f"https://127.0.0.1:{server.server_port}/dicom-web"
        (delivery,) = store_instances(WebDestination("archive", url, ca_file=ca_file), files[:1], SECONDS)
        reason = probe(WebDestination("archive", url, ca_file=ca_file), SECONDS)
    assert delivery.is_delivered is is_known
    assert ("TLS" in delivery.reason) is not is_known
    assert (reason is None) is is_known


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(204, b""), None),
        (Answer(200, []), None),
        (Answer(200, b"[]"), None),
        (Answer(405, b""), None),
        (Answer(501, b""), None),
        (Answer(401, b""), "HTTP 401 Unauthorized"),
        (Answer(404, b""), "HTTP 404 Not Found"),
        (Answer(302, b"", headers={"Location": "/"}), "HTTP 302 Found"),
        (Answer(200, b"<html>", "text/html"), "JSON"),
    ],
)
def test_probe(answer, expected):
    """A service that answers a query, or supports only storing, gives no reason; any other gives the reason."""
    with service(query=answer) as server:
        reason = probe(destination(server), SECONDS)
    assert (reason is None) if expected is None else (expected in str(reason))


def test_probe_of_what_is_not_there(tmp_path):
    """A closed port and a missing credential file give the reason."""
    archive = WebDestination("archive", f"http://127.0.0.1:{free_port()}/", token_file=None)
    assert probe(archive, SECONDS) == "cannot be reached"
    assert "token_file" in str(probe(WebDestination("archive", archive.url, token_file=tmp_path / "none"), SECONDS))
