"""Sends files once to a destination, whichever protocol it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node.scu.store import send_instances
from node.study import Destination, InstanceDelivery, WebDestination


def send_results(
    destination: Destination | WebDestination, calling_ae_title: str, files: Sequence[Path], timeout_seconds: float
) -> list[InstanceDelivery]:
    """Send ``files`` once, by C-STORE or STOW-RS; one delivery per file, in their order.

    Raises:
        InstanceRefused: a file has no file meta that names its SOP class, SOP instance and transfer syntax.
        OSError: a file cannot be read.
    """
    if isinstance(destination, WebDestination):
        # most nodes have no such destination: the HTTP client is not loaded for nothing
        from node.scu.stow import store_instances

        return store_instances(destination, files, timeout_seconds)
    return send_instances(destination, calling_ae_title, files, timeout_seconds)
