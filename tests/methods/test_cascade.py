"""The cascade: its rules on small inputs with stand-in networks, and the published weights on real cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from glionode_bench.plain import PlainMSNet, flops
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from node.errors import ContentRefused
from node.methods.agreement import agreement_of, dice
from node.methods.card import read_card
from node.methods.cascade import STAGES, VIEWS, Cascade
from node.methods.contract import REGIONS, region_of
from node.methods.packs import load_networks, load_weights
from node.methods.views import fast_noise, legacy_noise, published_view, slab_view
from node.segmentation.nifti_case import read_case
from node.segmentation.truth import read_truth
from node.study import Contrast

PACK = "anisotropic_nets_brats17"


class BrightFlair:
    """A stand-in network: the target is where FLAIR (channel 0) is above a threshold, with no doubt."""

    def __init__(self, threshold: float, channel: int = 0) -> None:
        self._threshold = threshold
        self._channel = channel
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        target = 20.0 * (x[:, 4:-4, ..., self._channel] - self._threshold)
        return torch.stack([torch.zeros_like(target), target], dim=-1)


def networks(volumes: Mapping[Contrast, np.ndarray], *thresholds: float) -> Mapping[str, BrightFlair]:
    """Nine stand-ins; one threshold a stage, in the volumes' own intensities (networks see normalised ones)."""
    brain = volumes[Contrast.FLAIR][volumes[Contrast.FLAIR] > 0]
    return {
        f"{stage}_{view}": BrightFlair(float((threshold - brain.mean()) / brain.std()))
        for stage, threshold in zip(STAGES, thresholds, strict=True)
        for view in VIEWS
    }


def case(shape: tuple[int, int, int] = (40, 44, 48)) -> dict[Contrast, np.ndarray]:
    """A brain box with nested bright blocks: oedema, core, enhancement; off centre on purpose."""
    rng = np.random.default_rng(0)
    volume = np.zeros(shape, np.float32)
    volume[4:-4, 5:-3, 4:-6] = 100
    volume[10:28, 12:30, 22:40] = 200
    volume[13:25, 15:27, 25:37] = 300
    volume[15:23, 17:25, 27:35] = 400
    noisy = {contrast: volume + (volume > 0) * rng.random(shape, np.float32) for contrast in Contrast}
    return {contrast: array.astype(np.float32) for contrast, array in noisy.items()}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["slab", "published"])
def test_nested_regions_are_found_where_they_are(mode: str) -> None:
    """Each stage's answer lands in its place and label, in either mode; nothing is mirrored or shifted."""
    volumes = case()
    result = Cascade(networks(volumes, 150, 250, 350), mode).run(volumes)
    flair = volumes[Contrast.FLAIR]
    least = 0.99 if mode == "slab" else 0.8  # published loses slices at the ends of its views
    assert dice(result.region_zyx("whole_tumour"), flair > 150) > least
    assert dice(result.region_zyx("tumour_core"), flair > 250) > least
    assert dice(result.region_zyx("enhancing_tumour"), flair > 350) > least
    assert set(np.unique(result.label_zyx)) == {0, 1, 2, 4}


def test_regions_are_nested() -> None:
    """Enhancing tumour lies in the core, the core in the whole tumour."""
    result = Cascade(networks(case(), 150, 250, 350)).run(case())
    whole, core, enhancing = (result.region_zyx(region) for region in REGIONS)
    assert not (core & ~whole).any()
    assert not (enhancing & ~core).any()


def test_no_tumour_gives_an_empty_label_map() -> None:
    """Networks that see nothing end in zeros, not in an error."""
    result = Cascade(networks(case(), 900, 900, 900)).run(case())
    assert not result.label_zyx.any()
    assert all(result.agreement[region].view_dice == 1.0 for region in REGIONS)


def test_little_enhancement_is_not_reported_but_counted() -> None:
    """Below half a millilitre enhancing tumour is left out, and how much it was is told."""
    volumes = case()
    for array in volumes.values():
        array[15:23, 17:25, 27:35] = 300
        array[15:21, 17:23, 27:33] = 400  # 216 voxels
    result = Cascade(networks(volumes, 150, 250, 350)).run(volumes)
    assert not result.region_zyx("enhancing_tumour").any()
    assert 150 < result.dropped_enhancing_voxels <= 216


