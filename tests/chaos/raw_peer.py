"""A storage SCU that says whatever bytes it is told, which no well-behaved library would send."""

from __future__ import annotations

import socket
import struct
import time
from types import TracebackType

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import build_context
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.sop_class import Verification

from node.study import Destination

ASSOCIATE_AC, DATA, RELEASE_RP, ABORT = 2, 4, 6, 7
_RELEASE_RQ = bytes([5, 0, 0, 0, 0, 4, 0, 0, 0, 0])
_STORE, _ECHO = 1, 3  # presentation context IDs
_FRAGMENT_BYTES = 16 << 10


class PeerAbortedError(Exception):
    """The node ended the association instead of answering."""


def associate_rq(called: str, transfer_syntax: str = ExplicitVRLittleEndian, sop_class: str = MRImageStorage) -> bytes:
    """The A-ASSOCIATE-RQ PDU of a peer that stores images of one class, and echoes."""
    primitive = A_ASSOCIATE()
    primitive.calling_ae_title, primitive.called_ae_title = "SCANNER", called
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    contexts = [build_context(sop_class, transfer_syntax), build_context(Verification)]
    for context, context_id in zip(contexts, (_STORE, _ECHO), strict=True):
        context.context_id = context_id
    primitive.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.826.0.1.3680043.10.1462.9"
    primitive.user_information = [length, implementation]
    return A_ASSOCIATE_RQ(primitive).encode()


def data_pdu(content: bytes, *, is_command: bool, is_last: bool, context_id: int = _STORE) -> bytes:
    """A P-DATA-TF PDU with one fragment (PS3.8 9.3.5)."""
    control = is_command | is_last << 1
    return struct.pack(">BBLLBB", DATA, 0, len(content) + 6, len(content) + 2, context_id, control) + content


def store_rq(sop_instance_uid: str, sop_class_uid: str = MRImageStorage) -> bytes:
    """The command set of a C-STORE request, in one PDU."""
    return data_pdu(
        command(0x0001, 0x0001, AffectedSOPClassUID=sop_class_uid, AffectedSOPInstanceUID=sop_instance_uid, Priority=0),
        is_command=True,
        is_last=True,
    )


def command(command_field: int, data_set_type: int, **more: object) -> bytes:
    """An encoded command set (PS3.7 6.3.1)."""
    content = Dataset()
    content.CommandGroupLength = 0
    for keyword, value in more.items():
        setattr(content, keyword, value)
    content.CommandField, content.MessageID, content.CommandDataSetType = command_field, 1, data_set_type
    content.CommandGroupLength = len(encode(content, True, True)) - 12
    return encode(content, True, True)


class RawPeer:
    """One association with the node; also a context manager, which releases it.

    Raises:
        PeerAbortedError: the node did not accept the association.
    """

    def __init__(
        self, node: Destination, transfer_syntax: str = ExplicitVRLittleEndian, sop_class: str = MRImageStorage
    ) -> None:
        self.connection = socket.create_connection((node.host, node.port), timeout=20)
        try:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connection.sendall(associate_rq(node.ae_title, transfer_syntax, sop_class))
            if self.read_pdu()[0] != ASSOCIATE_AC:
                raise PeerAbortedError
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.release()
        finally:
            self.connection.close()

    def store(self, sop_instance_uid: str, data_set: bytes, sop_class_uid: str = MRImageStorage) -> int:
        """The status answered to a C-STORE of the encoded ``data_set``.

        Raises:
            PeerAbortedError: the node ended the association instead.
        """
        self.connection.sendall(store_rq(sop_instance_uid, sop_class_uid))
        for start in range(0, len(data_set), _FRAGMENT_BYTES) or (0,):
            end = start + _FRAGMENT_BYTES
            self.connection.sendall(data_pdu(data_set[start:end], is_command=False, is_last=end >= len(data_set)))
        return self.read_status()

    def echo(self) -> int:
        """The status answered to a C-ECHO."""
        content = command(0x0030, 0x0101, AffectedSOPClassUID=Verification)
        self.connection.sendall(data_pdu(content, is_command=True, is_last=True, context_id=_ECHO))
        return self.read_status()

    def read_status(self) -> int:
        """(0000,0900) Status of the next response."""
        kind, content = self.read_pdu()
        if kind != DATA:
            raise PeerAbortedError
        # implicit VR little endian: tag, length 2, value
        position = content.index(struct.pack("<HHL", 0, 0x0900, 2))
        return int.from_bytes(content[position + 8 : position + 10], "little")

    def read_pdu(self) -> tuple[int, bytes]:
        """Type and content of the next PDU; type 0 if the node closed the connection."""
        try:
            header = self._read(6)
            return (header[0], self._read(int.from_bytes(header[2:], "big"))) if header else (0, b"")
        except ConnectionError:
            return 0, b""

    def _read(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            received = self.connection.recv(count - len(content))
            if not received:
                return b""
            content += received
        return content

    def release(self) -> None:
        """A-RELEASE, and the answer to it."""
        self.connection.sendall(_RELEASE_RQ)
        assert self.read_pdu()[0] == RELEASE_RP

    def wait_for_abort(self, deadline_seconds: float = 20.0) -> None:
        """Read until the node ended the association."""
        deadline = time.monotonic() + deadline_seconds
        while self.read_pdu()[0] not in (0, ABORT):
            assert time.monotonic() < deadline
