"""The compiled prior that is fed its own draws, against the one in torch, forward and by hand backward."""

import pytest
import torch

from retrodict.systems.generators.latent_priors import LOGVAR, GRUPrior, draws_in_torch


def both(monkeypatch, prior: GRUPrior, n: int, steps: int):
    """Paths, means and log-variances by the compiled loops and in torch, from the same noise."""
    torch.manual_seed(1)
    compiled = prior.paths(n, steps)
    with monkeypatch.context() as patch:
        patch.setattr("retrodict.systems.generators.latent_priors._Draws.apply", draws_in_torch)
        torch.manual_seed(1)
        return compiled, prior.paths(n, steps)


@pytest.mark.parametrize(("latent", "hidden", "n", "steps"), [(1, 1, 1, 2), (16, 20, 64, 24), (3, 7, 33, 5)])
def test_compiled_loops_agree_with_torch_forward_and_backward(monkeypatch, latent, hidden, n, steps):
    torch.manual_seed(0)
    prior = GRUPrior(latent, hidden)
    compiled, reference = both(monkeypatch, prior, n, steps)
    for one, other in zip(compiled, reference, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    weights = [torch.randn(n, steps, latent) for _ in range(3)]
    mine, others = (
        torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, found, strict=True)), tuple(prior.parameters()))
        for found in (compiled, reference)
    )
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(1 + other.abs().max()), rtol=1e-4)


def test_bounded_log_variances_have_no_gradient(monkeypatch):
    torch.manual_seed(0)
    prior = GRUPrior(2, 3)
    with torch.no_grad():
        prior.logvar.bias.copy_(torch.tensor([2 * LOGVAR[0], 2 * LOGVAR[1]]))
    for path, mean, logvar in both(monkeypatch, prior, 5, 4):
        assert logvar[..., 0].eq(LOGVAR[0]).all()
        assert logvar[..., 1].eq(LOGVAR[1]).all()
        prior.zero_grad()
        (path.sum() + mean.sum() + logvar.sum()).backward()
        assert not prior.logvar.bias.grad.any()
        assert prior.mean.bias.grad.all()
