"""Packs that are fetched: a card of glionode's own, and weights elsewhere. Weights are verified before each use.

Such a pack is installed as ``<models>/<name>/``: the files that its card lists, as fetched, and
``weights.safetensors``, converted from them once. The card is shipped with glionode. It holds the SHA-256 of every
fetched file and one digest over all converted tensors, which is checked at each load.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from node.errors import ModelPackError, SourceUnreachableError
from node.methods.card import Card, CascadeCard, PackFile, read_card
from node.methods.pack_files import unreadable

if TYPE_CHECKING:
    from torch import Tensor

    from node.methods.network import MSNet, Precision

_WEIGHTS = "weights.safetensors"
_TRAINING_ONLY = ("Adam", "moving_mean", "moving_variance", "biased", "local_step", "beta1_power", "beta2_power")


def is_installed(name: str, models_folder: Path) -> bool:
    """True if the pack was fetched or added, or is shipped with glionode; its files are not verified here.

    A pack that was added and lost a file since counts as installed: a study that needs it fails, and is not answered by
    another method without a word.

    Raises:
        ModelPackError: there is no such pack, or its card is wrong.
    """
    card = read_card(name, models_folder)
    return not isinstance(card, CascadeCard) or (models_folder / name / _WEIGHTS).is_file()


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
        SourceUnreachableError: the address does not answer, or not with the file.
        ModelPackError: a file is not in the mirror folder or does not match the card; the pack is none that is fetched.
    """
    card = read_card(name, models_folder)
    if not isinstance(card, CascadeCard):
        place = "is shipped with glionode" if card.is_shipped else "was installed by hand"
        raise ModelPackError(f"model pack {name} {place}: there is nothing to fetch")
    folder = models_folder / name
    make_folder(folder)
    for file in card.files:
        if progress:
            progress(file.path)
        target = folder / file.path
        if target.is_file() and _sha256(target) == file.sha256:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(card, file, target, mirror)
    _convert(card, folder)
    let_all_read(folder)
    return folder


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, open to all readers: a pack holds nothing that is secret."""
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(0o755)


def let_all_read(folder: Path) -> None:
    """Let every account read the pack, whatever the umask: whoever installs it, the service's account uses it."""
    for path in (folder, *folder.rglob("*")):
        wanted = 0o755 if path.is_dir() else 0o644
        if path.stat().st_mode & wanted != wanted:
            path.chmod(wanted)


def _fetch(card: CascadeCard, file: PackFile, target: Path, mirror: str) -> None:
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
        raise SourceUnreachableError(
            f"{url} cannot be reached ({type(error).__name__}). Where a copy of the pack is at hand, say so: "
            "GLIONODE_MODEL_MIRROR=<folder or URL> glionode models pull anisotropic_nets_brats17"
        ) from None


def _convert(card: CascadeCard, folder: Path) -> None:
    """Convert checkpoints to one safetensors file, by network and layer; verify it before it gets its final name."""
    import torch
    from safetensors.torch import save_file

    from node.methods.tf_checkpoint import read_checkpoint

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


def _check_digest(card: CascadeCard, tensors: Mapping[str, Tensor]) -> None:
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
            differ from the card's digest; the pack is of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not isinstance(card, CascadeCard):
        raise ModelPackError(f"model pack {card.name} is of the kind {card.kind}, not cascade")
    weights_file = models_folder / card.name / _WEIGHTS
    try:
        weights_file.open("rb").close()  # safetensors says of a file that it may not read that there is none
    except FileNotFoundError:
        text = f"model pack {card.name} is not installed; run: glionode models pull {card.name}"
        raise ModelPackError(text) from None
    except OSError as error:
        raise ModelPackError(unreadable(card.name, weights_file, error)) from None
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


def load_networks(
    card: Card,
    models_folder: Path,
    device: str = "cpu",
    memory_bytes: int | None = None,
    precision: Precision = "float32",
) -> dict[str, MSNet]:
    """All networks of a pack, ready to run. For errors see ``load_weights``, for the arguments ``network.MSNet``."""
    from node.methods.network import MSNet

    weights = load_weights(card, models_folder)
    return {net: MSNet(tensors, device, memory_bytes, precision) for net, tensors in weights.items()}
