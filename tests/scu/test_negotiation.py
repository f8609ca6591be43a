"""The sender with a PACS that takes less than others: one transfer syntax, one SOP class, one context, short PDUs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lab
import pydicom
import pytest
import SimpleITK
from faults import FakePacs, Takes, free_port, wait_until
from instances import data_set_bytes, encode_instance, make_instance, write_instance_file
from lab_objects import make_seg, make_sr, mr_series
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    Comprehensive3DSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
    SegmentationStorage,
    generate_uid,
)

from node.dicom.outgoing import read_in_implicit_vr
from node.errors import DeliveryError
from node.scu import store
from node.scu.store import send_instances
from node.study import Destination, InstanceDelivery

pytestmark = pytest.mark.slow

SECONDS = 20.0
BOTH = (SegmentationStorage, Comprehensive3DSRStorage)
SYNTAXES = {
    "explicit": [ExplicitVRLittleEndian],
    "implicit": [ImplicitVRLittleEndian],
    "both": [ImplicitVRLittleEndian, ExplicitVRLittleEndian],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[Path]:
    """A SEG and an SR, as the node sends them."""
    folder = tmp_path_factory.mktemp("results")
    images = mr_series(generate_uid())
    seg = make_seg(images)
    seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    make_sr(images, seg).save_as(folder / "sr.dcm", enforce_file_format=True)
    return [folder / "seg.dcm", folder / "sr.dcm"]


def send(pacs: FakePacs, files: Sequence[Path]) -> list[InstanceDelivery]:
    return send_instances(pacs.destination, "GLIONODE", files, SECONDS)


def decoded(data_set: bytes, transfer_syntax: str) -> Dataset:
    """A data set as it came over the wire, decoded."""
    buffer = pydicom.filebase.DicomBytesIO(data_set)
    return pydicom.filereader.read_dataset(buffer, transfer_syntax == ImplicitVRLittleEndian, True)


def is_same(received: Dataset, file: Path) -> bool:
    """True if all elements and values are equal. Pixel data in Implicit VR are OW, whatever they were (PS3.5 A.1)."""
    sent = pydicom.dcmread(file)
    if "PixelData" in sent:
        received["PixelData"].VR = sent["PixelData"].VR
    return bool(received == sent)


# ---- transfer syntax -----------------------------------------------------------------------------------------------


def test_pacs_of_implicit_vr_alone_gets_the_same_elements(results):
    """SEG and SR arrive in Implicit VR Little Endian with every element and value of the files, which stay."""
    before = [file.read_bytes() for file in results]
    with FakePacs(sop_classes=BOTH, transfer_syntaxes=SYNTAXES["implicit"]) as pacs:
        deliveries = send(pacs, results)
    assert [(each.is_delivered, each.status) for each in deliveries] == [(True, 0x0000)] * 2
    assert pacs.association_requests == 1
    assert [each.transfer_syntax_uid for each in pacs.received] == [ImplicitVRLittleEndian] * 2
    for file, received in zip(results, pacs.received, strict=True):
        assert is_same(decoded(received.data_set, ImplicitVRLittleEndian), file)
    assert [file.read_bytes() for file in results] == before


@pytest.mark.parametrize("accepted", ["explicit", "both"])
def test_explicit_vr_is_preferred_and_sent_byte_for_byte(results, accepted):
    """A PACS that accepts Explicit VR, alone or beside Implicit, gets the bytes of the file."""
    with FakePacs(sop_classes=BOTH, transfer_syntaxes=SYNTAXES[accepted]) as pacs:
        deliveries = send(pacs, results)
    assert all(each.is_delivered for each in deliveries)
    assert [each.data_set for each in pacs.received] == [data_set_bytes(file.read_bytes()) for file in results]


def test_compressed_instance_is_never_re_encoded(tmp_path):
    """Implicit VR is not proposed for compressed pixel data: the instance is refused, with both UIDs in the reason."""
    file = write_instance_file(tmp_path, make_instance(transfer_syntax=JPEGLosslessSV1))
    with FakePacs(sop_classes=[MRImageStorage], transfer_syntaxes=SYNTAXES["both"]) as pacs:
        (delivery,) = send(pacs, [file])
    assert (delivery.is_delivered, delivery.is_permanent) == (False, True)
    assert str(delivery.reason).startswith(
        f"presentation context rejected: SOP class {MRImageStorage} in {JPEGLosslessSV1}"
    )
    assert pacs.received == []


def test_deflated_instance_is_inflated(tmp_path):
    """A deflated data set arrives in Implicit VR, too, where the PACS accepts nothing else."""
    file = write_instance_file(tmp_path, make_instance(transfer_syntax=DeflatedExplicitVRLittleEndian))
    with FakePacs(sop_classes=[MRImageStorage], transfer_syntaxes=SYNTAXES["implicit"]) as pacs:
        (delivery,) = send(pacs, [file])
    assert delivery.is_delivered
    assert is_same(decoded(pacs.received[0].data_set, ImplicitVRLittleEndian), file)


def awkward_instance() -> Dataset:
    """An instance with what a careless re-encoding loses: text of three character sets, odd numbers, UN, private."""
    instance = make_instance()
    instance.SpecificCharacterSet = ["", "ISO 2022 IR 58", "ISO 2022 IR 159"]
    instance.PatientComments = "text"
    instance.SliceThickness = "1.50"
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", "meaning"
    item.add_new(0x00091001, "FD", 1.5)
    item.ReferencedSOPSequence = [Dataset()]
    item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    instance.ProcedureCodeSequence = [item, Dataset()]
    instance["ProcedureCodeSequence"].is_undefined_length = True
    instance.AnatomicRegionSequence = [item]
    instance.add_new(0x00090010, "LO", "SOMEBODY")
    instance.add_new(0x00091001, "US", [1, 2])
    instance.add_new(0x00091002, "UN", b"\x01\x02\x03\x04")
    empty_item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    instance[0x00289110] = RawDataElement(Tag("PixelMeasuresSequence"), "UN", 8, empty_item, 0, False, True)
    instance.LargestImagePixelValue = 7  # US or SS
    instance.PixelData = bytes(range(32))
    instance["PixelData"].VR = "OB"
    return instance


def dcmtk_in_implicit_vr(file: Path) -> Path:
    """The file as DCMTK writes it in Implicit VR Little Endian."""
    written = file.with_suffix(".dcmtk")
    done = lab.run_program("dcmconv", "+ti", "-g", file, written)
    assert done.returncode == 0, done.stdout
    return written


NAME = b"Wang^XiaoDong=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab\x1b$(D0!="


@lab.needs("dcmconv")
def test_re_encoding_agrees_with_dcmtk(tmp_path):
    """Every element, nested, private, unknown or of ambiguous VR, is as DCMTK re-encodes it; no text is re-coded."""
    instance = awkward_instance()
    placeholder = b"Secret^Patient".ljust(len(NAME) + len(NAME) % 2, b"X")
    instance.PatientName = placeholder.decode()
    content = encode_instance(instance)
    assert content.count(placeholder) == 1
    group_length = b"\x08\x00\x00\x00UL\x04\x00\x04\x00\x00\x00"  # (0008,0000), retired
    head_bytes = len(content) - len(data_set_bytes(content))
    content = content[:head_bytes] + group_length + content[head_bytes:]
    file, ours = tmp_path / "in.dcm", tmp_path / "ours.dcm"
    file.write_bytes(content.replace(placeholder, NAME.ljust(len(placeholder))))
    read_in_implicit_vr(file).save_as(ours, implicit_vr=True, little_endian=True)
    # DCMTK gives both the same form of lengths, on which the standard leaves a choice
    from_ours, theirs = (dcmtk_in_implicit_vr(each) for each in (ours, file))
    assert pydicom.dcmread(theirs).AnatomicRegionSequence[0].CodeMeaning == "meaning"
    assert data_set_bytes(from_ours.read_bytes()) == data_set_bytes(theirs.read_bytes())
    assert 0x00080000 in pydicom.dcmread(file)
    assert 0x00080000 not in pydicom.dcmread(ours)
    assert NAME in ours.read_bytes()
    assert b"1.50" in ours.read_bytes()


# ---- presentation contexts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", SYNTAXES)
@pytest.mark.parametrize("takes", [Takes.FIRST, Takes.ONE, Takes.ONE_OR_ABORT])
def test_pacs_that_needs_one_association_per_context_gets_all_in_one_attempt(results, takes, accepted):
    """Both instances are delivered though the PACS takes one context of each association, or only one at a time."""
    with FakePacs(sop_classes=BOTH, transfer_syntaxes=SYNTAXES[accepted], takes=takes) as pacs:
        deliveries = send(pacs, results)
    assert [each.is_delivered for each in deliveries] == [True, True]
    assert [each.sop_instance_uid for each in deliveries] == [pydicom.dcmread(file).SOPInstanceUID for file in results]
    assert len(pacs.received) == 2


@pytest.mark.parametrize("takes", [Takes.ALL, Takes.FIRST, Takes.ONE, Takes.ONE_OR_ABORT])
def test_pacs_without_seg_gets_the_report(results, takes):
    """The SR is delivered; the SEG is refused for good, and the reason names its SOP class and transfer syntaxes."""
    with FakePacs(sop_classes=[Comprehensive3DSRStorage], takes=takes) as pacs:
        seg, report = send(pacs, results)
    assert report.is_delivered
    assert (seg.is_delivered, seg.is_permanent, seg.status) == (False, True, None)
    for part in (SegmentationStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        assert part in str(seg.reason)
    assert len(pacs.received) == 1
    assert pacs.association_requests <= 5


@pytest.mark.parametrize("rejection", [{"is_rejecting": True}, {"takes": Takes.NONE_NOW}])
def test_other_rejections_are_not_tried_with_fewer_contexts(results, rejection):
    """After a rejection because of the AE title, or a transient one, no more associations are requested at once."""
    with FakePacs(sop_classes=BOTH, **rejection) as pacs:
        deliveries = send(pacs, results)
    assert [(each.is_delivered, each.is_permanent) for each in deliveries] == [(False, False)] * 2
    assert pacs.association_requests == 1


def test_pacs_that_goes_away_between_associations_is_retryable(results, monkeypatch):
    """An instance whose context was rejected beside others is retried if the PACS cannot be asked for it alone."""
    associate, calls = store.associate, []

    @contextmanager
    def associate_once(*arguments) -> Iterator[object]:
        calls.append(arguments)
        if len(calls) > 1:
            raise DeliveryError("no route to PACS")
        with associate(*arguments) as association:
            yield association

    monkeypatch.setattr(store, "associate", associate_once)
    with FakePacs(sop_classes=BOTH, takes=Takes.FIRST) as pacs:
        seg, report = send(pacs, results)
    assert seg.is_delivered
    assert (report.is_delivered, report.is_permanent, report.reason) == (False, False, "no route to PACS")
    assert len(calls) == 2


# ---- PDU length ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", ["explicit", "implicit"])
@pytest.mark.parametrize("max_pdu_bytes", [0, 128, 4096])
def test_short_pdus_carry_the_results(tmp_path, max_pdu_bytes, accepted):
    """A PACS that receives only short PDUs gets an instance that is longer, byte for byte."""
    instance = make_instance()
    instance.Rows = instance.Columns = 64
    instance.PixelData = bytes(range(256)) * 32
    file = write_instance_file(tmp_path, instance)
    syntaxes = SYNTAXES[accepted]
    with FakePacs(sop_classes=[MRImageStorage], transfer_syntaxes=syntaxes, max_pdu_bytes=max_pdu_bytes) as pacs:
        (delivery,) = send(pacs, [file])
    assert delivery.is_delivered
    assert is_same(decoded(pacs.received[0].data_set, syntaxes[0]), file)


def test_pdu_length_that_holds_no_fragment_is_told(results):
    """A PACS whose limit leaves no room for a fragment is named, and the instance is retried."""
    with FakePacs(sop_classes=BOTH, max_pdu_bytes=6) as pacs:
        deliveries = send(pacs, results)
    assert [(each.is_delivered, each.is_permanent) for each in deliveries] == [(False, False)] * 2
    assert "PDUs of at most 6 bytes" in str(deliveries[0].reason)


# ---- with DCMTK ----------------------------------------------------------------------------------------------------


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[Destination]:
    """DCMTK's storage SCP, which writes what it receives into ``folder``, bit for bit."""
    port = free_port()
    command = [lab.find_program("storescp"), *options, "-B", "-od", folder, "-aet", "PACS", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: lab.is_listening(port), SECONDS)
            yield Destination("pacs", "PACS", "127.0.0.1", port)
        finally:
            process.terminate()


