"""The audit trail of one process: a file for each day, to which messages are appended, in the format of syslog.

A message is in the file before the method that tells of the event returns; it survives the end of the process. A power
cut may take those of the last second. A message that cannot be written is counted and logged, and nothing waits for it:
instances are received even if the trail's disk is full.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import structlog

from node.audit.syslog import SyslogSender
from node.metrics import Metrics

log = structlog.get_logger()

# RFC 5424 6.2.1: facility 10 (security), severity 5 (notice); PS3.15 A.6
_PRIORITY, _MESSAGE_ID = 85, "DICOM+RFC3881"
_TICK_SECONDS = 1.0
_RETRY_TICKS = 30
_APPLICATION = "glionode"


class AuditTrail:
    """Appends messages to ``folder``, in files that are named after ``process``.

    Several processes may have one name, as two commands that send at the same time: they append whole lines in turn,
    and one of them at a time sends to the collector.

    ``sender``: sends what is in the files to a collector; None: nobody.
    """

    def __init__(self, folder: Path, process: str, metrics: Metrics, sender: SyslogSender | None = None) -> None:
        self._folder = folder
        self._process = process
        self._metrics = metrics
        self._sender = sender
        self._lock = threading.Lock()
        self._file: tuple[date, int] | None = None
        self._is_losing = self._is_stuck = False
        self._is_unsynced = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit")
        metrics.audit_unsent.set_function(self._unsent_bytes)

    def start(self) -> None:
        """Start the thread that flushes the files to the disk and sends them.

        Raises:
            OSError: the folder cannot be made.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Flush and send what there is, close the file."""
        self._stop.set()
        self._thread.join()
        if self._is_stuck:
            self._flush()  # a collector that is away must not delay the end of the process
        else:
            self._tick()
        with self._lock:
            self._close()

    def write(self, message: bytes, when: datetime) -> None:
        """Append one message. It never raises: a message that cannot be written is counted and logged."""
        line = _syslog_line(message, when) + b"\n"
        with self._lock:
            try:
                self._append(line, when.astimezone(UTC).date())
            except OSError as error:
                self._metrics.audit_lost.inc()
                if not self._is_losing:
                    log.error("audit_messages_lost", folder=str(self._folder), reason=error.strerror)
                self._is_losing = True
                return
            self._metrics.audit_written.inc()
            self._is_unsynced = True
            if self._is_losing:
                log.info("audit_messages_written_again")
            self._is_losing = False

    def _append(self, line: bytes, day: date) -> None:
        if self._file is None or self._file[0] != day:
            self._close()
            path = self._folder / f"{day:%Y-%m-%d}-{self._process}.log"
            self._file = day, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        descriptor = self._file[1]
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # the lines of another process are not cut with half a line of this one
        try:
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, before)  # no half a line before the next one
                raise OSError(0, "only a part could be written")
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _close(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):
                os.fsync(self._file[1])
            os.close(self._file[1])
        self._file = None

    def _run(self) -> None:
        ticks = 0
        while not self._stop.wait(_TICK_SECONDS):
            ticks += 1
            if not self._is_stuck or ticks % _RETRY_TICKS == 0:
                self._tick()
            else:
                self._flush()

    def _tick(self) -> None:
        self._flush()
        if self._sender is None:
            return
        try:
            with self._turn_to_send() as is_mine:
                if is_mine:
                    self._sender.send_files(self._files())
        except OSError as error:
            if not self._is_stuck:
                log.error("audit_not_sent", collector=self._sender.address, reason=self._sender.words(error))
            self._is_stuck = True
            return
        if self._is_stuck:
            log.info("audit_sent_again", collector=self._sender.address)
        self._is_stuck = False

    @contextlib.contextmanager
    def _turn_to_send(self) -> Iterator[bool]:
        """True: no other process of this name sends until the block ends. False: another one does, these messages, too.

        The kernel gives the turn back when a process ends, however it ends.
        """
        descriptor = os.open(self._folder / f".{self._process}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _flush(self) -> None:
        with self._lock:
            # a copy, so that no message waits for the disk
            descriptor = os.dup(self._file[1]) if self._file and self._is_unsynced else None
            self._is_unsynced = False
        if descriptor is not None:
            try:
                os.fsync(descriptor)
            except OSError as error:
                log.error("audit_not_flushed", folder=str(self._folder), reason=error.strerror)
            finally:
                os.close(descriptor)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*-{self._process}.log"))

    def _unsent_bytes(self) -> float:
        return float(self._sender.unsent_bytes(self._files())) if self._sender else 0.0


def _syslog_line(message: bytes, when: datetime) -> bytes:
    """A syslog message (RFC 5424 6): header, no structured data, and the XML after the mark of UTF-8."""
    host = "".join(each for each in socket.gethostname() if each.isascii() and each.isprintable() and each != " ")
    time = when.isoformat(timespec="milliseconds")
    head = f"<{_PRIORITY}>1 {time} {host[:255] or '-'} {_APPLICATION} {os.getpid()} {_MESSAGE_ID} - "
    return head.encode("ascii") + b"\xef\xbb\xbf" + message
