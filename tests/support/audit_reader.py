"""Reads an audit trail as a collector does: syslog header, then XML, validated against the schema of the messages."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lxml import etree

_SCHEMA = Path(__file__).parents[1] / "audit" / "audit_message.rng"
_HEAD = re.compile(
    rb"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|[+-]\d\d:\d\d) (\S+) glionode \d+ DICOM\+RFC3881 - \xef\xbb\xbf"
)


@dataclass(frozen=True)
class Told:
    """One message, taken apart."""

    root: etree._Element

    def code(self, name: str) -> str:
        """The value of a code of the event."""
        found = self.root.find(f"EventIdentification/{name}")
        return "" if found is None else str(found.get("csd-code"))

    @property
    def event(self) -> tuple[str, str, str, str]:
        """EventID, EventTypeCode (empty: none), action, outcome."""
        attributes = self.root.find("EventIdentification")
        action, outcome = attributes.get("EventActionCode"), attributes.get("EventOutcomeIndicator")
        return self.code("EventID"), self.code("EventTypeCode"), action, outcome

    @property
    def participants(self) -> list[dict[str, str]]:
        """The attributes of each, with its ``role``."""
        found = self.root.findall("ActiveParticipant")
        return [dict(each.attrib) | {"role": (each.find("RoleIDCode").get("csd-code"))} for each in found if len(each)]

    @property
    def objects(self) -> dict[str, str]:
        """ParticipantObjectID by the code of its type."""
        found = self.root.findall("ParticipantObjectIdentification")
        return {
            each.find("ParticipantObjectIDTypeCode").get("csd-code"): each.get("ParticipantObjectID") for each in found
        }

    @property
    def counts(self) -> dict[str, int]:
        """Number of instances by SOP class."""
        return {each.get("UID"): int(each.get("NumberOfInstances")) for each in self.root.iter("SOPClass")}

    @property
    def query(self) -> bytes:
        """The encoded query."""
        return base64.b64decode(self.root.findtext(".//ParticipantObjectQuery") or "")

    @property
    def alert(self) -> str:
        """The description of an alert."""
        return base64.b64decode(self.root.find(".//ParticipantObjectDetail").get("value")).decode()


def read_line(line: bytes) -> Told:
    """One syslog message; the test fails if it is not by RFC 5424, or its XML not by the schema."""
    head = _HEAD.match(line)
    assert head, line
    schema = etree.RelaxNG(etree.parse(_SCHEMA))
    root = etree.fromstring(line[head.end() :])
    schema.assertValid(root)
    return Told(root)


def read_trail(folder: Path) -> list[Told]:
    """All messages of the files in ``folder``, oldest first within each file."""
    lines = [line for file in sorted(folder.glob("*.log")) for line in file.read_bytes().splitlines()]
    return [read_line(line) for line in lines]


class Collector:
    """A syslog collector over TLS (RFC 5425) on a free port of 127.0.0.1; ``messages``: what it was sent.

    ``is_rude``: it resets connections instead of reading them.
    """

    def __init__(self, context: ssl.SSLContext, port: int = 0) -> None:
        self.messages: list[bytes] = []
        self.is_rude = False
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(OSError), self._context.wrap_socket(connection, server_side=True) as encrypted:
                    if self.is_rude:
                        encrypted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                        continue
                    content = b""
                    while chunk := encrypted.recv(65536):
                        content += chunk
                    self._take(content)
                    encrypted.unwrap()

    def _take(self, content: bytes) -> None:
        while content:
            length, _, rest = content.partition(b" ")
            self.messages.append(rest[: int(length)])
            content = rest[int(length) :]
