"""Writes conformance.md beside this file. UIDs, statuses and limits come from the code, not from typing."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, SegmentationStorage
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from node import __version__
from node.config import DeliverySection, ScpSection
from node.scp.server import STORAGE_SOP_CLASSES
from node.scp.status import STATUSES
from node.scu import classify_status

FILE = Path(__file__).with_name("conformance.md")

TEXT = """\
# DICOM conformance statement

glionode {version}. Written by `docs/conformance.py`; a test compares it with the code. Clauses are those of the DICOM
standard, PS3.

## 1. What it does on the network

One application entity, in two roles. As SCP it receives MR instances; as SCU it sends its results, one segmentation
and one report per study, to the destinations of its configuration. It queries and retrieves nothing.

| SOP class | UID | SCP | SCU |
|---|---|---|---|
{sop_classes}

Implementation class UID `{implementation_uid}`, implementation version name `{implementation_version}` (those of the
network library, pynetdicom).

## 2. Associations it accepts

| policy | value |
|---|---|
| called AE title | must be the node's (`scp.ae_title`, default `{scp.ae_title}`) |
| calling AE title | those of `scp.calling_ae_titles`; if the list is empty, any |
| associations at one time | `scp.max_associations`, default {scp.max_associations}; more are rejected |
| largest PDU received | `scp.max_pdu_bytes`, default {scp.max_pdu_bytes} bytes |
| silent peer | let go after `scp.network_timeout_seconds`, default {scp.network_timeout_seconds:.0f} s |
| asynchronous operations, role selection, extended negotiation, user identity | not negotiated |
| transport security | none |
| release or abort | means nothing for the study: it may arrive over several associations |

**Transfer syntaxes.** Each storage presentation context is accepted in the *first* transfer syntax that it proposes,
whichever it is, compressed and private ones included: instances are stored as received, undecoded. A peer that wants
its choice known proposes one context for each transfer syntax. Verification is accepted in:

{verification_syntaxes}

Whether the pixel data of a transfer syntax can be decoded shows when the study is processed; if not, the study is
refused with that reason.

**Storage.** Level 2 (full, PS3.4 B.4.1): every element is kept, private ones included; nothing is coerced. Success
means that the instance lies on disk and survives a power cut. The same instance again is answered with Success and kept
once. Other bytes under a known SOP Instance UID are answered with Success and kept aside; the first stay in use.

### Statuses answered to C-STORE

{scp_statuses}

C-ECHO is answered with 0x0000.

## 3. Associations it opens

One association per delivery: the SEG first, then the SR. One presentation context for each SOP class, in the transfer
syntax of the file, {explicit} ({explicit_uid}).
The calling AE title is `scp.ae_title`. `glionode check` opens one association with Verification to each destination.

| policy | value |
|---|---|
| destination that does not answer | given up after `delivery.timeout_seconds`, default \
{delivery.timeout_seconds:.0f} s (longer for large instances) |
| repeated | after `delivery.first_retry_seconds`, default {delivery.first_retry_seconds:.0f} s, then after pauses \
that double up to `delivery.longest_retry_seconds`, default {delivery.longest_retry_seconds:.0f} s, for \
`delivery.give_up_days`, default {delivery.give_up_days:.0f} days |
| repeated instances | byte-identical, same SOP Instance UID |
| rejected presentation context | final: not repeated |

### Statuses understood in the answer to C-STORE

{scu_statuses}

## 4. Instances it makes

| | segmentation | report |
|---|---|---|
| SOP class | Segmentation Storage | Enhanced SR Storage |
| content | BINARY, three nested segments, on the grid of the T1c series (PS3.3 A.51) \
| TID 1500, one TID 1411 group per segment, volumes in mL |
| patient, study, frame of reference | as in the source | as in the source; the segments are referenced |
| UIDs | `2.25.` from a digest of input, model and settings (PS3.5 B.2): the same input gives the same UIDs \
| likewise |
| Series Number | 9801 | 9802 |
| character set | as in the source | as in the source |
| verification | – | Verification Flag UNVERIFIED: nobody has signed it |

Values of the source that the standard forbids are not repeated: a Patient's Sex other than M, F, O is left empty.

## 5. What it does not do

Storage commitment, DICOM TLS, query and retrieve, modality worklist, MPPS, DICOMweb.
"""


def _bullets(uids: Iterable[str]) -> str:
    return "\n".join(f"- {uid.name} (`{uid}`)" for uid in uids)


def _sop_classes() -> str:
    rows = [(Verification, "yes", "yes"), *((uid, "yes", "–") for uid in STORAGE_SOP_CLASSES)]
    rows += [(SegmentationStorage, "–", "yes"), (EnhancedSRStorage, "–", "yes")]
    return "\n".join(f"| {uid.name} | `{uid}` | {scp} | {scu} |" for uid, scp, scu in rows)


def _scp_statuses() -> str:
    rows = [f"| 0x{status.code:04X} | {status.name} | {status.when_used} |" for status in STATUSES]
    return "\n".join(["| status | meaning | when |", "|---|---|---|", *rows])


def _scu_statuses() -> str:
    """Every status there is, classified by the sender; neighbours of one meaning share a row."""

    def answer(code: int) -> tuple[str, bool, bool]:
        delivery = classify_status("", code)
        return delivery.reason.partition(" ")[2], delivery.is_delivered, delivery.is_permanent

    rows = ["| status | meaning | what follows |", "|---|---|---|"]
    for (meaning, is_delivered, is_permanent), group in groupby(range(0x10000), answer):
        if meaning == "refused":
            continue
        codes = list(group)
        span = f"0x{codes[0]:04X}" + (f" to 0x{codes[-1]:04X}" if len(codes) > 1 else "")
        follows = "delivered" if is_delivered else "failed, not repeated" if is_permanent else "repeated"
        rows.append(f"| {span} | {meaning} | {follows} |")
    return "\n".join([*rows, "| any other, or none | refused, aborted, no answer | repeated |"])


def statement() -> str:
    """The whole text of conformance.md."""
    return TEXT.format(
        version=__version__,
        sop_classes=_sop_classes(),
        implementation_uid=PYNETDICOM_IMPLEMENTATION_UID,
        implementation_version=PYNETDICOM_IMPLEMENTATION_VERSION,
        scp=ScpSection(),
        delivery=DeliverySection(),
        verification_syntaxes=_bullets(build_context(Verification).transfer_syntax),
        scp_statuses=_scp_statuses(),
        scu_statuses=_scu_statuses(),
        explicit=ExplicitVRLittleEndian.name,
        explicit_uid=f"`{ExplicitVRLittleEndian}`",
    )


if __name__ == "__main__":
    FILE.write_text(statement(), encoding="utf-8")
