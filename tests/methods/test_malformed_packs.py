"""Packs of other software that are not what they should be: refused as packs, by file and key, never by a crash."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_packs import (
    BUNDLE_WEIGHTS,
    FOLD,
    bundle_config,
    bundle_pack,
    card_values,
    nnunet_checkpoint,
    nnunet_dataset,
    nnunet_pack,
    nnunet_plans,
    onnx_pack,
    thresholds,
    toml,
    torchscript_pack,
    write_card,
    write_torchscript,
)

from node.errors import ModelPackError
from node.methods.card import CARD, Card, Grid, parse_card, read_card_file
from node.methods.contract import REGIONS
from node.methods.monai_config import CONFIG, read_config
from node.methods.nnunet_plans import DATASET, PLANS, read_results
from node.methods.registry import faults, load_method
from node.methods.torch_weights import read_torch_file
from node.study import Contrast

LPS = Grid(spacing_mm=1, orientation="LPS")
WRONG = (True, -1, 0, 7, 1.5, 10**30, "x", "", "$x", [], ["x"], [-1], [[]], {}, {"x": 1})
Place = tuple[str | int, ...]


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Every key and every entry of a list, at any depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*above, key)
        yield from places(each, (*above, key))


def changed(values: Any, place: Place, *instead: Any) -> Any:
    """A copy of ``values`` without what is at ``place``, or with another value there."""
    values = copy.deepcopy(values)
    around = values
    for key in place[:-1]:
        around = around[key]
    if instead:
        around[place[-1]] = instead[0]
    else:
        del around[place[-1]]
    return values


def mutations(values: Any, more: tuple[Any, ...] = ()) -> Iterator[tuple[Place, Any]]:
    """``values`` with each key removed, and with a wrong value at each."""
    for place in places(values):
        yield place, changed(values, place)
        for wrong in (*WRONG, *more):
            yield place, changed(values, place, wrong)


def refused(load: Callable[[Any], object], values: Any, file: str, more: tuple[Any, ...] = (None,)) -> int:
    """How many mutations of ``values`` are refused, each naming ``file`` and a key above or below the change."""
    count = 0
    for place, mutant in mutations(values, more):
        try:
            load(mutant)
        except ModelPackError as error:
            text = str(error)
            assert file in text, (place, text)
            assert any(str(key) in text for key in place), (place, text)
            assert len(text) < 500
            count += 1
    return count


def foreign_card(kind: str = "nnunet-v2", **changes: Any) -> Card:
    """A card that needs T1c and FLAIR."""
    values = card_values(Path("pack"), kind, ["f"]) | {"outputs": list(REGIONS)} | changes
    return parse_card("\n".join(f"{key} = {toml(each)}" for key, each in values.items()).encode(), Path(CARD))


@pytest.mark.parametrize("kind", ["monai-bundle", "nnunet-v2", "torchscript", "onnx"])
def test_each_wrong_key_of_a_card_is_named(kind: str) -> None:
    """A card with any key removed, or of a wrong type, is a card all the same or is refused by file and key."""
    network = {"network": {"window_xyz": [8, 8, 8], "overlap": 0.5}} if kind in ("torchscript", "onnx") else {}
    values = card_values(Path("pack"), kind, ["f"], **network)

    def load(mutant: dict[str, Any]) -> None:
        lines = [f"{key} = {toml(each)}" for key, each in mutant.items()]
        parse_card("\n".join(lines).encode(), Path("at") / CARD)

    assert refused(load, values, "at/card.toml", ()) > 250  # TOML has no null
    for key in set(values) - {"network"}:  # all are needed
        with pytest.raises(ModelPackError, match=f"{key}.*(is missing|is none of)"):
            load(changed(values, (key,)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("needed", ["T1", "FLAIR"]), ("needed", ["T1c", "T1c"]), ("optional", ["T2"]), ("name", "../pack"),
        ("name", "a" * 65), ("grid", {"spacing_mm": 2.0, "orientation": "LPS"}), ("version", "1\\2"),
        ("grid", {"spacing_mm": 1.0, "orientation": "LLS"}), ("kind", "pickle"), ("extra", 1), ("licence", "a\nb"),
        ("files", []), ("states", ["unknown"]), ("outputs", ["oedema"]), ("outputs", ["tumour_core"] * 2),
    ],
)  # fmt: skip
def test_card_that_contradicts_itself_or_the_node_is_refused(key: str, value: Any) -> None:
    """What a network of this kind cannot be, or the node cannot give, is refused by its key."""
    with pytest.raises(ModelPackError, match=key):
        foreign_card(**{key: value})


def test_each_wrong_key_of_a_bundle_is_named() -> None:
    """A bundle's config with any key removed or wrong describes a network, or is refused by file and key."""
    values = {
        key: each
        for key, each in bundle_config().items()
        if key in ("network_def", "inferer", "preprocessing", "postprocessing")
    }
    assert refused(lambda mutant: read_config(json.dumps(mutant).encode(), LPS), values, CONFIG) > 300
    for place in (*((key,) for key in values), ("inferer", "roi_size"), ("network_def", "_target_")):
        with pytest.raises(ModelPackError, match=str(place[-1])):
            read_config(json.dumps(changed(values, place)).encode(), LPS)


