"""UIDs in texts: which digits are recognized as a UID, and how a UID is shortened."""

from __future__ import annotations

import pytest

from node.dicom.uids import derived_uid, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.2.840.113619.2.5.1762", "…1762"),
        ("holds 2 studies: 1.2.3.45678, 2.25.98765", "holds 2 studies: …5678, …8765"),
        (
            "/var/spool/1.2.840.10008.5/1.3.12.22.dcm: Permission denied",
            "/var/spool/…08.5/…2.22.dcm: Permission denied",
        ),
        ("PACS at 10.1.2.3:104 cannot be reached", "PACS at 10.1.2.3:104 cannot be reached"),
        ("PACS at 192.168.0.17:11112", "PACS at 192.168.0.17:11112"),
        (
            "slices every 5.25 mm, 0.5 s; 2024-01-02 03:04:05.678",
            "slices every 5.25 mm, 0.5 s; 2024-01-02 03:04:05.678",
        ),
        ("99.1.2.3.4567", "…4567"),
        ("", ""),
    ],
)
def test_uids_are_shortened_and_nothing_else(text: str, shown: str) -> None:
    """Three or more dotted numbers are a UID anywhere in a text; decimal numbers, times and IPv4 addresses are none."""
    assert shortened(text) == shown


def test_own_uids_are_shortened() -> None:
    """A derived UID is shortened, too."""
    uid = derived_uid("a", "b")
    assert shortened(f"replaces the report ({uid})") == f"replaces the report (…{uid[-4:]})"
