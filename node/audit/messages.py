"""Builds audit messages: XML by the DICOM audit message schema (PS3.15 A.5.1), in one line each."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from xml.etree.ElementTree import Element, SubElement, tostring

# XML 1.0 2.2 allows no other character
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value; its meaning is the text that the code's source gives it."""

    value: str
    meaning: str
    system: str = "DCM"


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    EXECUTE = "E"


class Outcome(StrEnum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


APPLICATION_ACTIVITY = Code("110100", "Application Activity")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")

APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")

APPLICATION = Code("110150", "Application")
DESTINATION_ROLE = Code("110152", "Destination Role ID")
SOURCE_ROLE = Code("110153", "Source Role ID")

STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
SOP_CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened; ``when`` is aware of its time zone."""

    code: Code
    action: Action
    outcome: Outcome
    when: datetime
    type_code: Code | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Participant:
    """An application that took part. ``address``: IP address or host name; empty: unknown."""

    user_id: str
    is_requestor: bool
    role: Code | None = None
    ae_title: str = ""
    name: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the event was about (ParticipantObjectIdentification).

    Attributes:
        type_code: 1 person, 2 system object.
        role: 1 patient, 3 report (which is what studies are), 13 security resource.
        query: the encoded query, for a query.
        details: pairs of type and value.
        instances: number of instances by SOP class UID.
    """

    type_code: str
    role: str
    id_type: Code
    id: str
    query: bytes | None = None
    details: Mapping[str, bytes] = field(default_factory=dict)
    instances: Mapping[str, int] = field(default_factory=dict)


def build_message(event: Event, participants: Sequence[Participant], source: str, subjects: Sequence[Subject]) -> bytes:
    """The message in UTF-8, without a line break. ``source``: the AuditSourceID, which names this node."""
    root = Element("AuditMessage")
    attributes = {
        "EventActionCode": event.action.value,
        "EventDateTime": event.when.isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": event.outcome.value,
    }
    identification = SubElement(root, "EventIdentification", attributes)
    _add_code(identification, "EventID", event.code)
    if event.type_code:
        _add_code(identification, "EventTypeCode", event.type_code)
    if event.description:
        SubElement(identification, "EventOutcomeDescription").text = _clean(" ".join(event.description.split()))
    for participant in participants:
        _add_participant(root, participant)
    audit_source = SubElement(root, "AuditSourceIdentification", {"AuditSourceID": _clean(source)})
    SubElement(audit_source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
    for subject in subjects:
        _add_subject(root, subject)
    message: bytes = tostring(root, encoding="utf-8", xml_declaration=False)
    return message


def _add_code(parent: Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    SubElement(parent, name, attributes)


def _add_participant(root: Element, participant: Participant) -> None:
    attributes = {"UserID": _clean(participant.user_id)}
    if participant.ae_title:
        attributes["AlternativeUserID"] = f"AETITLES={_clean(participant.ae_title)}"
    if participant.name:
        attributes["UserName"] = _clean(participant.name)
    attributes["UserIsRequestor"] = str(participant.is_requestor).lower()
    if participant.address:
        attributes["NetworkAccessPointID"] = _clean(participant.address)
        attributes["NetworkAccessPointTypeCode"] = _kind_of(participant.address)
    element = SubElement(root, "ActiveParticipant", attributes)
    if participant.role:
        _add_code(element, "RoleIDCode", participant.role)


def _add_subject(root: Element, subject: Subject) -> None:
    attributes = {
        "ParticipantObjectID": _clean(subject.id),
        "ParticipantObjectTypeCode": subject.type_code,
        "ParticipantObjectTypeCodeRole": subject.role,
    }
    element = SubElement(root, "ParticipantObjectIdentification", attributes)
    _add_code(element, "ParticipantObjectIDTypeCode", subject.id_type)
    if subject.query is None:
        SubElement(element, "ParticipantObjectName")  # the schema requires it; a patient's name is never told
    else:
        SubElement(element, "ParticipantObjectQuery").text = base64.b64encode(subject.query).decode()
    for kind, value in subject.details.items():
        SubElement(element, "ParticipantObjectDetail", {"type": kind, "value": base64.b64encode(value).decode()})
    if subject.instances:
        description = SubElement(element, "ParticipantObjectDescription")
        for sop_class_uid, count in sorted(subject.instances.items()):
            SubElement(description, "SOPClass", {"UID": _clean(sop_class_uid), "NumberOfInstances": str(count)})


def _kind_of(address: str) -> str:
    """NetworkAccessPointTypeCode: 1 machine name, 2 IP address."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "1"
    return "2"


def _clean(text: str) -> str:
    """``text`` without the characters that XML cannot hold."""
    return _FORBIDDEN.sub("\ufffd", text)
