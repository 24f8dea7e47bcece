import pytest
import torch

from retrodict.objectives.masked import masked_mean


@pytest.fixture
def x():
    return torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))


def test_without_a_mask_it_is_the_mean(x):
    torch.testing.assert_close(masked_mean(x), x.mean())
    torch.testing.assert_close(masked_mean(x, dims=(0, 2)), x.mean((0, 2)))
    torch.testing.assert_close(masked_mean(x, sum_dims=(1, 2)), x.sum((1, 2)).mean())


def test_only_valid_entries_count(x):
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    torch.testing.assert_close(masked_mean(x, mask), x[mask].mean())
    torch.testing.assert_close(masked_mean(x, mask, sum_dims=-1), x[mask].sum(-1).mean())
    torch.testing.assert_close(masked_mean(x, mask, dims=(1, 2))[0], x[0, mask[0]].mean())


def test_weights_per_step_and_per_trajectory(x):
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5])
    expected = (x.mean((1, 2)) * weight).sum() / weight.sum()
    torch.testing.assert_close(masked_mean(x, weight=weight), expected)
    torch.testing.assert_close(masked_mean(x, weight=weight[:, None].expand(4, 5)), expected)


def test_nothing_valid_gives_zero_and_junk_does_not_matter(x):
    x = x.requires_grad_()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    assert masked_mean(x, mask).item() == 0
    assert masked_mean(x, mask, dims=1).abs().sum() == 0
    mask[0, 0] = True
    loss = masked_mean(torch.where(mask[..., None], x, torch.nan), mask)
    loss.backward()
    torch.testing.assert_close(loss, x[0, 0].mean())
    assert x.grad.isfinite().all()