@pytest.mark.slow
def test_two_runs_are_bit_identical_and_seeds_differ() -> None:
    """Equal seeds give equal noise, hence equal probabilities; the noise differs between seeds."""
    runs = [Cascade(networks(case(), 150, 250, 350)).run(case(), seed) for seed in (3, 3)]
    assert all((runs[0].probability_zyx[r] == runs[1].probability_zyx[r]).all() for r in REGIONS)
    for noise in (fast_noise, legacy_noise):
        assert (noise(3)((50,)) == noise(3)((50,))).all()
        assert (noise(3)((50,)) != noise(4)((50,))).any()


def test_legacy_noise_is_numpys_global_generator() -> None:
    """Mode published draws the numbers that the original drew after numpy.random.seed."""
    np.random.seed(0)
    assert (legacy_noise(0)((7,)) == np.random.normal(0, 1, size=7)).all()


@pytest.mark.parametrize("depth", [6, 11, 23, 56])
def test_published_view_overwrites_the_last_ten_slices(depth: int) -> None:
    """If the last mini-batch was filled with noise chunks, their answer replaces the last ten slices (a quirk)."""
    view = np.full((depth, 20, 24), 5.0)
    answer = published_view(BrightFlair(2.5), [view] * 4, (24, 24), legacy_noise(1))
    kept = depth if -(-depth // 11) % 5 == 0 else max(depth - 10, 0)
    assert (answer[:kept] > 0.5).all()
    assert (answer[kept:] > 0.5).mean() < 0.1


@pytest.mark.parametrize("depth", [1, 6, 23, 60])
def test_slab_view_answers_every_slice(depth: int) -> None:
    """One slab per view loses no slice, whatever its thickness."""
    net = BrightFlair(2.5)
    answer = slab_view(net, [np.full((depth, 21, 23), 5.0, np.float32)] * 4, (24, 28), fast_noise(1))
    assert answer.shape == (depth, 21, 23)
    assert (answer > 0.5).all()
    assert net.shapes == [(1, depth + 8, 24, 28, 4)]


def test_mode_published_says_what_is_too_thin() -> None:
    """The original indexes before the first slice there."""
    with pytest.raises(ContentRefused, match="too thin"):
        published_view(BrightFlair(1), [np.zeros((5, 20, 20))] * 4, (24, 24), legacy_noise(0))


def spoiled(contrast: Contrast, change: str) -> dict[Contrast, np.ndarray]:
    volumes = case()
    if change == "missing":
        del volumes[contrast]
    elif change == "empty":
        volumes[contrast][...] = 0
    elif change == "nan":
        volumes[contrast][20, 20, 20] = np.nan
    elif change == "shape":
        volumes[contrast] = volumes[contrast][1:]
    else:
        volumes[contrast] = (volumes[contrast] > 0).astype(np.float32)
    return volumes


@pytest.mark.parametrize("contrast", [Contrast.FLAIR, Contrast.T1C])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("missing", "missing"),
        ("empty", "empty"),
        ("nan", "not finite"),
        ("shape", "differ in shape"),
        ("constant", "constant"),
    ],
)
def test_unusable_input_is_refused_by_name(contrast: Contrast, change: str, text: str) -> None:
    """Each defect of the input is a clear refusal."""
    with pytest.raises(ContentRefused, match=text):
        Cascade(networks(case(), 150, 250, 350)).run(spoiled(contrast, change))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20, 60, 60), (64, 64, 64)])
def test_small_volumes_run(shape: tuple[int, int, int]) -> None:
    """A volume of 60 x 60 x 20 voxels is segmented."""
    rng = np.random.default_rng(1)
    volumes = {contrast: rng.random(shape, np.float32) + 0.1 for contrast in Contrast}
    assert Cascade(networks(volumes, 0.9, 1, 1)).run(volumes).label_zyx.shape == shape


