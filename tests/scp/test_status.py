"""The table of statuses of the C-STORE response."""

from __future__ import annotations

import dataclasses

import pytest
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from node.scp.status import OUT_OF_RESOURCES, STATUSES, SUCCESS


def test_statuses_belong_to_the_storage_service():
    """Every status is one that PS3.4 B.2.3 or PS3.7 Annex C allows in a C-STORE response."""
    assert {status.code for status in STATUSES} <= set(STORAGE_SERVICE_CLASS_STATUS)


def test_statuses_are_distinct_and_explained():
    """No code is used twice, and each status says when it is used."""
    assert len({status.code for status in STATUSES}) == len(STATUSES)
    assert all(status.name and status.when_used for status in STATUSES)
    assert (SUCCESS.code, OUT_OF_RESOURCES.code) == (0x0000, 0xA700)


def test_statuses_cannot_be_changed():
    """The statuses are immutable."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SUCCESS.code = 1
