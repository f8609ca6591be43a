"""The events that the node tells of, each as one audit message (PS3.15 A.5.3)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

from node.audit import messages as m
from node.audit.trail import AuditTrail
from node.study import Destination, Peer, Transfer, WebDestination

_ALERT_SECONDS = 60.0
_MOST_ALERTS = 1024
_IMPLICIT_VR_LITTLE_ENDIAN = b"1.2.840.10008.1.2"


def _now() -> datetime:
    return datetime.now().astimezone()


class Auditor:
    """Tells ``trail`` of events. No method raises or waits for more than one write.

    Args:
        station: node.station_name, by which messages name their source.
        ae_title: the node's AE title.
        has_patient_id: whether messages name the patient, as PS3.15 A.5.3 requires.
    """

    def __init__(self, trail: AuditTrail, name: str, station: str, ae_title: str, has_patient_id: bool) -> None:
        self._trail = trail
        self._name = name
        self._station = station
        self._ae_title = ae_title
        self._has_patient_id = has_patient_id
        self._alerts = _AlertLimit()

    def application_started(self) -> None:
        """Application Activity, Application Start."""
        self._application(m.APPLICATION_START)

    def application_stopped(self) -> None:
        """Application Activity, Application Stop."""
        self._application(m.APPLICATION_STOP)

    def instances_received(self, peer: Peer, transfer: Transfer) -> None:
        """DICOM Instances Transferred: an association brought instances of one study."""
        source = _of_peer(peer, is_requestor=True, role=m.SOURCE_ROLE)
        own = self._own(is_requestor=False, role=m.DESTINATION_ROLE)
        # PS3.15 A.5.3.7: read where the receiver held the instances before
        action = m.Action.READ if transfer.is_known else m.Action.CREATE
        event = m.Event(m.INSTANCES_TRANSFERRED, action, m.Outcome.SUCCESS, _now())
        self._write(event, (source, own), self._studies(transfer))

    def sending(self, destination: Destination | WebDestination, transfer: Transfer) -> None:
        """Begin Transferring DICOM Instances: an attempt to send results begins."""
        event = m.Event(m.BEGIN_TRANSFERRING, m.Action.EXECUTE, m.Outcome.SUCCESS, _now())
        self._write(event, self._from_here_to(destination), self._studies(transfer))

    def sent(self, destination: Destination | WebDestination, transfer: Transfer, reason: str | None) -> None:
        """DICOM Instances Transferred: these results were stored, or were not, with the reason."""
        outcome = m.Outcome.SUCCESS if reason is None else m.Outcome.SERIOUS_FAILURE
        event = m.Event(m.INSTANCES_TRANSFERRED, m.Action.CREATE, outcome, _now(), description=reason or "")
        self._write(event, self._from_here_to(destination), self._studies(transfer))

    def queried(self, destination: Destination, sop_class_uid: str, query: bytes, reason: str | None) -> None:
        """Query: the node asked a destination. ``query``: the identifier, encoded in Implicit VR Little Endian."""
        outcome = m.Outcome.SUCCESS if reason is None else m.Outcome.SERIOUS_FAILURE
        event = m.Event(m.QUERY, m.Action.EXECUTE, outcome, _now(), description=reason or "")
        details = {"TransferSyntax": _IMPLICIT_VR_LITTLE_ENDIAN}
        subject = m.Subject("2", "3", m.SOP_CLASS_UID, sop_class_uid, query=query, details=details)
        self._write(event, self._from_here_to(destination), (subject,))

    def peer_refused(self, peer: Peer, reason: str) -> None:
        """Security Alert, Node Authentication: a peer was not let in. The same alert is told once a minute."""
        left_out = self._alerts.left_out(peer.address, reason)
        if left_out is None:
            return
        text = f"{reason} ({left_out} more since the last alert)" if left_out else reason
        event = m.Event(
            m.SECURITY_ALERT, m.Action.EXECUTE, m.Outcome.MINOR_FAILURE, _now(), m.NODE_AUTHENTICATION, text
        )
        own = self._own(is_requestor=False)
        details = {"Alert Description": text.encode(errors="replace")}
        subject = m.Subject("2", "13", m.NODE_ID, peer.address, details=details)
        self._write(event, (own, _of_peer(peer, is_requestor=False)), (subject,))

    def _application(self, kind: m.Code) -> None:
        event = m.Event(m.APPLICATION_ACTIVITY, m.Action.EXECUTE, m.Outcome.SUCCESS, _now(), kind)
        self._write(event, (self._own(is_requestor=False, role=m.APPLICATION),), ())

    def _own(self, *, is_requestor: bool, role: m.Code | None = None) -> m.Participant:
        return m.Participant(str(os.getpid()), is_requestor, role, self._ae_title, self._name, self._station)

    def _from_here_to(self, destination: Destination | WebDestination) -> tuple[m.Participant, m.Participant]:
        if isinstance(destination, WebDestination):
            parts = urlsplit(destination.url)
            url = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()  # no credentials
            host = parts.hostname or ""
            peer = m.Participant(url, False, m.DESTINATION_ROLE, name=destination.name, address=host)
        else:
            found = Peer(destination.ae_title, destination.host)
            peer = _of_peer(found, is_requestor=False, role=m.DESTINATION_ROLE)
        return self._own(is_requestor=True, role=m.SOURCE_ROLE), peer

    def _studies(self, transfer: Transfer) -> tuple[m.Subject, ...]:
        study = m.Subject(
            "2", "3", m.STUDY_INSTANCE_UID, transfer.study_instance_uid, instances=dict(transfer.instances)
        )
        if not self._has_patient_id:
            return (study,)
        return study, m.Subject("1", "1", m.PATIENT_NUMBER, transfer.patient_id)

    def _write(self, event: m.Event, participants: tuple[m.Participant, ...], subjects: tuple[m.Subject, ...]) -> None:
        self._trail.write(m.build_message(event, participants, self._station, subjects), event.when)


def _of_peer(peer: Peer, *, is_requestor: bool, role: m.Code | None = None) -> m.Participant:
    user_id = peer.ae_title or peer.address
    return m.Participant(user_id, is_requestor, role, peer.ae_title, address=peer.address)


class _AlertLimit:
    """Lets one alert per address and reason through in a minute: a peer that tries for ever must not fill the disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def left_out(self, address: str, reason: str) -> int | None:
        """How many alerts were left out since the last one; None if this one is to be left out."""
        now, key = self._clock(), (address, reason)
        with self._lock:
            last, count = self._told.get(key, (-_ALERT_SECONDS, 0))
            if now - last < _ALERT_SECONDS:
                self._told[key] = last, count + 1
                return None
            if len(self._told) >= _MOST_ALERTS:
                self._told = {each: told for each, told in self._told.items() if now - told[0] < _ALERT_SECONDS}
            if len(self._told) >= _MOST_ALERTS:
                return None  # the log has them all
            self._told[key] = now, 0
            return count
