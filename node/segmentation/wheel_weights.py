"""The weights of the brain mask, which lie in deepbet's wheel: verified before they are loaded.

They are TorchScript, which is code: a changed file would run as whoever runs the worker. Each is read once, and the
bytes that were verified are the bytes that are loaded.
"""

from __future__ import annotations

import hashlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from node.errors import ModelPackError

DISTRIBUTION, VERSION = "deepbet", "1.0.2"
SHA256 = {
    "data/models/model.pt": "de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd",
    "data/models/bbox_model.pt": "39a7b2b5f799faa1391ea97bfcdc0b9299f20d84f2316a4ff8918dc4685e40aa",
}
"""File of the wheel to its digest, for version `VERSION`, which pyproject.toml pins."""


def verified_weights(file: str) -> io.BytesIO:
    """The content of ``file``, a key of `SHA256`.

    Raises:
        ModelPackError: the file is missing, or is not the one of the pinned version; the text names it and the version.
    """
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise ModelPackError(f"brain mask: {DISTRIBUTION} {VERSION} is not installed") from None
    path = Path(str(installed.locate_file(file)))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelPackError(f"brain mask: {path}: {error.strerror}; install {DISTRIBUTION} {VERSION} again") from None
    if hashlib.sha256(content).hexdigest() != SHA256[file]:
        raise ModelPackError(
            f"brain mask: {path} is not the file of {DISTRIBUTION} {VERSION} (installed: {installed.version});"
            f" install {DISTRIBUTION} {VERSION} again"
        )
    return io.BytesIO(content)
