"""Specific Character Set (PS3.3 C.12.1.1.2): how texts are decoded, and in which set a result is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import charset


@contextmanager
def pydicom_tables_kept() -> Iterator[None]:
    """Restore pydicom's tables of character sets after the block, also if the block raises.

    Importing some libraries changes these tables for the whole process, after which names in ISO 2022 IR 58 and IR 159
    are decoded to other characters. The tables are restored in place, since other modules hold references to them.
    """
    tables = (charset.python_encoding, charset.CODES_TO_ENCODINGS, charset.ENCODINGS_TO_CODES)
    kept = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, before in zip(tables, kept, strict=True):
            table.clear()
            table.update(before)
