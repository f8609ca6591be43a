"""Notices to humans by mail, webhook and whatever else Apprise knows, each service a URL of the config."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

import apprise

from node.config_sections import NotifySection
from node.errors import NotifyError

_TITLES = {"refused": "study refused", "failed": "study failed", "reported": "study reported"}


_WITH_HOST = frozenset(["mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms"])
"""Schemes whose URL begins with a host; most others have their token in its place."""


def _name(url: str) -> str:
    """Scheme, and the host if it is one: what may be told of a URL that holds credentials."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "a URL without a scheme"
    try:
        host = urlsplit(url).hostname if scheme in _WITH_HOST else None
    except ValueError:  # a bracket in a password, say
        host = None
    return f"{scheme}://{host}" if host else scheme


def _silence() -> None:
    """Apprise logs whole URLs, credentials among them."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


def unknown_services(section: NotifySection) -> list[str]:
    """URLs (scheme, and host if that is no secret) that no service understands."""
    _silence()
    return [_name(url) for url in section.urls if apprise.Apprise.instantiate(url) is None]


def tell(section: NotifySection, state: str, study_instance_uid: str, reason: str, station_name: str) -> None:
    """Tell every service; nothing if ``section`` names none, or not this state. Holds no patient data.

    Raises:
        NotifyError: a service did not take it; names scheme and host, never credentials.
    """
    if state not in section.states:
        return
    title = f"{station_name}: {_TITLES[state]}"
    body = f"Study {study_instance_uid}" + (f": {reason}" if reason else "")
    _silence()
    failed = []
    for url in section.urls:
        service = apprise.Apprise.instantiate(url)
        if service is None or not service.notify(body=body, title=title):
            failed.append(_name(url))
    if failed:
        raise NotifyError(f"notify.urls: {', '.join(failed)} did not take the notice")
