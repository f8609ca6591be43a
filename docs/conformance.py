"""Writes conformance.md beside this file. UIDs, statuses and limits come from the code, not from typing."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, SegmentationStorage
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node import __version__
from node.dicom.commitment import PERMANENT_REASONS, describe_failure
from node.config import DeliverySection, ScpSection
from node.scp.commitment import REPORT_STATUSES
from node.scp.handlers import STORAGE_SOP_CLASSES
from node.scp.server import REQUEST_SECONDS
from node.scp.status import STATUSES
from node.scu.store import classify_status
from node.scu.commitment import SAME_ASSOCIATION_SECONDS
from node.scu.stow import PERMANENT

FILE = Path(__file__).with_name("conformance.md")

TEXT = """\
# DICOM conformance statement

glionode {version}. Written by `docs/conformance.py`; a test compares it with the code. Clauses are those of the DICOM
standard, PS3.

## 1. What it does on the network

One application entity, in two roles. As SCP it receives MR instances; as SCU it sends its results, one segmentation
and one report per study, to the destinations of its configuration, and has those that offer it commit to them. It
retrieves nothing, and queries only whether a destination holds what was sent.

| SOP class | UID | SCP | SCU |
|---|---|---|---|
{sop_classes}

Implementation class UID `{implementation_uid}`, implementation version name `{implementation_version}` (those of the
network library, pynetdicom).

## 2. Associations it accepts

| policy | value |
|---|---|
| address | those of `scp.allowed_addresses`; others are cut off without a word; if the list is empty, any |
| called AE title | must be the node's (`scp.ae_title`, default `{scp.ae_title}`) |
| calling AE title | those of `scp.calling_ae_titles`; if the list is empty, any |
| associations at one time | `scp.max_associations`, default {scp.max_associations}; more are rejected. A connection \
counts once it asked for its association |
| largest PDU received | `scp.max_pdu_bytes`, default {scp.max_pdu_bytes} bytes; a PDU announced with more than 1 MiB \
ends the connection |
| largest instance | `scp.max_instance_mebibytes`, default {scp.max_instance_mebibytes} MiB (of a deflated data set: \
inflated); refused after its last fragment, or aborted at twice that size |
| largest study | `scp.max_study_mebibytes`, default {scp.max_study_mebibytes} MiB; further instances are refused |
| silent peer | let go after `scp.network_timeout_seconds`, default {scp.network_timeout_seconds:.0f} s, also within a \
PDU; after {request_seconds:.0f} s at most if it has not sent its A-ASSOCIATE-RQ |
| messages without waiting for answers | more than 16 at once end the association |
| asynchronous operations, role selection, extended negotiation, user identity | not negotiated |
| transport security | `scp.tls`: TLS 1.2 or newer (PS3.15 B, BCP 195) with `tls.certificate_file`; with `tls.ca_file`, \
only peers that show a certificate of it |
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

One association per attempt: the SEG first, then the SR. One presentation context for each SOP class, in the transfer
syntax of the file, {explicit} ({explicit_uid}).
The calling AE title is `scp.ae_title`. `glionode check` opens one association with Verification to each destination.
Requests for storage commitment and queries have associations of their own. Destinations do not wait for one another.

| policy | value |
|---|---|
| destination that does not answer | given up after `delivery.timeout_seconds`, default \
{delivery.timeout_seconds:.0f} s (longer for large instances) |
| repeated | after `delivery.first_retry_seconds`, default {delivery.first_retry_seconds:.0f} s, then after pauses \
that double up to `delivery.longest_retry_seconds`, default {delivery.longest_retry_seconds:.0f} s, for \
`delivery.give_up_days`, default {delivery.give_up_days:.0f} days: the seconds waited, not the clock, are counted |
| repeated instances | only those not yet delivered; byte-identical, same SOP Instance UID |
| rejected presentation context | final: not repeated |
| transport security | `destination.tls`: TLS 1.2 or newer (PS3.15 B, BCP 195); the peer's certificate is checked \
against `tls.ca_file` (without it, the system's authorities), its name against `destination.host`; the node shows \
`tls.certificate_file` |

