"""Which device computes."""

from __future__ import annotations

import ctypes

import torch

from node.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def choose_device(setting: str) -> str:
    """``auto`` is the first CUDA device if there is one, else the CPU; a device that is asked for must be there.

    Raises:
        ConfigError: the CUDA device asked for is not there; there is no silent fall-back.
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
    """For humans: name and memory."""
    if device == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    properties = torch.cuda.get_device_properties(device)
    return f"{device}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def prepare_device(setting: str, threads: int) -> str:
    """Choose the device and set the CPU threads (0: as many as there are cores). For the process that computes."""
    device = choose_device(setting)
    _keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    # the published answer is a float32 answer: no TF32 behind our back
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return device


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed instead of giving it back to the kernel and faulting it in again.

    Layers allocate and free blocks of a few MiB by the thousand; that alone was a third of the time. Where the C
    library is not glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
