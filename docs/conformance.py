"""Writes conformance.md beside this file. UIDs, statuses and limits are read from the code."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node import __version__
from node.audit.messages import (
    APPLICATION_ACTIVITY,
    APPLICATION_START,
    APPLICATION_STOP,
    BEGIN_TRANSFERRING,
    INSTANCES_TRANSFERRED,
    NODE_AUTHENTICATION,
    QUERY,
    SECURITY_ALERT,
)
from node.config import AuditSection, DeliverySection, ScpSection
from node.dicom.certificates import LEAST_EC_BITS, LEAST_RSA_BITS
from node.dicom.commitment import PERMANENT_REASONS, describe_failure
from node.dicom.tls_profile import CIPHER_SUITES
from node.scp import limits
from node.scp.commitment import REPORT_STATUSES
from node.scp.handlers import STORAGE_SOP_CLASSES
from node.scp.rejection_note import EXPIRED, REJECTIONS, WRONG_WORKLIST_ENTRY
from node.scp.server import REQUEST_SECONDS
from node.scp.status import STATUSES
from node.scu.commitment import SAME_ASSOCIATION_SECONDS
from node.scu.store import classify_status
from node.scu.stow import PERMANENT
from node.series.candidate import MIN_COVERAGE_MM, MIN_SLICES
from node.series.stack import POSITION_TOLERANCE_MM, SPACING_TOLERANCE
from node.series.substacks import MOST_PARTS

FILE = Path(__file__).with_name("conformance.md")

TEXT = """\
# DICOM conformance statement

glionode {version}. Written by `docs/conformance.py`; a test compares it with the code. Clauses are those of the DICOM
standard, PS3.

## 1. What glionode does on the network

One application entity, in two roles. As SCP it receives MR instances, and Key Object Selections for the rejection notes
among them. As SCU it sends its results, one segmentation
and one report per study, to the destinations of its configuration, and requests storage commitment from those
configured for it. It retrieves nothing, and its only queries ask whether a destination holds the instances sent.

| SOP class | UID | SCP | SCU |
|---|---|---|---|
{sop_classes}

Implementation class UID `{implementation_uid}`, implementation version name `{implementation_version}` (those of the
network library, pynetdicom).

## 2. Associations that glionode accepts

