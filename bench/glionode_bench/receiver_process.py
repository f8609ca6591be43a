"""The receiver as a process of its own, beside DCMTK's storescp, and what it takes of the memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.config_sections import ScpSection
from node.errors import RetryableError
from node.metrics import Metrics
from node.scp.handlers import StorageHandlers
from node.scp.server import Receiver
from node.scp.spool import Spool

AE_TITLE = "GLIONODE"
HOST = "127.0.0.1"
DCMTK_ENVIRONMENT = {"TCP_NODELAY": "1"}  # else Debian's build uses Nagle's algorithm: 40 ms for each instance
_START_SECONDS = 20.0


def receiver_section(port: int) -> ScpSection:
    """[scp] of the receiver that is measured: the defaults but for the port and the watermark."""
    return ScpSection(ae_title=AE_TITLE, host=HOST, port=port, watermark_mebibytes=16)


def run_receiver(folder: Path, port: int) -> None:
    """Run only the receiver in this process, with its spool in ``folder``, until SIGTERM or SIGINT."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # in every thread, so that sigwait gets them
    section = receiver_section(port)
    metrics = Metrics()
    with Receiver(section, StorageHandlers(Spool(folder), metrics, section, lambda _study, _series: None), metrics):
        signal.sigwait(signals)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder for a spool, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="glionode-spool-", dir=parent) as name:
        yield Path(name)


@contextmanager
def running(storescp: Path | None, spool: Path) -> Iterator[tuple[int, int]]:
    """Run a receiver that writes to ``spool``: storescp, or glionode's if that is None. Yields port and process id."""
    port = free_port()
    ours = [sys.executable, "-P", "-m", "node", "bench", "receiver", str(spool), str(port)]
    theirs = [str(storescp), "--fork", "-aet", AE_TITLE, "-od", str(spool), str(port)]
    process = subprocess.Popen(
        theirs if storescp else ours,
        env=os.environ | DCMTK_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_listening(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A TCP port of loopback that nothing uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RetryableError(f"{Path(str(process.args[0])).name} did not start")  # type: ignore[index]


def resident_mebibytes(pid: int) -> float:
    """Resident memory of a process.

    Raises:
        RetryableError: it has ended.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RetryableError(f"process {pid} has ended")