@pytest.mark.slow
@lab.needs("storescp", "dciodvfy", "segimage2itkimage")
@pytest.mark.parametrize("options", [["+xi"], ["+xi", "-pdu", "4096"]])
def test_dcmtk_of_implicit_vr_alone_gets_what_other_readers_read(tmp_path, results, options):
    """DCMTK's SCP restricted to Implicit VR stores both; pydicom, dciodvfy and dcmqi read them as they were made."""
    archive = tmp_path / "archive"
    archive.mkdir()
    with storescp(archive, *options) as destination:
        deliveries = send_instances(destination, "GLIONODE", results, SECONDS)
    assert [each.status for each in deliveries] == [0x0000, 0x0000]
    for file in results:
        sent = pydicom.dcmread(file)
        (path,) = archive.glob(f"*{sent.SOPInstanceUID}")
        received = pydicom.dcmread(path)
        assert received.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert is_same(received, file)
        assert lab.dciodvfy_errors(path) == lab.dciodvfy_errors(file)
        if file.name == "seg.dcm":
            sent_images, images = (lab.read_seg_with_dcmqi(each, tmp_path / each.name) for each in (file, path))
            assert images.keys() == sent_images.keys()
            for number, image in images.items():
                difference = SimpleITK.GetArrayFromImage(image) != SimpleITK.GetArrayFromImage(sent_images[number])
                assert SimpleITK.GetArrayFromImage(image).any()
                assert not difference.any()
                assert image.GetOrigin() == sent_images[number].GetOrigin()
