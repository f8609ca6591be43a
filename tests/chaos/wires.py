"""TCP connections that can be cut and silenced, also between network namespaces, each of which has loopback only.

A `Net` opens sockets in one namespace. A `Wire` listens in one and connects in another: in both on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

LOOPBACK = "127.0.0.1"
_NEW_NET = 0x40000000  # CLONE_NEWNET
_LIBC = ctypes.CDLL(None, use_errno=True)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Net:
    """Where sockets are opened: the namespace of process ``pid``, or this process's own."""

    def __init__(self, pid: int | None = None) -> None:
        # a socket stays in the namespace of the thread that opened it, so one thread for each namespace will do
        self._thread = ThreadPoolExecutor(1, "net", _enter, (pid,)) if pid else None

    def open_socket(self) -> socket.socket:
        """A TCP socket, not connected."""
        if self._thread is None:
            return socket.socket()
        return self._thread.submit(socket.socket).result()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown()


def _enter(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if _LIBC.setns(descriptor, _NEW_NET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


class Wire:
    """Forwards connections to ``port`` of ``here`` to ``target_port`` of ``there``. Made by `Wires.connect`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, there: Net, target_port: int) -> None:
        self._loop, self._there, self.target_port = loop, there, target_port
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset all connections, wherever in a message they are, and each new one, until `mend`."""
        self._call(self._cut)

    def silence(self) -> None:
        """Forward nothing, as if packets were lost, until `mend`."""
        self._call(self._flows.clear)

    def mend(self) -> None:
        """Forward again."""
        self._call(self._mend)

    def _call(self, function: Any) -> None:
        self._loop.call_soon_threadsafe(function)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in list(self._open):
            _abort(writer)

    def _mend(self) -> None:
        self._is_cut = False
        self._flows.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have ended it."""
        other = None
        self._open.add(writer)
        try:
            if self._is_cut:
                raise ConnectionResetError
            outgoing = self._there.open_socket()
            outgoing.setblocking(False)
            with suppress(OSError):
                outgoing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await self._loop.sock_connect(outgoing, (LOOPBACK, self.target_port))
            except BaseException:
                outgoing.close()
                raise
            other_reader, other = await asyncio.open_connection(sock=outgoing)
            self._open.add(other)
            await asyncio.gather(self._forward(reader, other), self._forward(other_reader, writer))
        except (OSError, asyncio.CancelledError):
            for each in (writer, other):
                if each is not None:
                    _abort(each)
        finally:
            for each in (writer, other):
                if each is not None:
                    self._open.discard(each)
                    each.close()
                    with suppress(OSError, asyncio.CancelledError):
                        await each.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(1 << 16):
            await self._flows.wait()
            writer.write(content)
            await writer.drain()
        await self._flows.wait()
        if writer.can_write_eof():
            writer.write_eof()

    async def end(self) -> None:
        """Cut for good."""
        self._cut()
        self._flows.set()


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Wires:
    """All wires of a test, served by one thread; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires")
        self._servers: list[asyncio.Server] = []
        self._wires: list[Wire] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def connect(self, here: Net, port: int, there: Net, target_port: int) -> Wire:
        """Listen on ``port`` of ``here``; each connection goes to ``target_port`` of ``there``."""
        wire = Wire(self._loop, there, target_port)
        listening = here.open_socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        self._wires.append(wire)
        self._servers.append(self._run(asyncio.start_server(wire.serve, sock=listening)))
        return wire

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for wire in self._wires:
            await wire.end()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)
