"""Model packs: fetched, verified, converted, and never loaded unverified."""

from __future__ import annotations

import http.server
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from node.errors import ModelPackError
from node.methods.card import card_names, read_card
from node.methods.packs import is_installed, load_networks, pull
from node.methods.registry import verify
from node.methods.tf_checkpoint import read_checkpoint

NAME = "anisotropic_nets_brats17"


@pytest.fixture
def installed(models_folder: Path, tmp_path: Path) -> Path:
    """A copy of the installed pack that a test may spoil."""
    shutil.copytree(models_folder / NAME, tmp_path / NAME)
    return tmp_path


def test_every_card_is_complete() -> None:
    """A card names its licence, reference, use, training data and files with SHA-256."""
    for name in card_names():
        card = read_card(name)
        assert card.name == name
        assert all((card.licence, card.reference, card.intended_use, card.training_data, card.files))
        assert all(len(file.sha256) == 64 and (file.size_bytes or card.is_shipped) for file in card.files)


def test_an_unknown_pack_is_named() -> None:
    """The error lists what there is."""
    with pytest.raises(ModelPackError, match=NAME):
        read_card("nonsense")


def test_an_installed_pack_verifies(models_folder: Path) -> None:
    """What was pulled matches its card."""
    verify(NAME, models_folder)


@pytest.mark.slow
def test_a_mirror_folder_may_hold_the_pack_itself_or_a_folder_of_packs(models_folder: Path, tmp_path: Path) -> None:
    """Both layouts are found, and nothing is fetched from the network."""
    for number, mirror in enumerate((models_folder, models_folder / NAME)):
        pull(NAME, tmp_path / str(number), str(mirror))
        assert is_installed(NAME, tmp_path / str(number))


@pytest.mark.slow
def test_a_mirror_may_be_a_url(models_folder: Path, tmp_path: Path) -> None:
    """A plain web server that holds the files serves as a mirror."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(models_folder / NAME))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            pull(NAME, tmp_path, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    verify(NAME, tmp_path)


def test_an_unreachable_url_says_which_command_mends_it(tmp_path: Path) -> None:
    """Nobody answers there; the text names the variable and the command."""
    with pytest.raises(ModelPackError, match=r"GLIONODE_MODEL_MIRROR=.* glionode models pull"):
        pull(NAME, tmp_path, "http://127.0.0.1:9/nothing")


def test_a_file_that_is_not_the_cards_is_refused(installed: Path, tmp_path: Path) -> None:
    """One changed byte in the mirror: nothing is installed, the file is named."""
    spoiled = installed / NAME / "model17" / "msnet_tc32_20000.ckpt.index"
    spoiled.write_bytes(spoiled.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelPackError, match=r"msnet_tc32_20000\.ckpt\.index: SHA-256"):
        pull(NAME, tmp_path / "new", str(installed))
    assert not is_installed(NAME, tmp_path / "new")


def test_changed_weights_are_not_loaded(installed: Path) -> None:
    """The converted weights are checked at each load, too."""
    file = installed / NAME / "weights.safetensors"
    tensors = load_file(file)
    tensors["wt_axial/fuse1.gamma"] = tensors["wt_axial/fuse1.gamma"] + np.float32(1e-6)
    save_file(tensors, file)
    with pytest.raises(ModelPackError, match="not those of its card"):
        load_networks(read_card(NAME), installed)


def test_a_broken_weights_file_is_named(installed: Path) -> None:
    """A truncated file is an error of the pack, not a crash."""
    (installed / NAME / "weights.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelPackError, match=r"weights\.safetensors"):
        load_networks(read_card(NAME), installed)


def test_a_pack_that_is_not_there_names_the_command(tmp_path: Path) -> None:
    """Loading before pulling says how to pull."""
    with pytest.raises(ModelPackError, match="glionode models pull"):
        load_networks(read_card(NAME), tmp_path)


def test_checkpoints_hold_what_the_paper_counts(models_folder: Path) -> None:
    """214,470 numbers for whole tumour and core, 204,396 for enhancing tumour, besides what training left."""
    training = ("Adam", "moving_", "biased", "local_step", "_power")
    for net, count in (("wt32", 214_470), ("tc32sg", 214_470), ("en32cr", 204_396)):
        variables = read_checkpoint(models_folder / NAME / "model17" / f"msnet_{net}_20000.ckpt")
        assert sum(v.size for k, v in variables.items() if not any(part in k for part in training)) == count


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """Any other file is an error of the pack, not a crash."""
    (tmp_path / "x.ckpt.index").write_bytes(b"hello" * 20)
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ModelPackError, match=r"x\.ckpt\.index"):
        read_checkpoint(tmp_path / "x.ckpt")
