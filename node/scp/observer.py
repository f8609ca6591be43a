"""Collects what each association brought, and tells of it when the association has ended; tells of peers refused."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable

from pynetdicom.association import Association

from node.scp.instance_identity import Identity
from node.study import Peer, Transfer

_Key = tuple[str, str, bool]
"""A study, the patient of its instances that arrived, and whether they were held before."""


class Observer:
    """Tells ``on_received`` of each study that an association brought, and ``on_refused`` of each peer not let in.

    Neither may raise or wait. Nothing is collected for associations whose instances nobody wants to hear of.
    """

    def __init__(self, on_received: Callable[[Peer, Transfer], None], on_refused: Callable[[Peer, str], None]) -> None:
        self._on_received = on_received
        self.peer_refused = on_refused
        self._lock = threading.Lock()
        self._counts: defaultdict[Association, dict[_Key, Counter[str]]] = defaultdict(dict)

    def instance_stored(self, association: Association, identity: Identity, is_known: bool) -> None:
        """An instance was stored, or was held before. Its file is not read again: it may inflate to any size."""
        key = (identity.study_instance_uid, identity.patient_id, is_known)
        with self._lock:
            counts = self._counts[association].setdefault(key, Counter())
            counts[identity.sop_class_uid] += 1

    def association_ended(self, association: Association) -> None:
        """Tell of what the association brought."""
        with self._lock:
            studies = self._counts.pop(association, {})
        for (study, patient_id, is_known), instances in studies.items():
            transfer = Transfer(study, patient_id, dict(instances), is_known)
            self._on_received(peer_of(association), transfer)


def peer_of(association: Association) -> Peer:
    """The peer that opened ``association``; without its AE title if it has not told it."""
    request = association.requestor.primitive
    return Peer(str(request.calling_ae_title).strip() if request else "", str(association.requestor.address))
