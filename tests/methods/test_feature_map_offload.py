"""Feature maps that do not fit are kept elsewhere, and come back equal."""

from __future__ import annotations

import torch

from node.methods.feature_map_offload import FileOffload, HostOffload, NoOffload, choose_offload


def test_maps_are_parked_only_when_they_do_not_fit() -> None:
    """Below the limit they stay; above it a GPU's wait on the host, the CPU's in a file."""
    shape, cpu = (1, 20, 100, 100, 4), torch.device("cpu")
    assert isinstance(choose_offload(shape, cpu, None), NoOffload)
    assert isinstance(choose_offload(shape, cpu, 2**30), NoOffload)
    assert isinstance(choose_offload(shape, cpu, 2**20), FileOffload)
    assert isinstance(choose_offload(shape, torch.device("cuda:0"), 2**20), HostOffload)


def test_a_parked_block_comes_back_equal() -> None:
    """What went into a file is what comes out."""
    block = torch.randn(3, 4, 5, 6)
    offload = FileOffload()
    assert torch.equal(offload.get(offload.put(block)), block)
