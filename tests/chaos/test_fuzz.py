"""Broken instances over C-STORE: each is stored, its study then read or refused; or it is rejected by its status."""

from __future__ import annotations

from collections import Counter

import pytest
import structlog
from corpus import FLIPS, KINDS, Variant, is_untouched, rest_of_study, variants
from faults import wait_until
from node_process import write_config
from raw_peer import PeerAbortedError, RawPeer
from receiver_node import ReceiverNode

from node.config import load_config
from node.dicom.uids import is_valid_uid
from node.errors import GlionodeError
from node.processing.request import build_request
from node.scp.status import CANNOT_UNDERSTAND, DATA_SET_DOES_NOT_MATCH, INVALID_UID, MISSING_UID, SUCCESS
from node.segmentation.volume import read_volume

# what pydicom, highdicom and numpy say of what is broken on purpose is not an error, a thread that dies of it is
pytestmark = pytest.mark.filterwarnings("ignore", "error::pytest.PytestUnhandledThreadExceptionWarning")

ANSWERS = {status.code for status in (SUCCESS, CANNOT_UNDERSTAND, DATA_SET_DOES_NOT_MATCH, INVALID_UID, MISSING_UID)}
FAST = ("deflated", "other encoding")


def send(node: ReceiverNode, kind: str) -> dict[Variant, int]:
    """The status answered to each variant; a C-ECHO must be answered after it on the same association."""
    answers = {}
    for variant in variants(kind):
        with RawPeer(node.destination, variant.transfer_syntax) as peer:
            answers[variant] = peer.store(variant.sop_instance_uid, variant.data_set)
            assert peer.echo() == 0x0000
    return answers


def process(node: ReceiverNode, config) -> Counter:
    """Request each study of the spool, each with the rest of it, and read the series selected: count the outcomes.

    Series that no variant touches are read once.
    """
    outcomes: Counter = Counter()
    read = set()
    for study in node.spool.studies():
        folder = node.spool.study_folder(study)
        for name, content in rest_of_study(study):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        request = build_request(folder, config)
        if request.selection is None:
            assert request.refusal
            outcomes["refused"] += 1
            continue
        try:
            for series in request.selection.chosen.values():
                if series.series_instance_uid not in read:
                    read_volume(series)
                if is_untouched(series):
                    read.add(series.series_instance_uid)
        except GlionodeError:
            outcomes["refused when read"] += 1
        else:
            outcomes["read"] += 1
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in FAST)) for kind in KINDS])
def test_broken_instances_harm_nobody(tmp_path, kind, capfd):
    """Each is stored or rejected by a status of the table, never by an exception; what is stored is read or refused."""
    config = load_config(write_config(tmp_path / "config"))
    node = ReceiverNode(tmp_path / "spool")
    with node.receiver, structlog.testing.capture_logs() as events:
        answers = send(node, kind)
    assert len(answers) >= 10
    wrong = {variant.name: hex(status) for variant, status in answers.items() if status not in ANSWERS}
    assert not wrong
    wait_until(lambda: not node.incoming())
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and node.spool.folder not in path.parents]
    assert outside == [tmp_path / "config" / "config.toml"]
    stored = [path.relative_to(node.spool.folder).with_suffix("").parts for path in node.spool.folder.rglob("*.dcm")]
    assert [parts for parts in stored if parts[0] != ".conflicts" and not all(map(is_valid_uid, parts))] == []
    assert len(stored) == sum(status == 0x0000 for status in answers.values())
    outcomes = process(node, config)
    assert sum(outcomes.values()) == len(node.spool.studies())
    assert "Traceback" not in capfd.readouterr().err
    assert not [event for event in events if event["log_level"] == "error"]


@pytest.mark.slow
def test_corpus_is_large_and_always_the_same():
    """At least 300 variants have flipped bytes, each variant has a name of its own, and all come out alike again."""
    first = [variant for kind in KINDS for variant in variants(kind)]
    assert FLIPS >= 300
    assert len({variant.name for variant in first}) == len(first) > 800
    assert first == [variant for kind in KINDS for variant in variants(kind)]


@pytest.mark.slow
def test_the_whole_instance_is_stored_and_read(tmp_path):
    """The instance that the corpus is made from, unbroken, is stored, selected and read: the corpus tests something."""
    node = ReceiverNode(tmp_path / "spool")
    whole = next(variant for variant in variants("other encoding"))
    with node.receiver, RawPeer(node.destination) as peer:
        assert peer.store(whole.sop_instance_uid, whole.data_set) == 0x0000
    assert process(node, load_config(write_config(tmp_path / "config"))) == {"read": 1}


def test_rejected_by_the_right_status(tmp_path):
    """UIDs that are hostile, missing or another's are told apart by their statuses."""
    node = ReceiverNode(tmp_path / "spool")
    expected = {
        "hostile UID: StudyInstanceUID b'../../../../tmp/evil'": 0xC011,
        "hostile UID: StudyInstanceUID b''": 0xC010,
        "hostile UID: SeriesInstanceUID b'1.02.3'": 0xC011,
        "hostile UID: SeriesInstanceUID b'\\xff\\xfe'": 0xC000,
        "hostile UID: SOPInstanceUID b'1.2.3\\x00/x'": 0xA900,
        "hostile UID: SOPClassUID b'1.2.3\\\\1.2.4'": 0xA900,
    }
    chosen = [variant for variant in variants("hostile UID") if variant.name in expected]
    with node.receiver, RawPeer(node.destination) as peer:
        answers = {variant.name: peer.store(variant.sop_instance_uid, variant.data_set) for variant in chosen}
    assert answers == expected


@pytest.mark.parametrize("uid", ["../../../../tmp/x", "1." * 32 + "1", "1.02", "", "1.2\0/x", "1.2\\1.3", "\xfc"])
def test_hostile_uid_in_the_command_set(tmp_path, uid):
    """A hostile UID in the request itself is refused or ends the association; nothing is written, others are served."""
    node = ReceiverNode(tmp_path / "spool")
    data_set = next(variants("other encoding")).data_set
    with node.receiver:
        peer = RawPeer(node.destination)
        try:
            answer = peer.store(uid, data_set)
        except PeerAbortedError:
            answer = None
        finally:
            peer.connection.close()
        assert answer in (None, 0xC011)
        with RawPeer(node.destination) as other:
            assert other.echo() == 0x0000
    assert node.files() == []
