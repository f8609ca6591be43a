"""Packs of the kind monai-bundle: equal to MONAI's own inference, and no code of a pack is run."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_packs import write_card

from node.errors import ContentRefused, ModelPackError
from node.methods.card import CARD, Grid, read_card_file
from node.methods.monai_bundle import WEIGHTS, MonaiBundle
from node.methods.monai_config import CONFIG, read_config
from node.methods.pack_files import file_faults
from node.methods.segresnet import SegResNet, SegResNetShape
from node.study import Contrast

CONTRASTS = (Contrast.T1C, Contrast.T1, Contrast.T2, Contrast.FLAIR)
KIND = "monai-bundle"
REGIONS = ("tumour_core", "whole_tumour", "enhancing_tumour")


def config(**inferer: object) -> dict:
    """An inference config as the bundle has it, with a small window; what it does not read are expressions."""
    return {
        "imports": ["$import glob"],
        "device": "$torch.device('cuda:0')",
        "network_def": {
            "_target_": "SegResNet", "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1], "init_filters": 16,
            "in_channels": 4, "out_channels": 3, "dropout_prob": 0.2,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
            ],
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "sw_batch_size": 1, "overlap": 0.5}
        | inferer,
    }  # fmt: skip


def write_pack(folder: Path, values: dict, weights: object) -> Path:
    """A pack with a card that pins its files."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / CONFIG).write_text(json.dumps(values))
    torch.save(weights, folder / WEIGHTS)
    return write_card(folder, KIND, (CONFIG, WEIGHTS), needed=CONTRASTS, outputs=REGIONS)


def case(shape_zyx: tuple[int, int, int]) -> dict:
    """Random volumes inside a box; 0 outside."""
    rng = np.random.default_rng(5)
    volumes = {}
    for contrast in CONTRASTS:
        volume = np.zeros(shape_zyx, np.float32)
        inside = tuple(slice(2, size - 3) for size in shape_zyx)
        volume[inside] = rng.gamma(4, 50, volume[inside].shape)
        volumes[contrast] = volume
    return volumes


def random_weights() -> dict:
    """Random weights of the bundle's network."""
    torch.manual_seed(3)
    return SegResNet(SegResNetShape(16, 4, 3)).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("shape_zyx", [(21, 40, 36), (12, 40, 33)], ids=["larger", "one axis smaller"])
@pytest.mark.filterwarnings("ignore")
def test_bundle_equals_monai(tmp_path: Path, mode: str, shape_zyx: tuple[int, int, int]):
    """On random weights, probabilities and label map are those of MONAI's network, transform and inferer."""
    inferers = pytest.importorskip("monai.inferers", reason="MONAI is not installed (extra dev)")
    from monai.networks.nets import SegResNet as Theirs
    from monai.transforms import NormalizeIntensity

    torch.manual_seed(7)
    theirs = Theirs(
        blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), init_filters=16, in_channels=4, out_channels=3, dropout_prob=0.2
    ).eval()
    folder = write_pack(tmp_path / "pack", config(mode=mode), theirs.state_dict())
    volumes = case(shape_zyx)
    result = MonaiBundle(read_card_file(folder / CARD), folder).run(volumes)

    stack = np.stack([volumes[each].transpose(2, 1, 0) for each in CONTRASTS])
    normalised = torch.as_tensor(NormalizeIntensity(nonzero=True, channel_wise=True)(stack))[None]
    inferer = inferers.SlidingWindowInferer(roi_size=(32, 32, 16), sw_batch_size=1, overlap=0.5, mode=mode)
    with torch.inference_mode():
        expected = torch.sigmoid(inferer(normalised, theirs))[0].numpy().transpose(0, 3, 2, 1)
    brain = np.any([volumes[each] != 0 for each in CONTRASTS], axis=0)
    for region, probability in zip(REGIONS, expected, strict=True):
        np.testing.assert_allclose(result.probability_zyx[region], probability * brain, atol=1e-4)
    core, whole, enhancing = (expected > 0.5) & brain
    label = np.select([enhancing, core, whole], [4, 1, 2], 0)
    assert len(np.unique(label)) > 1
    assert (result.label_zyx == label).all()


def test_changed_weights_are_refused(tmp_path: Path):
    """A file that differs from the card is refused by name, before it is loaded."""
    folder = write_pack(tmp_path / "pack", config(), random_weights())
    assert not list(file_faults(read_card_file(folder / CARD), folder))
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelPackError, match=r"models/model\.pt differs from the card"):
        MonaiBundle(read_card_file(folder / CARD), folder)


class Opens:
    """An object whose unpickling would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def test_code_in_weights_is_refused_and_not_run(tmp_path: Path):
    """Weights whose pickle holds code are refused, although the card's digest matches, and the code does not run."""
    target = tmp_path / "ran"
    folder = write_pack(tmp_path / "pack", config(), {"weight": Opens(target)})
    with pytest.raises(ModelPackError, match=r"models/model\.pt: it holds more than weights"):
        MonaiBundle(read_card_file(folder / CARD), folder)
    assert not target.exists()
    pickle.loads(pickle.dumps(Opens(target)))
    assert target.exists()  # the trap works where it is loaded


@pytest.mark.parametrize("key", ["init_filters", "blocks_down", "_target_"])
def test_expression_in_config_is_refused_and_not_evaluated(tmp_path: Path, key: str):
    """An expression where a value is needed is refused by its key; nothing evaluates it."""
    values = config()
    values["network_def"][key] = f"$__import__('pathlib').Path('{tmp_path / 'ran'}').touch()"
    with pytest.raises(ModelPackError, match=rf"network_def\.{key} holds an expression"):
        read_config(json.dumps(values).encode(), Grid(spacing_mm=1, orientation="LPS"))
    assert not (tmp_path / "ran").exists()


def test_unknown_key_of_network_is_refused():
    """A key of the network that this method does not know is refused, not ignored."""
    values = config()
    values["network_def"]["act"] = "PRELU"
    with pytest.raises(ModelPackError, match=r"network_def\.act: is not supported"):
        read_config(json.dumps(values).encode(), Grid(spacing_mm=1, orientation="LPS"))


@pytest.mark.parametrize("path", ["../outside.pt", "/etc/hostname", "models/../../outside.pt"])
def test_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str):
    """A card that names a file outside its folder is refused."""
    folder = write_pack(tmp_path / "pack", config(), random_weights())
    write_card(folder, KIND, (CONFIG, path))
    with pytest.raises(ModelPackError, match=r"files\.1\.path: .*inside the pack's folder"):
        read_card_file(folder / CARD)


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path):
    """A link to a file outside the folder is refused, although the digest matches."""
    folder = write_pack(tmp_path / "pack", config(), random_weights())
    (folder / WEIGHTS).rename(tmp_path / "outside.pt")
    (folder / WEIGHTS).symlink_to(tmp_path / "outside.pt")
    (fault,) = file_faults(read_card_file(folder / CARD), folder)
    assert "models/model.pt leads outside" in fault
    with pytest.raises(ModelPackError, match="leads outside"):
        MonaiBundle(read_card_file(folder / CARD), folder)


def test_missing_contrast_is_refused(tmp_path: Path):
    """A case without one of the pack's contrasts is refused, and the text names it."""
    folder = write_pack(tmp_path / "pack", config(), random_weights())
    volumes = case((16, 32, 32))
    del volumes[Contrast.T2]
    with pytest.raises(ContentRefused, match="missing: T2"):
        MonaiBundle(read_card_file(folder / CARD), folder).run(volumes)