@pytest.mark.parametrize(
    ("transform", "fault"),
    [
        ({"_target_": "CropForegroundd", "keys": "image"}, r"transforms\.0\._target_: 'CropForegroundd' is not sup"),
        ({"_target_": "monai.transforms.Orientationd", "axcodes": "RAS"}, r"transforms\.0\.axcodes: .* LPS"),
        ({"_target_": "Spacingd", "pixdim": [1.0, 1.0, 2.0]}, r"transforms\.0\.pixdim"),
    ],
)
def test_transform_that_the_node_does_not_make_is_refused(transform: dict[str, Any], fault: str) -> None:
    """A bundle that wants other steps before its network than the node takes would answer otherwise: it is refused."""
    values = bundle_config()
    values["preprocessing"]["transforms"].insert(0, transform)
    with pytest.raises(ModelPackError, match=fault):
        read_config(json.dumps(values).encode(), LPS)


def test_transforms_that_agree_with_the_card_are_accepted() -> None:
    """Orientation and spacing in the config are those of the card: nothing is lost if the node makes them."""
    values = bundle_config()
    values["preprocessing"]["transforms"] += [
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1, 1, 1]},
    ]
    shape, window = read_config(json.dumps(values).encode(), Grid(spacing_mm=1, orientation="RAS"))
    assert (shape.in_channels, shape.out_channels, window.size) == (2, 3, (48, 48, 48))


@pytest.mark.parametrize("file", [PLANS, DATASET])
def test_each_wrong_key_of_nnunet_is_named(file: str) -> None:
    """Plans or data set description with any key removed or wrong: understood, or refused by file and key."""
    both = {PLANS: nnunet_plans(), DATASET: nnunet_dataset()}
    card = foreign_card()

    def load(mutant: Any) -> None:
        plans, dataset = (json.dumps(each).encode() for each in (both | {file: mutant}).values())
        read_results(plans, dataset, card)

    assert refused(load, both[file], file) > 60
    needed = {
        PLANS: ["transpose_forward", "image_reader_writer", "label_manager", "configurations"],
        DATASET: ["labels", "channel_names"],
    }
    for key in needed[file]:
        with pytest.raises(ModelPackError, match=rf"{file}: {key}"):
            load(changed(both[file], (key,)))
    configuration = ("configurations", "3d_fullres")
    if file == PLANS:
        for key in set(both[PLANS]["configurations"]["3d_fullres"]) - {"batch_size"}:
            with pytest.raises(ModelPackError, match=key):
                load(changed(both[PLANS], (*configuration, key)))


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("channel_names", {"0": "FLAIR", "1": "T1c"}, r"channel_names\.0: is FLAIR; the card's needed has T1c"),
        ("channel_names", {"0": "T1c"}, "channel_names: '0' to '1' are wanted"),
        ("labels", {"background": 0, "edema": 1}, "labels: give whole_tumour; the card's outputs"),
        ("labels", {"background": 0, "tumour": 1}, "labels.tumour: is none of"),
        ("labels", {"background": 0, "edema": 2, "necrosis": 1}, "consecutive numbers in order"),
        ("labels", {"background": 0, "whole tumor": [1, 2], "whole_tumour": [1, 3]}, "name a region twice"),
    ],
)
def test_data_set_that_contradicts_the_card_is_refused(key: str, value: Any, fault: str) -> None:
    """Channels or labels that are not those of the card would exchange contrasts or regions without a word."""
    dataset = json.dumps(nnunet_dataset() | {key: value}).encode()
    with pytest.raises(ModelPackError, match=rf"dataset\.json: .*{fault}"):
        read_results(json.dumps(nnunet_plans()).encode(), dataset, foreign_card())


