"""Wires between machines forward, are cut and are silent; machines have networks and names of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest
from faults import free_port, wait_until
from hosts import running_host
from wires import LOOPBACK, Net, Wires


@contextlib.contextmanager
def echoing(net: Net, port: int) -> Iterator[None]:
    """A server that sends back what it gets, until it gets no more."""
    server = net.open_socket()
    server.bind((LOOPBACK, port))
    server.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                while content := connection.recv(100):
                    connection.sendall(content)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def test_a_wire_forwards_is_silent_and_is_cut():
    """What is sent in silence arrives after it; a cut resets what is open and what comes."""
    port, target = free_port(), free_port()
    with Wires() as wires, echoing(Net(), target):
        wire = wires.connect(Net(), port, Net(), target)
        with socket.create_connection((LOOPBACK, port), timeout=20) as connection:
            connection.sendall(b"one")
            assert connection.recv(100) == b"one"
            wire.silence()
            connection.sendall(b"two")
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(100)
            connection.settimeout(20)
            wire.mend()
            assert connection.recv(100) == b"two"
            wire.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
        assert _echo(port) == b""
        wire.mend()
        wait_until(lambda: _echo(port) == b"four", 20)


def _echo(port: int) -> bytes:
    with contextlib.suppress(ConnectionError), socket.create_connection((LOOPBACK, port), timeout=20) as connection:
        connection.sendall(b"four")
        return connection.recv(100)
    return b""


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_machines_reach_each_other_by_wires_only():
    """The same port is another server on each machine; each has its name."""
    port, own = free_port(), free_port()
    with Wires() as wires, running_host("one") as one, running_host("two") as two, echoing(one.net, port):
        for net in (Net(), two.net):
            with net.open_socket() as connection, pytest.raises(ConnectionRefusedError):
                connection.connect((LOOPBACK, port))
        wires.connect(two.net, port, one.net, port)
        wires.connect(Net(), own, two.net, port)
        assert _echo(own) == b"four"
        names = [subprocess.run([*each.prefix, "hostname"], capture_output=True).stdout.strip() for each in (one, two)]
        assert names == [b"one", b"two"]
