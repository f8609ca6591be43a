"""A training recipe: a TOML file that says everything a network is made from, besides the cases."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from node.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSection(_Section):
    """Size of the network (``dropout_unet.DropoutUNet``)."""

    widths: tuple[Positive, ...] = (32, 64, 64, 64)
    blocks: tuple[Positive, ...] = (1, 1, 2, 1)

    @model_validator(mode="after")
    def _as_many(self) -> NetworkSection:
        if len(self.widths) != len(self.blocks):
            raise ValueError("widths and blocks must be as many")
        return self


class PatchSection(_Section):
    """What part of a case one step sees.

    Attributes:
        size_zyx: voxels of 1 mm.
        margin: further voxels at each side, from which rotation and scaling fill the corners.
        tumour_centre, core_centre: shares of patches with a voxel of the tumour, or of its core, at the centre; the
            rest have any voxel of the brain there.
    """

    size_zyx: tuple[Positive, Positive, Positive] = (96, 112, 96)
    margin: Annotated[int, Field(ge=0)] = 12
    tumour_centre: Share = 0.4
    core_centre: Share = 0.3


class ContrastSection(_Section):
    """Contrast dropout: T1c is always there.

    Attributes:
        all_present: share of patches with all four contrasts.
        t1c_alone: share of patches with T1c only.
        drop: in the rest, the chance of each of FLAIR, T1 and T2 to be missing.
    """

    all_present: Share = 0.3
    t1c_alone: Share = 0.2
    drop: Share = 0.4


class AugmentationSection(_Section):
    """Disturbances, each with its chance (of a patch, or of each contrast of a patch) and its greatest size.

    Attributes:
        bias, bias_size: a smooth field that multiplies each contrast by up to 1 +- ``bias_size``.
        noise, noise_size: Gaussian noise, standard deviation in means of the contrast inside the brain.
        gamma, gamma_size: the contrast to a power between 1 / (1 + size) and 1 + size.
        thick, thick_mm: slices of up to ``thick_mm`` along any axis.
        turn, turn_degrees, scale_size: rotation about each axis, and scaling by up to 1 +- ``scale_size``.
        carve: chance that the tumour of another case is put into the head, where it was in its own (CarveMix: Zhang et
            al. 2021); for cases on one grid only, as those of an atlas are.
    """

    bias: Share = 0.5
    bias_size: Share = 0.45
    noise: Share = 0.2
    noise_size: Share = 0.25
    gamma: Share = 0.3
    gamma_size: Annotated[float, Field(ge=0)] = 0.5
    thick: Share = 0.15
    thick_mm: Positive = 5
    turn: Share = 0.3
    turn_degrees: Annotated[float, Field(ge=0, le=90)] = 15.0
    scale_size: Annotated[float, Field(ge=0, lt=1)] = 0.15
    carve: Share = 0.3


class OptimiserSection(_Section):
    """AdamW with warm-up, a constant rate, and a linear decay to zero at the end.

    The rate does not depend on ``steps`` before the decay, so a run may be made longer, or shorter, until its decay
    begins, and is then the run that the changed recipe gives from the start.

    Attributes:
        steps: of each fold.
        decay_steps: the last ones, in which the rate falls.
        round_steps: the folds take turns after so many steps; a checkpoint is written at each turn.
        ema: share of the old value in the moving mean of the weights, which is what is shipped.
        clip: greatest norm of the gradient.
        precision: of convolutions on the training device; weights and gradients are float32.
    """

    steps: Positive = 1000
    decay_steps: Positive = 300
    warmup_steps: Positive = 40
    round_steps: Positive = 50
    batch: Positive = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    clip: Annotated[float, Field(gt=0)] = 5.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _decay_is_a_part(self) -> OptimiserSection:
        if self.decay_steps + self.warmup_steps > self.steps:
            raise ValueError("warmup_steps and decay_steps together exceed steps")
        return self


class Recipe(_Section):
    """All that a training run needs besides the cases.

    Attributes:
        name: of the pack that the run makes.
        training_data: a sentence for the card: what cases these are, and under what terms they may be used.
        folds: names of the cases that each network does *not* see; every case is in exactly one fold. Cases of one
            patient belong into one fold, which names cannot tell and the recipe's author must see to.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    training_data: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    network: NetworkSection = NetworkSection()
    patches: PatchSection = PatchSection()
    contrasts: ContrastSection = ContrastSection()
    augmentation: AugmentationSection = AugmentationSection()
    optimiser: OptimiserSection = OptimiserSection()
    folds: tuple[tuple[str, ...], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [name for fold in self.folds for name in fold]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"cases in more than one fold: {', '.join(twice)}")
        multiple = 2 ** len(self.network.widths)
        if any(edge % multiple for edge in self.patches.size_zyx):
            raise ValueError(f"patches.size_zyx must be multiples of {multiple} for {len(self.network.widths)} levels")
        if self.contrasts.all_present + self.contrasts.t1c_alone > 1:
            raise ValueError("contrasts.all_present and contrasts.t1c_alone together exceed 1")
        if self.patches.tumour_centre + self.patches.core_centre > 1:
            raise ValueError("patches.tumour_centre and patches.core_centre together exceed 1")
        return self


def read_recipe(file: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        ConfigError: the file is missing or no TOML, or a value is wrong; the message names file and key.
    """
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'recipe'}: {each['msg']}" for each in error.errors()]
        raise ConfigError(f"{file}: " + "; ".join(wrong)) from None
