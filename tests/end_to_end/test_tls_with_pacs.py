"""TLS with a real PACS in both directions, with certificates on both sides; a stranger's certificate opens nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from certificates import make_authority
from faults import free_port
from instances import make_instance, write_instance_file
from lab import Orthanc, needs
from receiver_node import SECONDS, ReceiverNode

from node.config_sections import TlsSection
from node.scu.store import echo, send_instances
from node.study import Destination

pytestmark = [pytest.mark.slow, needs("Orthanc", "openssl", "cc")]


@pytest.mark.parametrize("profile", ["bcp195", "bcp195-non-downgrading"])
def test_orthanc_and_node_exchange_instances_over_tls(profile, tmp_path: Path) -> None:
    """Orthanc stores what the node sends and sends what the node stores; a rogue certificate is refused by both."""
    authority = make_authority(tmp_path / "authority")
    mine, theirs = authority.issue("node"), authority.issue("orthanc")
    rogue = replace(make_authority(tmp_path / "rogue").issue("node"), ca_file=authority.certificate_file)
    section = TlsSection(
        profile=profile, certificate_file=mine.certificate_file, key_file=mine.key_file, ca_file=mine.ca_file
    )
    instance = make_instance()
    file = write_instance_file(tmp_path, instance)
    node = ReceiverNode(tmp_path / "spool", tls=section, port=free_port())
    with node.receiver, Orthanc(node.section.ae_title, node.section.port, tls=theirs) as pacs:
        destination = Destination("pacs", pacs.ae_title, "127.0.0.1", pacs.dicom_port, replace(mine, profile=profile))
        assert echo(replace(destination, tls=rogue), "GLIONODE", SECONDS)
        assert echo(replace(destination, tls=None), "GLIONODE", SECONDS)
        (delivery,) = send_instances(destination, "GLIONODE", [file], SECONDS)
        assert delivery.is_delivered, delivery.reason
        assert pacs.send("NODE", instance.SOPInstanceUID)
        assert node.path().exists()
        assert echo(replace(node.destination, tls=rogue), "PACS", SECONDS)
