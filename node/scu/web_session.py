"""The HTTP session of the sender by DICOMweb: bearer token, TLS by the profile of the config, no redirects."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import requests

from node.dicom.tls_failures import failure_in_words
from node.dicom.tls_profile import client_context
from node.study import TlsFiles, TlsProfile


class Bearer(requests.auth.AuthBase):
    """A bearer token (RFC 6750)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the Authorization header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _TlsAdapter(requests.adapters.HTTPAdapter):
    """Speaks TLS by the profile of the config."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context  # read by `init_poolmanager`, which the base class calls
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """As the base class does, with the context."""
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)


class Session(requests.Session):
    """Follows no redirect, because it would turn the POST into a GET, whose response looks like a success.

    Removes the client's Host header, which lacks the port, and the parameters of the response's media type, which the
    client cannot parse.
    """

    def request(self, method: str, url: str | bytes, *arguments: Any, **options: Any) -> requests.Response:
        """Send one request; HTTPError for a redirect."""
        options["allow_redirects"] = False
        options["headers"] = {key: value for key, value in (options.get("headers") or {}).items() if key != "Host"}
        response = super().request(method, url, *arguments, **options)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        response.headers["Content-Type"] = media_type
        if response.is_redirect:
            raise requests.HTTPError(response=response)
        return response


def use_tls(session: Session, ca_file: Path | None, profile: TlsProfile) -> None:
    """Let ``session`` speak TLS by ``profile`` and trust ``ca_file``, or else the system's authorities.

    Raises:
        ConfigError: ``ca_file`` cannot be used; the message names its key and path.
    """
    context = client_context(TlsFiles(None, None, ca_file, profile), ssl.SSLContext)
    session.mount("https://", _TlsAdapter(context))
    if ca_file is not None:
        session.verify = str(ca_file)


def tls_failure(error: requests.exceptions.SSLError) -> str:
    """Why TLS failed, in words; not the error's own text, which holds the URL."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return failure_in_words(cause) if cause else "the certificate or the encryption is not accepted"