def test_whole_packs_load_and_run(tmp_path: Path) -> None:
    """The packs that these tests spoil are right as they are: each gives its regions for a case."""
    rng = np.random.default_rng(1)
    volumes = {each: rng.gamma(4, 50, (20, 24, 22)).astype(np.float32) for each in (Contrast.T1C, Contrast.FLAIR)}
    for make in (bundle_pack, nnunet_pack, torchscript_pack, onnx_pack):
        card = read_card_file(make(tmp_path / make.__name__) / CARD)
        result = load_method(card, tmp_path).run(volumes)
        assert set(result.probability_zyx) == set(card.outputs)
        assert result.label_zyx.shape == (20, 24, 22)
        assert faults(card.name, tmp_path) == []


class Opens:
    """An object whose unpickling would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def spoilt_weights(tmp_path: Path) -> Iterator[bytes]:
    """Files in the place of weights: another program's, broken ones, and pickles that would run code."""
    whole = io.BytesIO()
    torch.save({"w": torch.ones(2)}, whole)
    code = io.BytesIO()
    torch.save({"network_weights": {}, "w": Opens(tmp_path / "ran")}, code)
    yield from (b"", b"PK\x03\x04", b"\x80\x02.", b"\x80\x04N.", b"hello" * 99, whole.getvalue()[:-50])
    yield from (pickle.dumps(Opens(tmp_path / "ran")), code.getvalue(), pickle.dumps([1]), b"\x80\x02}q\x00u.")
    legacy = io.BytesIO()
    torch.save({"w": Opens(tmp_path / "ran")}, legacy, _use_new_zipfile_serialization=False)
    yield legacy.getvalue()
    for values in ([], {}, {"w": 1}, {1: torch.ones(2)}, {"w": torch.full((2,), torch.nan)}, torch.ones(2)):
        content = io.BytesIO()
        torch.save(values, content)
        yield content.getvalue()


