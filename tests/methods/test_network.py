"""MSNet against TensorFlow's own answers, and its independence of how the work is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from node.errors import ModelPackError
from node.methods import network
from node.methods.card import read_card
from node.methods.network import MSNet, layer_names
from node.methods.packs import load_networks

# One random input and the logits of all nine published networks, computed by TensorFlow in float64 with the statistics
# of the batch; names of the checkpoints -> names of the model pack.
FIXTURE = Path(__file__).parent / "tf_float64_fixture.npz"
STAGES = {"wt": "wt", "tc": "tc", "en": "en"}
VIEWS = {"": "axial", "sg": "sagittal", "cr": "coronal"}
NETWORKS = {f"{stage}32{view}": f"{stage}_{name}" for stage in STAGES for view, name in VIEWS.items()}


@pytest.fixture(scope="module")
def networks(models_folder: Path) -> dict[str, MSNet]:
    return load_networks(read_card("anisotropic_nets_brats17"), models_folder)


@pytest.fixture(scope="module")
def fixture() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as stored:
        return dict(stored)


@pytest.mark.parametrize("checkpoint", NETWORKS)
def test_logits_equal_tensorflow_in_float64(
    checkpoint: str, networks: dict[str, MSNet], fixture: dict[str, np.ndarray]
) -> None:
    """Each of the nine networks is within 1e-3 of the original's logits in float64 (they range over +-20)."""
    logits = networks[NETWORKS[checkpoint]].logits(torch.from_numpy(fixture["x"]).float())
    assert np.abs(logits.numpy() - fixture[f"logits_{checkpoint}"]).max() < 1e-3


@pytest.mark.parametrize("pixels", [1, 1440, 10**9])
def test_logits_do_not_depend_on_the_block_size(
    pixels: int, networks: dict[str, MSNet], fixture: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cutting the slices into other blocks changes rounding only."""
    x = torch.from_numpy(fixture["x"]).float()
    monkeypatch.setattr(network, "_CPU_BLOCK_PIXELS", pixels)
    for name in ("wt_axial", "en_axial"):
        checkpoint = next(key for key, value in NETWORKS.items() if value == name)
        difference = np.abs(networks[name].logits(x).numpy() - fixture[f"logits_{checkpoint}"]).max()
        assert difference < 1e-3


def test_two_evaluations_are_bit_identical(networks: dict[str, MSNet], fixture: dict[str, np.ndarray]) -> None:
    """The same input gives the same bits again."""
    x = torch.from_numpy(fixture["x"]).float()
    net = networks["tc_sagittal"]
    assert torch.equal(net.logits(x), net.logits(x))


@pytest.mark.slow
def test_bfloat16_operands_stay_close(models_folder: Path, fixture: dict[str, np.ndarray]) -> None:
    """Lower precision moves logits by tenths of their range of +-20, not by more, and the answer is float32."""
    nets = load_networks(read_card("anisotropic_nets_brats17"), models_folder, precision="bfloat16")
    for checkpoint, name in NETWORKS.items():
        logits = nets[name].logits(torch.from_numpy(fixture["x"]).float())
        assert logits.dtype == torch.float32
        assert 0 < np.abs(logits.numpy() - fixture[f"logits_{checkpoint}"]).mean() < 0.1


def test_statistics_stay_exact_far_from_zero(networks: dict[str, MSNet], fixture: dict[str, np.ndarray]) -> None:
    """An offset that batch normalisation removes does not cost precision, as a naive sum of squares would."""
    x = torch.from_numpy(fixture["x"]).float()
    net = networks["wt_axial"]
    # the first layer normalises each channel, so a constant added to a channel must not matter
    shifted = x + torch.tensor([1000.0, -500.0, 250.0, 0.0])
    assert (net.logits(shifted) - net.logits(x)).abs().max() < 0.02


@pytest.mark.parametrize("shape", [(1, 8, 8, 8, 4), (1, 9, 6, 8, 4), (1, 9, 8, 8, 3)])
def test_an_unusable_shape_is_named(shape: tuple[int, ...], networks: dict[str, MSNet]) -> None:
    """Too few slices, a size that is no multiple of 4 or a missing channel raise an error that shows the shape."""
    with pytest.raises(ValueError, match=rf"\({shape[0]}, {shape[1]}"):
        networks["wt_axial"].logits(torch.zeros(shape))


def test_the_output_has_eight_slices_fewer(networks: dict[str, MSNet]) -> None:
    """D slices in, D-8 out; height and width stay."""
    generator = torch.Generator().manual_seed(1)
    out = networks["en_coronal"].logits(torch.randn(2, 13, 12, 16, 4, generator=generator))
    assert out.shape == (2, 5, 12, 16, 2)


@pytest.mark.parametrize(("halves_twice", "count"), [(True, 125), (False, 110)])
def test_tensors_are_counted_as_in_the_checkpoints(halves_twice: bool, count: int) -> None:
    """125 tensors for whole tumour and core, 110 for enhancing tumour."""
    assert len(set(layer_names(halves_twice))) == count


def test_a_missing_tensor_is_named() -> None:
    """Weights that do not fit name a tensor that is wrong."""
    weights = {name: torch.zeros(32) for name in layer_names(True) if name != "fuse1.gamma"}
    with pytest.raises(ModelPackError, match=r"fuse1\.gamma"):
        MSNet(weights)


def test_a_slope_above_one_is_refused() -> None:
    """PReLU is written max(y, ay), which is wrong for a > 1, so such weights are refused."""
    weights = {name: torch.zeros(32) for name in layer_names(True)} | {"fuse1.alpha": torch.full((32,), 1.5)}
    with pytest.raises(ModelPackError, match=r"fuse1\.alpha"):
        MSNet(weights)
