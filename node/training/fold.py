"""Training of one network, on all cases but those of its fold: steps, moving mean of the weights, checkpoints."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node.errors import ConfigError
from node.methods.dropout_unet import DropoutUNet
from node.methods.torch_weights import read_torch_file
from node.training.cases import TrainingCase
from node.training.patches import patch_of
from node.training.recipe import OptimiserSection, Recipe

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FREE = ("optimiser.round_steps", "training_data")
"""Keys of a recipe that change nothing in the weights."""

_EMA_RAMP = 10
"""The moving mean forgets the first weights quickly: after n steps it keeps at most (1 + n) / (10 + n)."""


def learning_rate(step: int, section: OptimiserSection) -> float:
    """The rate of a step: warm-up, constant, and linear decay to zero over the last steps."""
    warm = min(1.0, (step + 1) / section.warmup_steps)
    left = min(1.0, (section.steps - step) / section.decay_steps)
    return section.learning_rate * warm * left


class FoldTraining:
    """The network of fold ``number`` (from 1) while it is trained.

    Every step draws from a generator of its own, seeded by recipe, fold and step: a run that was stopped goes on as if
    it had not been.

    Args:
        cases: those that the network sees, that is, all but its fold's.
    """

    def __init__(self, recipe: Recipe, number: int, cases: Sequence[TrainingCase], device: str = "cpu") -> None:
        from monai.losses import DiceCELoss

        self.number = number
        self.losses: list[float] = []
        self._recipe, self._cases, self._device = recipe, cases, device
        torch.manual_seed(recipe.seed * 1000 + number)
        self.network = DropoutUNet(recipe.network.widths, recipe.network.blocks).to(device)
        self.average = DropoutUNet(recipe.network.widths, recipe.network.blocks).to(device)
        self.average.load_state_dict(self.network.state_dict())
        section = recipe.optimiser
        self._optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=section.weight_decay)
        # of all regions of a patch alike; the smoothing keeps a patch without a region from a loss of 1 for one voxel
        self._loss = DiceCELoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
        self._dtype = _PRECISIONS[section.precision]
        self._scaler = torch.amp.GradScaler(device, enabled=device != "cpu" and section.precision == "float16")

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def is_done(self) -> bool:
        """True after the recipe's last step."""
        return self.step >= self._recipe.optimiser.steps

    def run_step(self) -> float:
        """Do one step; its loss."""
        section = self._recipe.optimiser
        random = np.random.default_rng([self._recipe.seed, self.number, self.step])
        patches = [patch_of(self._cases, self._recipe, random) for _ in range(section.batch)]
        x, present, regions = (
            torch.stack([getattr(patch, part) for patch in patches]).to(self._device)
            for part in ("x", "present", "regions")
        )
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self.step, section)
        with torch.autocast(torch.device(self._device).type, self._dtype, enabled=section.precision != "float32"):
            logits = self.network(x, present)
        loss: Tensor = self._loss(logits.float(), regions)
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # so in torch
        self._scaler.unscale_(self._optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), section.clip)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._average()
        self.losses.append(loss.item())
        return self.losses[-1]

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self._recipe.optimiser.ema, (1 + self.step) / (_EMA_RAMP + self.step))
        for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(value, 1 - keep)

    def save(self, file: Path) -> None:
        """Write the checkpoint, aside and renamed."""
        state = {
            "recipe": _binding(self._recipe),
            "fold": self.number,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        temporary = file.with_name(file.name + ".part")
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            os.fsync(stream.fileno())
        temporary.replace(file)

    def resume(self, file: Path) -> None:
        """Go on from the checkpoint in ``file``.

        Raises:
            ModelPackError: the file is no checkpoint.
            ConfigError: the checkpoint is of another recipe (the message names the key), or its rate has decayed
                otherwise than the recipe says.
        """
        state = read_torch_file(io.BytesIO(file.read_bytes()), str(file))
        _check(file, state, self._recipe, self.number)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        self.losses = list(state["losses"])


def _binding(recipe: Recipe) -> dict[str, Any]:
    """All values of a recipe, by dotted key, that a run must keep."""
    flat: dict[str, Any] = {}
    for key, value in recipe.model_dump(mode="json").items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{key}.{name}".rstrip("."): each for name, each in inner}
    return {key: value for key, value in flat.items() if key not in _FREE}


def _check(file: Path, state: dict[str, Any], recipe: Recipe, number: int) -> None:
    old, new = {key: value for key, value in state["recipe"].items() if key not in _FREE}, _binding(recipe)
    adjustable = {"optimiser.steps", "optimiser.decay_steps"}
    for key in sorted((old.keys() | new.keys()) - adjustable):
        if old.get(key) != new.get(key):
            raise ConfigError(f"{file}: the run was begun with {key} = {old.get(key)}, the recipe says {new.get(key)}")
    if state["fold"] != number:
        raise ConfigError(f"{file}: is of fold {state['fold']}, not {number}")
    done = len(state["losses"])
    begins = [values["optimiser.steps"] - values["optimiser.decay_steps"] for values in (old, new)]
    if any(old[key] != new[key] for key in adjustable) and done > min(begins) + 1:
        raise ConfigError(
            f"{file}: the run has done {done} steps and its decay begins after {min(begins)}: "
            "optimiser.steps and decay_steps can no longer be changed"
        )
