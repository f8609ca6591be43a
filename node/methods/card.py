"""Cards of the model packs: the kinds that there are, and where cards lie. torch is not imported here.

A card lies in one of three places: in ``cards/`` if the pack is to be fetched (``glionode models pull``), beside its
weights in ``weights/`` if it is shipped, and as ``card.toml`` in the pack's folder if an admin installed it (``glionode
models add``). A name that glionode itself knows means its own pack.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from node.errors import ModelPackError
from node.methods.card_fields import (
    NAME,
    Card,
    CardSection,
    Exposure,
    Grid,
    PackFile,
    Region,
    first_fault,
    subset_name,
)

__all__ = [
    "CARD",
    "KINDS",
    "Card",
    "CascadeCard",
    "DropoutCard",
    "ExportedCard",
    "Exposure",
    "FolderCard",
    "ForeignCard",
    "Grid",
    "NetworkSection",
    "PackFile",
    "card_file_names",
    "card_names",
    "pack_folder",
    "parse_card",
    "read_card",
    "read_card_file",
    "require_foreign",
    "subset_name",
]  # fmt: skip

CARD = "card.toml"

_PULLED, _SHIPPED = Path(__file__).parent / "cards", Path(__file__).parent / "weights"


class _OwnCard(Card):
    """A pack whose method works in the axes of the node's own grid."""

    @model_validator(mode="after")
    def _check_grid(self) -> _OwnCard:
        if self.grid.orientation != "LPS":
            raise ValueError(f"grid.orientation: packs of the kind {self.kind} have LPS")
        return self


class CascadeCard(_OwnCard):
    """The networks of the published cascade; ``networks``: name to (checkpoint, variable scope)."""

    kind: Literal["cascade"]
    source_url: str = Field(pattern="^https?://.+/$")
    tensors_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    networks: Mapping[str, tuple[str, str]]

    @property
    def is_own(self) -> bool:
        """See `Card.is_own`; only such packs are of this kind."""
        return True


class DropoutCard(_OwnCard):
    """Networks of our own, as ``glionode train`` writes them.

    Attributes:
        folds: the labelled cases that each network did not see in training; each saw those of all other folds.
        accuracy: mean Dice of cases held out, by contrasts at hand (``held_out.SUBSETS``), then by region; each case by
            the network that did not see it.
        measured_by: the command that gives ``accuracy``.
    """

    kind: Literal["dropout_net"]
    files: tuple[PackFile] = Field()
    measured_by: str
    widths: tuple[int, ...] = Field(min_length=1)
    blocks: tuple[int, ...] = Field(min_length=1)
    steps: int
    folds: tuple[tuple[str, ...], ...] = Field(min_length=1)
    accuracy: Mapping[str, Mapping[Region, float]] = Field(default_factory=dict)

    def exposure(self, case_name: str) -> Exposure:
        """As `Card.exposure`: together the networks saw every case of all folds."""
        return Exposure.SEEN if self.fold_of(case_name) else super().exposure(case_name)

    def fold_of(self, case_name: str) -> int | None:
        """The fold (from 1) that holds the case out; None if the case is not one of training's."""
        for number, names in enumerate(self.folds, 1):
            if case_name in names:
                return number
        return None


