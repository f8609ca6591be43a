"""Character sets: what is decoded from a source is what an independent reader decodes, whatever else is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydicom import charset

from node.dicom.character_sets import pydicom_tables_kept

IMPORTS = """
import importlib, json, sys
from pydicom import charset
tables = lambda: [dict(t) for t in (charset.python_encoding, charset.CODES_TO_ENCODINGS, charset.ENCODINGS_TO_CODES)]
before = tables()
for name in sys.argv[1:]:
    importlib.import_module(name)
changed = [key for old, new in zip(before, tables()) for key in {**old, **new} if old.get(key) != new.get(key)]
print(json.dumps(sorted(map(str, changed))))
"""


def changed_by_importing(*modules: str) -> list[str]:
    """The entries of pydicom's tables of character sets that importing ``modules`` changes in a fresh interpreter."""
    command = [sys.executable, "-c", IMPORTS, *modules]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return list(json.loads(done.stdout))


@pytest.mark.slow
def test_importing_the_converter_of_volumes_keeps_the_tables_of_pydicom() -> None:
    """The modules that read series leave each table of character sets as pydicom defines it."""
    assert changed_by_importing("node.segmentation.volume", "node.segmentation.seg_writer") == []


@pytest.mark.slow
def test_an_unprotected_import_of_dicom2nifti_changes_the_tables_of_pydicom() -> None:
    """The protection is needed: without it, dicom2nifti changes the sets of Chinese and supplementary Japanese."""
    assert {"ISO 2022 IR 58", "ISO 2022 IR 159"} <= set(changed_by_importing("dicom2nifti"))


@pytest.mark.parametrize("error", [None, ImportError])
def test_tables_of_pydicom_are_restored_in_place(error: type[Exception] | None) -> None:
    """A changed, an added and a deleted entry are restored in the same dictionary, also after an exception."""
    table, before = charset.python_encoding, dict(charset.python_encoding)

    def change() -> None:
        with pydicom_tables_kept():
            table["ISO 2022 IR 58"], table["ISO_IR 58"] = "GB2312", "GB2312"
            del table["ISO_IR 192"]
            if error is not None:
                raise error

    if error is None:
        change()
    else:
        with pytest.raises(error):
            change()
    assert charset.python_encoding is table
    assert table == before
