"""The adversarial part of ``glionode bench receive``: what unauthenticated peers can make the receiver hold in memory.

Each attack runs against a receiver of its own, with as many connections as it takes, and sends all that it takes. Only
harmless bytes go to this machine's own node.
"""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from glionode_bench.receiver_process import receiver_section, running, scratch
from node.config_sections import ScpSection
from node.scp.limits import ASSOCIATE_RQ_BYTES, SPARE_CONNECTIONS, most_bytes

HOST = "127.0.0.1"
MESSAGE_BYTES = 15 << 20  # of each unfinished message, unless the receiver ends the association before
_FRAGMENT_BYTES = 64 << 10
_MR_STORAGE = b"1.2.840.10008.5.1.4.1.1.4"
_SECONDS = 5.0  # without progress, after which a peer sends nothing more
_STEADY_SECONDS, _LOOK_SECONDS = 1.0, 0.05
_ECHO, _EVENT_REPORT = 0x0030, 0x0100


@dataclass(frozen=True, slots=True)
class Held:
    """Memory of the receiver under one attack: resident before it, and the largest growth until its end."""

    attack: str
    connections: int
    sent_mebibytes: float
    before_mebibytes: float
    growth_mebibytes: float


def bound_mebibytes(section: ScpSection) -> float:
    """What the receiver promises (see ``node/scp/limits.py``)."""
    return most_bytes(section) / 2**20


ATTACKS = (
    "reports without end",
    "data sets where none may be",
    "command sets without end",
    "PDUs without their last byte",
    "PDUs full of empty values",
    "A-ASSOCIATE-RQ without their last byte",
    "A-ASSOCIATE-RQ full of items",
    "A-ASSOCIATE-RQ with long user identities",
)


def bench_attacks(report: Callable[[str, float], None]) -> tuple[list[Held], float]:
    """Each attack on a receiver of its own; and the bound that the receiver promises, in MiB.

    Raises:
        RetryableError: a receiver did not start.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="glionode-bench-") as name:
        for number, attack in enumerate(ATTACKS):
            report(attack, number / len(ATTACKS))
            with scratch(Path(name)) as spool, running(None, spool) as (port, pid):
                found.append(measure(attack, port, pid, receiver_section(port)))
    return found, bound_mebibytes(receiver_section(port))


def measure(attack: str, port: int, pid: int, section: ScpSection, message_bytes: int = MESSAGE_BYTES) -> Held:
    """Run ``attack`` on the receiver with process id ``pid``, which listens on ``port``.

    All connections are held open until every one has sent what the receiver took of it.
    """
    is_early = attack == "A-ASSOCIATE-RQ without their last byte"
    connections = section.max_associations + (SPARE_CONNECTIONS if is_early else 0)
    before = _memory_mebibytes(pid, "VmRSS")
    (Path("/proc") / str(pid) / "clear_refs").write_text("5")  # the peak starts again at what is resident now
    all_there = threading.Barrier(connections)
    with ExitStack() as held, ThreadPoolExecutor(connections) as pool:

        def run(_number: int) -> int:
            with suppress(OSError):
                connection = held.enter_context(socket.create_connection((HOST, port), timeout=_SECONDS))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if not is_early:
                    _associate(connection, attack, all_there)
                return _send(connection, _pieces(attack, section, message_bytes))
            return 0

        sent = sum(pool.map(run, range(connections)))
        growth = _settled_peak_mebibytes(pid) - before
    return Held(attack, connections, sent / 2**20, before, growth)


def _associate(connection: socket.socket, attack: str, all_there: threading.Barrier) -> None:
    """Become an association, with what ``attack`` puts into its request; then wait for the other peers."""
    information, contexts = b"", b""
    if attack == "A-ASSOCIATE-RQ with long user identities":
        information = _item(0x58, struct.pack(">BBH", 1, 0, 60_000) + b"x" * 60_000 + b"\0\0")
    elif attack == "A-ASSOCIATE-RQ full of items":
        contexts = _item(0x20, b"\3\0\0\0" + _item(0x30, b"1.2") + _item(0x40, b"1.2") * 4000)
    try:
        connection.sendall(_association_request(contexts, information))
        connection.recv(4096)
    finally:
        with suppress(threading.BrokenBarrierError):
            all_there.wait(4 * _SECONDS)


def _send(connection: socket.socket, pieces: Iterator[bytes]) -> int:
    """Bytes that the receiver took before it ended the connection, or stopped reading."""
    sent = 0
    with suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)
            sent += len(piece)
    return sent


def _pieces(attack: str, section: ScpSection, message_bytes: int) -> Iterator[bytes]:
    if attack in ("reports without end", "data sets where none may be"):
        yield _data(_command(_EVENT_REPORT if attack == "reports without end" else _ECHO), control=3)
        for _ in range(message_bytes // _FRAGMENT_BYTES):
            yield _data(bytes(_FRAGMENT_BYTES), control=0)
    elif attack == "command sets without end":
        for _ in range(message_bytes // _FRAGMENT_BYTES):
            yield _data(bytes(_FRAGMENT_BYTES), control=1)
    elif attack == "PDUs without their last byte":
        yield _pdu(4, bytes(section.max_pdu_bytes))[:-1]
    elif attack == "PDUs full of empty values":
        value = struct.pack(">LBB", 2, 1, 1)
        for _ in range(message_bytes // section.max_pdu_bytes):
            yield _pdu(4, value * (section.max_pdu_bytes // len(value)))
    elif attack == "A-ASSOCIATE-RQ without their last byte":
        yield _pdu(1, bytes(ASSOCIATE_RQ_BYTES))[:-1]


def _association_request(more_contexts: bytes, more_information: bytes) -> bytes:
    titles = b"GLIONODE".ljust(16) + b"BENCH".ljust(16)
    syntaxes = _item(0x30, _MR_STORAGE) + _item(0x40, b"1.2.840.10008.1.2.1")
    content = struct.pack(">HH32s32x", 1, 0, titles) + _item(0x10, b"1.2.840.10008.3.1.1.1")
    content += _item(0x20, b"\1\0\0\0" + syntaxes) + more_contexts
    information = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.826.0.1.3680043.10.1462.8")
    return _pdu(1, content + _item(0x50, information + more_information))


def _command(command_field: int) -> bytes:
    """A command set in implicit VR little endian (PS3.7 6.3.1) that announces a data set."""
    uids = ((0x0002, _MR_STORAGE + b"\0"), (0x1000, b"1.2.840.10008.1.20.1.1"))
    numbers = ((0x0100, command_field), (0x0110, 1), (0x0800, 1), (0x1002, 1))
    elements = dict(uids) | {element: struct.pack("<H", number) for element, number in numbers}
    return b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _pdu(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(content)) + content


def _data(content: bytes, control: int) -> bytes:
    return _pdu(4, struct.pack(">LBB", len(content) + 2, 1, control) + content)


def _settled_peak_mebibytes(pid: int) -> float:
    """The most so far, once it has not grown for a second: the receiver has read what the kernel held for it."""
    peak, deadline = _memory_mebibytes(pid, "VmHWM"), time.monotonic() + _STEADY_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        if (now := _memory_mebibytes(pid, "VmHWM")) > peak:
            peak, deadline = now, time.monotonic() + _STEADY_SECONDS
    return peak


def _memory_mebibytes(pid: int, name: str) -> float:
    """``VmRSS`` (resident now) or ``VmHWM`` (the most so far) of a process; 0 if it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0
