"""Sends files once to a destination, by its protocol: C-STORE or STOW-RS."""

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
        InstanceRefused: the file meta of a file lacks the SOP class, the SOP instance or the transfer syntax.
        OSError: a file cannot be read.
    """
    if isinstance(destination, WebDestination):
        # most nodes have no such destination, and need not load the HTTP client
        from node.scu.stow import store_instances

        return store_instances(destination, files, timeout_seconds)
    return send_instances(destination, calling_ae_title, files, timeout_seconds)
