"""Deterministic UIDs: the same inputs, model and settings give the same SOP Instance UIDs.

UIDs are UUID-derived (PS3.5 B.2): ``2.25.`` followed by the decimal form of a 128-bit value, here an RFC 9562
version 8 (custom) UUID filled from SHA-256, so that no UID root needs to be registered and no UID is random.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_UID_BUT_FOR_ZEROS = re.compile(r"[0-9]+(\.[0-9]+)+")
MAX_UID_LENGTH = 64  # PS3.5 9.1


# at least three components, so that a decimal number does not match; _IPV4 excludes addresses
_UID_LIKE = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+){2,}")
_IPV4 = re.compile(r"(?:[3-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])(?:\.(?:0|[1-9][0-9]{0,2})){3}")
"""An IPv4 address that is no UID: a UID begins with 0, 1 or 2 (ISO/IEC 9834-1)."""


def shortened(text: str) -> str:
    """``text`` with each UID replaced by an ellipsis and the last four characters of the UID."""
    return _UID_LIKE.sub(lambda found: found[0] if _IPV4.fullmatch(found[0]) else f"…{found[0][-4:]}", text)


def digest(parts: Iterable[str]) -> str:
    """Hex SHA-256 over ``parts``, each length-prefixed so that ("ab", "c") differs from ("a", "bc")."""
    sha = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        sha.update(f"{len(encoded)}:".encode())
        sha.update(encoded)
    return sha.hexdigest()


def derived_uid(*parts: str) -> str:
    """A UID that depends only on ``parts``."""
    raw = bytearray(hashlib.sha256(digest(parts).encode()).digest()[:16])
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return f"2.25.{uuid.UUID(bytes=bytes(raw)).int}"


def is_valid_uid(text: str) -> bool:
    """True if ``text`` is a UID by PS3.5 9.1: digits and dots, no leading zeros, at most 64 characters."""
    return len(text) <= MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def is_usable_uid(text: str) -> bool:
    """True if ``text`` is a UID by PS3.5 9.1, or would be without the leading zeros of its components.

    Such a text is as safe in a path as a valid UID: digits and single dots between them, at most 64 characters. It
    stands for itself: ``1.02.3`` and ``1.2.3`` are two UIDs, as in the archive that made them.
    """
    return len(text) <= MAX_UID_LENGTH and _UID_BUT_FOR_ZEROS.fullmatch(text) is not None
