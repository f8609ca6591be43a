"""Sends notices to humans by mail, webhook or another service of Apprise. The config lists the services as URLs."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

import apprise

from node.config_sections import NotifySection
from node.errors import NotifyError

_TITLES = {
    "refused": "study refused",
    "failed": "study failed",
    "reported": "study reported",
    "conflict": "instances in conflict",
    "corrected": "instances corrected",
    "withdrawn": "instances withdrawn",
}


_WITH_HOST = frozenset(["mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms"])
"""Schemes whose URL begins with a host. The URLs of most other schemes have a token in that position."""


def _name(url: str) -> str:
    """Scheme, and host if the scheme has one: the part of a URL without credentials."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "a URL without a scheme"
    try:
        host = urlsplit(url).hostname if scheme in _WITH_HOST else None
    except ValueError:  # for example, a bracket in a password
        host = None
    return f"{scheme}://{host}" if host else scheme


def _silence() -> None:
    """Switch off Apprise's log, which holds whole URLs with their credentials."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


def unknown_services(section: NotifySection) -> list[str]:
    """URLs that Apprise does not support, each shortened to its scheme, and its host if that is no secret."""
    _silence()
    return [_name(url) for url in section.urls if apprise.Apprise.instantiate(url) is None]


def send_notice(section: NotifySection, state: str, study_instance_uid: str, reason: str, station_name: str) -> None:
    """Send a notice without patient data to every service; to none if ``section`` does not list ``state``.

    Raises:
        NotifyError: a service did not accept the notice; the text names scheme and host, never credentials.
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
