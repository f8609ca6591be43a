"""What browsers and other web sites may do with the page: nothing but show it, to who asks for it by its own name.

The page has no login, so a web site that a user visits must not be able to read it through the user's browser: by a
name of its own that leads to this machine (DNS rebinding), in a frame, or as a resource of its own pages.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re

from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.config_sections import WebSection

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_METHODS = ("GET", "HEAD")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def allowed_hosts(section: WebSection) -> list[str]:
    """The hosts that a Host header may name: ``web.hosts``, or the names of this machine and ``web.host``."""
    if section.hosts:
        return list(section.hosts)
    try:
        address = ipaddress.ip_address(section.host)
    except ValueError:  # a name, or empty, which is every address
        return [*_LOOPBACK, *([section.host.lower()] if section.host else [])]
    own = f"[{address}]" if address.version == 6 else str(address)
    return [*_LOOPBACK, *([] if address.is_unspecified else [own])]


def content_policy(template: str) -> str:
    """The Content-Security-Policy of the page: its own ``<style>`` alone, known by its hash; no script, no frame."""
    hashes = (base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in _STYLE.findall(template))
    styles = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    others = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"default-src 'none'; style-src {styles}; {others}"


class Protection:
    """The application ``app``, read only, for ``section``'s hosts alone, with the headers above on every response."""

    def __init__(self, app: ASGIApp, section: WebSection, template: str) -> None:
        self._app = TrustedHostMiddleware(app, allowed_hosts=allowed_hosts(section), www_redirect=False)
        self._headers = {**_HEADERS, "Content-Security-Policy": content_policy(template)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        if scope["method"] in _METHODS:
            await self._app(scope, receive, send_protected)
        else:
            refusal = PlainTextResponse("Method Not Allowed", 405, {"Allow": ", ".join(_METHODS)})
            await refusal(scope, receive, send_protected)
