"""A receiver in the test's own process, on a spool of its own; and what it must not leave behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults import free_port, wait_until
from instances import SERIES, STUDY, sop_instance_uid

from node.config_sections import ScpSection, TlsSection
from node.metrics import Metrics
from node.scp.handlers import StorageHandlers
from node.scp.observer import Observer
from node.scp.server import Receiver
from node.scp.spool import Spool
from node.study import Destination

SECONDS = 20.0


class ReceiverNode:
    """A receiver, to be started as a context manager. ``settings``: those of ``[scp]`` that the test needs."""

    def __init__(
        self, folder: Path, tls: TlsSection | None = None, observer: Observer | None = None, **settings: Any
    ) -> None:
        self.spool = Spool(folder)
        self.metrics = Metrics()
        defaults = {"port": free_port(), "network_timeout_seconds": SECONDS, "watermark_mebibytes": 1}
        self.section = ScpSection(**(defaults | {"tls": tls is not None} | settings))
        self.stored: list[tuple[str, str]] = []
        handlers = StorageHandlers(
            self.spool, self.metrics, self.section, lambda study, series: self.stored.append((study, series)), observer
        )
        self.receiver = Receiver(self.section, handlers, self.metrics, tls, observer=observer)
        self.destination = Destination("node", self.section.ae_title, self.section.host, self.section.port)

    def path(self, number: int = 1, series: str = SERIES, study: str = STUDY) -> Path:
        """Where an instance of the tests lies once received."""
        return self.spool.folder / study / series / f"{sop_instance_uid(number, series)}.dcm"

    def open_associations(self) -> float:
        """What the gauge shows."""
        return self.metrics.registry.get_sample_value("glionode_associations") or 0.0

    def files(self) -> list[str]:
        """Every file below the spool, those arriving included, by its path there."""
        folder = self.spool.folder
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def incoming(self) -> list[str]:
        """The files that are arriving."""
        return [name for name in self.files() if name.startswith(".incoming")]


def open_descriptors() -> int:
    """How many file descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def nothing_left(node: ReceiverNode) -> Iterator[None]:
    """After the block, in time, there are no more threads and descriptors than before, and no file that is arriving."""
    threads, descriptors = threading.active_count(), open_descriptors()
    yield
    wait_until(
        lambda: threading.active_count() <= threads and open_descriptors() <= descriptors and not node.incoming(),
        SECONDS,
    )
