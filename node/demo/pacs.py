"""A small PACS for the demonstration: it stores received instances and routes a study to the node. Loopback only."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from node.errors import DeliveryError
from node.scu.store import send_instances
from node.study import Destination

HOST = "127.0.0.1"
_SUCCESS, _CANNOT_UNDERSTAND = 0x0000, 0xC000
_ANSWER_SECONDS = 30.0


class EmbeddedPacs:
    """Storage SCP and SCU in one, as a context manager; ``port`` must be free."""

    def __init__(self, ae_title: str, port: int, folder: Path) -> None:
        self.destination = Destination("demo-pacs", ae_title, HOST, port)
        self._folder = folder
        self._arrived = threading.Condition()
        self._stored: dict[str, Path] = {}

    def __enter__(self) -> EmbeddedPacs:
        self._folder.mkdir(parents=True, exist_ok=True)
        ae = AE(self.destination.ae_title)
        ae.supported_contexts = AllStoragePresentationContexts[:128]
        for sop_class in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.22", Verification):
            ae.add_supported_context(sop_class)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_ECHO, lambda _: _SUCCESS)]
        self._server = ae.start_server((HOST, self.destination.port), block=False, evt_handlers=handlers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        modality = event.dataset.get("Modality")
        if modality is None:
            return _CANNOT_UNDERSTAND
        file = self._folder / f"{modality}.dcm"
        file.write_bytes(event.encoded_dataset())
        with self._arrived:
            self._stored[modality] = file
            self._arrived.notify_all()
        return _SUCCESS

    def wait_for(self, modality: str, timeout_seconds: float) -> Path | None:
        """The file of the last stored instance of ``modality``; None if none arrives within ``timeout_seconds``."""
        with self._arrived:
            self._arrived.wait_for(lambda: modality in self._stored, timeout_seconds)
            return self._stored.get(modality)

    def route(self, files: Sequence[Path], node: Destination) -> int:
        """Send MR instances to the node, as automatic routing in a PACS does; return their number.

        Raises:
            DeliveryError: the node does not accept the association, or refuses an instance.
        """
        for delivery in send_instances(node, self.destination.ae_title, files, _ANSWER_SECONDS):
            if not delivery.is_delivered:
                raise DeliveryError(f"the node did not take {delivery.sop_instance_uid}: {delivery.reason}")
        return len(files)
