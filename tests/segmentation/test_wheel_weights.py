"""Weights that are code are loaded only if they are the known ones."""

from __future__ import annotations

import hashlib
import io
import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

from node.errors import ModelPackError
from node.segmentation import wheel_weights
from node.segmentation.wheel_weights import DISTRIBUTION, SHA256, VERSION, verified_weights

ROOT = Path(__file__).parents[2]


class Wheel:
    """An installed distribution in ``folder``."""

    version = "9.9"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, file: str) -> Path:
        """The path of a file of the wheel."""
        return self.folder / file


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """The distribution that the code finds."""
    found = Wheel(tmp_path)
    monkeypatch.setattr(wheel_weights, "distribution", lambda _name: found)
    return found


def test_digests_are_those_of_the_pinned_version():
    """pyproject.toml pins the version that the digests belong to, and the installed files have them."""
    assert f'"{DISTRIBUTION}=={VERSION}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert distribution(DISTRIBUTION).version == VERSION
    for file, digest in SHA256.items():
        assert hashlib.sha256(verified_weights(file).getvalue()).hexdigest() == digest


def test_every_code_of_the_wheel_has_a_digest():
    """No other TorchScript lies in the wheel than those with a digest."""
    files = [str(file) for file in distribution(DISTRIBUTION).files or ()]
    assert {file for file in files if re.search(r"\.(pt|pth|pkl|ckpt)$", file)} == set(SHA256)


@pytest.mark.parametrize("file", SHA256)
def test_changed_weights_are_not_loaded(wheel, file):
    """A file with one byte more is an error that names the file, the pinned version and the installed one."""
    path = wheel.folder / file
    path.parent.mkdir(parents=True)
    path.write_bytes(verified_bytes(file) + b"\0")
    expected = rf"{re.escape(str(path))} is not the file of deepbet {VERSION} \(installed: 9.9\)"
    with pytest.raises(ModelPackError, match=expected):
        verified_weights(file)


def test_missing_weights_are_named(wheel):
    """A missing file is an error that names it and the version to install."""
    with pytest.raises(ModelPackError, match=rf"model.pt: No such file or directory; install deepbet {VERSION} again"):
        verified_weights("data/models/model.pt")


def test_brain_mask_loads_only_verified_bytes(monkeypatch):
    """The brain mask hands the verified bytes to the loader, never a path that could change in between."""
    from node.segmentation import brain

    loaded = []
    monkeypatch.setattr(brain, "BrainExtraction", lambda **arguments: loaded.append(arguments))
    brain._extraction("cpu")
    (arguments,) = loaded
    assert {arguments["model_path"].getvalue(), arguments["bbox_model_path"].getvalue()} == {
        verified_bytes(file) for file in SHA256
    }
    assert all(isinstance(arguments[name], io.BytesIO) for name in ("model_path", "bbox_model_path"))


def verified_bytes(file: str) -> bytes:
    """What the real wheel holds."""
    return Path(str(distribution(DISTRIBUTION).locate_file(file))).read_bytes()
