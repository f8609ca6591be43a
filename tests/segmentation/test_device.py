"""The device that is asked for is used, or named as missing."""

from __future__ import annotations

import pytest
import torch

from node.errors import ConfigError
from node.segmentation.device import choose_device, describe_device, prepare_device


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA "auto" computes on the CPU; with it, on the first device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda:0"


def test_a_missing_gpu_is_an_error_not_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a device that is not there names the key."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match=r"segmentation\.device: cuda:2"):
        choose_device("cuda:2")


def test_threads_are_set_as_asked() -> None:
    """The number of threads is the config's; the description tells it."""
    before = torch.get_num_threads()
    try:
        assert prepare_device("cpu", 1) == "cpu"
        assert describe_device("cpu") == "CPU, 1 threads"
    finally:
        torch.set_num_threads(before)
