"""Notices: a real mail server and a real web server on this machine get them; nobody sees credentials or patients."""

from __future__ import annotations

from typing import Any

import pytest
from aiosmtpd.controller import Controller
from faults import free_port
from web_hook import web_hook

from node.config import Config, build_config
from node.config_sections import NotifySection
from node.errors import NotifyError
from node.notify.notices import Notices
from node.notify.services import send_notice, unknown_services


class Mailbox:
    """Keeps what the mail server got."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
        """One mail."""
        self.mails.append(envelope.content.decode())
        return "250 OK"


@pytest.mark.slow
def test_web_hook_gets_the_notice() -> None:
    """A JSON web hook gets station, state, study and reason."""
    with web_hook() as (url, got):
        send_notice(NotifySection(urls=(url,)), "refused", "1.2.3", "no FLAIR", "NODE7")
    assert [(each["title"], each["message"]) for each in got] == [("NODE7: study refused", "Study 1.2.3: no FLAIR")]


def test_mail_gets_the_notice() -> None:
    """A mail server gets a mail with the study and the reason."""
    mailbox, port = Mailbox(), free_port()
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        url = f"mailto://127.0.0.1:{port}/?from=node@example.org&to=admin@example.org&smtp=127.0.0.1&mode=insecure"
        send_notice(NotifySection(urls=(url,)), "failed", "1.2.3", "no model", "NODE7")
    finally:
        server.stop()
    (mail,) = mailbox.mails
    assert "NODE7: study failed" in mail
    assert "Study 1.2.3: no model" in mail


@pytest.mark.slow
def test_service_that_fails_is_named_without_credentials() -> None:
    """A service that answers with an error is named by scheme and host; the others are told all the same."""
    with web_hook(500) as (bad, _), web_hook() as (good, got):
        with pytest.raises(NotifyError) as caught:
            send_notice(NotifySection(urls=(bad, good)), "refused", "1.2.3", "why", "N")
        assert str(caught.value) == "notify.urls: json://127.0.0.1 did not take the notice"
        assert len(got) == 1


def test_state_that_nobody_wants_is_not_told() -> None:
    """Only the states of notify.states are told."""
    with web_hook() as (url, got):
        send_notice(NotifySection(urls=(url,), states=("failed",)), "refused", "1.2.3", "why", "N")
    assert got == []


def test_unknown_service_is_found() -> None:
    """A URL that no service understands is named for the check, without what may be a password."""
    urls = ("json://127.0.0.1/x", "carrier-pigeon://user:secret@loft/")
    assert unknown_services(NotifySection(urls=urls)) == ["carrier-pigeon"]


@pytest.mark.parametrize(
    ("url", "name"), [("secret", "a URL without a scheme"), ("mailto://", "mailto"), ("xml://user:se[cret@h", "xml")]
)
def test_malformed_url_is_told_without_its_content(url: str, name: str) -> None:
    """Whatever is wrong with it, it may hold a password."""
    assert unknown_services(NotifySection(urls=(url,))) == [name]
    with pytest.raises(NotifyError, match=f"notify.urls: {name} did not take"):
        send_notice(NotifySection(urls=(url,)), "failed", "1.2.3", "why", "N")


@pytest.mark.parametrize("url", ["tgram://1234secret", "discord://1234secret", "slack://1234secret/x"])
def test_token_in_the_place_of_a_host_is_not_named(url: str) -> None:
    """Many services take their token where others have a host: of these only the scheme is told."""
    assert unknown_services(NotifySection(urls=(url,))) == [url.partition(":")[0]]


class Waits:
    """Steps that run at once, and whose waits pass at once."""

    workflow_id = "w"

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def step(self, _name: str, function: Any, *arguments: Any) -> Any:
        """Call it."""
        return function(*arguments)

    def publish(self, _state: str, _reason: str | None = None) -> None:
        """Nobody listens."""

    def sleep(self, seconds: float) -> None:
        """Keep it."""
        self.pauses.append(seconds)


def config_with(url: str, **delivery: float) -> Config:
    """A config that tells one service."""
    return build_config({"notify": {"urls": [url]}, "delivery": delivery, "log": {"hide_uids": True}})


def test_notice_is_tried_until_it_is_taken() -> None:
    """A service that is down is tried with growing pauses, and given up in the end with its name; UIDs stay hidden."""
    steps: Any = Waits()
    url = f"json://127.0.0.1:{free_port()}/"
    with pytest.raises(NotifyError, match=r"json://127\.0\.0\.1 did not"):
        Notices(config_with(url, first_retry_seconds=40000.0, longest_retry_seconds=60000.0, give_up_days=1.0)).notice(
            steps, "failed", "1.2.3", "why"
        )
    assert steps.pauses == [40000.0, 60000.0]
    with web_hook() as (good, got):
        told = Notices(config_with(good)).notice(steps, "failed", "1.2.3", "holds 2 studies: 1.2.3.4567, 1.2.9.8765")
    assert told["state"] == "told"
    assert got[0]["message"] == "Study (hidden): holds 2 studies: …4567, …8765"
