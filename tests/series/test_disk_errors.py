"""A disk that cannot read a file now says nothing of the file: the study is not refused, it is looked at again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import make_small_study, write_small_study

from node.errors import InstanceRefused, StorageError
from node.series import images
from node.series.fact_reader import read_facts
from node.series.headers import read_study
from node.series.patient import read_patient_values
from node.study import Series

READERS: dict[str, Callable[[Series], Any]] = {
    "node.series.fact_reader": read_facts,
    "node.series.patient": lambda series: read_patient_values(series.instances[0]),
    "node.series.images": images.read_images,
}


@pytest.mark.parametrize("module", READERS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_an_error_of_the_disk_refuses_no_study(
    module: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named as such, with the file; what pydicom finds wrong with the file's content still refuses it."""
    series = read_study(write_small_study(tmp_path, make_small_study())).series[0]

    def failing(error: OSError) -> Callable[..., Any]:
        def read(*_: Any, **__: Any) -> Any:
            raise error

        return read

    monkeypatch.setattr(f"{module}.dcmread", failing(OSError(number, "cannot")))
    with pytest.raises(StorageError, match=r"\.dcm cannot be read now: cannot"):
        READERS[module](series)
    monkeypatch.setattr(f"{module}.dcmread", failing(OSError("no DICOM")))
    with pytest.raises(InstanceRefused):
        READERS[module](series)
