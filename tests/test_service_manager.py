"""What systemd is told, as it would receive it; and a worker that hangs is killed by the process that watches it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from faults import wait_until
from node_process import write_config

from node import worker_process
from node.service_manager import ServiceManager
from node.worker_process import WorkerProcess

UNIT = Path(__file__).parents[1] / "deploy" / "glionode.service"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd has it, and its name in the environment of a service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        if request.param == "path":
            name = str(tmp_path / "notify")
            listening.bind(name)
        else:
            listening.bind("")
            name = "@" + listening.getsockname()[1:].decode()
        listening.settimeout(60)
        yield listening, name


def test_messages_arrive_as_sd_notify_says(manager: tuple[socket.socket, str]) -> None:
    """Each is one datagram, on a socket in a folder and on an abstract one."""
    listening, name = manager
    service = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    service.ready()
    service.alive()
    service.stopping()
    assert [listening.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    assert service.watchdog_seconds == 30.0


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "5000000"}, {"WATCHDOG_USEC": ""}], ids=repr
)
def test_no_watchdog_is_fed_that_is_not_this_process_s(
    environment: dict[str, str], manager: tuple[socket.socket, str]
) -> None:
    """Without a watchdog for this process only the other messages are sent."""
    listening, name = manager
    service = ServiceManager({"NOTIFY_SOCKET": name, **environment})
    service.alive()
    service.ready()
    assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}], ids=repr)
def test_service_without_a_manager_goes_on(environment: dict[str, str]) -> None:
    """Neither a missing manager nor one that is away is an error."""
    ServiceManager(environment).ready()


@pytest.mark.slow
@pytest.mark.parametrize(("manager", "role"), [("path", "receive"), ("abstract", "work")], indirect=["manager"])
def test_node_tells_its_manager_that_it_lives(role: str, manager: tuple[socket.socket, str], tmp_path: Path) -> None:
    """Ready once it is, alive while its loops turn, and stopping at SIGTERM."""
    listening, name = manager
    config_file = write_config(tmp_path)
    command = [sys.executable, "-m", "node", "serve", "--role", role, "--config", str(config_file)]
    environment = os.environ | {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        told = [listening.recv(100) for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        while told[-1] != b"STOPPING=1":
            told.append(listening.recv(100))
    assert (told[0], set(told[1:-1])) == (b"READY=1", {b"WATCHDOG=1"})
    assert process.returncode == 0


WORKER = """
import os, sys, time
from node.service_manager import ServiceManager
manager = ServiceManager()
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
if len(open(sys.argv[1]).readlines()) > 1:
    manager.ready()
    while True:
        manager.alive()
        time.sleep(0.05)
manager.ready()
time.sleep(3600)
"""


def test_worker_that_hangs_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has been ready and gives no sign of life any more is replaced; one that gives them is left alone."""
    monkeypatch.setattr(worker_process, "_WORKER_SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(worker_process, "_WORKER_PAUSE_SECONDS", 0.01)
    worker, pids = WorkerProcess(None), tmp_path / "pids"
    monkeypatch.setattr(worker, "_command", [sys.executable, "-c", WORKER, str(pids)])
    with structlog.testing.capture_logs() as events:
        worker.start()
        wait_until(lambda: pids.exists() and len(pids.read_text().splitlines()) == 2)
        heard = worker._heard
        wait_until(lambda: worker._heard is not None and worker._heard != heard)
        assert worker.is_watched
        worker.stop()
    assert [event["event"] for event in events] == ["worker_silent", "worker_died"]
    assert events[1]["exit_status"] == -signal.SIGKILL


def test_unit_is_valid(tmp_path: Path) -> None:
    """systemd finds no fault with the unit, whose program stands elsewhere here, and waits for the node's messages."""
    text = UNIT.read_text("utf-8")
    assert {"Type=notify", "NotifyAccess=main"} <= set(text.splitlines())
    assert "\nWatchdogSec=" in text
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "glionode.service"
    unit.write_text(text.replace("/opt/glionode/bin/glionode", "/bin/true"), "utf-8")
    done = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "glionode.service" in line] == []
