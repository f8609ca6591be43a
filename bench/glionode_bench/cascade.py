"""``glionode bench cascade``: measure each form of the cascade on one case, each in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from glionode_bench.plain import PlainMSNet, flops
from node.errors import RetryableError
from node.methods.card import read_card
from node.methods.cascade import Cascade
from node.methods.network import MSNet
from node.methods.packs import load_networks, load_weights
from node.segmentation.device import describe_device, prepare_device
from node.segmentation.nifti_case import read_case

FORMS = ("plain-published", "published", "slab")
_PEAK_SIZE, _PEAK_SECONDS = 2048, 1.0


@dataclass(frozen=True, slots=True)
class FormResult:
    """Measurement of one form on one case.

    ``peak_share``: its speed as a share of the speed of a matrix product in the same process.
    """

    form: str
    device: str
    wall_seconds: float
    cpu_seconds: float
    peak_mebibytes: int
    gigaflop: float
    gigaflop_per_second: float
    peak_share: float


class _Counted:
    """A network that counts its floating-point operations and its time."""

    def __init__(self, net: MSNet | PlainMSNet, halves_twice: bool) -> None:
        self._net = net
        self._halves_twice = halves_twice
        self.flop = 0
        self.seconds = 0.0

    def logits(self, x: Tensor) -> Tensor:
        """Logits of the network; waits until a GPU has finished."""
        self.flop += flops(tuple(x.shape), self._halves_twice)
        begun = time.perf_counter()
        out = self._net.logits(x)
        if out.is_cuda:
            torch.cuda.synchronize(out.device)
        self.seconds += time.perf_counter() - begun
        return out


def run_form(form: str, case_dir: Path, pack: tuple[str, Path], device_setting: str, threads: int) -> FormResult:
    """Run one form in this process. ``pack``: name of the model pack, and the models folder."""
    name, models_folder = pack
    device = prepare_device(device_setting, threads)
    card = read_card(name)
    networks: Mapping[str, MSNet | PlainMSNet]
    if form.startswith("plain"):
        weights = load_weights(card, models_folder)
        networks = {net: PlainMSNet(each, device) for net, each in weights.items()}
    else:
        networks = load_networks(card, models_folder, device)
    counted = {net: _Counted(each, not net.startswith("en")) for net, each in networks.items()}
    case = read_case(case_dir)
    cpu_begun, begun = _cpu_seconds(), time.perf_counter()
    Cascade(counted, "slab" if form.endswith("slab") else "published").run(case.volumes_zyx)
    wall, cpu = time.perf_counter() - begun, _cpu_seconds() - cpu_begun
    gigaflop = sum(each.flop for each in counted.values()) / 1e9
    speed = gigaflop / sum(each.seconds for each in counted.values())
    return FormResult(
        form, describe_device(device), wall, cpu, _peak_mebibytes(device), gigaflop, speed, speed / _peak(device)
    )


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mebibytes(device: str) -> int:
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device) / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _peak(device: str) -> float:
    """GFLOP/s of a float32 matrix product, the best of the repetitions within `_PEAK_SECONDS`."""
    one = torch.randn(_PEAK_SIZE, _PEAK_SIZE, device=device)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < _PEAK_SECONDS:
        start = time.perf_counter()
        product = one @ one
        if product.is_cuda:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return float(2 * _PEAK_SIZE**3 / best / 1e9)


def bench(
    case_dir: Path, arguments: Sequence[str], devices: Sequence[str], progress: Callable[[str, float], None] | None
) -> list[FormResult]:
    """Measure every form on every device, each in a new process, so that its peak memory is its own.

    Args:
        arguments: further arguments of the command for each process (--config).

    Raises:
        RetryableError: a process failed; the message holds its last line.
    """
    results = []
    pairs = [(form, device) for device in devices for form in FORMS]
    for number, (form, device) in enumerate(pairs):
        if progress:
            progress(f"{form} on {device}", number / len(pairs))
        command = [sys.executable, "-P", "-m", "node", "bench", "form", form, str(case_dir), "--device", device]
        command += arguments
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RetryableError(f"{form} on {device}: {done.stderr.strip().splitlines()[-1:]}")
        results.append(FormResult(**json.loads(done.stdout)))
    return results


def as_json(result: FormResult) -> str:
    """One result as JSON for the parent process."""
    return json.dumps(asdict(result))
