"""The node as an admin runs it: processes of its own, in a folder of its own, started, asked and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from faults import free_port

from node.config import Config, load_config
from node.scu.store import echo
from node.study import Destination

LOOPBACK = "127.0.0.1"
START_SECONDS, STOP_SECONDS = 120.0, 120.0


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A running node. ``log_file`` holds its standard output and error: one JSON object a line, unless it crashed."""

    config_file: Path
    config: Config
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def destination(self) -> Destination:
        """The node's storage SCP as its peers see it."""
        return Destination("node", self.config.scp.ae_title, self.config.scp.host, self.config.scp.port)

    def log(self) -> str:
        """All it has logged."""
        return self.log_file.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events called ``name``, in the order logged."""
        lines = [json.loads(line) for line in self.log().splitlines(keepends=True) if line.endswith("}\n")]
        return [line for line in lines if line["event"] == name]

    def get(self, path: str) -> str:
        """What its status page answers to a GET."""
        url = f"http://{self.config.web.host}:{self.config.web.port}{path}"
        return httpx.get(url, trust_env=False, timeout=30).raise_for_status().text

    def study(self, study_instance_uid: str) -> dict[str, Any]:
        """Its line about one study in ``/studies.json``; empty if it has none."""
        lines = json.loads(self.get("/studies.json"))
        return next((line for line in lines if line["study_instance_uid"] == study_instance_uid), {})

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the command line on the node's config."""
        command = [sys.executable, "-m", "node", *arguments, "--config", str(self.config_file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def worker_pids(self) -> list[int]:
        """The processes that the node started and that are still there."""
        return [pid for pid, (parent, state) in _processes().items() if parent == self.process.pid and state != "Z"]

    def kill(self) -> None:
        """SIGKILL, to the node's first process only."""
        self.process.kill()
        self.process.wait()

    def wait_until(self, condition: Callable[[], object], deadline_seconds: float = 120.0) -> None:
        """Return once ``condition`` holds; fail with the node's log if it does not in time, or if the node ends."""
        deadline = time.monotonic() + deadline_seconds
        while not condition():
            assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            assert time.monotonic() < deadline, (
                f"not within {deadline_seconds:g} s; its log ends:\n{self.log()[-4000:]}"
            )
            time.sleep(0.1)


def _processes() -> dict[int, tuple[int, str]]:
    """Process id to (parent's id, state)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
            state, parent = stat.rpartition(")")[2].split()[:2]
            found[int(entry.name)] = (int(parent), state)
    return found


def write_config(folder: Path, destinations: Sequence[Destination] = (), **sections: dict[str, Any]) -> Path:
    """``folder/config.toml``: free ports on loopback, short quiet times, and what ``sections`` say beyond that."""
    settings: dict[str, dict[str, Any]] = {
        "node": {"folder": "var"},
        "scp": {"port": free_port(), "watermark_mebibytes": 16},
        "assembly": {"stable_seconds": 2.0, "series_stable_seconds": 1.0},
        "web": {"port": free_port()},
        "delivery": {"first_retry_seconds": 0.2, "longest_retry_seconds": 1.0, "timeout_seconds": 10.0},
        "log": {"format": "json"},
    }
    for name, values in sections.items():
        settings[name] = settings.get(name, {}) | values
    lines = []
    for name, values in settings.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    for peer in destinations:
        lines += ["[[destination]]", f'name = "{peer.name}"', f'ae_title = "{peer.ae_title}"']
        lines += [f'host = "{peer.host}"', f"port = {peer.port}", f"tls = {json.dumps(peer.tls is not None)}"]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@contextmanager
def running_node(config_file: Path, role: str = "all") -> Iterator[NodeProcess]:
    """``glionode serve``: yields when it is ready, stops it by SIGTERM.

    It must then end with status 0, its ports must be free again, and no process of its may be left; unless the test
    killed it.
    """
    log_file = config_file.with_name(f"node-{role}.log")
    command = [sys.executable, "-m", "node", "serve", "--config", str(config_file), "--role", role]
    with log_file.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    node = NodeProcess(config_file, load_config(config_file), process, log_file)
    try:
        node.wait_until(lambda: _is_ready(node, role), START_SECONDS)
        yield node
        if process.poll() != -signal.SIGKILL:
            _stop(node)
    except BaseException as error:
        error.add_note(f"the node's log ends:\n{node.log()[-4000:]}")
        raise
    finally:
        if _is_group_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_ready(node: NodeProcess, role: str) -> bool:
    if role == "work":
        return bool(node.events("worker_ready"))
    return echo(node.destination, "SCANNER", 5.0) is None and bool(node.events("node_ready"))


def _stop(node: NodeProcess) -> None:
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(STOP_SECONDS) == 0
    for port in (node.config.scp.port, node.config.web.port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
    assert not _session(node.process.pid), "a process of the node is left"


def _session(leader: int) -> list[int]:
    """The processes of the session, zombies left out: the node, its worker, and what computes in a group of its own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
            if int(session) == leader and state not in "ZX":
                found.append(int(entry.name))
    return found


def _is_group_alive(process_group: int) -> bool:
    """True if any process of the group is there; the node and its worker are one."""
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    return True
