"""Where frames change."""

import torch

from retrodict.metrics.changes import changed


def test_the_patches_that_change_most_are_found_in_each_frame():
    before = torch.zeros(2, 10, 3)
    after = before.clone()
    after[0, 4], after[0, 7], after[0, 1] = 3.0, -2.0, 1.0
    after[1, 0, 2], after[1, 9, 0] = 5.0, 4.0
    where = changed(before, after, top=0.2)
    assert where.nonzero().tolist() == [[0, 4], [0, 7], [1, 0], [1, 9]]
    assert changed(before, after, top=0.01).sum(-1).tolist() == [1, 1]
