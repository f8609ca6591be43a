"""``plans.json`` and ``dataset.json`` of a results folder of nnU-Net v2: what is read of them, and what is supported.

Supported are the configuration ``3d_fullres`` with 1 mm voxels, Z-scores, no transposition, ``PlainConvUNet`` and
``ResidualEncoderUNet``, labels and regions. Anything else is refused by its key. torch is not imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from node.errors import ModelPackError
from node.methods.card import ForeignCard
from node.methods.contract import REGIONS
from node.methods.pack_config import PackConfig, checked, read_json
from node.study import Contrast

PLANS, DATASET = "plans.json", "dataset.json"

_UNET = "dynamic_network_architectures.architectures.unet"


def _millimetre(spacing: float) -> float:
    if spacing != 1:
        raise ValueError("1 mm is wanted")
    return spacing


Count = Annotated[int, Field(ge=1, le=100_000)]
Size = Annotated[int, Field(ge=1, le=15)]
Sizes = tuple[Size, Size, Size]
Millimetre = Annotated[float, AfterValidator(_millimetre)]


class _Norm(PackConfig):
    model_config = ConfigDict(extra="forbid")

    eps: Annotated[float, Field(gt=0)]
    affine: Literal[True]


class _Inplace(PackConfig):
    model_config = ConfigDict(extra="forbid")

    inplace: bool


class Network(PackConfig):
    """Arguments of the network's class; an unknown one is refused, for it would build another network."""

    model_config = ConfigDict(extra="forbid")

    n_stages: Count
    features_per_stage: tuple[Count, ...]
    kernel_sizes: tuple[Sizes, ...]
    strides: tuple[Sizes, ...]
    n_blocks_per_stage: tuple[Count, ...] | None = None
    n_conv_per_stage: tuple[Count, ...] | None = None
    n_conv_per_stage_decoder: tuple[Count, ...]
    conv_bias: bool
    conv_op: Literal["torch.nn.modules.conv.Conv3d"]
    norm_op: Literal["torch.nn.modules.instancenorm.InstanceNorm3d"]
    norm_op_kwargs: _Norm
    nonlin: Literal["torch.nn.LeakyReLU"]
    nonlin_kwargs: _Inplace
    dropout_op: None = None
    dropout_op_kwargs: None = None

    @model_validator(mode="after")
    def _check_stages(self) -> Network:
        blocks = self.n_blocks_per_stage or self.n_conv_per_stage or ()
        for key, values, count in (
            ("features_per_stage", self.features_per_stage, self.n_stages),
            ("kernel_sizes", self.kernel_sizes, self.n_stages),
            ("strides", self.strides, self.n_stages),
            ("n_blocks_per_stage or n_conv_per_stage", blocks, self.n_stages),
            ("n_conv_per_stage_decoder", self.n_conv_per_stage_decoder, self.n_stages - 1),
        ):
            if len(values) != count:
                raise ValueError(f"{key}: {count} entries are wanted, by n_stages")
        return self


class _Architecture(PackConfig):
    network_class_name: Literal[
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
    ]
    arch_kwargs: Network

    @property
    def is_residual(self) -> bool:
        return self.network_class_name == f"{_UNET}.ResidualEncoderUNet"

    @model_validator(mode="after")
    def _check_blocks(self) -> _Architecture:
        key, other = "n_blocks_per_stage", "n_conv_per_stage"
        wanted, unwanted = (key, other) if self.is_residual else (other, key)
        if getattr(self.arch_kwargs, wanted) is None or getattr(self.arch_kwargs, unwanted) is not None:
            raise ValueError(f"arch_kwargs.{wanted}: is wanted, and no {unwanted}")
        return self


class Configuration(PackConfig):
    """The configuration ``3d_fullres``."""

    spacing: tuple[Millimetre, Millimetre, Millimetre]
    patch_size: tuple[Count, Count, Count]
    preprocessor_name: Literal["DefaultPreprocessor"]
    normalization_schemes: tuple[Literal["ZScoreNormalization"], ...]
    use_mask_for_norm: tuple[bool, ...]
    architecture: _Architecture

    @model_validator(mode="after")
    def _check_patch(self) -> Configuration:
        strides = self.architecture.arch_kwargs.strides
        for axis, size in enumerate(self.patch_size):
            least = math.prod(stride[axis] for stride in strides)
            if size % least:
                raise ValueError(f"patch_size.{axis}: a multiple of {least} is wanted, by the strides")
        return self


class _Configurations(PackConfig):
    fullres: Configuration = Field(alias="3d_fullres")


class _Plans(PackConfig):
    transpose_forward: tuple[Literal[0], Literal[1], Literal[2]]
    image_reader_writer: Literal["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"]
    label_manager: Literal["LabelManager"]
    configurations: _Configurations


class _Dataset(PackConfig):
    labels: dict[str, int | tuple[int, ...]]
    channel_names: dict[str, str]


@dataclass(frozen=True, slots=True)
class Results:
    """What a results folder says of its networks.

    Attributes:
        labels: name of each label or region but the background, in the order of the outputs, to the glioma's regions
            that it belongs to, from the outermost to the innermost.
        is_region_based: each output is a region, with a sigmoid of its own; else outputs are labels, of which a softmax
            makes the probabilities, and the first is the background.
    """

    configuration: Configuration
    labels: Mapping[str, tuple[str, ...]]
    is_region_based: bool

    @property
    def outputs(self) -> int:
        """Number of the network's outputs."""
        return len(self.labels) + (not self.is_region_based)


