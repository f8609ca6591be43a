"""What web sites cannot do with the page, over real HTTP: read it by another name, frame it, script it, change it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import free_port
from test_page import STUDY, Recorded

from node.config import build_config
from node.config_sections import WebSection
from node.errors import ConfigError
from node.metrics import Metrics
from node.web.page import Sources, running_page
from node.web.protection import allowed_hosts, content_policy

ENDPOINTS = ("/", "/studies.json", "/health", "/metrics")


@contextmanager
def page(folder: Path, client: Recorded | None = None, **web: object) -> Iterator[int]:
    """A running page of one refused study; yields its port."""
    config = build_config({"node": {"folder": str(folder)}, "web": {"port": free_port(), **web}})
    with running_page(config, Sources(client or Recorded(), Metrics(), lambda: True)):
        yield config.web.port


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a page with the default hosts."""
    with page(tmp_path_factory.mktemp("node")) as port:
        yield port


def ask(port: int, path: str, host: str | None = "localhost", method: str = "GET") -> tuple[int, dict[str, str], str]:
    """Status, headers (names in lower case) and body of one response. ``host`` None: no Host header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("path", [*ENDPOINTS, "/nowhere"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:{}", "[::2]", ""])
def test_page_cannot_be_read_by_a_name_that_leads_here(port: int, path: str, host: str) -> None:
    """A web site whose name is pointed at this machine (DNS rebinding) gets 400 and nothing of any study."""
    status, headers, text = ask(port, path, host.format(port))
    assert status == 400
    assert STUDY not in text
    assert "refused" not in text
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_request_without_a_host_is_refused(port: int) -> None:
    """HTTP 1.1 demands the header; without it nobody knows by what name the page was asked for."""
    assert ask(port, "/", None)[0] == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{}", "127.0.0.1", "127.0.0.1:{}", "[::1]", "[::1]:{}"])
def test_own_names_are_answered(port: int, host: str) -> None:
    """The names of this machine count, with any port, as a proxy may listen on another one."""
    status, _, text = ask(port, "/", host.format(port))
    assert status == 200
    assert STUDY in text


def test_configured_hosts_replace_the_default(tmp_path: Path) -> None:
    """With web.hosts, these alone are answered, whatever the case of their letters."""
    with page(tmp_path, hosts=["Node.Hospital.example", "::1"]) as port:
        assert [ask(port, "/health", host)[0] for host in ("node.hospital.example", "[::1]", "localhost")] == [
            200,
            200,
            400,
        ]


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", "127.0.0.1"), ("10.1.2.3", "10.1.2.3"), ("fd00::5", "[fd00::5]"), ("Node.local", "node.local")],
)
def test_address_that_is_listened_on_is_a_name_of_the_page(host: str, own: str) -> None:
    """Beside the names of the machine itself."""
    assert set(allowed_hosts(WebSection(host=host))) == {"localhost", "127.0.0.1", "[::1]", own}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_every_address_is_no_name(host: str) -> None:
    """A page that listens on all addresses is asked for by names that only the admin knows."""
    assert allowed_hosts(WebSection(host=host)) == ["localhost", "127.0.0.1", "[::1]"]


@pytest.mark.parametrize("host", ["*", "*.example.org", "node:8042", "http://node", "", "a b", "[::1", "node/"])
def test_host_that_no_header_names_is_an_error_of_the_config(host: str) -> None:
    """No pattern, no port, no URL; the message names the key."""
    with pytest.raises(ConfigError, match=r"web\.hosts"):
        build_config({"web": {"hosts": [host]}})


@pytest.mark.parametrize("path", [*ENDPOINTS, "/nowhere", "/health/", "/%00", "//evil.example/"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_every_response_carries_the_headers(port: int, path: str, method: str) -> None:
    """Pages, data, 404 and 405 alike: no script, no frame, no sniffing, no referrer, no cache, no foreign page."""
    status, headers, text = ask(port, path, method=method)
    expected = 405 if method in ("POST", "OPTIONS") else 200 if path in ENDPOINTS else 404
    assert status == expected
    policy = headers["content-security-policy"]
    for rule in ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert rule in policy.split("; ")
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers
    assert method != "HEAD" or text == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_page_is_read_only(port: int, method: str) -> None:
    """No method but GET and HEAD is answered, on any path."""
    path = "localhost:80" if method == "CONNECT" else "/"
    status, headers, text = ask(port, path, method=method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert STUDY not in text


@pytest.mark.parametrize(("path", "error", "status"), [("/", True, 503), ("/studies.json", True, 503)])
def test_errors_carry_the_headers(tmp_path: Path, path: str, error: bool, status: int) -> None:
    """Also while the database does not answer."""
    with page(tmp_path, Recorded(is_down=error)) as port:
        answered, headers, _ = ask(port, path)
    assert answered == status
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cache-control"] == "no-store"


# the first reading, in a thread of its own, meets the error, too
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_unforeseen_errors_carry_the_headers_and_no_detail(tmp_path: Path) -> None:
    """A programming error is answered with 500, whose text says nothing."""

    class Broken(Recorded):
        def marks(self, names: tuple[str, ...]) -> list:
            raise LookupError(STUDY)

    with page(tmp_path, Broken()) as port:
        status, headers, text = ask(port, "/")
    assert (status, text) == (500, "Internal Server Error")
    assert headers["x-content-type-options"] == "nosniff"


def test_style_of_the_page_is_the_one_that_is_allowed(port: int) -> None:
    """The policy names the hash of the page's only style; nothing in the page would be blocked, or needs a script."""
    _, headers, text = ask(port, "/")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in headers["content-security-policy"].split("; ")
    assert not re.search(r"<(script|link|img|iframe|form|object)\b|\sstyle=|\son\w+=", text)


def test_page_without_style_allows_none() -> None:
    """A template without ``<style>`` needs no exception."""
    assert "style-src 'none';" in content_policy("<html></html>")
