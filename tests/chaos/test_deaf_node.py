"""A node in trouble with its port, its log, its disk or a second one of itself: never deaf in silence, never wrong."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest
import structlog
from faults import wait_until
from instances import data_set_bytes, encode_instance, make_instance, sop_instance_uid
from node_process import running_node, write_config
from raw_peer import RawPeer, data_pdu, store_rq
from receiver_node import SECONDS, ReceiverNode, nothing_left
from small_disk import run_as_root, shown_at, small_disk

from node.app import running_receiver
from node.config import load_config
from node.scp.listener import Listener
from node.study import Destination

DEAF = """
import sys
from contextlib import suppress
from pathlib import Path
from node.app import serve
from node.config import load_config
from node.log import set_up_log
from node.scp.listener import Listener

def fail(_listener):
    raise RuntimeError

Listener.service_actions = fail
config = load_config(Path(sys.argv[1]))
set_up_log(config.log)
serve(config, "receive", Path(sys.argv[1]))
"""


def small_data_set(number=1):
    """An encoded data set of half a kilobyte."""
    return data_set_bytes(encode_instance(make_instance(number)))


@pytest.mark.slow
def test_deaf_receiver_ends_its_process(tmp_path):
    """A node whose listener ends unasked says so and ends with a status that makes its keeper start it again."""
    command = [sys.executable, "-c", DEAF, str(write_config(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stderr
    for event in ("receiver_not_listening", "receiver_ended"):
        assert f'"event": "{event}"' in done.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_deaf_receiver_is_not_healthy(tmp_path, monkeypatch):
    """``/health`` is well while the node listens, and answers 503 once it does not."""
    config = load_config(write_config(tmp_path))

    def health():
        return httpx.get(f"http://{config.web.host}:{config.web.port}/health", trust_env=False, timeout=SECONDS)

    def fail(_listener):
        raise RuntimeError

    with running_receiver(config) as (receiver, _):
        assert health().status_code == 200
        monkeypatch.setattr(Listener, "service_actions", fail)
        wait_until(lambda: not receiver.is_alive)
        assert health().status_code == 503
        assert "received" in health().text


@pytest.mark.slow
@pytest.mark.parametrize("port", ["the same", "another"])
def test_second_node_by_mistake_harms_nobody(tmp_path, port):
    """A second ``serve`` on the same config ends with a ConfigError, and what the first is receiving arrives whole."""
    with running_node(write_config(tmp_path), role="receive") as node:
        data_set = small_data_set()
        peer = RawPeer(node.destination)
        peer.connection.sendall(
            store_rq(sop_instance_uid(1)) + data_pdu(data_set[:300], is_command=False, is_last=False)
        )
        arriving = node.config.spool_folder / ".incoming"
        node.wait_until(lambda: [path for path in arriving.rglob("*") if path.is_file() and path.name != "lock"])
        if port == "the same":
            second = node.command("serve", "--role", "receive")
            assert second.returncode == 2, second.stderr
            assert "node.folder: the receiver" in second.stderr
            assert "runs already" in second.stderr
        else:
            other = write_config(tmp_path / "other", node={"folder": str(tmp_path / "var")})
            with running_node(other, role="receive"):
                pass
        peer.connection.sendall(data_pdu(data_set[300:], is_command=False, is_last=True))
        assert peer.read_status() == 0x0000
        peer.release()
        peer.connection.close()
        assert len(list(node.config.spool_folder.rglob("*.dcm"))) == 1


@pytest.mark.slow
def test_log_whose_reader_is_gone(tmp_path):
    """When nobody reads its log any more, a node refuses strangers, and receives, as before."""
    file = write_config(tmp_path, scp={"allowed_addresses": ["127.0.0.1"]})
    config = load_config(file)
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "node", "serve", "--role", "receive", "--config", str(file)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    try:
        content, deadline = b"", time.monotonic() + 60
        while b"node_ready" not in content:
            assert time.monotonic() < deadline
            if select.select([reader], [], [], 1)[0]:
                content += os.read(reader, 65536)
        os.close(reader)
        node = Destination("node", config.scp.ae_title, config.scp.host, config.scp.port)
        for _ in range(3):
            stranger = ("127.0.0.2", 0)
            # refused, and logged where connections are taken
            with socket.create_connection((node.host, node.port), SECONDS, stranger) as peer, suppress(ConnectionError):
                assert peer.recv(1) == b""
        with RawPeer(node) as peer:
            assert peer.store(sop_instance_uid(1), small_data_set()) == 0x0000
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(60)


def test_disk_that_turns_read_only(tmp_path):
    """On a disk that has turned read-only the answer is A700 and the association goes on; then all is taken again."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        node = ReceiverNode(disk / "spool")
        with node.receiver, nothing_left(node), RawPeer(node.destination) as peer:
            assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0x0000
            run_as_root("mount", "-o", "remount,ro", disk)
            with structlog.testing.capture_logs() as events:
                assert peer.store(sop_instance_uid(2), small_data_set(2)) == 0xA700
            run_as_root("mount", "-o", "remount,rw", disk)
            assert peer.store(sop_instance_uid(2), small_data_set(2)) == 0x0000
        assert [event["reason"] for event in events] == ["Read-only file system"]


def test_disk_that_vanishes(tmp_path):
    """While the spool's disk is not mounted the answer is A700, nothing is written in its place, and it is said."""
    (tmp_path / "spool").mkdir()
    with small_disk(tmp_path / "disk", "8m") as disk:
        node = ReceiverNode(tmp_path / "spool")
        with node.receiver, RawPeer(node.destination) as peer:
            with shown_at(node.spool.folder, disk):
                assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0x0000
                peer.connection.sendall(store_rq(sop_instance_uid(2)))
                whole = small_data_set(2)
                peer.connection.sendall(data_pdu(whole[:300], is_command=False, is_last=False))
                wait_until(node.incoming)
            with structlog.testing.capture_logs() as events:
                peer.connection.sendall(data_pdu(whole[300:], is_command=False, is_last=True))
                assert peer.read_status() == 0xA700  # it vanished within an instance ...
                assert peer.store(sop_instance_uid(3), small_data_set(3)) == 0xA700  # ... and before one
            assert list(node.spool.folder.iterdir()) == []
            assert {event["event"] for event in events} == {"spool_out_of_resources"}
            assert events[-1]["reason"] == "the spool's disk is not mounted"
            with shown_at(node.spool.folder, disk):
                assert peer.store(sop_instance_uid(2), whole) == 0x0000
                assert len(list(node.spool.folder.rglob("*.dcm"))) == 2


def test_folder_of_the_spool_that_is_deleted(tmp_path):
    """A spool that somebody deletes under a running node is not made anew: A700, until the folder is there again."""
    node = ReceiverNode(tmp_path / "spool")
    with node.receiver, RawPeer(node.destination) as peer:
        assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0x0000
        shutil.rmtree(node.spool.folder)
        assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0xA700
        assert not node.spool.folder.exists()
        node.spool.folder.mkdir()
        assert peer.store(sop_instance_uid(1), small_data_set(1)) == 0x0000
