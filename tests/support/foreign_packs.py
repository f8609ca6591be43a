"""Tiny packs of other software's kinds, with weights that tests choose or random ones, and their cards."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from node.methods.card import CARD
from node.methods.contract import REGIONS
from node.methods.monai_config import CONFIG
from node.methods.nnunet_network import UNet, UNetShape
from node.methods.segresnet import SegResNet, SegResNetShape

BUNDLE_WEIGHTS = "models/model.pt"
FOLD = "fold_0/checkpoint_final.pth"


def toml(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def card_values(folder: Path, kind: str, files: Sequence[str], /, **changes: Any) -> dict[str, Any]:
    """What the card of a pack in ``folder`` says, with the digests of its files as they are now."""
    digests = {
        each: hashlib.sha256((folder / each).read_bytes()).hexdigest() if (folder / each).is_file() else "0" * 64
        for each in files
    }
    return {
        "name": folder.name, "version": "1", "kind": kind, "method": "test", "reference": "test", "licence": "MIT",
        "training_data": "none", "measured_accuracy": "none: random weights", "intended_use": "test",
        "needed": ["T1c", "FLAIR"], "outputs": ["whole_tumour", "tumour_core"], "states": ["pre-operative"],
        "grid": {"spacing_mm": 1.0, "orientation": "LPS"},
        "files": [{"path": each, "sha256": digest} for each, digest in digests.items()],
    } | changes  # fmt: skip


def write_card(folder: Path, kind: str, files: Sequence[str], /, **changes: Any) -> Path:
    """The card of the pack in ``folder``, in that folder; returns ``folder``."""
    values = card_values(folder, kind, files, **changes)
    (folder / CARD).write_text("\n".join(f"{key} = {toml(value)}" for key, value in values.items()), "utf-8")
    return folder


def thresholds(inputs: int, outputs: int) -> torch.nn.Conv3d:
    """A network that marks what is brighter on its first channel, the less the further inside a region lies."""
    network = torch.nn.Conv3d(inputs, outputs, 1)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[:, 0] = 4
        network.bias.copy_(-4 * torch.arange(1, outputs + 1))
    return network


def write_torchscript(folder: Path, network: torch.nn.Module, inputs: int) -> str:
    """``network`` as TorchScript in ``folder``; the file's name."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch names torch.export as the successor
        torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(1, inputs, 8, 8, 8)), folder / "network.ts")
    return "network.ts"


def torchscript_pack(folder: Path, outputs: Sequence[str] = REGIONS[:2], **changes: Any) -> Path:
    """A pack of `thresholds` as TorchScript, which needs T1c and FLAIR."""
    file = write_torchscript(folder, thresholds(2, len(outputs)), 2)
    return write_card(folder, "torchscript", [file], outputs=list(outputs), **{"network": {}} | changes)


def onnx_pack(folder: Path, outputs: Sequence[str] = REGIONS[:2], **changes: Any) -> Path:
    """A pack of `thresholds` as ONNX, which needs T1c and FLAIR."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra dev)")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra onnx)")
    from onnx import helper, numpy_helper

    network = thresholds(2, len(outputs))
    node = helper.make_node("Conv", ["image", "w", "b"], ["logits"], kernel_shape=[1, 1, 1])
    tensors = [
        numpy_helper.from_array(network.weight.detach().numpy(), "w"),
        numpy_helper.from_array(network.bias.detach().numpy(), "b"),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, "x", "y", "z"])
        for name, channels in (("image", 2), ("logits", len(outputs)))
    ]
    graph = helper.make_graph([node], "network", ends[:1], ends[1:], tensors)
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "n.onnx")
    return write_card(folder, "onnx", ["n.onnx"], outputs=list(outputs), **{"network": {}} | changes)


def bundle_config(inputs: int = 2, outputs: int = 3, roi: int = 48) -> dict[str, Any]:
    """A config as MONAI's bundle has it, for a small network; what is not read of it are expressions."""
    return {
        "imports": ["$import glob"],
        "device": "$torch.device('cuda:0')",
        "network_def": {
            "_target_": "SegResNet", "blocks_down": [1, 1], "blocks_up": [1], "init_filters": 8,
            "in_channels": inputs, "out_channels": outputs, "dropout_prob": 0.2,
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
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [roi] * 3, "sw_batch_size": 1, "overlap": 0.25},
    }  # fmt: skip


def bundle_pack(folder: Path, config: dict[str, Any] | None = None, weights: object = None, **changes: Any) -> Path:
    """A pack of the kind monai-bundle; its network has random weights unless others are given."""
    torch.manual_seed(3)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / CONFIG).write_text(json.dumps(bundle_config() if config is None else config), "utf-8")
    own = SegResNet(SegResNetShape(8, 2, 3, (1, 1), (1,))).state_dict()
    torch.save(own if weights is None else weights, folder / BUNDLE_WEIGHTS)
    return write_card(folder, "monai-bundle", [CONFIG, BUNDLE_WEIGHTS], **{"outputs": list(REGIONS)} | changes)


def nnunet_plans() -> dict[str, Any]:
    """Plans as nnU-Net's planner writes them, for a small network."""
    kwargs = {
        "n_stages": 2, "features_per_stage": [4, 8], "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]], "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1], "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet", "arch_kwargs": kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }  # fmt: skip
    configuration = {
        "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": [48, 48, 48],
        "spacing": [1.0, 1.0, 1.0], "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [True, True], "architecture": architecture,
    }  # fmt: skip
    return {
        "dataset_name": "Dataset001_Glioma", "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager",
        "configurations": {"3d_fullres": configuration},
    }  # fmt: skip


def nnunet_dataset() -> dict[str, Any]:
    """The description of a data set with labels."""
    labels = {"background": 0, "edema": 1, "necrotic": 2, "enhancing_tumor": 3}
    return {"labels": labels, "channel_names": {"0": "T1c", "1": "FLAIR"}, "file_ending": ".nii.gz"}


def nnunet_checkpoint() -> dict[str, Any]:
    """A checkpoint as nnU-Net's trainer writes it, of a network with random weights."""
    torch.manual_seed(4)
    shape = UNetShape((4, 8), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 2, 2)), (1, 1), (1,), False)
    return {"network_weights": UNet(shape, 2, 4).state_dict(), "inference_allowed_mirroring_axes": (0,)}


def nnunet_pack(folder: Path, plans: object = None, dataset: object = None, checkpoint: object = None) -> Path:
    """A pack of the kind nnunet-v2."""
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(nnunet_plans() if plans is None else plans), "utf-8")
    (folder / "dataset.json").write_text(json.dumps(nnunet_dataset() if dataset is None else dataset), "utf-8")
    torch.save(nnunet_checkpoint() if checkpoint is None else checkpoint, folder / FOLD)
    return write_card(folder, "nnunet-v2", ["plans.json", "dataset.json", FOLD], outputs=list(REGIONS))
