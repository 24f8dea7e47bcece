"""The recurrent scan: gradients derived by hand are those of torch, for every map and every forcing, in both precisions."""

import pytest
import torch

from retrodict.dynamics.plrnn import AlmostLinear, Shallow
from retrodict.dynamics.scan import Mixed, Sparse, scan, scan_in_torch
from retrodict.errors import DataError

STEPS, BATCH, LATENT, HIDDEN, SEEN = 7, 3, 4, 5, 2

MAPS = {
    "almost linear": lambda r: AlmostLinear(r(LATENT), r(LATENT, LATENT), r(LATENT), 2),
    "linear": lambda r: AlmostLinear(r(LATENT), r(LATENT, LATENT), r(LATENT), 0),
    "all rectified": lambda r: AlmostLinear(r(LATENT), r(LATENT, LATENT), r(LATENT), LATENT),
    "shallow, clipped": lambda r: Shallow(r(LATENT), r(LATENT, HIDDEN), r(HIDDEN, LATENT), r(LATENT), r(HIDDEN)),
    "shallow": lambda r: Shallow(r(LATENT), r(LATENT, HIDDEN), r(HIDDEN, LATENT), r(LATENT), r(HIDDEN), clipped=False),
    "shallow, full A": lambda r: Shallow(r(LATENT, LATENT), r(LATENT, HIDDEN), r(HIDDEN, LATENT), r(LATENT), r(HIDDEN)),
    "one state": lambda r: Shallow(r(1), r(1, HIDDEN), r(HIDDEN, 1), r(1), r(HIDDEN)),
}
FORCINGS = {
    "none": lambda s, alpha: None,
    "sparse": lambda s, alpha: Sparse(s, 3),
    "every step": lambda s, alpha: Sparse(s, 1),
    "mixed": lambda s, alpha: Mixed(s, 0.3),
    "mixed, learned": lambda s, alpha: Mixed(s, alpha),
}


def problem(law, forcing, seen=SEEN, dtype=torch.float64, driven=True):
    """Random tensors that ask for gradients, and a function of them that scans."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return (0.7 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()

    made = MAPS[law](random)
    z0, drive = random(BATCH, made.h1.shape[0] if isinstance(made, Shallow) else made.h.shape[0]), None
    signal = random(STEPS, BATCH, min(seen, z0.shape[1])).detach()
    if driven:
        drive = random(STEPS, *z0.shape)
    alpha = torch.tensor(0.4, dtype=dtype, requires_grad=True)
    names = [name for name, value in made._asdict().items() if isinstance(value, torch.Tensor)]
    given = [getattr(made, name) for name in names] + [z0, alpha] + ([drive] if driven else [])

    def scanned(*given, by=scan):
        law = made._replace(**dict(zip(names, given, strict=False)))
        z0, alpha, *rest = given[len(names) :]
        return by(law, z0, STEPS, FORCINGS[forcing](signal, alpha), *rest)

    return given, scanned


@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("law", MAPS)
def test_gradients_by_hand_are_right(law, forcing):
    given, scanned = problem(law, forcing)
    assert torch.autograd.gradcheck(scanned, given, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seen", [1, SEEN, LATENT])
@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("law", MAPS)
def test_compiled_and_torch_agree(law, forcing, seen, dtype):
    given, scanned = problem(law, forcing, seen, dtype, driven=seen != SEEN)
    results = []
    for by in (scan, scan_in_torch):
        states = scanned(*given, by=by)
        weights = torch.linspace(-1, 1, states.numel(), dtype=dtype).reshape(states.shape)
        grads = torch.autograd.grad((weights * states).sum(), given, allow_unused=True)
        results.append([states, *(torch.zeros(()) if grad is None else grad for grad in grads)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.to(theirs), theirs, rtol=1e-4 if dtype is torch.float32 else 1e-10, atol=1e-5)


def test_states_are_given_before_they_are_forced_and_the_first_input_is_not_forced():
    law = AlmostLinear(torch.ones(2), torch.zeros(2, 2), torch.tensor([1.0, 1.0]), 0)
    signal = torch.full((4, 1, 1), 100.0)
    states = scan(law, torch.zeros(1, 2), 4, Sparse(signal, 2))
    assert states[:, 0].tolist() == [[1, 1], [2, 2], [101, 3], [102, 4]]
    states = scan(law, torch.zeros(1, 2), 3, Mixed(signal[:3], 0.5))
    assert states[:, 0].tolist() == [[1, 1], [51.5, 2], [76.75, 3]]


@pytest.mark.parametrize("entries", [1, SEEN, 3])
@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("law", ["almost linear", "shallow, full A"])
def test_the_first_entries_alone_are_those_of_the_whole(law, forcing, entries):
    given, scanned = problem(law, forcing)
    results = []
    for states in (scanned(*given, by=lambda *a: scan(*a, entries=entries)), scanned(*given)[..., :entries]):
        weights = torch.linspace(-1, 1, states.numel(), dtype=states.dtype).reshape(states.shape)
        grads = torch.autograd.grad((weights * states).sum(), given, allow_unused=True)
        results.append([states, *(torch.zeros(()) if grad is None else grad for grad in grads)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.to(theirs), theirs)


def test_full_forcing_makes_every_step_start_from_the_signal():
    law = MAPS["almost linear"](lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(1)))
    signal = torch.randn(STEPS, BATCH, LATENT)
    states = scan(law, signal[0], STEPS, Mixed(signal, 1.0))
    torch.testing.assert_close(states[1:], law.step(signal[:-1]))


def test_a_large_scan_that_reuses_memory_changes_nothing_that_is_still_held():
    law = AlmostLinear(torch.full((50,), 0.5), torch.zeros(50, 50), torch.ones(50), 1)
    first = scan(law, torch.zeros(100, 50), 100)
    kept = first.clone()
    for _ in range(3):
        scan(law, torch.ones(100, 50), 100)
    assert torch.equal(first, kept)


def test_a_scan_that_diverges_says_so_by_its_values():
    law = AlmostLinear(torch.full((2,), 1e30), torch.zeros(2, 2), torch.ones(2), 1)
    assert not torch.isfinite(scan(law, torch.ones(1, 2), 5)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda law, s: scan(law, torch.zeros(3), STEPS), r"states \[3\]"),
        (lambda law, s: scan(law, torch.zeros(BATCH, LATENT), 0), "0 step"),
        (lambda law, s: scan(law, torch.zeros(BATCH, LATENT), STEPS + 1, Mixed(s, 0.1)), "signal of a scan has shape"),
        (lambda law, s: scan(law, torch.zeros(BATCH, LATENT), STEPS, Mixed(s, 1.1)), "got 1.1"),
        (lambda law, s: scan(law, torch.zeros(BATCH, LATENT), STEPS, Sparse(s, 0)), "every 0"),
        (lambda law, s: scan(law, torch.zeros(BATCH, LATENT).double(), STEPS), "one type"),
        (lambda law, s: scan(law, torch.zeros(BATCH, LATENT), STEPS, None, s), "drive of a scan"),
        (lambda law, s: scan(law._replace(rectified=9), torch.zeros(BATCH, LATENT), STEPS), "9 cannot be rectified"),
    ],
)
def test_what_does_not_fit_is_refused(change, sentence):
    law = AlmostLinear(torch.ones(LATENT), torch.zeros(LATENT, LATENT), torch.zeros(LATENT), 1)
    with pytest.raises(DataError, match=sentence):
        change(law, torch.zeros(STEPS, BATCH, SEEN))