| policy | value |
|---|---|
| address | those of `scp.allowed_addresses`; connections from others are closed without an answer; if the list is \
empty, any |
| called AE title | must be the node's (`scp.ae_title`, default `{scp.ae_title}`) |
| calling AE title | those of `scp.calling_ae_titles`; if the list is empty, any |
| associations at one time | `scp.max_associations`, default {scp.max_associations}; more are rejected. A connection \
counts once its A-ASSOCIATE-RQ has arrived |
| largest PDU received | `scp.max_pdu_bytes`, default {scp.max_pdu_bytes} bytes; a longer PDU ends the connection, \
a P-DATA-TF with more than {limits.PDU_VALUES} values is aborted |
| largest A-ASSOCIATE-RQ | {associate_rq_kibibytes} KiB and {limits.ASSOCIATE_RQ_ITEMS} items and sub-items |
| largest command set | {command_set_kibibytes} KiB; whole within the time for a silent peer |
| data sets that are accepted | those of C-STORE requests, and of N-EVENT-REPORT requests up to \
{report_kibibytes} KiB ({reports_kibibytes} KiB over all associations at one time); any other data \
set is aborted at its first fragment (A-ABORT) |
| largest instance | `scp.max_instance_mebibytes`, default {scp.max_instance_mebibytes} MiB (of a deflated data set: \
inflated, and 256 MiB at most); refused after its last fragment, or aborted at twice that size |
| largest study | `scp.max_study_mebibytes`, default {scp.max_study_mebibytes} MiB; further instances are refused |
| silent peer | its connection is closed after `scp.network_timeout_seconds`, default \
{scp.network_timeout_seconds:.0f} s, also within a PDU; after {request_seconds:.0f} s at most if it has not sent its \
A-ASSOCIATE-RQ |
| messages sent without waiting for answers | more than {limits.MOST_UNANSWERED} at once end the association |
| asynchronous operations, role selection, extended negotiation, user identity | not negotiated |
| transport security | `scp.tls`: TLS by the profile of [section 7](#7-security), with `tls.certificate_file`; if \
`tls.ca_file` is set, only peers whose certificate is signed by its authorities |
| release or abort | has no effect on the study, which may arrive over several associations |

**Transfer syntaxes.** Each storage presentation context is accepted in the *first* transfer syntax that it proposes,
compressed and private ones included: instances are stored as received, undecoded. A peer that wants to use several
transfer syntaxes proposes one context for each. Verification is accepted in:

{verification_syntaxes}

Pixel data are decoded only when the study is processed. If they cannot be decoded, the study is refused with that
reason.

**Storage.** Level 2 (full, PS3.4 B.4.1): every element is kept, private ones included; nothing is coerced. Success
means that the instance is on disk and survives a power cut. The same instance again is answered with Success and kept
once.

**Other bytes under a known SOP Instance UID** of the same study and series are answered with Success, and no bytes that
were answered so are lost: those that are not in use are kept aside as long as the study's inputs. What is used depends
on what differs. The files' meta information, private elements, and what archives write about their own work
(Original Attributes Sequence, Contributing Equipment Sequence, instance creation, character set) do not count.

| what arrives | what it is | what is used |
|---|---|---|
| the same image and identity, in another encoding | no change | the instance in use |
| the same image; attributes of patient, study, visit, order, operator or institution differ, or number, \
description or protocol name of the series | correction | what arrived, durably before the answer |
| pixel data, geometry, acquisition or any other standard attribute differ; or encapsulated pixel data in another \
transfer syntax | conflict | the instance in use, until the administrator decides (`glionode conflicts`) |
| a version of which the one in use tells that it corrects it (Original Attributes Sequence: the values before, or a \
later change by the same system) | conflict: it arrived after its correction | the instance in use, until the \
administrator decides |
| bytes that a correction had superseded, or the same image and identity in other bytes | conflict, told once: who sent it may be out of date, or the correction \
was wrong | the instance in use, until the administrator decides |

Pixel data are compared as encoded, not decoded. A study that is not reported uses what is there when it is processed.
A reported one is reported anew: SEG and SR get new UIDs, and the SR names the one before in Predecessor Documents
Sequence (PS3.3 C.17.2); with `assembly.corrections = "hold"` that waits for the administrator. While the instances used
name two patients, or two orders, because only a part is corrected, nothing is reported. An instance that arrives under
its UIDs in another study, with its series, is withdrawn from the study in which it arrived first. Sent to that one again
it has moved back: it is input there once more, and withdrawn from the other. Of two places that it arrived in once, the
one counts whose header tells that it corrects the other, if one does.

**Rejection notes** (IHE RAD, Imaging Object Change Management). A Key Object Selection is a rejection note if its
Concept Name Code Sequence holds one of these codes of the scheme DCM. The instances in its Current Requested Procedure
Evidence Sequence are withdrawn: they are kept, but are no longer input, in whatever study, whether they arrived before
the note or arrive after it. A reported study that used them is reported anew from what is left, or refused with that
reason. Its earlier results stay in the destinations; a delivery that waits for its destination is cancelled. A document
has at most {document_mebibytes} MiB and {limits.DOCUMENT_ITEMS} items. Any other Key Object Selection is answered with
Success, kept, and changes nothing.

| title | the same instance after the note | reported studies |
|---|---|---|
{rejections}

**Files.** Instances are kept as they arrived. Their file meta information names the calling AE title of the association
as Sending Application Entity Title (0002,0017).

**UIDs with leading zeros.** Old archives hold instances whose UIDs have components such as `02`, which PS3.5 9.1
forbids. `scp.uid_repair = "refuse"` (the default) answers them with 0xC011. `"map"` receives them if leading zeros are
all that is wrong with their Study, Series and SOP Instance UIDs: each such UID is mapped to itself. No element changes;
the UIDs, only digits and dots, name folders and files, and the study in lists, logs and commands. `1.02.3` and `1.2.3`
are two UIDs, as in the archive. Results refer to study, series, images and frame of reference by the archive's UIDs,
because the archive would not find its images under any others. Validators therefore report the leading zeros in these
references as errors, and a second destination may refuse them. UIDs that the node makes are valid. Frame of Reference
UIDs and references within an instance are kept as they are with either setting.

### Statuses answered to C-STORE

{scp_statuses}

C-ECHO is answered with 0x0000.

## 3. Associations that glionode opens

One association per attempt: the SEG first, then the SR. Two presentation contexts for each SOP class, in this order:
the transfer syntax of the file, {explicit} ({explicit_uid}), and the default transfer
syntax, {implicit} ({implicit_uid}, PS3.5 10.1). A destination that accepts both gets the bytes
of the file. One that accepts only the second gets the same elements and values, encoded anew; the file stays.

If the destination rejects both presentation contexts of an SOP class, or if it rejects the whole association for good
or aborts it instead of answering, the same attempt goes on with associations of one presentation context each, since
some peers take only the first context, or one SOP class per association. A rejection because of an AE title, and one
that is transient, is not followed by further associations.

The calling AE title is `scp.ae_title`. `glionode check` opens one association with Verification to each destination.
Requests for storage commitment and queries use separate associations. Destinations do not wait for one another.

| policy | value |
|---|---|
| destination that does not answer | given up after `delivery.timeout_seconds`, default \
{delivery.timeout_seconds:.0f} s (longer for large instances) |
| failed try | repeated after `delivery.first_retry_seconds`, default {delivery.first_retry_seconds:.0f} s, then after \
pauses that double up to `delivery.longest_retry_seconds`, default {delivery.longest_retry_seconds:.0f} s, for \
`delivery.give_up_days`, default {delivery.give_up_days:.0f} days: the sum of the pauses counts, not the clock |
| repeated instances | only those not yet delivered; from the same file, same SOP Instance UID |
| rejected presentation contexts | both of an SOP class, also on an association of their own: final, not repeated; the other result is delivered, and the delivery fails with the SOP class in its reason |
| PDUs | as long as the destination says (PS3.8 D.1) |
| transport security | `destination.tls`: TLS by the profile of [section 7](#7-security); the peer's certificate is \
checked against `tls.ca_file` (without it, the system's authorities), its name against `destination.host`; the node shows \
`tls.certificate_file` |

### Statuses understood in the answer to C-STORE

{scu_statuses}

### Storage commitment (Push Model, PS3.4 J)

The node sends an N-ACTION request to a destination with `commitment = true`, for the instances that the destination
stored. The report (N-EVENT-REPORT) may come on the same association within {same_association:.0f} s, or later on an
association that the destination opens to the node's port; on that association the destination may propose the SCP role
for itself, but need not. Its AE title must be allowed by `scp.calling_ae_titles`. The node itself commits to nothing:
it answers an N-ACTION request with a failure.

Transaction UIDs are random. A report on an association of its own counts only

- under the calling AE title `commitment_ae_title` of the destination (default: its `ae_title`);
- from an address of `commitment_addresses` (default: the addresses of its `host` when it was asked);
- if the destination is asked over TLS, or the peer presents a certificate: with a certificate signed by `tls.ca_file`
  whose Subject Alternative Name is the destination's `host`;
- if it names no instance beside those asked for under its Transaction UID.

Any other report changes nothing. Of reports on several requests for an instance the one on the latest counts; of several
on one request, and of an instance that one report lists both ways, the failure.

| action of the destination | reaction of the node |
|---|---|
| reports success | the results are *committed* |
| reports failures | the node sends these instances again and requests commitment again, until they are committed \
or `delivery.give_up_days` are over: then the delivery has *failed*; after {permanent_reasons} it fails at once. No query \
changes this |
| reports nothing for `delivery.commitment_wait_seconds`, default {delivery.commitment_wait_seconds:.0f} s; rejects \
the presentation context; refuses the N-ACTION; reports on some instances only | the node queries the destination \
(C-FIND, Study Root, IMAGE level); if it lists all of them in their study and series, the results are *present*, which is \
less than committed; those that it does not list are sent again, and commitment is requested again |
| does not answer queries, either | the results stay *delivered*, with the reason |

Statuses answered to N-EVENT-REPORT:

{report_statuses}

### DICOMweb

A destination with `protocol = "dicomweb"` gets its results by STOW-RS (PS3.18 10.5), one instance per request, as
`application/dicom`. The node accepts answers in `application/dicom+json`, and also reads XML. Redirects are not
followed; no proxy is used. If the answer does not list an instance as stored, the node searches for it by QIDO-RS
before the instance counts as delivered. A Failure Reason is treated as the status of a C-STORE (above), but is always a
failure, except that of an instance stored before (0x0111, 0xB00E), if the search finds it. Without one, these HTTP statuses are final, and requests with any other are repeated: {permanent_http}.

## 4. Instances that glionode reads

Everything is decided before the networks run. *Taken*: the images are read as one volume, voxel for voxel. *Split*: the
parts of the series are judged like series; the one chosen is named in the evidence, and results refer to its images
alone. *Refused*: the series is passed over for the next best; if there is none, the study is refused with the reason,
which names the attribute. Three readers (dicom2nifti, highdicom, GDCM) must agree about places and pixel values.

### Kinds of instances

| instances of a series | outcome |
|---|---|
| MR Image Storage, one plane each, in any order, under any Instance Numbers | taken |
| one Enhanced MR or Legacy Converted Enhanced MR instance; geometry in shared or per-frame groups; frames in any \
order, in several stacks that make one even volume | taken; references name the frames |
| Enhanced MR with one frame in each instance; a concatenation (PS3.3 C.7.6.16.2.2.4) | taken |
| Enhanced MR Color, RGB, PALETTE COLOR, several samples per pixel | refused: Photometric Interpretation |
| several frames in an MR Image Storage instance | refused |
| Siemens mosaic (all slices as tiles of one image) | refused |
| secondary captures, presentation states, reports, raw data, DICOMDIR in the study | not used; they harm nothing |
| a file that is truncated, is no DICOM under the name `.dcm`, or lacks one of the UIDs or Modality | the study is \
refused, with the file: nobody knows whether a series is complete |
| instances of two studies in one folder | refused |

### Several images in one series

Only a series that may be one of the four contrasts is split, at most into {most_parts} parts.

| images of a series | outcome |
|---|---|
| dual echo: two Echo Times or Echo Numbers (proton density and T2) | split; the echo that is a T2 by its timing |
| magnitude and phase, or other Image Types, Frame Types or Complex Image Components | split |
| several inversion times or b-values | split |
| temporal positions, acquisitions or trigger times | split; a phase of a dynamic T1 is neither T1 nor T1c |
| a scan that was broken off and begun again under another Acquisition Number | split; the complete acquisition |
| several orientations, matrices, pixel spacings, SOP classes or Frames of Reference | split |
| a survey, a text page, a plane without geometry | put aside |
| an image stored twice with equal pixels (one, or up to a tenth of the series) | put aside |
| two images at one position that differ, and no attribute says in what | refused |

### Geometry

| planes | outcome |
|---|---|
| oblique, sagittal, coronal; Pixel Spacing that differs between rows and columns | taken |
| slice gaps that differ by less than {gap_percent:.0f} % | taken |
| a slice missing; two slabs with a gap; unequal gaps | refused |
| planes that shift beside their normal by more than {tolerance} mm over the stack (gantry tilt) | refused |
| Slice Location, Slice Thickness, Spacing Between Slices, Images in Acquisition or Patient Position that contradict \
the positions | taken; the positions count |
| cosines or Pixel Spacing that differ by rounding (less than 0.0001) | taken |
| Image Position, Image Orientation, Pixel Spacing, Rows or Columns missing, malformed (`0,5`, `nan`) or impossible | \
refused, with the tag |
| Frame of Reference UID missing, or another one than that of the T1c | refused |
| fewer than {min_slices} slices, or less than {min_coverage:.0f} mm of coverage | refused |

### Pixels

| pixel data | outcome |
|---|---|
| implicit, explicit, big-endian and deflated encoding; RLE, JPEG, JPEG-LS, JPEG 2000 as far as both decoders read \
them; offset tables or none; several fragments in a frame | taken |
| 8, 16 or 32 bits allocated; fewer bits stored, signed or not; overlays in unused bits | taken |
| High Bit other than Bits Stored - 1; a description that is missing or malformed | refused, with the tag |
| MONOCHROME1 | taken; values are not inverted |
| Rescale Slope and Intercept, for the series or for each image | applied |
| Rescale Slope that is 0, negative or no number | refused, with the tag |
| Real World Value Mapping, overlays, icons, presentation attributes | not used |
| Pixel Padding Value and Range Limit | padding gets the least value of the image |
| fewer bytes than the header says; a row or a frame more than it says | refused |
| lossy compressed, marked as such | taken; the segmentation says so (Lossy Image Compression) |

### Texts, names and dates

A value that results copy and the standard forbids is repaired if its meaning is certain (`2024.01.02`, a code in lower
case), else left out; the report says which attributes. Patient's Name, Patient ID or a UID that is invalid, or differs
between instances of the T1c, refuses the study with the tag.

## 5. Instances that glionode makes

| | segmentation | report |
|---|---|---|
| SOP class | Segmentation Storage | Enhanced SR Storage |
| content | BINARY, three nested segments, on the grid of the T1c series (PS3.3 A.51) \
| TID 1500, one TID 1411 group per segment, volumes in mL; if there is \
evidence for surgery, each group has a time point (TID 1502) of type Post-operative (SCT 262061000, CID 6146) |
| patient, study, frame of reference | as in the source | as in the source; the segments are referenced |
| UIDs | `2.25.` from a digest of input, model and settings (PS3.5 B.2): the same input gives the same UIDs \
| as for the segmentation |
| Series Number | 9801 | 9802 |
| character set | as in the source | as in the source |
| verification | – | Verification Flag UNVERIFIED: no person has verified the report |

Values of the source that the standard forbids are not copied: a Patient's Sex other than M, F, O is left empty.

## 6. Services that glionode does not offer

Storage commitment as SCP, query and retrieve as SCP, retrieve as SCU, modality worklist, MPPS, DICOMweb as a service.

## 7. Security

### Transport: TLS profiles of PS3.15 B

`tls.profile` holds for the listener, for destinations by DICOM and for those by DICOMweb over https. Both profiles
speak TLS 1.3 (preferred) and TLS 1.2, nothing older (RFC 8996), and follow RFC 9325.

| | `bcp195` (the default) | `bcp195-non-downgrading` |
|---|---|---|
| profile of PS3.15 | B.12, BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile | B.10, Non-Downgrading BCP \
195 TLS Secure Transport Connection Profile (retired), for peers configured by it |
| cipher suites of TLS 1.3 | those of OpenSSL: AES-256-GCM, AES-128-GCM, ChaCha20-Poly1305 | the same |
| cipher suites of TLS 1.2 | {suites} | also {more_suites} |

| property | value |
|---|---|
| key exchange | ephemeral: curves of 256 bits and more (P-256, P-384, P-521, X25519, X448); Diffie-Hellman only in \
`bcp195-non-downgrading`, where the listener uses the group ffdhe3072 of RFC 7919, and a destination's has 2048 bits or \
more |
| keys of certificates, the node's and peers' | RSA of {rsa_bits} bits or more, elliptic curves of {ec_bits} bits or \
more; signed with SHA-256 or better |
| CBC, RC4, 3DES, NULL, export, anonymous and static suites | never |
| compression, renegotiation, session tickets, 0-RTT | never; a TLS 1.2 session may be resumed by its session ID |
| unencrypted peer at a TLS port | the connection is closed; nothing is upgraded (no STARTTLS) |
| peer that does not do the handshake | its connection is closed after 10 s |
| revocation lists, OCSP | not checked |
| name in a certificate | a destination's must be `destination.host`; that of a peer that connects is not compared |
| key management | PEM files, read when the node starts and for each delivery; the node makes no keys and renews no \
certificates. `glionode check` and the log name those that have expired or will within 30 days |
| port | `scp.port`, default {scp.port}; 2762 (dicom-tls) is recommended |
| integrity check that fails | the connection is closed: A-P-ABORT, without a provider reason of its own |

The Modified BCP 195 profile (PS3.15 B.13) is not claimed: it requires CCM suites that Python's TLS does not offer.

### Audit trail: PS3.15 A.5 and A.6

With `audit.enabled`, the node tells of these events; it receives no audit messages.

| event | EventID, type | when | action, outcome |
|---|---|---|---|
{audit_events}

Not told of: instances that were refused (the log and the C-STORE status say so), storage commitment, studies deleted by
retention, and user authentication, since the status page has no login.

| property | value |
|---|---|
| format | the DICOM audit message schema (PS3.15 A.5.1), without extensions; one message concerns one study |
| AuditSourceID | `node.station_name`; AuditSourceTypeCode 4 (application server process) |
| UserID of the node | the process id, as in the system's log; AlternativeUserID `AETITLES=` and `scp.ae_title` |
| UserID of a peer | its AE title (by DICOMweb: its URL without credentials), before an association its address |
| patient | Patient ID, as A.5.3 requires, unless `audit.patient_id` is false; no name, no birth date |
| study | Study Instance UID, number of instances by SOP class; instances are not listed |
| files | `node.folder/audit/<date>-<host>-<process>.log`, mode 0600: one syslog message (RFC 5424) a line, written \
before the event is over; flushed to the disk once a second; the node deletes none |
| syslog (A.6) | to `audit.syslog_host`, `audit.syslog_port` (default {audit_port}): RFC 5425 over TLS by `tls.profile`, \
with the certificate of `[tls]`; facility 10, severity 5, MSGID `DICOM+RFC3881`, no STRUCTURED-DATA; a message is as \
long as it is, a few kilobytes |
| collector that is away | the messages wait in the files and are sent later, in their order; a message may come twice |
| message that cannot be written | counted in `glionode_audit_messages_lost_total` and logged; reception goes on |
"""


def _bullets(uids: Iterable[str]) -> str:
    return "\n".join(f"- {uid.name} (`{uid}`)" for uid in uids)


def _audit_events() -> str:
    rows = (
        (APPLICATION_ACTIVITY, APPLICATION_START, "receiver or worker starts", "E, 0"),
        (APPLICATION_ACTIVITY, APPLICATION_STOP, "receiver or worker stops in good order", "E, 0"),
        (INSTANCES_TRANSFERRED, None, "an association that brought instances has ended, for each study",
         "C (R: held before), 0"),
        (BEGIN_TRANSFERRING, None, "an attempt to send results to a destination begins", "E, 0"),
        (INSTANCES_TRANSFERRED, None, "it has ended, for the results stored and for those not", "C, 0 or 8"),
        (QUERY, None, "each C-FIND request of the node", "E, 0 or 8"),
        (SECURITY_ALERT, NODE_AUTHENTICATION, "a peer is not let in, by its address, TLS or AE title; told once a minute",
         "E, 4"),
    )  # fmt: skip
    return "\n".join(
        f"| {code.meaning} | {code.value}{f', {kind.value} {kind.meaning}' if kind else ''} | {when} | {result} |"
        for code, kind, when, result in rows
    )


def _suites(names: Iterable[str]) -> str:
    return ", ".join(names)


def _sop_classes() -> str:
    rows = [(Verification, "yes", "yes"), *((uid, "yes", "–") for uid in STORAGE_SOP_CLASSES)]
    rows += [(SegmentationStorage, "–", "yes"), (EnhancedSRStorage, "–", "yes")]
    rows += [(StorageCommitmentPushModel, "–", "yes"), (StudyRootQueryRetrieveInformationModelFind, "–", "yes")]
    return "\n".join(f"| {uid.name} | `{uid}` | {scp} | {scu} |" for uid, scp, scu in rows)


def _rejections() -> str:
    after = {
        WRONG_WORKLIST_ENTRY: "stays withdrawn, unless it is a correction (above); corrected images under new UIDs are "
        "new instances",
        EXPIRED: "is input again: its archive only deleted it",
    }
    rows = []
    for code, meaning in REJECTIONS.items():
        reported = "stay as they are" if code == EXPIRED else "reported anew, or refused"
        rows.append(f"| {code} {meaning} | {after.get(code, 'stays withdrawn, whatever differs')} | {reported} |")
    return "\n".join(rows)


def _scp_statuses() -> str:
    rows = [f"| 0x{status.code:04X} | {status.name} | {status.when_used} |" for status in STATUSES]
    return "\n".join(["| status | meaning | when |", "|---|---|---|", *rows])


def _report_statuses() -> str:
    rows = [f"| 0x{status.code:04X} | {status.name} | {status.when_used} |" for status in REPORT_STATUSES]
    return "\n".join(["| status | meaning | when |", "|---|---|---|", *rows])


def _scu_statuses() -> str:
    """Every status, classified by the sender; consecutive codes with one meaning share a row."""

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
        limits=limits,
        associate_rq_kibibytes=limits.ASSOCIATE_RQ_BYTES >> 10,
        document_mebibytes=limits.DOCUMENT_BYTES >> 20,
        command_set_kibibytes=limits.COMMAND_SET_BYTES >> 10,
        report_kibibytes=limits.REPORT_BYTES >> 10,
        reports_kibibytes=limits.REPORTS_BYTES >> 10,
        version=__version__,
        sop_classes=_sop_classes(),
        implementation_uid=PYNETDICOM_IMPLEMENTATION_UID,
        implementation_version=PYNETDICOM_IMPLEMENTATION_VERSION,
        scp=ScpSection(),
        request_seconds=REQUEST_SECONDS,
        delivery=DeliverySection(),
        verification_syntaxes=_bullets(build_context(Verification).transfer_syntax),
        rejections=_rejections(),
        scp_statuses=_scp_statuses(),
        scu_statuses=_scu_statuses(),
        report_statuses=_report_statuses(),
        same_association=SAME_ASSOCIATION_SECONDS,
        permanent_reasons=" and ".join(describe_failure(reason) for reason in sorted(PERMANENT_REASONS)),
        permanent_http=", ".join(str(int(code)) for code in sorted(PERMANENT)),
        most_parts=MOST_PARTS,
        gap_percent=100 * SPACING_TOLERANCE,
        tolerance=POSITION_TOLERANCE_MM,
        min_slices=MIN_SLICES,
        min_coverage=MIN_COVERAGE_MM,
        explicit=ExplicitVRLittleEndian.name,
        explicit_uid=f"`{ExplicitVRLittleEndian}`",
        implicit=ImplicitVRLittleEndian.name,
        implicit_uid=f"`{ImplicitVRLittleEndian}`",
        suites=_suites(CIPHER_SUITES["bcp195"]),
        more_suites=_suites(each for each in CIPHER_SUITES["bcp195-non-downgrading"] if each.startswith("DHE-")),
        audit_events=_audit_events(),
        audit_port=AuditSection().syslog_port,
        rsa_bits=LEAST_RSA_BITS,
        ec_bits=LEAST_EC_BITS,
    )


if __name__ == "__main__":
    FILE.write_text(statement(), encoding="utf-8")
