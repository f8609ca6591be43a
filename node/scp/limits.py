"""How much memory peers can make the receiver hold: limits of one PDU, one message, and all associations together.

A C-STORE's data set goes to the disk as it arrives (``arrival.py``), so nothing that the service needs is large: an
association request, a PDU, a command set, a report of storage commitment.
"""

from __future__ import annotations

import struct
import threading

from node.config_sections import ScpSection

ASSOCIATE_RQ_BYTES = 1 << 18
"""A-ASSOCIATE-RQ: 128 presentation contexts with 20 transfer syntaxes each take 72 KiB, user information 64 KiB."""

ASSOCIATE_RQ_ITEMS = 4096
"""Items and sub-items of an A-ASSOCIATE-RQ, each of which becomes an object: 2816 for those 128 contexts."""

PDU_VALUES = 256
"""Presentation data values of one P-DATA-TF. Peers send one, or a few if they put command and data set together."""

COMMAND_SET_BYTES = 1 << 12
"""A command set; those of this node's services have less than 700 bytes (PS3.7 9.3, 10.3)."""

REPORT_BYTES = 1 << 15
"""Event Information of a report of storage commitment: 120 instances. A request of the node names a study's results."""

REPORTS_BYTES = 1 << 19
"""The same over all associations together. A peer whose report finds no room is aborted, and sends it again."""

DOCUMENT_BYTES = 1 << 21
"""A Key Object Selection, inflated: 12,000 references. It is parsed whole, one document at a time."""

DOCUMENT_ITEMS = 20_000
"""Items of its sequences, each of which becomes an object of some 650 bytes."""

MOST_UNANSWERED = 16
"""Requests of one association without waiting for the responses, which no peer negotiated."""

MOST_REPORTS = 4
"""Reports of one association that are being recorded at once, each in a thread of its own."""

SPARE_CONNECTIONS = 64
"""Connections beyond scp.max_associations, so that one peer too many gets an A-ASSOCIATE-RJ."""

_CONNECTION_BYTES = 1 << 19  # two threads, two sockets and their objects; measured: 130 KiB
_ASSOCIATION_BYTES = 1 << 18  # what is kept of the association request, and of command sets not answered yet
_PDU_COPIES = 8  # of one PDU, while it is decoded and written
_DOCUMENT_OBJECTS_BYTES = 96 << 20  # the worst document of DOCUMENT_BYTES as objects; measured: 83 MiB
_PRESENTATION_CONTEXT, _USER_INFORMATION = 0x20, 0x50


class TooMuchError(ValueError):
    """A peer sent more than a limit allows. The text says what, and holds no value that the peer sent."""


class MemoryBudget:
    """Bytes that all associations together may hold, each for a holder. Thread-safe."""

    def __init__(self, limit_bytes: int = REPORTS_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._held: dict[int, int] = {}
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes that are held now."""
        with self._lock:
            return sum(self._held.values())

    def take(self, holder: object, count: int) -> bool:
        """Hold ``count`` more bytes for ``holder``; False, and nothing is taken, if they are too many."""
        with self._lock:
            if sum(self._held.values()) + count > self._limit_bytes:
                return False
            self._held[id(holder)] = self._held.get(id(holder), 0) + count
            return True

    def release(self, holder: object) -> None:
        """Give back all that ``holder`` holds. A second call does nothing."""
        with self._lock:
            self._held.pop(id(holder), None)


def check_pdu(pdu: bytes | bytearray) -> None:
    """Count what would become objects when ``pdu`` is decoded, before it is.

    Raises:
        TooMuchError: an A-ASSOCIATE-RQ has too many items, or a P-DATA-TF too many values.
        struct.error: it ends within an item's head.
    """
    if pdu[0] == 0x01 and _count_items(pdu) > ASSOCIATE_RQ_ITEMS:
        raise TooMuchError("an A-ASSOCIATE-RQ with too many items")
    if pdu[0] == 0x04 and _count_values(pdu) > PDU_VALUES:
        raise TooMuchError("a P-DATA-TF with too many values")


def _count_items(pdu: bytes | bytearray) -> int:
    """Items and sub-items from byte 75 on (PS3.8 9.3.2)."""
    position, count = 74, 0
    while position < len(pdu) and count <= ASSOCIATE_RQ_ITEMS:
        kind, _, length = struct.unpack_from(">BBH", pdu, position)
        count += 1
        if kind == _PRESENTATION_CONTEXT:
            position += 8  # its sub-items follow the four bytes of ID and result
        elif kind == _USER_INFORMATION:
            position += 4
        else:
            position += 4 + length
    return count


def _count_values(pdu: bytes | bytearray) -> int:
    position, count = 6, 0
    while position < len(pdu) and count <= PDU_VALUES:
        position += 4 + int(struct.unpack_from(">L", pdu, position)[0])
        count += 1
    return count


def most_bytes(section: ScpSection) -> int:
    """The most memory that all peers together can make the receiver hold, beyond what it has when idle."""
    connections = section.max_associations + SPARE_CONNECTIONS
    largest_pdu_bytes = max(_PDU_COPIES * section.max_pdu_bytes, ASSOCIATE_RQ_BYTES)
    return (
        connections * (_CONNECTION_BYTES + ASSOCIATE_RQ_BYTES)
        + section.max_associations * (_ASSOCIATION_BYTES + largest_pdu_bytes)
        + _DOCUMENT_OBJECTS_BYTES
        + 16 * REPORTS_BYTES  # a data set's elements take more as objects than encoded
    )