### Statuses understood in the answer to C-STORE

{scu_statuses}

### Storage commitment (Push Model, PS3.4 J)

A destination with `commitment = true` is asked, by N-ACTION, to commit to what it stored. The report (N-EVENT-REPORT)
may come on the same association within {same_association:.0f} s, or later on an association that the destination opens
to the node's port; there it may propose the SCP's role for itself, or leave it. Its AE title must be allowed by
`scp.calling_ae_titles`. The node commits to nothing itself: N-ACTION is answered with a failure.

| what the destination does | what follows |
|---|---|
| reports success | the results are *committed* |
| reports failures | these instances are sent again and asked for again; after {permanent_reasons} it is queried \
instead, and the delivery fails if it does not list them |
| reports nothing for `delivery.commitment_wait_seconds`, default {delivery.commitment_wait_seconds:.0f} s; rejects \
the presentation context; refuses the N-ACTION | it is queried (C-FIND, Study Root, IMAGE level); what it lists counts \
as committed, what it does not list is sent again |
| answers no queries, either | the results stay *delivered*, with the reason |

Statuses answered to N-EVENT-REPORT:

{report_statuses}

### DICOMweb

A destination with `protocol = "dicomweb"` gets its results by STOW-RS (PS3.18 10.5), one instance per request, as
`application/dicom`; answers are asked for in `application/dicom+json`, and read in XML, too. Redirects are not
followed; no proxy is used. An instance that the answer does not list as stored is looked for by QIDO-RS before it
counts as delivered. A Failure Reason counts as the status of a C-STORE (above); without one, these HTTP statuses are
final, and all others are repeated: {permanent_http}.

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

Storage commitment as SCP, query and retrieve as SCP, retrieve as SCU, modality worklist, MPPS, DICOMweb as a service.
"""


def _bullets(uids: Iterable[str]) -> str:
    return "\n".join(f"- {uid.name} (`{uid}`)" for uid in uids)


def _sop_classes() -> str:
    rows = [(Verification, "yes", "yes"), *((uid, "yes", "–") for uid in STORAGE_SOP_CLASSES)]
    rows += [(SegmentationStorage, "–", "yes"), (EnhancedSRStorage, "–", "yes")]
    rows += [(StorageCommitmentPushModel, "–", "yes"), (StudyRootQueryRetrieveInformationModelFind, "–", "yes")]
    return "\n".join(f"| {uid.name} | `{uid}` | {scp} | {scu} |" for uid, scp, scu in rows)


def _scp_statuses() -> str:
    rows = [f"| 0x{status.code:04X} | {status.name} | {status.when_used} |" for status in STATUSES]
    return "\n".join(["| status | meaning | when |", "|---|---|---|", *rows])


def _report_statuses() -> str:
    rows = [f"| 0x{status.code:04X} | {status.name} | {status.when_used} |" for status in REPORT_STATUSES]
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
        request_seconds=REQUEST_SECONDS,
        delivery=DeliverySection(),
        verification_syntaxes=_bullets(build_context(Verification).transfer_syntax),
        scp_statuses=_scp_statuses(),
        scu_statuses=_scu_statuses(),
        report_statuses=_report_statuses(),
        same_association=SAME_ASSOCIATION_SECONDS,
        permanent_reasons=" and ".join(describe_failure(reason) for reason in sorted(PERMANENT_REASONS)),
        permanent_http=", ".join(str(int(code)) for code in sorted(PERMANENT)),
        explicit=ExplicitVRLittleEndian.name,
        explicit_uid=f"`{ExplicitVRLittleEndian}`",
    )


if __name__ == "__main__":
    FILE.write_text(statement(), encoding="utf-8")
