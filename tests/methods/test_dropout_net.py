"""The method of our own networks: which exams it takes, and what it gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from node.errors import ContentRefused, ModelPackError
from node.methods.card import CARD
from node.methods.contract import REGIONS
from node.methods.dropout_net import DropoutNet
from node.methods.dropout_pack import SHIPPED, WEIGHTS, load_networks, read_dropout_card
from node.methods.dropout_unet import CHANNELS, DropoutUNet
from node.study import Contrast

SHAPE = (40, 36, 44)


@pytest.fixture
def volumes() -> dict[Contrast, np.ndarray]:
    random = np.random.default_rng(5)
    grid = np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) / 2
    brain = (grid**2).sum(0) < 16**2
    return {each: (random.uniform(50, 150, SHAPE) * brain).astype(np.float32) for each in CHANNELS}


@pytest.fixture
def method() -> DropoutNet:
    torch.manual_seed(0)
    return DropoutNet({name: DropoutUNet((8, 8), (1, 1)) for name in ("one", "two")})


def test_every_subset_with_t1c_is_answered_on_its_own_grid(method: DropoutNet, volumes: dict):
    """T1c alone gives all regions, nested, with probability 0 outside the brain."""
    result = method.run({Contrast.T1C: volumes[Contrast.T1C]})
    assert result.label_zyx.shape == SHAPE
    whole, core, enhancing = (result.probability_zyx[region] for region in REGIONS)
    assert (core <= whole + 1e-6).all()
    assert (enhancing <= core + 1e-6).all()
    assert not whole[volumes[Contrast.T1C] == 0].any()


def test_scale_of_intensities_does_not_matter(method: DropoutNet, volumes: dict):
    """Intensities have no unit in MR: a contrast times ten gives the same probabilities."""
    once = method.run(volumes).probability_zyx["whole_tumour"]
    scaled = {**volumes, Contrast.T2: volumes[Contrast.T2] * 10}
    assert np.allclose(once, method.run(scaled).probability_zyx["whole_tumour"], atol=1e-4)


def test_missing_contrast_is_told_from_one_that_is_constant_zero_mean(method: DropoutNet, volumes: dict):
    """A contrast that is left out changes the answer: the networks are told what is there."""
    without = {each: volume for each, volume in volumes.items() if each is not Contrast.FLAIR}
    one, other = (method.run(each).probability_zyx["whole_tumour"] for each in (volumes, without))
    assert not np.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("contrast", "volume"), [(Contrast.T1C, None), (Contrast.T2, 0.0), (Contrast.T2, np.nan)])
def test_exam_without_t1c_or_with_an_empty_contrast_is_refused(method: DropoutNet, volumes: dict, contrast, volume):
    """The refusal names the contrast that is missing, empty or not finite."""
    if volume is None:
        del volumes[contrast]
    else:
        volumes[contrast] = np.full(SHAPE, volume, np.float32)
    with pytest.raises(ContentRefused, match=str(contrast)):
        method.run(volumes)


def test_slabs_keep_the_grid_where_memory_is_short(volumes: dict):
    """With little memory the exam is computed in slabs of slices, and the answer has the exam's grid all the same."""
    torch.manual_seed(0)
    tall = {each: np.concatenate([volume] * 3) for each, volume in volumes.items()}
    result = DropoutNet({"one": DropoutUNet((8, 8), (1, 1))}, memory_bytes=1).run(tall)
    assert result.label_zyx.shape == (120, 36, 44)
    assert result.probability_zyx["whole_tumour"][tall[Contrast.T1C] > 0].all()


def test_shipped_weights_are_those_of_their_card_and_small():
    """The pack inside the package loads, verified by digest, and takes less than 10 MB."""
    card = read_dropout_card(SHIPPED)
    assert len(load_networks(card, SHIPPED)) == len(card.folds)
    assert (SHIPPED / WEIGHTS).stat().st_size < 10_000_000


def test_weights_of_another_run_are_refused(tmp_path):
    """Weights that are not those of the card are never loaded."""
    (tmp_path / CARD).write_bytes((SHIPPED / CARD).read_bytes())
    (tmp_path / WEIGHTS).write_bytes(b"others")
    with pytest.raises(ModelPackError, match=r"weights\.safetensors differs from the card"):
        load_networks(read_dropout_card(tmp_path), tmp_path)
