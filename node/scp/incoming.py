"""The file of one instance during reception."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

import structlog

from node.errors import InstanceRefused

log = structlog.get_logger()

_GROUP_LENGTH_END = 144  # preamble 128, "DICM" 4, (0002,0000) UL 12 bytes (PS3.10 7.1)


def length_of_head(head: bytes) -> int:
    """Length of preamble and file meta of a DICOM file that begins with ``head``; the data set follows them.

    Raises:
        InstanceRefused: ``head`` has no file meta with a group length.
    """
    if len(head) < _GROUP_LENGTH_END or head[128:138] != b"DICM\x02\x00\x00\x00UL":
        raise InstanceRefused("(0002,0000) File Meta Information Group Length is missing")
    (meta_length_bytes,) = struct.unpack_from("<I", head, 140)
    return int(_GROUP_LENGTH_END + meta_length_bytes)


class IncomingFile:
    """The file that an instance is written to; it counts as received only when the spool keeps it. Not thread-safe.

    ``head``: preamble and file meta. ``digest``: hex SHA-256 of the data set written so far.

    Raises:
        OSError: the disk did not take ``head``; no file is left.
    """

    def __init__(self, path: Path, head: bytes) -> None:
        self.path = path
        self.size_bytes = 0
        self._head_bytes = len(head)
        self._digest = hashlib.sha256()
        self._is_discarded = False
        self._file = path.open("xb")
        try:
            self._write(head)
        except OSError:
            self.discard()
            raise

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self.size_bytes += len(content)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the data set written so far."""
        return self._digest.hexdigest()

    def write(self, fragment: bytes) -> None:
        """Append to the data set.

        Raises:
            OSError: the disk did not take it.
        """
        self._write(fragment)
        self._digest.update(fragment)

    def open_data_set(self) -> BinaryIO:
        """The data set written so far, for reading from its first byte."""
        self._file.flush()
        file = self.path.open("rb")
        file.seek(self._head_bytes)
        return file

    def sync(self) -> None:
        """Write the whole file to the disk; the instance survives a power cut once the file has a durable name.

        Raises:
            OSError: the disk did not take it.
        """
        self._file.flush()
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Close the file and delete its temporary name. A second call does nothing.

        A disk error is logged, not raised: the file was never acknowledged, and a later start deletes it.
        """
        if self._is_discarded:
            return
        self._is_discarded = True
        with contextlib.suppress(OSError):  # bytes that could not be written are not needed any more
            self._file.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("incoming_not_deleted", reason=error.strerror or type(error).__name__)
