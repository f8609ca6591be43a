"""The socket of an association: what counts as in time."""

from __future__ import annotations

import socket
from contextlib import closing
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from faults import wait_until

from node.scp.connection import Connection


@pytest.fixture
def peer_and_connection():
    """A peer's socket, and the node's connection to it, whose time for an A-ASSOCIATE-RQ is over."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        mine, _ = listener.accept()
    association = SimpleNamespace(
        acse_timeout=0,
        requestor=SimpleNamespace(address="127.0.0.1"),
        dul=SimpleNamespace(
            state_machine=SimpleNamespace(current_state="Sta2"), event_queue=SimpleQueue(), to_user_queue=SimpleQueue()
        ),
    )
    with closing(peer), closing(mine):
        connection = Connection(association, mine, timeout_seconds=9, max_pdu_bytes=16382)
        yield peer, connection
        connection.close_wake_sockets()


def test_bytes_that_have_arrived_are_in_time(peer_and_connection):
    """A node that had no processor when they came takes them when it has one, though the deadline has passed."""
    peer, connection = peer_and_connection
    peer.sendall(b"\x01\0\0\0\0\x48")
    wait_until(lambda: connection.ready)
    assert connection.recv(6) == b"\x01\0\0\0\0\x48"


def test_bytes_that_have_not_arrived_are_late(peer_and_connection):
    """After the deadline nothing is waited for, and what is sent next to the peer has the usual time again."""
    peer, connection = peer_and_connection
    peer.sendall(b"\x01\0\0")
    wait_until(lambda: connection.ready)
    with pytest.raises(TimeoutError, match="not whole in time"):
        connection.recv(6)
    assert connection.socket.gettimeout() == 9
