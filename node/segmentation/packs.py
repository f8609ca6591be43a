"""Model packs: a card and weights. Weights are verified before each use.

A pack is installed as ``<models>/<name>/``: the files that its card lists, as fetched, and ``weights.safetensors``,
converted from them once. The card is shipped with glionode. It holds the SHA-256 of every fetched file and one digest
over all converted tensors, which is checked at each load.
"""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from node.errors import ModelPackError
from node.study import Software

if TYPE_CHECKING:
    from torch import Tensor

    from node.segmentation.network import MSNet, Precision

_WEIGHTS = "weights.safetensors"
_TRAINING_ONLY = ("Adam", "moving_mean", "moving_variance", "biased", "local_step", "beta1_power", "beta2_power")


@dataclass(frozen=True, slots=True)
class PackFile:
    """A file of a pack as published: path relative to the source, SHA-256, size."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Card:
    """Description and origin of a pack. ``networks``: name to (checkpoint, variable scope)."""

    name: str
    version: str
    method: str
    reference: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    intended_use: str
    licence: str
    training_data: str
    measured_accuracy: str
    source_url: str
    tensors_sha256: str
    networks: Mapping[str, tuple[str, str]]
    files: tuple[PackFile, ...]

    def software(self, **parameters: str) -> Software:
        """Algorithm identification for SEG and SR."""
        return Software(name=self.name, version=self.version, parameters=parameters)


def read_card(name: str) -> Card:
    """The card shipped for pack ``name``.

    Raises:
        ModelPackError: there is no such pack.
    """
    if name not in card_names():
        raise ModelPackError(f"no model pack '{name}'; known: {', '.join(card_names())}")
    values = tomllib.loads((resources.files("node.segmentation") / "cards" / f"{name}.toml").read_text("utf-8"))
    values["inputs"], values["outputs"] = tuple(values["inputs"]), tuple(values["outputs"])
    values["networks"] = {net: (ckpt, scope) for net, (ckpt, scope) in values["networks"].items()}
    values["files"] = tuple(PackFile(file["path"], file["sha256"], file["bytes"]) for file in values["files"])
    return Card(**values)


def card_names() -> list[str]:
    """All packs that glionode knows."""
    folder = resources.files("node.segmentation") / "cards"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def is_installed(name: str, models_folder: Path) -> bool:
    """True if the pack's converted weights exist; they are not verified here."""
    return (models_folder / name / _WEIGHTS).is_file()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pull(name: str, models_folder: Path, mirror: str = "", progress: Callable[[str], None] | None = None) -> Path:
    """Fetch, verify and convert pack ``name``; a file that exists with the right digest is not fetched again.

    Args:
        mirror: a folder or URL to fetch from instead of the published address. It has the layout of upstream; a mirror
            folder may also hold a folder of that layout that is named after the pack.
        progress: called with the path of each file.

    Returns:
        the pack's folder.

    Raises:
        ModelPackError: a file cannot be fetched or does not match the card.
    """
    card = read_card(name)
    folder = models_folder / name
    _make_folder(folder)
    for file in card.files:
        if progress:
            progress(file.path)
        target = folder / file.path
        if target.is_file() and _sha256(target) == file.sha256:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(card, file, target, mirror)
    _convert(card, folder)
    _let_all_read(folder)
    return folder


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, open to all readers: a pack holds nothing that is secret."""
    if not folder.parent.is_dir():
        _make_folder(folder.parent)
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(0o755)


def _let_all_read(folder: Path) -> None:
    """Let every account read the pack, whatever the umask: whoever installs it, the service's account uses it."""
    for path in (folder, *folder.rglob("*")):
        wanted = 0o755 if path.is_dir() else 0o644
        if path.stat().st_mode & wanted != wanted:
            path.chmod(wanted)


def _fetch(card: Card, file: PackFile, target: Path, mirror: str) -> None:
    temporary = target.with_name(target.name + ".part")
    if mirror and "://" not in mirror:
        _copy(card, file, temporary, Path(mirror))
    else:
        _download((mirror.rstrip("/") + "/" if mirror else card.source_url) + file.path, temporary)
    if _sha256(temporary) != file.sha256:
        temporary.unlink()
        raise ModelPackError(f"{file.path}: SHA-256 differs from the card of pack {card.name}")
    temporary.replace(target)


def _copy(card: Card, file: PackFile, target: Path, mirror: Path) -> None:
    for source in (mirror / card.name / file.path, mirror / file.path):
        if source.is_file():
            shutil.copyfile(source, target)
            return
    raise ModelPackError(f"{file.path}: not in the mirror folder {mirror}")


def _download(url: str, target: Path) -> None:
    import pooch  # imported here, since only downloads need it and the import is slow
    import requests

    try:
        pooch.HTTPDownloader(timeout=30)(url, str(target), None)
    except requests.RequestException as error:
        target.unlink(missing_ok=True)
        raise ModelPackError(
            f"{url} cannot be reached ({type(error).__name__}). Where a copy of the pack is at hand, say so: "
            "GLIONODE_MODEL_MIRROR=<folder or URL> glionode models pull anisotropic_nets_brats17"
        ) from None


