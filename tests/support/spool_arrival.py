"""An instance arrives in a spool, as the receiver writes it."""

from __future__ import annotations

from instances import SERIES, sop_instance_uid

from node.scp.incoming import length_of_head
from node.scp.spool import Spool, StoreOutcome


def arrive(spool: Spool, study_instance_uid: str, content: bytes) -> StoreOutcome:
    """What ``spool`` makes of the first instance of ``SERIES``, whose file is ``content``."""
    head_bytes = length_of_head(content)
    incoming = spool.open_incoming(content[:head_bytes])
    try:
        incoming.write(content[head_bytes:])
        return spool.keep(study_instance_uid, SERIES, sop_instance_uid(1), incoming)
    finally:
        incoming.discard()
