from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from retrodict.errors import DataError
from retrodict.objectives.contrastive import chance, contrastive
from retrodict.objectives.latent import latent_prediction
from retrodict.objectives.spread import covariance_term, entropy_term, singular_value_term


def codes(n=40, d=5, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_covariance_term_is_the_mean_squared_off_diagonal_entry():
    z = codes()
    expected = np.cov(z.numpy().T)
    off = expected[~np.eye(5, dtype=bool)]
    assert float(covariance_term(z)) == pytest.approx(float((off**2).mean()))
    assert float(covariance_term(z.view(8, 5, 5))) == pytest.approx(float((off**2).mean()))
    whitened = torch.linalg.qr(z - z.mean(0)).Q
    assert float(covariance_term(whitened)) < 1e-20
    assert gradcheck(covariance_term, codes(6, 3).requires_grad_())


def test_even_codes_have_no_singular_value_term_and_collapsed_ones_have():
    eye = torch.eye(4, dtype=torch.float64)
    even = torch.cat([eye, -eye])  # centred, unit, all singular values sqrt(2) = sqrt(N / r)
    for form in ("svd", "gram"):
        assert float(singular_value_term(even, form)) < 1e-6
        line = torch.cat([eye[:1].expand(4, -1), -eye[:1].expand(4, -1)])
        assert float(singular_value_term(line, form)) > 0.5
        assert float(singular_value_term(eye[:1].expand(8, -1), form)) == pytest.approx(1.0, abs=1e-4)
    assert gradcheck(lambda z: singular_value_term(z, "gram"), codes(7, 3).requires_grad_())
    assert gradcheck(singular_value_term, codes(7, 3).requires_grad_(), atol=1e-4)


def test_the_entropy_term_is_least_where_directions_are_used_evenly():
    eye = torch.eye(4, dtype=torch.float64)
    assert float(entropy_term(torch.cat([eye, -eye]))) == pytest.approx(-math.log(4))
    line = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None] * eye[:1]
    assert float(entropy_term(line)) == pytest.approx(0.0, abs=1e-9)
    z = codes(12, 3).requires_grad_()
    step = z - 0.1 * torch.autograd.grad(entropy_term(z), z)[0]
    assert float(entropy_term(step.detach())) < float(entropy_term(z.detach()))  # descending it spreads the codes


def test_too_few_codes_are_refused():
    for term, n in ((covariance_term, 1), (singular_value_term, 2), (entropy_term, 7)):
        with pytest.raises(DataError, match=f"{n} were given"):
            term(codes(n))
    with pytest.raises(DataError, match="do not differ"):
        entropy_term(torch.ones(8, 3))


def test_latent_prediction_by_three_distances():
    prediction, target = codes(4, 3, 1).requires_grad_(), codes(4, 3, 2).requires_grad_()
    p, t = prediction.detach().numpy(), target.detach().numpy()
    cos = (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
    assert float(latent_prediction(prediction, target, "cosine")) == pytest.approx(1 - cos.mean())
    assert float(latent_prediction(prediction, target, "squared")) == pytest.approx(((p - t) ** 2).sum(1).mean())
    normed = (t - t.mean(1, keepdims=True)) / np.sqrt(t.var(1, keepdims=True) + 1e-5)
    assert float(latent_prediction(prediction, target, "l1")) == pytest.approx(np.abs(p - normed).mean())
    mask = torch.tensor([True, False, False, True])
    assert float(latent_prediction(prediction, target, "squared", mask)) == pytest.approx(((p - t) ** 2).sum(1)[[0, 3]].mean())


def test_no_gradient_flows_into_the_target_unless_it_is_let_in():
    prediction, target = codes(4, 3, 1).requires_grad_(), codes(4, 3, 2).requires_grad_()
    latent_prediction(prediction, target, "cosine").backward()
    assert prediction.grad is not None
    assert target.grad is None
    latent_prediction(prediction, target, "cosine", stop_gradient=False).backward()
    assert target.grad is not None


def by_hand(a, b, t):
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    logits = a @ b.T / t
    return float(np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)))


def test_two_towers_and_both_directions():
    a, b = codes(6, 4, 3), codes(6, 4, 4)
    one, back = by_hand(a.numpy(), b.numpy(), 0.3), by_hand(b.numpy(), a.numpy(), 0.3)
    assert float(contrastive(a, b, temperature=0.3)) == pytest.approx(one)
    assert float(contrastive(a, b, temperature=0.3, symmetric=True)) == pytest.approx((one + back) / 2)
    assert float(contrastive(a, b, temperature=0.3, penalty=0.1)) == pytest.approx(
        one + 0.1 * float((a.square().sum(1).mean() + b.square().sum(1).mean()) / 2)
    )
    dot = (a @ b.T).numpy()
    expected = np.mean(np.log(np.exp(dot).sum(1)) - np.diag(dot))
    assert float(contrastive(a, b, temperature=1.0, similarity="dot")) == pytest.approx(float(expected))


def test_views_of_one_batch_find_each_other_and_not_themselves():
    z = codes(8, 4, 5)
    unit = torch.nn.functional.normalize(z, dim=1).numpy()
    logits = unit @ unit.T / 0.5
    np.fill_diagonal(logits, -np.inf)
    partner = (np.arange(8) + 4) % 8
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(8), partner])
    assert float(contrastive(z, temperature=0.5)) == pytest.approx(float(expected))


def test_several_positives_count_in_two_ways_and_masks_choose_the_candidates():
    z, labels = codes(6, 4, 6), torch.tensor([0, 0, 0, 1, 1, 2])
    same = (labels[:, None] == labels) & ~torch.eye(6, dtype=torch.bool)
    unit = torch.nn.functional.normalize(z, dim=1).numpy()
    logits = unit @ unit.T
    np.fill_diagonal(logits, -np.inf)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    mean_of_logs = np.mean([-log_p[i, same[i].numpy()].mean() for i in range(5)])
    log_of_sum = np.mean([-np.log(np.exp(log_p[i, same[i].numpy()]).sum()) for i in range(5)])
    assert float(contrastive(z, positives=same, temperature=1.0)) == pytest.approx(mean_of_logs)
    assert float(contrastive(z, positives=same, temperature=1.0, reduce="log_of_sum")) == pytest.approx(log_of_sum)
    alone = torch.zeros(6, 6, dtype=torch.bool)
    assert float(contrastive(z, positives=same, negatives=alone, temperature=1.0, reduce="log_of_sum")) == pytest.approx(0.0)
    more = contrastive(z, positives=same, temperature=1.0, extra=codes(3, 4, 7))
    assert float(more) > mean_of_logs


def test_chance_and_refusals():
    z = torch.zeros(10, 4)
    assert float(contrastive(z, z, temperature=0.1)) == pytest.approx(chance(10))
    with pytest.raises(DataError, match="no row has a positive"):
        contrastive(z, z, temperature=1.0, positives=torch.zeros(10, 10, dtype=torch.bool))
    with pytest.raises(DataError, match="no usual positives"):
        contrastive(z, z[:3], temperature=1.0)
