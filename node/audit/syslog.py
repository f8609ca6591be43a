"""Sends the lines of files to a syslog collector over TLS (RFC 5425; PS3.15 A.6), and remembers how far it came."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from node.dicom.tls_failures import failure_in_words
from node.dicom.tls_profile import client_context
from node.errors import ConfigError
from node.study import TlsFiles

_SECONDS = 10.0
_MOST_BYTES = 1 << 20  # of one connection; then the place is remembered
_SENT = ".sent"


class SyslogSender:
    """Sends to ``host``, whose certificate must carry that name, with the files and the profile of [tls].

    Syslog has no acknowledgement. So each batch has a connection of its own, and counts as sent once the collector has
    answered the end of TLS (RFC 5425 4.4), or has closed the connection, which it does after it has read all before.
    Any other batch is sent again: the collector may get a message twice.
    """

    def __init__(self, host: str, port: int, tls: TlsFiles) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self.address = f"{host}:{port}"

    def send_files(self, files: Sequence[Path]) -> None:
        """Send the whole lines of ``files`` that were not sent before, in their order.

        Raises:
            OSError: the collector cannot be reached, does not speak TLS with us, or a file cannot be read.
        """
        for file in files:
            while True:
                begin = _place(file)
                end = min(file.stat().st_size, begin + _MOST_BYTES)
                with file.open("rb") as opened:
                    opened.seek(begin)
                    lines = opened.read(end - begin)
                    whole = lines.rfind(b"\n") + 1 or len(lines + opened.readline())
                    opened.seek(begin)
                    lines = opened.read(whole)
                if not lines.endswith(b"\n"):
                    break
                self._send(lines[:-1].split(b"\n"))
                _remember(file, begin + whole)

    def unsent_bytes(self, files: Sequence[Path]) -> int:
        """Bytes of ``files`` that the collector does not have yet."""
        count = 0
        for file in files:
            with contextlib.suppress(OSError):
                count += file.stat().st_size - _place(file)
        return count

    def probe(self) -> str | None:
        """Connect, send nothing. None if the collector does the handshake, else the reason."""
        try:
            self._send([])
        except OSError as error:
            return self.words(error)
        return None

    def words(self, error: OSError) -> str:
        """Why nothing could be sent."""
        if isinstance(error, _SetUpError):
            return str(error)
        return f"TLS: {failure_in_words(error)}" if isinstance(error, ssl.SSLError) else failure_in_words(error)

    def _send(self, lines: Sequence[bytes]) -> None:
        try:
            context = client_context(self._tls, ssl.SSLContext)
        except ConfigError as error:
            raise _SetUpError(str(error)) from None
        with socket.create_connection((self._host, self._port), timeout=_SECONDS) as connection:
            session = _Session(connection, context, self._host)
            session.send(b"".join(b"%d %s" % (len(line), line) for line in lines))
            session.end()


class _Session:
    """One TLS session. `ssl.SSLSocket` takes an alert at its end for a good end, and so hides that a collector refused
    the node's certificate, which with TLS 1.3 it does after the handshake.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._complete(self._tls.do_handshake)

    def send(self, content: bytes) -> None:
        """Send ``content``."""
        if content:
            self._complete(lambda: self._tls.write(content))

    def end(self) -> None:
        """Say that nothing follows, and wait until the collector says so, too.

        Raises:
            OSError: it sends an alert, breaks the connection, or says nothing in time.
        """
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.read(1)  # an alert that has come already
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        with contextlib.suppress(ssl.SSLZeroReturnError, ssl.SSLEOFError):
            while True:
                self._complete(lambda: self._tls.read(1))

    def _complete(self, action: Callable[[], object]) -> None:
        """Do ``action``, and move bytes between the session and the connection until it is done."""
        while True:
            try:
                action()
            except ssl.SSLWantReadError:
                self._flush()
                received = self._connection.recv(1 << 16)
                if received:
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            else:
                self._flush()
                return

    def _flush(self) -> None:
        if content := self._outgoing.read():
            self._connection.sendall(content)


class _SetUpError(OSError):
    """The TLS files cannot be used."""


def _sent_file(file: Path) -> Path:
    return file.with_suffix(_SENT)


def _place(file: Path) -> int:
    try:
        return int(_sent_file(file).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except ValueError:
        return 0  # cut short by a power failure: sent again from the beginning


def _remember(file: Path, place: int) -> None:
    aside = _sent_file(file).with_suffix(".sent.tmp")
    aside.write_text(str(place), encoding="ascii")
    aside.replace(_sent_file(file))
