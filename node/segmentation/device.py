"""Choice and preparation of the device that runs the networks."""

from __future__ import annotations

import ctypes

import torch

from node.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def choose_device(setting: str) -> str:
    """The device for ``setting``; ``auto`` is the first CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: the requested CUDA device does not exist; there is no silent fall-back.
    """
    if setting == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if setting.startswith("cuda"):
        index = int(setting.partition(":")[2] or 0)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index >= count:
            raise ConfigError(f"segmentation.device: {setting} is not there ({count} CUDA devices)")
        return f"cuda:{index}"
    return "cpu"


def describe_device(device: str) -> str:
    """Name and memory of the device, as text."""
    if device == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    properties = torch.cuda.get_device_properties(device)
    return f"{device}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def prepare_device(setting: str, threads: int) -> str:
    """Choose the device and set the CPU threads (0: one per core); call it in the process that runs the networks."""
    device = choose_device(setting)
    _keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    # the published results are float32, so PyTorch must not use TF32
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return device


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory instead of returning it to the kernel and page-faulting it in again.

    Layers allocate and free thousands of blocks of a few MiB, which took a third of the time. Does nothing if the C
    library is not glibc.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