@pytest.mark.parametrize(("make", "file"), [(bundle_pack, BUNDLE_WEIGHTS), (nnunet_pack, FOLD)])
def test_files_that_are_no_weights_are_refused_and_run_nothing(tmp_path: Path, make: Any, file: str) -> None:
    """Whatever lies in the weights' place, with the right digest, is refused by pack and file, and no code runs."""
    folder = make(tmp_path / "pack")
    values = read_card_file(folder / CARD)
    for content in spoilt_weights(tmp_path):
        (folder / file).write_bytes(content)
        write_card(folder, values.kind, [each.path for each in values.files], outputs=list(REGIONS))
        with pytest.raises(ModelPackError, match=rf"model pack pack: .*{file}"):
            load_method(read_card_file(folder / CARD), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_weights_cut_anywhere_are_refused() -> None:
    """A file of weights that ends too early, or has a bit turned, is read or refused, wherever that is."""
    whole = io.BytesIO()
    torch.save({"w": torch.ones(3)}, whole, _use_new_zipfile_serialization=False)
    content = whole.getvalue()
    told = []
    for length in range(0, len(content), 3):
        turned = content[:length] + bytes([content[length] ^ 0x15]) + content[length + 1 :]
        for each in (content[:length], turned):
            try:
                read_torch_file(io.BytesIO(each), "model.pt")
            except ModelPackError as error:
                told.append(str(error))
    assert len(told) > 100
    assert all(text.startswith("model.pt: ") for text in told)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"network_weights": {}}, "does not fit plans.json: .*Missing key"),
        ({"network_weights": 3}, "network_weights: tensors by name"),
        ({"inference_allowed_mirroring_axes": [3]}, "inference_allowed_mirroring_axes"),
        ({"inference_allowed_mirroring_axes": [[0]]}, "inference_allowed_mirroring_axes"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    """A checkpoint of another network, or with other keys than nnU-Net's, is refused by file and key."""
    folder = nnunet_pack(tmp_path / "pack", checkpoint=nnunet_checkpoint() | changes)
    with pytest.raises(ModelPackError, match=rf"{FOLD}.*{fault}"):
        load_method(read_card_file(folder / CARD), tmp_path)


@pytest.mark.parametrize("make", [bundle_pack, nnunet_pack, torchscript_pack, onnx_pack])
def test_absent_files_and_files_that_the_card_does_not_list_are_named(tmp_path: Path, make: Any) -> None:
    """A pack that lacks files says which, all of them; one whose card lists too few says what is missing."""
    folder = make(tmp_path / "pack")
    card = read_card_file(folder / CARD)
    for each in card.files:
        (folder / each.path).unlink()
    assert faults("pack", tmp_path) == [f"model pack pack: {each.path} is missing" for each in card.files]
    with pytest.raises(ModelPackError, match="is missing"):
        load_method(card, tmp_path)
    if len(card.files) > 1:
        fewer = card.model_copy(update={"files": card.files[:1]})
        (folder / card.files[0].path).write_bytes(b"")
        listed = fewer.files[0].model_copy(update={"sha256": hashlib.sha256(b"").hexdigest()})
        with pytest.raises(ModelPackError, match=r"lists no|not JSON"):
            load_method(fewer.model_copy(update={"files": (listed,)}), tmp_path)


@pytest.mark.parametrize("key", ["in_channels", "out_channels"])
def test_bundle_with_another_number_of_channels_is_refused(tmp_path: Path, key: str) -> None:
    """Channels that are not those of the card are refused by file and key."""
    config = bundle_config()
    config["network_def"][key] = 5
    folder = bundle_pack(tmp_path / "pack", config)
    with pytest.raises(ModelPackError, match=rf"inference\.json: network_def\.{key}: is 5"):
        load_method(read_card_file(folder / CARD), tmp_path)


def test_plans_with_another_number_of_channels_are_refused() -> None:
    """Normalisation for three channels does not fit a card with two contrasts."""
    plans = nnunet_plans()
    plans["configurations"]["3d_fullres"]["normalization_schemes"] *= 2
    with pytest.raises(ModelPackError, match=r"plans\.json: configurations\.3d_fullres\.normalization_schemes: 2 entr"):
        read_results(json.dumps(plans).encode(), json.dumps(nnunet_dataset()).encode(), foreign_card())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"needed": ["T1c", "FLAIR", "T2"]}, "image has 2 channels; by needed of the card it is 3"),
        ({"outputs": ["tumour_core"]}, "logits has 2 channels; by outputs of the card it is 1"),
        ({"network": {"activation": "softmax"}}, "logits has 2 channels; by outputs of the card it is 3"),
    ],
)
def test_onnx_network_with_other_channels_is_refused_when_loaded(
    tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    """An ONNX network tells its channels, so a card that contradicts it is found before an exam comes."""
    onnx_pack(tmp_path / "pack")
    write_card(tmp_path / "pack", "onnx", ["n.onnx"], **{"network": {}} | changes)
    with pytest.raises(ModelPackError, match=rf"n\.onnx: {fault}"):
        load_method(read_card_file(tmp_path / "pack" / CARD), tmp_path)


@pytest.mark.parametrize(
    ("inputs", "outputs", "section", "fault"),
    [
        (3, 2, {}, "does not run on 2 channels of 8 x 8 x 8 voxels"),
        (2, 3, {}, r"its output is 1 x 3 x 8 x 8 x 8; by outputs and \[network\] of the card it is 1 x 2 x 8 x 8 x 8"),
        (2, 2, {"activation": "none", "normalisation": "none"}, r"is no probability; network\.activation"),
    ],
)
def test_torchscript_that_is_not_as_declared_is_refused_when_it_runs(
    tmp_path: Path, inputs: int, outputs: int, section: dict[str, Any], fault: str
) -> None:
    """TorchScript does not tell its channels; the first exam shows them, and fails as the pack's fault, not its own."""
    file = write_torchscript(tmp_path / "pack", thresholds(inputs, outputs), inputs)
    write_card(tmp_path / "pack", "torchscript", [file], network=section)
    method = load_method(read_card_file(tmp_path / "pack" / CARD), tmp_path)
    volume = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    with pytest.raises(ModelPackError, match=rf"network\.ts.* {fault}"):
        method.run({Contrast.T1C: volume, Contrast.FLAIR: volume})