class ForeignCard(Card):
    """A pack of other software: a network with one input, whose channels are the needed contrasts in their order."""

    files: tuple[PackFile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_channels(self) -> ForeignCard:
        if self.optional:
            raise ValueError(f"optional: a network of the kind {self.kind} needs all its channels")
        return self


class FolderCard(ForeignCard):
    """A folder as other software wrote it: a MONAI bundle, or a results folder of nnU-Net."""

    kind: Literal["monai-bundle", "nnunet-v2"]


class NetworkSection(CardSection):
    """How volumes enter a TorchScript or ONNX network, and how its output is read.

    Attributes:
        normalisation: of each channel; ``zscore_nonzero``: mean 0 and standard deviation 1 over voxels that are not 0.
        window_xyz: size of the sliding window in voxels, in the order of the network's axes; none: the whole volume.
        overlap: share of a window that the next one covers again, 0 to below 1.
        blend: weight of overlapping windows, as MONAI's ``SlidingWindowInferer`` has it.
        multiple_of: without window, each axis is padded by zeros at its end to a multiple of this.
        activation: what turns the output into probabilities. With ``softmax``, channel 0 is the background.
    """

    normalisation: Literal["none", "zscore_nonzero"] = "zscore_nonzero"
    window_xyz: tuple[int, int, int] | None = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
    blend: Literal["constant", "gaussian"] = "constant"
    multiple_of: int = Field(default=1, ge=1, le=512)
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"

    @model_validator(mode="after")
    def _check_window(self) -> NetworkSection:
        if self.window_xyz is not None and min(self.window_xyz) < 1:
            raise ValueError("window_xyz: positive whole numbers are wanted")
        return self


class ExportedCard(ForeignCard):
    """A network in one file, TorchScript or ONNX, with the section ``[network]``."""

    kind: Literal["torchscript", "onnx"]
    files: tuple[PackFile] = Field()
    network: NetworkSection


KINDS: Mapping[str, type[Card]] = {
    "cascade": CascadeCard, "dropout_net": DropoutCard, "monai-bundle": FolderCard, "nnunet-v2": FolderCard,
    "torchscript": ExportedCard, "onnx": ExportedCard,
}  # fmt: skip
"""Kind to the card that such packs have."""


def read_card(name: str, models_folder: Path | None = None) -> Card:
    """The card of pack ``name``: glionode's own, or that of a pack in ``models_folder``.

    Raises:
        ModelPackError: there is no such pack, or its card is wrong; the text names file and key.
    """
    if re.fullmatch(NAME, name):
        if (_PULLED / f"{name}.toml").is_file():
            return read_card_file(_PULLED / f"{name}.toml")
        if (_SHIPPED / name / CARD).is_file():
            return read_card_file(_SHIPPED / name / CARD).model_copy(update={"is_shipped": True})
        if models_folder is not None and (models_folder / name / CARD).is_file():
            return _installed_card(models_folder / name)
    known = ", ".join(card_names(models_folder))
    raise ModelPackError(f"no model pack '{name}'; known: {known}. Others are installed by: glionode models add FOLDER")


def _installed_card(folder: Path) -> Card:
    card = read_card_file(folder / CARD)
    if card.name != folder.name:
        raise ModelPackError(f"{folder / CARD}: name: '{card.name}' is not the name of its folder")
    require_foreign(card, folder / CARD)
    return card


def require_foreign(card: Card, file: Path) -> None:
    """Make sure that an admin may install the pack whose card is in ``file``.

    Raises:
        ModelPackError: the card says that the pack is one of glionode's own; names the key.
    """
    if card.is_own:
        key = "is_shipped" if card.is_shipped else "kind"
        raise ModelPackError(f"{file}: {key}: only a pack of glionode's own has this")


def read_card_file(file: Path) -> Card:
    """The card in ``file``; the files that it names are not read.

    Raises:
        ModelPackError: there is no card, or a key of it is wrong; the text names file and key.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelPackError(f"{file}: {error.strerror}") from None
    return parse_card(content, file)


def parse_card(content: bytes, file: Path) -> Card:
    """The card whose text is ``content``.

    Args:
        file: names it in errors.

    Raises:
        ModelPackError: it is no TOML, or a key of it is wrong; the text names file and key.
    """
    try:
        values: dict[str, Any] = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelPackError(f"{file}: not TOML: {error}") from None
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelPackError(f"{file}: kind: is none of {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(values)
    except ValidationError as error:
        raise ModelPackError(f"{file}: {first_fault(error)}") from None


def pack_folder(card: Card, models_folder: Path) -> Path:
    """Where the pack's files lie."""
    return (_SHIPPED if card.is_shipped else models_folder) / card.name


def card_file_names() -> list[Path]:
    """The card files of the packs that glionode itself knows, sorted by pack."""
    files = {file.stem: file for file in _PULLED.glob("*.toml")}
    files |= {file.parent.name: file for file in _SHIPPED.glob(f"*/{CARD}")}
    return [files[name] for name in sorted(files)]


def card_names(models_folder: Path | None = None) -> list[str]:
    """All packs: those that glionode itself knows, and those with a card in ``models_folder``."""
    own = {file.parent.name if file.name == CARD else file.stem for file in card_file_names()}
    installed = [] if models_folder is None else [file.parent.name for file in models_folder.glob(f"*/{CARD}")]
    return sorted(own | {name for name in installed if re.fullmatch(NAME, name)})
