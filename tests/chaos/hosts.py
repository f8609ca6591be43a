"""Machines of a test: each has a network of its own with loopback only, a name of its own, and processes of the node.

Linux namespaces need root. Without it the machines share network and name, and only the wires divide them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faulty_libc import FaultControl
from wires import Net

MORTAL = Path(__file__).with_name("mortal.py")
_ROOT = MORTAL.parents[2]
_HOLD = """
import fcntl, socket, struct, sys
socket.sethostname(sys.argv[1])
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
print(flush=True)
sys.stdin.read()
"""


class Host:
    """One machine."""

    def __init__(self, name: str, holder: int | None) -> None:
        self.name, self.net = name, Net(holder)
        self.is_apart = holder is not None
        self.prefix = ["nsenter", f"--target={holder}", "--net", "--uts", "--"] if holder else []


@contextmanager
def running_host(name: str) -> Iterator[Host]:
    """A machine of this name, in namespaces if this process is root's."""
    if os.geteuid() != 0:
        yield Host(name, None)
        return
    command = ["unshare", "--net", "--uts", sys.executable, "-c", _HOLD, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"\n", "no network namespace can be made"
        host = Host(name, holder.pid)
        try:
            yield host
        finally:
            host.net.close()
            holder.stdin.close()


class Being:
    """A receiver or worker of the node that is started again whenever it ends, until told to live on.

    ``probability``: that of its death by its own hand, see ``mortal``.
    """

    def __init__(
        self, host: Host, role: str, config_file: Path, control: FaultControl, seed: str, probability: float
    ) -> None:
        self.name = f"{role} on {host.name}"
        self.control, self._host, self._seed, self.probability = control, host, seed, probability
        self._role, self._config_file = role, config_file
        self.kills = self.lives = self.ends = 0
        self.log_file = config_file.with_name(f"{host.name}-{role}.log")
        self._log_start_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name=self.name)

    def start(self) -> None:
        """First life."""
        self._thread.start()

    def _keep_alive(self) -> None:
        environment = os.environ | self.control.environment()
        while not self._stop.is_set():
            self._log_start_bytes = self.log_file.stat().st_size if self.log_file.exists() else 0
            self.lives += 1
            seed = str(hash_of(f"{self._seed} {self.name} {self.lives}"))
            given = (MORTAL, self._role, self._config_file, seed, self.probability)
            command = [*self._host.prefix, sys.executable, *map(str, given)]
            with self.log_file.open("ab") as output, self._lock:
                self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=_ROOT)
            status = self._process.wait()
            if status == -signal.SIGKILL:
                self.kills += 1
            elif not self._stop.is_set():
                self.ends += 1
                self._stop.wait(0.5)  # its port or lock is not free yet

    def is_at_work(self) -> bool:
        """True once the current process has logged that it is ready."""
        if self._process is None or self._process.poll() is not None or not self.log_file.exists():
            return False
        with self.log_file.open("rb") as log:
            log.seek(self._log_start_bytes)
            return b"_ready" in log.read()

    def send(self, number: int) -> bool:
        """A signal, if it lives."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                return False
            process.send_signal(number)
            return True

    def end(self) -> None:
        """In good order."""
        self._stop.set()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self._thread.join(60)
        if self._thread.is_alive():
            self.send(signal.SIGKILL)
            self._thread.join()


def hash_of(text: str) -> int:
    """A number that is the same in every process, other than that of ``hash``."""
    return int.from_bytes(text.encode(), "big") % 2_147_483_647