def test_agreement_of_equal_and_of_disjoint_views() -> None:
    """Equal views agree fully, disjoint ones not at all; certain probabilities give an expected Dice of 1."""
    region = np.zeros((4, 4, 4), bool)
    region[1:3] = True
    sure = agreement_of(region, region.astype(np.float32), [region] * 3)
    assert (sure.expected_dice, sure.view_dice, sure.volume_cv) == (1.0, 1.0, 0.0)
    unsure = agreement_of(region, np.full((4, 4, 4), 0.5, np.float32), [region, ~region, np.zeros_like(region)])
    assert unsure.view_dice == 0.0
    assert unsure.is_doubtful
    assert unsure.expected_dice == pytest.approx(2 * 16 / (32 + 32))
    assert unsure.volume_cv == pytest.approx(np.std([32, 32, 0]) / np.mean([32, 32, 0]))


@pytest.mark.slow
def test_the_plain_form_gives_the_same_answer(models_folder: Path) -> None:
    """An independent implementation with 3-D convolutions agrees on all nine networks."""
    card = read_card(PACK)
    fast = load_networks(card, models_folder)
    x = torch.randn(2, 11, 24, 20, 4, generator=torch.Generator().manual_seed(5))
    for name, weights in load_weights(card, models_folder).items():
        assert (PlainMSNet(weights).logits(x) - fast[name].logits(x)).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wt_axial", "en_coronal"])
def test_operations_are_counted_as_torch_counts_them(name: str, models_folder: Path) -> None:
    """The benchmark's formula equals torch's own count over the plain form, to the last operation."""
    weights = load_weights(read_card(PACK), models_folder)[name]
    x = torch.randn(2, 19, 40, 48, 4, generator=torch.Generator().manual_seed(7))
    with FlopCounterMode(display=False) as counter:
        PlainMSNet(weights).logits(x)
    assert flops(tuple(x.shape), "downsample1.weight" in weights) == counter.get_total_flops()


def test_parked_feature_maps_give_the_same_bits(models_folder: Path) -> None:
    """With hardly any memory the maps wait in files, and nothing changes."""
    card = read_card(PACK)
    x = torch.randn(1, 14, 32, 28, 4, generator=torch.Generator().manual_seed(6))
    for name in ("wt_axial", "en_coronal"):
        resident, offloaded = (load_networks(card, models_folder, "cpu", limit)[name] for limit in (None, 1))
        assert torch.equal(resident.logits(x), offloaded.logits(x))


def reference_folder(data_folder: Path) -> Path:
    folder = data_folder.parent / "reference" / "cases"
    if not folder.is_dir():
        pytest.skip("no reference outputs of the original pipeline at hand")
    return folder


@pytest.mark.slow
@pytest.mark.long(80)
def test_published_repeats_the_original(models_folder: Path, data_folder: Path) -> None:
    """With the original's random numbers at most a handful of a case's 8.9 million voxels differ from TensorFlow's."""
    name = "BraTS2021_01481"
    reference = reference_folder(data_folder) / name
    original = nibabel.load(reference / f"{name}.nii.gz").get_fdata().T
    seed = json.loads((reference / "info.json").read_text())["seed"]
    cascade = Cascade(load_networks(read_card(PACK), models_folder), "published")
    result = cascade.run(read_case(data_folder / "brats" / name).volumes_zyx, seed)
    assert (result.label_zyx != original).sum() <= 50


@pytest.mark.slow
@pytest.mark.long(45)
def test_slab_is_as_good_as_published_on_a_real_case(models_folder: Path, data_folder: Path) -> None:
    """On a labelled case the default mode reaches the original's Dice (.919, .934, .837)."""
    folder = data_folder / "brats" / "BraTS2021_01481"
    result = Cascade(load_networks(read_card(PACK), models_folder)).run(read_case(folder).volumes_zyx)
    truth = read_truth(folder)
    scores = [dice(result.region_zyx(region), region_of(truth, region)) for region in REGIONS]
    assert scores[0] > 0.91
    assert scores[1] > 0.925
    assert scores[2] > 0.83
