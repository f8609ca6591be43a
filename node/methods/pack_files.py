"""The files of a pack against its card. torch is not imported here.

What is loaded is loaded from the very bytes that were verified: a file is read once.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from node.errors import ModelPackError
from node.methods.card import CARD, Card, PackFile


def verified_file(card: Card, folder: Path, path: str) -> io.BytesIO:
    """The content of a file that the card lists, read from the pack's ``folder``.

    Raises:
        ModelPackError: the card does not list it, or it is missing, leads outside the folder, or differs from the card.
    """
    listed = next((each for each in card.files if each.path == path), None)
    if listed is None:
        raise ModelPackError(f"model pack {card.name}: {CARD} lists no {path}")
    content = io.BytesIO()
    fault = _fault(card, folder, listed, content)
    if fault is not None:
        raise ModelPackError(fault)
    content.seek(0)
    return content


def file_faults(card: Card, folder: Path) -> Iterator[str]:
    """One sentence for each file of the card that is missing, unreadable, elsewhere, or another; nothing is loaded."""
    for each in card.files:
        fault = _fault(card, folder, each)
        if fault is not None:
            yield fault


def _fault(card: Card, folder: Path, listed: PackFile, content: io.BytesIO | None = None) -> str | None:
    """What is wrong with one file; ``content`` gets its bytes as they are hashed."""
    file, told = folder / listed.path, f"model pack {card.name}: {listed.path}"
    pull = f"; run: glionode models pull {card.name}" if card.kind == "cascade" else ""
    if not file.resolve().is_relative_to(folder.resolve()):
        return f"{told} leads outside the pack's folder"
    sha256 = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                sha256.update(block)
                if content is not None:
                    content.write(block)
    except FileNotFoundError:
        return f"{told} is missing{pull}"
    except OSError as error:
        return unreadable(card.name, file, error)
    return None if sha256.hexdigest() == listed.sha256 else f"{told} differs from the card"


def unreadable(name: str, file: Path, error: OSError) -> str:
    """That a file of pack ``name`` cannot be read, with the cure if its mode is the cause."""
    cure = f"; run: chmod -R a+rX {file.parent}" if isinstance(error, PermissionError) else ""
    return f"model pack {name}: {file}: {error.strerror}{cure}"
