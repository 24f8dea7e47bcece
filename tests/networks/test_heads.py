import itertools

import numpy as np
import pytest
import torch
from torch import distributions as td

from retrodict.errors import DataError
from retrodict.networks.distributions import Categorical, Normal, TanhNormal
from retrodict.networks.heads import ActionHead
from retrodict.networks.joint import JointHead
from retrodict.trajectories import ActionSpace, Box, Discrete, MuLaw, MultiBinary
from retrodict.trajectories.codecs import JointCodec

MU_LAW = MuLaw(10.0, 11)
GAME = ActionSpace(
    {
        "keys": MultiBinary(("forward", "left")),
        "mouse": Box(("turn",), -10, 10, quantiser=MU_LAW),
        "tool": Discrete(("a", "b", "c")),
    }
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def loud(head):
    """The head with weights large enough that it says something."""
    for p in head.parameters():
        torch.nn.init.normal_(p)
    return head


def every_action(space):
    values = []
    for part in space.parts.values():
        if isinstance(part, MultiBinary):
            values.append(list(itertools.product((0, 1), repeat=part.width)))
        elif isinstance(part, Discrete):
            values.append([(i,) for i in range(part.n)])
        else:
            values.append([(float(x),) for x in part.quantiser.decode(np.arange(part.quantiser.bins))])
    return torch.tensor([sum(map(tuple, combination), ()) for combination in itertools.product(*values)], dtype=torch.float32)


@pytest.mark.parametrize("keys", ["softmax", "bernoulli"])
def test_probabilities_of_all_actions_sum_to_one(keys):
    dist = loud(ActionHead(GAME, 5, {"keys": keys}))(torch.randn(1, 5))
    actions = every_action(GAME)
    assert len(actions) == 4 * 11 * 3
    total = log_prob_of(dist, actions).exp()
    assert total.sum().item() == pytest.approx(1, abs=1e-5)
    best = actions[total.argmax()]
    torch.testing.assert_close(dist.mode()[0], best)
    assert dist.confidence()[0].item() == pytest.approx(total.max().item(), rel=1e-5)


def log_prob_of(dist, actions):
    """Log probabilities of many actions under the distribution of the first step."""
    parts = {
        name: Categorical(part.logits[:1].expand(len(actions), *part.logits.shape[1:]), part.bounds, part.centres)
        for name, part in dist.parts.items()
    }
    return type(dist)(dist.space, parts, {}).log_prob(actions)


def test_parts_match_torch_distributions():
    head = loud(ActionHead(GAME, 5, {"keys": "bernoulli"}, temperature=2.0))
    features = torch.randn(4, 6, 5)
    action = every_action(GAME)[torch.randint(132, (4, 6))]
    dist = head(features)
    flat = {name: part.linear(features) / 2.0 for name, part in head.parts.items()}
    mouse = torch.from_numpy(MU_LAW.encode(action[..., 2].numpy()))
    expected = (
        td.Independent(td.Bernoulli(logits=flat["keys"]), 1).log_prob(action[..., :2])
        + td.Categorical(logits=flat["mouse"]).log_prob(mouse)
        + td.Categorical(logits=flat["tool"]).log_prob(action[..., 3])
    )
    torch.testing.assert_close(dist.log_prob(action), expected)
    entropy = (
        td.Bernoulli(logits=flat["keys"]).entropy().sum(-1)
        + td.Categorical(logits=flat["mouse"]).entropy()
        + td.Categorical(logits=flat["tool"]).entropy()
    )
    torch.testing.assert_close(dist.entropy(), entropy)


def test_kl_matches_torch():
    head = loud(ActionHead(ActionSpace({"tool": Discrete(("a", "b", "c"))}), 5))
    x, y = torch.randn(2, 7, 5)
    p, q = (td.Categorical(logits=head.parts["tool"].linear(z)) for z in (x, y))
    torch.testing.assert_close(head(x).kl(head(y)), td.kl_divergence(p, q))


def test_mu_law_bins_round_trip():
    head = ActionHead(GAME, 5).parts["mouse"]
    part = head(torch.randn(11, 5), 1.0)
    index = torch.arange(11)[:, None]
    assert torch.equal(part.index(part.value(index)), index)
    x = torch.linspace(-12, 12, 4001)
    np.testing.assert_array_equal(part.index(x[:, None])[:, 0].numpy(), MU_LAW.encode(x.numpy()))


def test_equal_bins_cover_the_range():
    head = ActionHead(ActionSpace({"point": Box(("x", "y"), 0.0, 1.0)}), 4, {"point": "binned"}, bins=1000)
    part = head.parts["point"](torch.randn(1000, 4), 1.0)
    index = torch.arange(1000)[:, None].expand(-1, 2)
    assert torch.equal(part.index(part.value(index)), index)
    assert part.value(index).min().item() == pytest.approx(0.0005)


def test_cells_round_trip_and_loss_of_the_truth_is_smallest():
    head = loud(ActionHead(ActionSpace({"point": Box(("x", "y"), -1.0, 1.0)}), 4, {"point": "cells"}, grid=(3, 5)))
    points = torch.rand(200, 2) * 2 - 1
    part = head(torch.randn(200, 4)).parts["point"]
    index, offset = part._places(points)
    exact = type(part)(part.logits, offset, part.grid, part.low, part.high)
    torch.testing.assert_close(exact._point(index), points)
    assert (exact.loss(points) <= part.loss(points) + 1e-6).all()
    assert part.mode().abs().max() <= 1
    torch.testing.assert_close(part.confidence(), part.log_prob(part.mode()).exp())


BODY = ActionSpace({"arm": Box(("x", "y"), -2.0, 3.0)})


@pytest.mark.parametrize("spread", ["squashed", "softplus", "free"])
def test_gaussians_match_torch(spread):
    features, action = torch.randn(5, 4), torch.rand(5, 2)
    head = loud(ActionHead(BODY, 4, spread=spread))
    part = head(features).parts["arm"]
    expected = td.Independent(td.Normal(part.mean, part.std), 1)
    torch.testing.assert_close(part.log_prob(action), expected.log_prob(action))
    torch.testing.assert_close(part.entropy(), expected.entropy())
    torch.testing.assert_close(part.kl(part), torch.zeros(5))
    assert (part.std > 0).all()
    assert part.mode().min() >= -2
    assert part.sample().max() <= 3


def test_tanh_gaussian_matches_torch():
    features, action = torch.randn(5, 4), torch.rand(5, 2)
    part = loud(ActionHead(BODY, 4, {"arm": "tanh_gaussian"}, spread="softplus"))(features).parts["arm"]
    squash = td.ComposeTransform([td.TanhTransform(), td.AffineTransform(0.5, 2.5)])
    expected = td.Independent(td.TransformedDistribution(td.Normal(part.mean, part.std), squash), 1)
    torch.testing.assert_close(part.log_prob(action), expected.log_prob(action), rtol=1e-4, atol=1e-4)
    assert part.log_prob(torch.full((5, 2), 3.0)).isfinite().all()
    assert ((part.sample() >= -2) & (part.sample() <= 3)).all()


@pytest.mark.parametrize("kind", [Normal, TanhNormal])
def test_confidence_is_the_probability_to_be_within_tolerance(kind):
    n = 200_000
    part = kind(torch.full((n, 1), 0.3), torch.full((n, 1), 0.5), torch.tensor([0.4]), -2.0, 3.0)
    near = ((part.sample() - part.mode()).abs() <= 0.4).float().mean()
    assert part.confidence()[0].item() == pytest.approx(near.item(), abs=0.005)


@pytest.mark.parametrize("kind", ["mse", "l1", "smooth_l1", "norm_cosine"])
def test_regression_losses_vanish_at_the_truth_only(kind):
    endless = ActionSpace({"arm": Box(("x", "y"))})
    dist = loud(ActionHead(endless, 4, {"arm": kind}))(torch.randn(6, 4))
    truth = dist.mode()
    assert dist.loss(truth).item() == pytest.approx(0, abs=1e-6)
    assert dist.loss(truth + 0.5).item() > 0.001
    for ask in (dist.confidence, lambda: dist.log_prob(truth)):
        with pytest.raises(TypeError, match="gaussian"):
            ask()


def test_scale_of_the_data_is_kept_in_the_weights():
    space = ActionSpace({"arm": Box(("x", "y"))})
    head, actions = ActionHead(space, 4), np.random.default_rng(0).normal([5, -3], [0.1, 20], (1000, 2))
    head.fit_scale(actions)
    part = head(torch.zeros(1, 4)).parts["arm"]
    np.testing.assert_allclose(part.mode()[0].detach(), actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(part.tolerance, 0.05 * np.ptp(actions, 0), rtol=1e-5)
    other = ActionHead(space, 4)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(torch.zeros(1, 4)).mode(), head(torch.zeros(1, 4)).mode())


def test_masked_steps_may_hold_anything():
    head = loud(ActionHead(GAME, 5))
    features, action = torch.randn(2, 3, 5), every_action(GAME)[torch.randint(132, (2, 3))]
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    expected = -head(features).log_prob(action)[mask].mean()
    action[~mask] = torch.nan
    loss = head(features).loss(action, mask)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
    assert head(features).loss(action, torch.zeros_like(mask)).item() == 0


def test_weights_weigh_steps():
    head, weight = loud(ActionHead(GAME, 5)), torch.tensor([1.0, 0.0, 3.0])
    features, action = torch.randn(3, 5), every_action(GAME)[:3]
    each = -head(features).log_prob(action)
    torch.testing.assert_close(head(features).loss(action, weight=weight), (each * weight).sum() / 4)


def test_losses_are_given_by_part():
    head, features, action = loud(ActionHead(GAME, 5)), torch.randn(3, 5), every_action(GAME)[:3]
    losses = head(features).losses(action)
    assert list(losses) == ["keys", "mouse", "tool"]
    torch.testing.assert_close(sum(losses.values()), head(features).loss(action))
    assert {**head(features).confidences()}.keys() == losses.keys()


def test_temperature_and_allowed_choices():
    head, features = loud(ActionHead(GAME, 5)), torch.randn(3, 5)
    assert head(features, temperature=0.01).confidence().min() > head(features).confidence().min()
    allowed = {"tool": torch.tensor([False, True, False]).expand(3, 3)}
    dist = head(features, allowed)
    assert (dist.sample()[:, 3] == 1).all()
    assert dist.entropy().isfinite().all()


def test_a_part_may_depend_on_a_choice():
    space = ActionSpace({"type": Discrete(("click", "wait")), "point": Box(("x", "y"), 0.0, 1.0)})
    head = loud(ActionHead(space, 4, {"point": "binned"}, bins=10, only_if={"point": ("type", (0,))}))
    features = torch.randn(50, 4)
    action = torch.rand(50, 3)
    action[:, 0] = torch.randint(2, (50,))
    dist = head(features)
    clicks = action[:, 0] == 0
    torch.testing.assert_close(dist.losses(action)["point"], -dist.parts["point"].log_prob(action[:, 1:])[clicks].mean())
    for drawn in (dist.mode(), dist.sample()):
        waits = drawn[:, 0] == 1
        assert waits.any()
        assert not drawn[waits, 1:].any()
        assert drawn[~waits, 1:].all()
    waiting = dist.mode()[:, 0] == 1
    torch.testing.assert_close(dist.confidence()[waiting], dist.confidences()["type"][waiting])


def test_kinds_that_do_not_fit_are_refused():
    for space, kinds in [
        (GAME, {"keys": "gaussian"}),
        (GAME, {"tool": "binned"}),
        (ActionSpace({"arm": Box(("x", "y"))}), {"arm": "tanh_gaussian"}),
        (ActionSpace({"arm": Box(("x",), 0, 1)}), {"arm": "cells"}),
    ]:
        with pytest.raises(DataError):
            ActionHead(space, 4, kinds)


def test_joint_head_is_a_distribution_and_ignores_a_resting_mouse():
    space = ActionSpace({k: GAME.parts[k] for k in ("keys", "mouse")})
    codec = JointCodec.of(space)
    head = loud(JointHead(codec, 5))
    dist = head(torch.randn(1, 5))
    buttons, mouse = map(np.ravel, np.meshgrid(np.arange(codec.buttons), np.arange(codec.mouse), indexing="ij"))
    joint = dist.parts["joint"]
    log_p = joint.buttons.logits[0, 0][buttons] + joint.mouse.logits[0, 0][mouse]
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    actions = torch.from_numpy(codec.decode(buttons, mouse))
    canonical = np.stack(codec.encode(actions.numpy()), 1)
    same = (canonical == np.stack([buttons, mouse], 1)).all(1)
    for i in np.flatnonzero(same)[:20]:
        torch.testing.assert_close(dist.log_prob(actions[i : i + 1])[0], log_p[i])
    assert 0 < dist.confidence().item() <= 1
    assert dist.sample().shape == (1, 3)
    still = head(torch.randn(400, 5)).sample()
    at_rest = codec.encode(still.numpy())[0] % 2 == 0
    assert at_rest.any()
    assert not still[torch.from_numpy(at_rest), 2].any()


def test_a_number_that_never_changes_is_certain_and_answers_stay_in_range():
    still = ActionHead(ActionSpace({"arm": Box(("x", "grip"))}), 4)
    still.fit_scale(np.column_stack([np.linspace(-1, 1, 20), np.ones(20)]))
    assert still(torch.zeros(1, 4)).confidence().item() > 0
    head = loud(ActionHead(ActionSpace({"arm": Box(("x",), -1, 1)}), 4, {"arm": "mse"}))
    head.fit_scale(np.linspace(-1, 1, 20)[:, None])
    said = head(10 * torch.randn(100, 4)).mode()
    assert said.abs().max() == 1
