"""Messages to the service manager that started this process, in the protocol of sd_notify(3).

systemd is such a manager; for the worker of ``serve`` it is the receiver's process (`node.worker_process`). A message
is one datagram to the UNIX socket that the environment names. Without one, nothing is sent. The protocol is ten lines;
the packages that wrap it are either no longer maintained (sdnotify) or bring a C library along.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

SOCKET_VARIABLE, WATCHDOG_VARIABLE, PROCESS_VARIABLE = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class ServiceManager:
    """The manager that ``environment`` names.

    Attributes:
        watchdog_seconds: the manager expects `alive` at least this often; None: it does not.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get(SOCKET_VARIABLE, "")
        microseconds = environment.get(WATCHDOG_VARIABLE, "")
        is_meant = environment.get(PROCESS_VARIABLE, str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdigit() and is_meant else None

    def ready(self) -> None:
        """The service has started."""
        self._send("READY=1")

    def alive(self) -> None:
        """The service does its work."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service begins to stop, in good order."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL byte with which the name of an abstract socket begins
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            # a manager that is busy or away must not end the service; a missing message is what it watches for
            with suppress(OSError):
                sender.sendto(message.encode(), address)
