"""The audit trail tells of each attempt to deliver, and of each query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_reader import Told, read_trail
from command_line import run_glionode
from fake_archive import FakeArchive
from faults import FakePacs, free_port
from instances import PATIENT_ID, STUDY, encode_instance, make_instance, sop_instance_uid
from node_process import write_config
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.uid import MRImageStorage

from node.audit.auditor import Auditor
from node.audit.opened import audit_trail
from node.config import build_config
from node.delivery.destination_requests import DestinationRequests
from node.metrics import Metrics
from node.scu.query import MODEL

FILES = ["seg.dcm", "sr.dcm"]


@pytest.fixture
def auditor(tmp_path: Path) -> Iterator[Auditor]:
    """A trail in ``tmp_path/audit``."""
    config = build_config({"audit": {"enabled": True}})
    with audit_trail((config.node, config.audit, config.tls), tmp_path / "audit", "host", "G", Metrics()) as opened:
        assert opened is not None
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two results."""
    for number, name in enumerate(FILES, start=1):
        (tmp_path / name).write_bytes(encode_instance(make_instance(number)))
    return tmp_path


def requests_to(port: int, folder: Path, auditor: Auditor) -> DestinationRequests:
    """Requests to a PACS on ``port``."""
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
    values = {"node": {"folder": str(folder / "var")}, "delivery": {"timeout_seconds": 20.0}, "destination": [peer]}
    return DestinationRequests(build_config(values), str(folder), "pacs", auditor)


def told_of(folder: Path) -> list[Told]:
    """The trail without the start of the application."""
    return read_trail(folder / "audit")[1:]


def test_success_and_failure_of_one_attempt_are_told_apart(auditor: Auditor, folder: Path) -> None:
    """Of two results, one stored and one refused: the beginning, one message of success, one of failure."""
    with FakePacs([0x0000, 0xA700], sop_classes=[MRImageStorage]) as pacs:
        requests_to(pacs.port, folder, auditor).send(FILES)
    told = told_of(folder)
    assert [each.event for each in told] == [
        ("110102", "", "E", "0"),
        ("110104", "", "C", "0"),
        ("110104", "", "C", "8"),
    ]
    assert [each.counts for each in told] == [{MRImageStorage: 2}, {MRImageStorage: 1}, {MRImageStorage: 1}]
    assert all(each.objects == {"110180": STUDY, "2": PATIENT_ID} for each in told)
    assert "0xA700" in str(told[2].root.findtext(".//EventOutcomeDescription"))


def test_each_study_has_a_message_of_its_own(auditor: Auditor, folder: Path) -> None:
    """Instances of two studies sent together are told study by study."""
    (folder / FILES[1]).write_bytes(encode_instance(make_instance(2, study_instance_uid="1.2.3")))
    with FakePacs(sop_classes=[MRImageStorage]) as pacs:
        requests_to(pacs.port, folder, auditor).send(FILES)
    told = told_of(folder)
    assert [each.objects["110180"] for each in told] == [STUDY, "1.2.3"] * 2


def test_command_send_is_told(folder: Path) -> None:
    """``glionode send`` writes a trail of its own."""
    with FakePacs(sop_classes=[MRImageStorage]) as pacs:
        config = write_config(folder, [pacs.destination], audit={"enabled": True})
        result = run_glionode("send", *(str(folder / name) for name in FILES), "pacs", "--config", config)
    assert result.exit_code == 0, result.output
    told = read_trail(folder / "var" / "audit")
    assert [each.event[0] for each in told] == ["110100", "110102", "110104", "110100"]
    assert told[2].counts == {MRImageStorage: 2}


def test_pacs_that_is_away_is_told(auditor: Auditor, folder: Path) -> None:
    """An attempt that reaches nobody is told with its beginning and its failure."""
    requests_to(free_port(), folder, auditor).send(FILES)
    assert [each.event[3] for each in told_of(folder)] == ["0", "8"]


def test_queries_are_told_with_their_identifier(auditor: Auditor, folder: Path) -> None:
    """Each query is told with the SOP class and the identifier as sent, which names no patient."""
    with FakeArchive() as pacs:
        requests_to(pacs.port, folder, auditor).query(FILES)
    told = told_of(folder)
    assert [each.event for each in told] == [("110112", "", "E", "0")] * 2
    assert told[0].objects == {"110181": MODEL}
    query = read_dataset(DicomBytesIO(told[0].query), is_implicit_VR=True, is_little_endian=True)
    assert query.SOPInstanceUID == sop_instance_uid(1)
    assert "PatientID" not in query
    assert dcmread(folder / FILES[0]).PatientID == PATIENT_ID
