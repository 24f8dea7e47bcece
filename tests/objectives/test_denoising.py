import math

import pytest
import torch

from retrodict.errors import DataError
from retrodict.objectives.denoising import Schedule, ddim, guided, inverted
from retrodict.objectives.flow_matching import flow, flow_matching, shifted


def normal(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def point(schedule, x0):
    """The exact noise where the data are one point: x_t = sqrt(k) x0 + sqrt(1 - k) eps."""
    return lambda x, level: (x - schedule.at(level) ** 0.5 * x0) / (1 - schedule.at(level)) ** 0.5


def gaussian(schedule, std):
    """The exact mean of the noise where the data are normal of mean 0: E[eps | x_t]."""

    def model(x, level):
        kept = schedule.at(level)
        return (1 - kept) ** 0.5 * x / (kept * std**2 + 1 - kept)

    return model


def test_the_cosine_keeps_what_its_formula_says():
    kept = Schedule("cosine", 100).kept
    expected = [
        (math.cos(((t + 1) / 100 + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2 for t in range(99)
    ]
    torch.testing.assert_close(kept[:99], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)
    assert float(kept[99] / kept[98]) == pytest.approx(0.001)  # beta is held at 0.999


def test_the_linear_schedule_ends_where_that_of_ddpm_does():
    schedule = Schedule("linear", 1000)
    assert float(schedule.betas[0]) == pytest.approx(1e-4)
    assert schedule.at(999) == pytest.approx(4.036e-5, rel=1e-3)  # "L_T = D(q(x_T | x_0) || N(0, I)) is about 1e-5 bits"
    for levels in (50, 100, 400):  # fewer levels lead as far
        assert Schedule("linear", levels).kept[-1] < 2 * schedule.kept[-1]
    with pytest.raises(DataError, match="cosine or linear"):
        Schedule("square", 10)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_every_sample_is_noised_at_its_own_level_and_variance_is_kept(kind):
    schedule, x, noise = Schedule(kind, 100), normal((3, 20_000)), normal((3, 20_000), 1)
    levels = torch.tensor([0, 40, 99])
    noisy = schedule.add_noise(x, levels, noise)
    for row, level in zip(range(3), levels.tolist(), strict=True):
        kept = schedule.at(level)
        torch.testing.assert_close(noisy[row], kept**0.5 * x[row] + (1 - kept) ** 0.5 * noise[row])
    torch.testing.assert_close(noisy.var(1), torch.ones(3, dtype=torch.float64), rtol=0, atol=0.05)


def test_noise_is_that_of_v():
    schedule, x, noise, levels = Schedule("cosine", 100), normal((4, 3)), normal((4, 3), 1), torch.tensor([0, 30, 90, 99])
    noisy, kept = schedule.add_noise(x, levels, noise), schedule.kept[levels][:, None]
    v = kept.sqrt() * noise - (1 - kept).sqrt() * x
    torch.testing.assert_close(schedule.noise_of(v, noisy, levels), noise)
    off = (schedule.noise_of(v + 1, noisy, levels) - noise).mean(1)
    torch.testing.assert_close(off, kept[:, 0].sqrt())


def test_sampled_levels_are_those_of_both_spacings():
    schedule = Schedule("cosine", 100)
    assert schedule.sampled(10, "leading") == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert schedule.sampled(10, "trailing") == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert schedule.sampled(100, "leading") == schedule.sampled(100, "trailing") == list(range(99, -1, -1))
    assert schedule.sampled(1, "trailing") == [99]
    with pytest.raises(DataError, match="each of 100 levels"):
        schedule.sampled(101)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 10, 33])
def test_a_point_is_found_out_of_any_noise_in_any_number_of_steps(steps, spacing):
    schedule, x0 = Schedule("cosine", 100), normal((4, 3))
    torch.testing.assert_close(ddim(point(schedule, x0), normal((4, 3), 1), schedule, steps, spacing=spacing), x0)


def test_ddim_draws_nothing_and_ddpm_does():
    schedule, noise = Schedule("cosine", 100), normal((5, 2))
    model = gaussian(schedule, 2.0)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(ddim(model, noise, schedule), ddim(model, noise, schedule))
    assert torch.equal(before, torch.get_rng_state())
    drawn = [ddim(model, noise, schedule, eta=1.0, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_have_the_spread_of_the_data(eta):
    schedule = Schedule("cosine", 100)
    drawn = ddim(gaussian(schedule, 0.5), normal((20_000, 1)), schedule, 100, eta=eta, generator=torch.Generator().manual_seed(1))
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.06)


def test_a_step_of_ddpm_draws_from_the_posterior():
    """q(x_{t-1} | x_t, x_0) of Ho et al., 2020, equations 6 and 7."""
    schedule, x0, xt, seen = Schedule("cosine", 20), normal((6, 2)), normal((6, 2), 1), {}
    oracle = point(schedule, x0)

    def model(x, level):
        seen[level] = x
        return oracle(x, level)

    ddim(model, xt, schedule, 20, start=11, eta=1.0, generator=torch.Generator().manual_seed(3))
    assert list(seen) == list(range(11, -1, -1))
    beta, kept, left = float(schedule.betas[11]), schedule.at(11), schedule.at(10)
    mean = left**0.5 * beta / (1 - kept) * x0 + (1 - beta) ** 0.5 * (1 - left) / (1 - kept) * xt
    deviation = (beta * (1 - left) / (1 - kept)) ** 0.5
    drawn = torch.randn(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(seen[10], mean + deviation * drawn)


def test_a_limit_is_kept_and_a_start_leaves_out_what_is_above():
    schedule, asked = Schedule("cosine", 100), []
    far = torch.full((2, 2), 3.0, dtype=torch.float64)
    assert ddim(point(schedule, far), normal((2, 2)), schedule, limit=1.0).max() <= 1
    ddim(lambda x, level: asked.append(level) or torch.zeros_like(x), far, schedule, 10, start=49)
    assert asked == [40, 30, 20, 10, 0]


def test_inversion_leads_back_to_the_noise():
    schedule, x = Schedule("linear", 1000), 0.5 * normal((50, 2))
    model = gaussian(schedule, 0.5)
    noise = inverted(model, x, schedule, 250)
    torch.testing.assert_close(ddim(model, noise, schedule, 250), x, atol=0.02, rtol=0)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.15)
    halfway = inverted(model, x, schedule, 250, stop=500)
    torch.testing.assert_close(ddim(model, halfway, schedule, 250, start=500), x, atol=0.02, rtol=0)


def test_guidance_goes_beyond_the_condition():
    model = guided(lambda x, level: x + 1, lambda x, level: x, 0.5)
    torch.testing.assert_close(model(torch.zeros(2), 3), torch.full((2,), 1.5))


def test_flow_matching_moves_on_straight_lines():
    x0, noise = normal((4, 3)), normal((4, 3), 1)
    to_point = lambda x, t: (x - x0) / t[:, None]  # noqa: E731
    for steps, shift in ((1, 1.0), (7, 1.0), (7, 7.0)):
        torch.testing.assert_close(flow(to_point, noise, steps, shift=shift), x0)
    times = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    torch.testing.assert_close(flow_matching(to_point, x0, times, noise), torch.zeros(4, dtype=torch.float64), atol=1e-20, rtol=0)
    torch.testing.assert_close(flow_matching(lambda x, t: torch.zeros_like(x), x0, times, noise), (noise - x0).square().mean(1))
    assert shifted(torch.tensor([0.0, 0.5, 1.0]), 7).tolist() == [0.0, 0.875, 1.0]


# ---- against diffusers ------------------------------------------------------------------------------------------------


def wavy(x, level):
    """Any function will do for a model."""
    return torch.sin(3 * x + 0.1 * level)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(("kind", "theirs", "levels"), [("cosine", "squaredcos_cap_v2", 100), ("linear", "linear", 1000)])
@pytest.mark.parametrize("limit", [None, 1.0])
def test_schedule_and_sampler_are_those_of_diffusers(kind, theirs, levels, spacing, limit):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        levels, beta_schedule=theirs, clip_sample=limit is not None, timestep_spacing=spacing, set_alpha_to_one=True
    )
    ours = Schedule(kind, levels)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), ours.kept, atol=1e-6, rtol=0)
    noise, x = normal((3, 5), 1), normal((3, 5))
    at = torch.tensor([0, levels // 2, levels - 1])
    torch.testing.assert_close(ours.add_noise(x, at, noise), scheduler.add_noise(x, noise, at), atol=1e-6, rtol=0)
    scheduler.alphas_cumprod = ours.kept  # its own are float32, which the highest level magnifies
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == ours.sampled(10, spacing)
    expected = x
    for level in scheduler.timesteps.tolist():
        expected = scheduler.step(wavy(expected, level), level, expected).prev_sample
    torch.testing.assert_close(ddim(wavy, x, ours, 10, spacing=spacing, limit=limit), expected, atol=1e-6, rtol=1e-6)


def test_inversion_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMInverseScheduler(1000, beta_schedule="linear", clip_sample=False, timestep_spacing="leading")
    ours = Schedule("linear", 1000)
    scheduler.alphas_cumprod = ours.kept
    scheduler.set_timesteps(50)
    x = expected = 0.5 * normal((3, 5))
    for level in scheduler.timesteps.tolist():
        expected = scheduler.step(wavy(expected, level), level, expected).prev_sample
    torch.testing.assert_close(inverted(wavy, x, ours, 50, spacing="leading"), expected, atol=1e-6, rtol=1e-6)


def test_the_flow_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(1000, shift=7.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0.1, 10, dtype=torch.float64).tolist())
    x = expected = normal((3, 5)).float()
    for level in scheduler.timesteps:
        expected = scheduler.step(wavy(expected, float(level) / 1000), level, expected).prev_sample
    torch.testing.assert_close(flow(lambda x, t: wavy(x, float(t[0])), x, 10, shift=7.0), expected, atol=1e-5, rtol=1e-5)