def read_results(plans: bytes, dataset: bytes, card: ForeignCard) -> Results:
    """What ``plans.json`` and ``dataset.json`` say, if it is supported and agrees with the card.

    Raises:
        ModelPackError: a key is missing, not supported, or contradicts the card; the text names file and key.
    """
    found = checked(read_json(plans, PLANS), PLANS, _Plans)
    if found.image_reader_writer == "NibabelIOWithReorient" and card.grid.orientation != "RAS":
        text = "NibabelIOWithReorient turns images to RAS; the card's grid.orientation is"
        raise ModelPackError(f"{PLANS}: image_reader_writer: {text} {card.grid.orientation}")
    configuration, count = found.configurations.fullres, len(card.needed)
    for key in ("normalization_schemes", "use_mask_for_norm"):
        if len(getattr(configuration, key)) != count:
            place = f"{PLANS}: configurations.3d_fullres.{key}"
            raise ModelPackError(f"{place}: {count} entries are wanted, one for each needed contrast of the card")
    described = checked(read_json(dataset, DATASET), DATASET, _Dataset)
    _check_channels(described.channel_names, card)
    labels, is_region_based = _labels(described.labels)
    given = {region for regions in labels.values() for region in regions}
    if given != set(card.outputs):
        named = ", ".join(region for region in REGIONS if region in given)
        raise ModelPackError(f"{DATASET}: labels: give {named}; the card's outputs are {', '.join(card.outputs)}")
    return Results(configuration, labels, is_region_based)


def _check_channels(names: Mapping[str, str], card: ForeignCard) -> None:
    """The channels are those of the card, as far as their names tell contrasts."""
    if list(names) != [str(number) for number in range(len(card.needed))]:
        wanted = f"'0' to '{len(card.needed) - 1}'" if len(card.needed) > 1 else "'0'"
        raise ModelPackError(f"{DATASET}: channel_names: {wanted} are wanted, one for each needed contrast of the card")
    for (number, name), contrast in zip(names.items(), card.needed, strict=True):
        meant = _CONTRASTS.get(_plain(name))
        if meant not in (None, contrast):
            raise ModelPackError(f"{DATASET}: channel_names.{number}: is {meant}; the card's needed has {contrast}")


def _labels(values: Mapping[str, int | tuple[int, ...]]) -> tuple[dict[str, tuple[str, ...]], bool]:
    """``Results.labels`` and ``Results.is_region_based``; what is a region, nnU-Net's ``LabelManager`` says."""
    if values.get("background") != 0:
        raise ModelPackError(f"{DATASET}: labels.background: 0 is wanted")
    labels = {name: value for name, value in values.items() if name != "background"}
    is_region_based = any(isinstance(value, tuple) and len(value) > 1 for value in labels.values())
    if not labels:
        raise ModelPackError(f"{DATASET}: labels: there is none but the background")
    table = _REGIONS if is_region_based else _LABELS | (_REGIONS if len(labels) == 1 else {})
    for name in labels:
        if _plain(name) not in table:
            raise ModelPackError(f"{DATASET}: labels.{name[:64]}: is none of {', '.join(table)}")
    numbers = [value[0] if isinstance(value, tuple) and len(value) == 1 else value for value in labels.values()]
    if not is_region_based and numbers != list(range(1, len(labels) + 1)):
        raise ModelPackError(f"{DATASET}: labels: consecutive numbers in order are wanted")
    found = {name: table[_plain(name)] for name in labels}
    if is_region_based and len(set(found.values())) != len(found):
        raise ModelPackError(f"{DATASET}: labels: name a region twice")
    return found, is_region_based


def _plain(name: Any) -> str:
    """A name in small letters, its words joined by ``_``, spelled as in ``tumor`` and ``edema``."""
    words = "_".join(str(name).lower().replace("-", " ").replace("_", " ").split())
    return words.replace("tumour", "tumor").replace("oedema", "edema")


_REGIONS: dict[str, tuple[str, ...]] = {
    "whole_tumor": ("whole_tumour",), "tumor_core": ("tumour_core",), "enhancing_tumor": ("enhancing_tumour",),
}  # fmt: skip

_LABELS: dict[str, tuple[str, ...]] = {
    "edema": REGIONS[:1], "peritumoral_edema": REGIONS[:1],
    "necrotic": REGIONS[:2], "necrosis": REGIONS[:2], "necrotic_core": REGIONS[:2],
    "non_enhancing_and_necrosis": REGIONS[:2], "non_enhancing_tumor": REGIONS[:2],
    "enhancing_tumor": REGIONS,
}  # fmt: skip

_CONTRASTS = {
    "t1": Contrast.T1, "t1w": Contrast.T1, "t1n": Contrast.T1,
    "t1c": Contrast.T1C, "t1ce": Contrast.T1C, "t1gd": Contrast.T1C, "t1_gd": Contrast.T1C, "t1post": Contrast.T1C,
    "t2": Contrast.T2, "t2w": Contrast.T2, "flair": Contrast.FLAIR, "t2f": Contrast.FLAIR, "t2_flair": Contrast.FLAIR,
}  # fmt: skip
