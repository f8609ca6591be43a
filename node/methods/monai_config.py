"""``configs/inference.json`` of a MONAI bundle, read as JSON, never as MONAI's configuration language.

Where a key that is needed holds an expression (``$...``) or a reference (``@...``, ``%...``), the pack is refused; keys
that are not needed may hold what they like. Of the transforms, those are accepted that the node does itself or that
change nothing here; any other is refused by its place in the list, for without it the answer would be another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from node.errors import ModelPackError
from node.methods.card import Grid
from node.methods.pack_config import C, PackConfig, checked, read_json
from node.methods.segresnet import SegResNetShape
from node.methods.sliding_window import Window

CONFIG = "configs/inference.json"

Count = Annotated[int, Field(ge=1, le=100_000)]

_WITHOUT_EFFECT = ("LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "ToDeviced", "CastToTyped")


class _Section(PackConfig):
    """A section every key of which must be known: an unknown one would change the network or its answer."""

    model_config = ConfigDict(extra="forbid")


class _Network(_Section):
    """Arguments of MONAI's class; defaults are MONAI's own."""

    target: Literal["SegResNet", "monai.networks.nets.SegResNet"] = Field(alias="_target_")
    spatial_dims: Literal[3] = 3
    init_filters: Count = 8
    in_channels: Count = 1
    out_channels: Count = 2
    blocks_down: tuple[Count, ...] = Field(default=(1, 2, 2, 4), min_length=1, max_length=8)
    blocks_up: tuple[Count, ...] = (1, 1, 1)
    num_groups: Count = 8
    use_conv_final: Literal[True] = True
    upsample_mode: Literal["nontrainable"] = "nontrainable"
    dropout_prob: float | None = None

    @model_validator(mode="after")
    def _check(self) -> _Network:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up: one entry less than in blocks_down is wanted")
        if self.init_filters % self.num_groups:
            raise ValueError("init_filters: a multiple of num_groups is wanted")
        return self


class _Inferer(_Section):
    target: Literal["SlidingWindowInferer", "monai.inferers.SlidingWindowInferer"] = Field(alias="_target_")
    roi_size: tuple[Count, Count, Count]
    overlap: float = Field(default=0.25, ge=0, lt=1)
    mode: Literal["constant", "gaussian"] = "constant"
    sw_batch_size: Any = None  # these three change how it is computed, not what
    progress: Any = None
    cache_roi_weight_map: Any = None


class _Normalize(_Section):
    target: str = Field(alias="_target_")
    keys: Any
    nonzero: Literal[True]
    channel_wise: Literal[True]


class _Activations(_Section):
    target: str = Field(alias="_target_")
    keys: Any
    sigmoid: Literal[True]


class _Orientation(PackConfig):
    axcodes: str


class _Spacing(PackConfig):
    pixdim: tuple[float, float, float]


def read_config(content: bytes, grid: Grid) -> tuple[SegResNetShape, Window]:
    """Network and window that an inference config describes.

    Args:
        grid: of the pack's card, with which the config's transforms must agree.

    Raises:
        ModelPackError: it is no JSON, or a key that is needed is missing, no plain data, or not supported; names it.
    """
    config = read_json(content, CONFIG)
    network = _section(config, "network_def", _Network)
    window = _section(config, "inferer", _Inferer)
    _check_preprocessing(config, grid)
    _check_postprocessing(config)
    shape = SegResNetShape(
        network.init_filters, network.in_channels, network.out_channels, network.blocks_down, network.blocks_up,
        network.num_groups,
    )  # fmt: skip
    if any(size % shape.multiple_of for size in window.roi_size):
        raise ModelPackError(f"{CONFIG}: inferer.roi_size: multiples of {shape.multiple_of} are wanted, by blocks_down")
    return shape, Window(window.roi_size, window.overlap, window.mode)


def _section(config: Mapping[str, Any], key: str, wanted: type[C]) -> C:
    """The object at ``key``, all of it plain data."""
    values = config.get(key)
    if not isinstance(values, dict):
        raise ModelPackError(f"{CONFIG}: {key}: {'an object is wanted' if key in config else 'is missing'}")
    _require_plain(values, key)
    return checked(values, CONFIG, wanted, key)


def _require_plain(value: Any, key: str) -> None:
    """Refuse a text that MONAI would evaluate or look up: it starts with $, @ or %."""
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        raise ModelPackError(f"{CONFIG}: {key} holds an expression, which is not evaluated")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        _require_plain(each, f"{key}.{name}")


def _transforms(config: Mapping[str, Any], section: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The transforms of a section: key, name of the class without its package, arguments."""
    values = config.get(section)
    found = values.get("transforms") if isinstance(values, dict) else None
    if not isinstance(found, list):
        raise ModelPackError(f"{CONFIG}: {section}.transforms: a list is wanted")
    listed = []
    for number, each in enumerate(found):
        key = f"{section}.transforms.{number}"
        if not isinstance(each, dict) or not isinstance(each.get("_target_"), str):
            raise ModelPackError(f"{CONFIG}: {key}._target_: the name of a transform is wanted")
        listed.append((key, each["_target_"].rpartition(".")[2], each))
    return listed


def _check_preprocessing(config: Mapping[str, Any], grid: Grid) -> None:
    normalised = 0
    for key, name, values in _transforms(config, "preprocessing"):
        if name == "NormalizeIntensityd":
            _require_plain(values, key)
            checked(values, CONFIG, _Normalize, key)
            normalised += 1
        elif name == "Orientationd":
            axcodes = checked(values, CONFIG, _Orientation, key).axcodes
            if axcodes != grid.orientation:
                raise ModelPackError(f"{CONFIG}: {key}.axcodes: the card's grid.orientation is {grid.orientation}")
        elif name == "Spacingd":
            if set(checked(values, CONFIG, _Spacing, key).pixdim) != {grid.spacing_mm}:
                raise ModelPackError(f"{CONFIG}: {key}.pixdim: the card's grid.spacing_mm is {grid.spacing_mm}")
        elif name not in _WITHOUT_EFFECT:
            raise ModelPackError(f"{CONFIG}: {key}._target_: {name[:64]!r} is not supported")
    if normalised != 1:
        raise ModelPackError(f"{CONFIG}: preprocessing.transforms: NormalizeIntensityd is wanted, once")


def _check_postprocessing(config: Mapping[str, Any]) -> None:
    activations = [each for each in _transforms(config, "postprocessing") if each[1] == "Activationsd"]
    if len(activations) != 1:
        raise ModelPackError(f"{CONFIG}: postprocessing.transforms: Activationsd is wanted, once")
    ((key, _, values),) = activations
    checked(values, CONFIG, _Activations, key)