def _convert(card: Card, folder: Path) -> None:
    """Convert checkpoints to one safetensors file, by network and layer; verify it before it gets its final name."""
    import torch
    from safetensors.torch import save_file

    from node.segmentation.tf_checkpoint import read_checkpoint

    tensors: dict[str, Tensor] = {}
    for net, (checkpoint, scope) in card.networks.items():
        for name, array in read_checkpoint(folder / checkpoint).items():
            if any(part in name for part in _TRAINING_ONLY):
                continue
            tensor = torch.from_numpy(array)
            if tensor.ndim == 5:  # TensorFlow's [kd, kh, kw, in, out] ([.., out, in] if transposed) to PyTorch's order
                tensor = tensor.permute(4, 3, 0, 1, 2).contiguous()
            tensors[f"{net}/{_layer_name(name.removeprefix(scope + '/'))}"] = tensor
    _check_digest(card, tensors)
    temporary = folder / (_WEIGHTS + ".part")
    save_file(tensors, temporary, metadata={"pack": card.name, "version": card.version})
    temporary.replace(folder / _WEIGHTS)


def _layer_name(variable: str) -> str:
    """``block1_1/prelu_acti_0/alpha`` to ``block1_1.bn_0.alpha``; ``fuse1_bn_prelu/conv_/w`` to ``fuse1.weight``."""
    *scopes, leaf = variable.split("/")
    kind = {"w": "weight"}.get(leaf, leaf)
    layer = scopes[0].removesuffix("_bn_prelu")
    if len(scopes) == 1 or scopes[0].endswith("_bn_prelu"):
        return f"{layer}.{kind}"
    return f"{layer}.{scopes[1].replace('prelu_acti', 'bn')}.{kind}"


def _check_digest(card: Card, tensors: Mapping[str, Tensor]) -> None:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(f"{name} {tuple(tensors[name].shape)} ".encode())
        sha.update(tensors[name].numpy().tobytes())
    if sha.hexdigest() != card.tensors_sha256:
        raise ModelPackError(f"model pack {card.name}: the weights are not those of its card")


def load_weights(card: Card, models_folder: Path) -> dict[str, dict[str, Tensor]]:
    """Network to its tensors by name, verified against the card.

    Raises:
        ModelPackError: the pack is not installed (the message names the command), or its weights are unreadable or
            differ from the card's digest.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights_file = models_folder / card.name / _WEIGHTS
    try:
        weights_file.open("rb").close()  # safetensors says of a file that it may not read that there is none
    except FileNotFoundError:
        text = f"model pack {card.name} is not installed; run: glionode models pull {card.name}"
        raise ModelPackError(text) from None
    except OSError as error:
        raise ModelPackError(_unreadable(card.name, weights_file, error)) from None
    try:
        tensors = load_file(weights_file)
    except SafetensorError as error:
        raise ModelPackError(f"model pack {card.name}: {_WEIGHTS} cannot be read: {error}") from None
    _check_digest(card, tensors)
    weights: dict[str, dict[str, Tensor]] = {net: {} for net in card.networks}
    for name, tensor in tensors.items():
        net, _, layer = name.partition("/")
        weights[net][layer] = tensor
    return weights


def _unreadable(name: str, file: Path, error: OSError) -> str:
    cure = f"; run: chmod -R a+rX {file.parent}" if isinstance(error, PermissionError) else ""
    return f"model pack {name}: {file}: {error.strerror}{cure}"


def load_networks(
    card: Card,
    models_folder: Path,
    device: str = "cpu",
    memory_bytes: int | None = None,
    precision: Precision = "float32",
) -> dict[str, MSNet]:
    """All networks of a pack, ready to run. For errors see ``load_weights``, for the arguments ``network.MSNet``."""
    from node.segmentation.network import MSNet

    weights = load_weights(card, models_folder)
    return {net: MSNet(tensors, device, memory_bytes, precision) for net, tensors in weights.items()}


def verify(name: str, models_folder: Path) -> None:
    """Check every file and the converted weights of an installed pack.

    Raises:
        ModelPackError: a file is missing or differs from the card; the message names it.
    """
    card = read_card(name)
    for file in card.files:
        target = models_folder / name / file.path
        try:
            found = _sha256(target)
        except FileNotFoundError:
            text = f"model pack {name}: {file.path} is missing; run: glionode models pull {name}"
            raise ModelPackError(text) from None
        except OSError as error:
            raise ModelPackError(_unreadable(name, target, error)) from None
        if found != file.sha256:
            raise ModelPackError(f"model pack {name}: {file.path} differs from the card")
    load_networks(card, models_folder)
