"""The audit trail of a running node: receiver and worker, a collector over TLS, no patient beyond the Patient ID."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_reader import Collector, read_line, read_trail
from certificates import make_authority, server_context
from instances import PATIENT_ID, PATIENT_NAME, STUDY, make_instance, write_instance_file
from lab import needs
from node_process import running_node, write_config

from node.scu.store import echo, send_instances

pytestmark = [pytest.mark.slow, needs("openssl")]


def test_node_tells_of_its_life_and_its_peers(tmp_path: Path) -> None:
    """Start and stop of both processes, instances received and a rejected peer reach files and collector alike."""
    authority = make_authority(tmp_path / "authority")
    own = authority.issue("node")
    files = {"certificate_file": own.certificate_file, "key_file": own.key_file, "ca_file": own.ca_file}
    with Collector(server_context(authority.issue("collector"))) as collector:
        config = write_config(
            tmp_path,
            scp={"calling_ae_titles": ["SCANNER"]},
            audit={"enabled": True, "syslog_host": "127.0.0.1", "syslog_port": collector.port},
            tls={key: str(value) for key, value in files.items()},
        )
        with running_node(config) as node:
            file = write_instance_file(tmp_path, make_instance())
            (delivery,) = send_instances(node.destination, "SCANNER", [file], 20.0)
            assert delivery.is_delivered
            assert echo(node.destination, "STRANGER", 20.0)
            folder = node.config.audit_folder
            node.wait_until(lambda: sum(each.event[0] == "110104" for each in read_trail(folder)) == 1)
            node.wait_until(lambda: node.events("worker_ready"))
    told = read_trail(folder)
    assert len(list(folder.glob("*-receive-*.log"))) == len(list(folder.glob("*-work-*.log"))) == 1
    assert sorted(each.event[:2] for each in told) == [
        ("110100", "110120"),
        ("110100", "110120"),
        ("110100", "110121"),
        ("110100", "110121"),
        ("110104", ""),
        ("110113", "110126"),
    ]
    (received,) = [each for each in told if each.event[0] == "110104"]
    assert received.objects == {"110180": STUDY, "2": PATIENT_ID}
    assert sorted(read_line(each).event for each in collector.messages) == sorted(each.event for each in told)
    everything = b"".join(file.read_bytes() for file in folder.iterdir())
    assert PATIENT_NAME.encode() not in everything
    assert PATIENT_NAME.partition("^")[0].encode() not in everything
    assert PATIENT_ID not in node.log()
