"""Packs that an admin installs from a folder of their own; nothing of them is loaded here, or run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from node.errors import ModelPackError
from node.methods.card import CARD, Card, card_names, parse_card, require_foreign
from node.methods.pack_files import file_faults, verified_file
from node.methods.packs import let_all_read, make_folder


def add_pack(folder: Path, models_folder: Path, card_file: Path | None = None) -> Card:
    """Install the pack in ``folder``: its card, and copies of the files that the card lists; returns the card.

    The pack is there with all its files, or not at all: they are copied into a folder aside, which is then renamed.

    Args:
        card_file: the card; None: ``card.toml`` of ``folder``.

    Raises:
        ModelPackError: the card is wrong, its name is taken, or files are missing or differ from it; names each.
        OSError: the copies cannot be written.
    """
    file = card_file or folder / CARD
    content = _read(file)
    card = parse_card(content, file)
    require_foreign(card, file)
    if card.name in card_names(models_folder) or (models_folder / card.name).exists():
        raise ModelPackError(f"{file}: name: there is a pack '{card.name}' already; delete it, or choose another name")
    faults = list(file_faults(card, folder))
    if faults:
        raise ModelPackError("; ".join(faults))
    make_folder(models_folder)
    # its name begins with a dot, which that of no pack does
    aside = Path(tempfile.mkdtemp(prefix=f".{card.name}.", dir=models_folder))
    try:
        for each in card.files:
            _write(aside / each.path, verified_file(card, folder, each.path).read())  # what is copied was verified
        _write(aside / CARD, content)
        let_all_read(aside)
        aside.rename(models_folder / card.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return card


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelPackError(f"{file}: {error.strerror}") from None


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
