"""The benchmark of surgery: what it makes of an exam is where it says, and words are counted."""

from __future__ import annotations

import numpy as np
import pytest
from glionode_bench.exams import Exam
from glionode_bench.surgery import bench_words, defects

from node.study import Contrast


def test_words_of_surgery_are_counted(tmp_path):
    """Of three descriptions, the one that speaks of surgery is counted."""
    file = tmp_path / "labelled.csv"
    file.write_text("description,label\nT1 post Gd,T1c\nAX T1 POSTOP,T1\nFLAIR,FLAIR\n", encoding="utf-8")
    row = bench_words(file)
    assert (row.count, row.found) == (3, 1)


@pytest.mark.slow
def test_defects_lie_on_their_side_and_outside_the_brain():
    """Each defect changes voxels on the side that it names, and none of the brain."""
    shape = (90, 100, 96)
    z, y, x = np.indices(shape) - np.reshape([45, 50, 48], (3, 1, 1, 1))
    radius = np.sqrt((z / 0.9) ** 2 + y**2 + (x / 0.95) ** 2)
    brain = radius < 34
    head = np.select([brain, radius < 39, radius < 45], [100, 10, 180], 0).astype(np.float32)
    count = 0
    for _, side, made in defects(Exam("ball", True, {Contrast.T1C: head}, brain, {})):
        changed = made != head
        assert not changed[brain].any()
        assert (x[changed].mean() > 0) == (side == "left")
        count += 1
    assert count == 48
