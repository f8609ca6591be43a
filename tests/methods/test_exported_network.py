"""Packs of the kinds torchscript and onnx: run as their cards declare, and only if the digest is that of the card."""

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_packs import write_card, write_torchscript

from node.errors import ModelPackError
from node.methods.card import CARD, read_card_file
from node.methods.exported_network import ExportedNetwork
from node.study import Contrast

CONTRASTS = (Contrast.T1C, Contrast.FLAIR)


def network() -> torch.nn.Module:
    """A small network of random weights: two channels, two logits."""
    torch.manual_seed(11)
    return torch.nn.Sequential(
        torch.nn.Conv3d(2, 4, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.ConvTranspose3d(4, 2, 2, stride=2)
    ).eval()


def write_pack(folder: Path, kind: str, file: str, **network_keys: object) -> Path:
    """The card for a network file that lies in ``folder``."""
    return write_card(folder, kind, [file], network=network_keys)


def torchscript_pack(folder: Path, **network_keys: object) -> Path:
    """A pack that holds the network as TorchScript."""
    return write_pack(folder, "torchscript", write_torchscript(folder, network(), 2), **network_keys)


def onnx_pack(folder: Path, **network_keys: object) -> Path:
    """A pack that holds the network as ONNX, written operator by operator."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra dev)")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra onnx)")
    from onnx import TensorProto, helper, numpy_helper

    weights = {name.replace(".", "_"): each.numpy() for name, each in network().state_dict().items()}
    nodes = [
        helper.make_node(
            "Conv", ["image", "_0_weight", "_0_bias"], ["a"], strides=[2, 2, 2], pads=[1] * 6, kernel_shape=[3, 3, 3]
        ),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(
            "ConvTranspose", ["b", "_2_weight", "_2_bias"], ["logits"], strides=[2, 2, 2], kernel_shape=[2, 2, 2]
        ),
    ]
    tensors = [numpy_helper.from_array(each, f"_{name}") for name, each in weights.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, "x", "y", "z"]) for name in ("image", "logits")
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "network", ends[:1], ends[1:], tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    folder.mkdir()
    onnx.save(model, folder / "network.onnx")
    return write_pack(folder, "onnx", "network.onnx", **network_keys)


def case(shape_zyx: tuple[int, int, int] = (7, 10, 9)) -> dict:
    """Random volumes, nowhere 0."""
    rng = np.random.default_rng(2)
    return {each: rng.normal(3, 1, shape_zyx).astype(np.float32) for each in CONTRASTS}


def expected(volumes: dict) -> np.ndarray:
    """Probabilities that the network itself gives for the padded volume, ``[region, z, y, x]``."""
    stack = np.stack([volumes[each].transpose(2, 1, 0) for each in CONTRASTS]).astype(np.float64)
    stack = (stack - stack.mean((1, 2, 3), keepdims=True)) / stack.std((1, 2, 3), keepdims=True)
    x, y, z = stack.shape[1:]
    padded = np.pad(stack, [(0, 0), *[(0, -size % 2) for size in (x, y, z)]]).astype(np.float32)
    with torch.inference_mode():
        output = torch.sigmoid(network()(torch.from_numpy(padded)[None]))[0].numpy()
    return output[:, :x, :y, :z].transpose(0, 3, 2, 1)


@pytest.mark.parametrize("make", [torchscript_pack, onnx_pack])
def test_network_runs_as_its_card_declares(tmp_path: Path, make):
    """Channel order, axis order, normalisation, padding and regions are those of the card."""
    folder = make(tmp_path / "pack", multiple_of=2)
    volumes = case()
    result = ExportedNetwork(read_card_file(folder / CARD), folder).run(volumes)
    whole, core = expected(volumes)
    np.testing.assert_allclose(result.probability_zyx["whole_tumour"], whole, atol=1e-4)
    np.testing.assert_allclose(result.probability_zyx["tumour_core"], core, atol=1e-4)
    assert (result.label_zyx == np.select([core > 0.5, whole > 0.5], [1, 2], 0)).all()
    assert len(np.unique(result.label_zyx)) > 1


@pytest.mark.parametrize("make", [torchscript_pack, onnx_pack])
def test_window_of_the_volumes_size_changes_nothing(tmp_path: Path, make):
    """One window that holds the whole volume gives what the whole volume gives."""
    volumes = case((8, 10, 12))
    folder = make(tmp_path / "pack", window_xyz=[12, 10, 8])
    result = ExportedNetwork(read_card_file(folder / CARD), folder).run(volumes)
    np.testing.assert_allclose(result.probability_zyx["whole_tumour"], expected(volumes)[0], atol=1e-4)


@pytest.mark.parametrize("make", [torchscript_pack, onnx_pack])
def test_changed_network_is_refused_before_it_is_loaded(tmp_path: Path, make):
    """A network file that differs from the card by one byte is refused by name."""
    folder = make(tmp_path / "pack")
    (file,) = folder.glob("network.*")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelPackError, match=rf"{file.name} differs from the card"):
        ExportedNetwork(read_card_file(folder / CARD), folder)


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_file_that_is_no_network_is_refused(tmp_path: Path, kind: str):
    """A file that is pinned but holds no network is refused by name."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra onnx)")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "network").write_bytes(b"no network")
    folder = write_pack(tmp_path / "pack", kind, "network")
    with pytest.raises(ModelPackError, match="network is no"):
        ExportedNetwork(read_card_file(folder / CARD), folder)
