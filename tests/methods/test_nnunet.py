"""Packs of the kind nnunet-v2: equal to nnU-Net's own inference, from checkpoints that nnU-Net itself wrote."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_packs import FOLD, write_card

from node.errors import ModelPackError
from node.methods.card import CARD, read_card_file
from node.methods.contract import REGIONS
from node.methods.nnunet import NnUNet, read_checkpoint
from node.study import Contrast

CONTRASTS = (Contrast.T1C, Contrast.FLAIR)
LABELS = {
    "labels": {"background": 0, "edema": 1, "necrotic": 2, "enhancing_tumor": 3},
    "regions": {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]},
}


def plans(network: str) -> dict:
    """Plans as nnU-Net's planner writes them, for a small network."""
    kwargs = {
        "n_stages": 3, "features_per_stage": [8, 16, 16], "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "n_conv_per_stage_decoder": [1, 1], "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "n_blocks_per_stage" if network == "ResidualEncoderUNet" else "n_conv_per_stage": [1, 2, 2],
    }  # fmt: skip
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [8, 16, 16], "spacing": [1.0, 1.0, 1.0], "median_image_size_in_voxels": [12, 24, 24],
        "normalization_schemes": ["ZScoreNormalization"] * 2, "use_mask_for_norm": [True, True],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling, "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling | {"order": 1}, "batch_dice": False,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": kwargs, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    return {
        "dataset_name": "Dataset001_Glioma", "plans_name": "nnUNetPlans", "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager",
        "original_median_spacing_after_transp": [1.0] * 3, "original_median_shape_after_transp": [12, 24, 24],
        "foreground_intensity_properties_per_channel": {"0": {}, "1": {}},
        "configurations": {"3d_fullres": configuration}, "experiment_planner_used": "ExperimentPlanner",
    }  # fmt: skip


def dataset(kind: str) -> dict:
    """The description of a dataset with labels or with regions."""
    regions = {"regions_class_order": [1, 2, 3]} if kind == "regions" else {}
    channels = {"0": "T1c", "1": "FLAIR"}
    return {"labels": LABELS[kind], "channel_names": channels, "numTraining": 1, "file_ending": ".nii.gz"} | regions


def trained(folder: Path, network: str, kind: str) -> Path:
    """A results folder whose checkpoint nnU-Net's own trainer wrote, after no training."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = nnUNetTrainer(
        plans(network) | {"continue_training": False}, "3d_fullres", 0, dataset(kind), device=torch.device("cpu")
    )
    torch.manual_seed(4)
    trainer.initialize()
    trainer.logger.log("mean_fg_dice", np.float64(0.5), 0)
    trainer._best_ema = np.float64(0.5)
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans(network)))
    (folder / "dataset.json").write_text(json.dumps(dataset(kind)))
    trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    return write_card(folder, "nnunet-v2", ["dataset.json", "plans.json", FOLD], outputs=REGIONS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.filterwarnings("ignore")
def test_results_folder_equals_nnunet(tmp_path: Path, monkeypatch, network: str, kind: str):
    """Probabilities and label map are those of nnU-Net's own predictor, whose sums are made in single precision."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (dependency group nnunet)")
    # the trainer tells by the files of a data set how to read them; none is read here
    cases = tmp_path / "nnUNet_preprocessed" / "Dataset001_Glioma" / "nnUNetPlans_3d_fullres"
    cases.mkdir(parents=True)
    (cases / "case.b2nd").touch()
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder = trained(tmp_path / "pack", network, kind)
    rng = np.random.default_rng(6)
    volumes = {}
    for contrast in CONTRASTS:
        volumes[contrast] = np.zeros((14, 30, 26), np.float32)
        volumes[contrast][1:12, 3:28, 2:25] = rng.gamma(4, 50, (11, 25, 23))
    result = NnUNet(read_card_file(folder / CARD), folder).run(volumes)

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    # the predictor sums in float16; the same steps in float32 are what is compared, voxel by voxel, to 1e-4
    half, torch.half = torch.half, torch.float32
    try:
        stack = np.stack([volumes[each] for each in CONTRASTS])
        label, found = predictor.predict_single_npy_array(
            stack, {"spacing": [1.0, 1.0, 1.0]}, save_or_return_probabilities=True
        )
    finally:
        torch.half = half
    if kind == "regions":
        whole, core, enhancing = found
    else:
        whole, core, enhancing = found[1:].sum(0), found[2:].sum(0), found[3]
    brain = volumes[Contrast.T1C] != 0
    for region, probability in zip(
        ("whole_tumour", "tumour_core", "enhancing_tumour"), (whole, core, enhancing), strict=True
    ):
        np.testing.assert_allclose(result.probability_zyx[region], probability * brain, atol=1e-4)
    assert len(np.unique(label)) > 1
    assert (result.label_zyx == np.select([label == 3, label == 2, label == 1], [4, 1, 2], 0) * brain).all()


class Opens:
    """An object whose unpickling would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path):
    """A checkpoint whose pickle holds code is refused by name, and the code does not run."""
    content = io.BytesIO()
    torch.save({"network_weights": {}, "logging": Opens(tmp_path / "ran")}, content)
    content.seek(0)
    with pytest.raises(ModelPackError, match=r"checkpoint_final\.pth: it holds more than weights"):
        read_checkpoint(content, "checkpoint_final.pth")
    assert not (tmp_path / "ran").exists()


def test_numpy_scalars_beside_the_weights_are_left_out():
    """NumPy scalars of the training's log do not keep a checkpoint from being read, and none is built."""
    content = io.BytesIO()
    torch.save({"network_weights": {"w": torch.ones(2)}, "_best_ema": np.float64(0.5), "n": np.int64(3)}, content)
    content.seek(0)
    loaded = read_checkpoint(content, "checkpoint_final.pth")
    assert loaded["network_weights"]["w"].tolist() == [1, 1]
    assert not isinstance(loaded["_best_ema"], np.generic)
