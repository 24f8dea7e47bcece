"""How fast a recurrent network is trained through time: the compiled scan, an eager torch loop, jax, the published loop.

    python benchmarks/recurrent_scan.py            # writes results/benchmarks/recurrent_scan.json; minutes, on a quiet machine

The almost-linear network of Brenner et al. with 20 states, 2 of them rectified, 3 observed, sequences of 200 steps in batches of
16, sparse forcing every 16 steps, single precision; and the clipped shallow network of Hess et al. with 20 states and 100 hidden
units. The gradient is forward, loss and backward of one batch; the training step adds sampling of windows, noise and RAdam, ours
as `ALRNN.fit` does it. All in one process on one core, in CPU time; in every round each has its turn, and medians are compared.
Losses and gradients are made sure to agree first. Needs jax 0.10 (`pip install jax`), for this benchmark only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax  # noqa: E402 -- after the threads were set
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import reporting  # noqa: E402
from retrodict.dynamics.plrnn import AlmostLinear, Shallow  # noqa: E402
from retrodict.dynamics.scan import Mixed, Sparse, scan, scan_in_torch  # noqa: E402
from retrodict.networks.plrnn import AlmostLinearRNN, ShallowPLRNN  # noqa: E402
from retrodict.systems.laws.al_rnn import ALRNN  # noqa: E402
from retrodict.training.run import Run  # noqa: E402
from retrodict.trajectories import from_arrays  # noqa: E402
from retrodict.trajectories.features import STATE  # noqa: E402

LATENT, RECTIFIED, HIDDEN, SEEN, STEPS, BATCH, EVERY, ALPHA = 20, 2, 100, 3, 200, 16, 16, 0.15

Gradient = Callable[[], tuple[float, list[np.ndarray]]]
"""Loss and gradients of one batch."""


# ---- the gradient of one batch ------------------------------------------------------------------------------------------


def through(by: Callable[..., torch.Tensor], law: Any, forcing: Any, z0: torch.Tensor, x: torch.Tensor) -> Gradient:
    """Ours, or the plain loop of the same map in torch with autograd."""
    weights = [value for value in law if isinstance(value, torch.Tensor)]

    def gradient() -> tuple[float, list[np.ndarray]]:
        loss = F.mse_loss(by(law, z0, STEPS, forcing), x)
        return loss.item(), [grad.numpy() for grad in torch.autograd.grad(loss, weights)]

    return gradient


def ours(*given: Any) -> torch.Tensor:
    return scan(*given, entries=SEEN)


def eager(*given: Any) -> torch.Tensor:
    return scan_in_torch(*given)[..., :SEEN]


def published_states(law: AlmostLinear, x: torch.Tensor, z0: torch.Tensor) -> torch.Tensor:
    """The loop of the published tutorial, from its description: batch first, one state after the other into a list."""
    a, w, h, rectified = law
    z, states = z0, []
    for t in range(STEPS):
        if t > 0 and t % EVERY == 0:
            z = torch.cat([x[:, t - 1], z[:, SEEN:]], dim=1)
        phi = torch.cat([z[:, :-rectified], torch.relu(z[:, -rectified:])], dim=1)
        z = a * z + phi @ w.t() + h
        states.append(z)
    return torch.stack(states, dim=1)


def published(law: AlmostLinear, x: torch.Tensor, z0: torch.Tensor) -> Gradient:
    rows = x.transpose(0, 1).contiguous()

    def gradient() -> tuple[float, list[np.ndarray]]:
        loss = F.mse_loss(published_states(law, rows, z0)[:, :, :SEEN], rows)
        return loss.item(), [grad.numpy() for grad in torch.autograd.grad(loss, law[:3])]

    return gradient


def in_jax(law: AlmostLinear, x: torch.Tensor, z0: torch.Tensor) -> Gradient:
    weights = tuple(jnp.asarray(value.detach().numpy()) for value in law[:3])
    seen, start, times = jnp.asarray(x.numpy()), jnp.asarray(z0.numpy()), jnp.arange(STEPS)

    def loss(weights: Any) -> Any:
        a, w, h = weights

        def step(z: Any, given: Any) -> Any:
            t, truth = given
            phi = jnp.concatenate([z[:, :-RECTIFIED], jax.nn.relu(z[:, -RECTIFIED:])], 1)
            z = a * z + phi @ w.T + h
            forced = jnp.concatenate([truth, z[:, SEEN:]], 1)
            return jnp.where((t + 1) % EVERY == 0, forced, z), z[:, :SEEN]

        return jnp.mean((jax.lax.scan(step, start, (times, seen))[1] - seen) ** 2)

    compiled = jax.jit(jax.value_and_grad(loss))

    def gradient() -> tuple[float, list[np.ndarray]]:
        value, grads = compiled(weights)
        return float(value), [np.asarray(grad) for grad in grads]

    return gradient


# ---- the whole training step --------------------------------------------------------------------------------------------


def our_steps(series: np.ndarray, steps: int) -> list[float]:
    """CPU seconds of each training step of a fit, from one to the next, so that all that the loop does is in it."""
    times: list[float] = []
    run = Run(progress=False, callbacks=(lambda moment: times.append(time.process_time()),))
    ALRNN(latent=LATENT, rectified=RECTIFIED, every=EVERY, sequence=STEPS, steps=steps).fit(
        from_arrays([{STATE: series}]), run=run
    )
    return np.diff(times).tolist()


def eager_steps(series: np.ndarray, steps: int) -> list[float]:
    """The same in plain torch, with the published loop, windows stacked one by one, and torch's RAdam."""
    net, data = AlmostLinearRNN(LATENT, RECTIFIED), torch.from_numpy(series)
    lift = torch.nn.Parameter(0.1 * torch.randn(LATENT - SEEN, SEEN))
    weights = [*net.parameters(), lift]
    optimiser = torch.optim.RAdam(weights, lr=1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.99995)
    times = []
    for _ in range(steps):
        began = time.process_time()
        starts = torch.randint(len(data) - STEPS, (BATCH,)).tolist()
        x = torch.stack([data[start : start + STEPS + 1] for start in starts])
        x = x + 0.05 * torch.randn_like(x)
        z0 = torch.cat([x[:, 0], x[:, 0] @ lift.t()], 1)
        loss = F.mse_loss(published_states(net.map, x[:, 1:], z0)[:, :, :SEEN], x[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        times.append(time.process_time() - began)
    return times


# ---- what is measured ---------------------------------------------------------------------------------------------------


def agree(gradients: dict[str, Gradient]) -> None:
    """Make sure that all compute the same."""
    (name, first), *others = ((name, gradient()) for name, gradient in gradients.items())
    for other, (loss, grads) in others:
        assert abs(loss - first[0]) < 1e-4 * abs(first[0]), f"the losses of {name} and {other} differ"
        for one, two in zip(first[1], grads, strict=True):
            assert np.abs(one - two).max() < 1e-3 * np.abs(one).max(), f"the gradients of {name} and {other} differ"


def interleaved(gradients: dict[str, Gradient], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each; the fast ones have more turns in a round."""
    times: dict[str, list[float]] = {name: [] for name in gradients}
    for _ in range(rounds):
        for name, gradient in gradients.items():
            for _ in range(10 if name in ("ours", "jax") else 1):
                began = time.process_time()
                gradient()
                times[name].append(time.process_time() - began)
    return {name: round(1e3 * median(values), 4) for name, values in times.items()}


def almost_linear(rounds: int, x: torch.Tensor) -> dict[str, float]:
    torch.manual_seed(0)
    law = AlmostLinearRNN(LATENT, RECTIFIED).map
    z0 = torch.cat([x[0], torch.randn(BATCH, LATENT - SEEN)], 1)
    gradients = {
        "ours": through(ours, law, Sparse(x, EVERY), z0, x),
        "jax": in_jax(law, x, z0),
        "eager": through(eager, law, Sparse(x, EVERY), z0, x),
        "published": published(law, x, z0),
    }
    agree(gradients)
    return interleaved(gradients, rounds)


def shallow(rounds: int, x: torch.Tensor) -> dict[str, float]:
    torch.manual_seed(0)
    law = ShallowPLRNN(LATENT, HIDDEN).map
    assert isinstance(law, Shallow)
    z0 = torch.cat([x[0], torch.randn(BATCH, LATENT - SEEN)], 1)
    gradients = {
        "ours": through(ours, law, Mixed(x, ALPHA), z0, x),
        "eager": through(eager, law, Mixed(x, ALPHA), z0, x),
    }
    agree(gradients)
    return interleaved(gradients, rounds)


def training(rounds: int, series: np.ndarray) -> dict[str, float]:
    our_steps(series, 20)
    times: dict[str, list[float]] = {"ours": [], "eager": []}
    for _ in range(rounds):
        times["ours"] += our_steps(series, 100)[20:]
        times["eager"] += eager_steps(series, 8)[1:]
    return {name: round(1e3 * median(values), 4) for name, values in times.items()}


def lorenz(steps: int) -> np.ndarray:
    """A standardised series (steps, 3) to train on."""
    x, rows = np.array([1.0, 1.0, 20.0]), []
    for _ in range(steps):
        for _ in range(4):
            x = x + 0.0025 * np.array([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])
        rows.append(x)
    series = np.stack(rows)
    return ((series - series.mean(0)) / series.std(0)).astype(np.float32)


def main() -> None:
    parser = reporting.options("recurrent_scan", __doc__)
    parser.add_argument("--rounds", type=int, default=40, help="turns that each has")
    options = parser.parse_args()
    torch.set_num_threads(1)
    series = lorenz(20_000)
    x = torch.from_numpy(np.stack([series[s : s + STEPS] for s in range(0, BATCH * 1000, 1000)], 1))
    measured = {
        "gradient, almost linear, ms": almost_linear(options.rounds, x),
        "gradient, shallow, ms": shallow(options.rounds, x),
        "training step, almost linear, ms": training(options.rounds // 4 + 1, series),
    }
    for name, numbers in measured.items():
        print(name, numbers)
    linear, step = measured["gradient, almost linear, ms"], measured["training step, almost linear, ms"]
    eager, peer, whole = linear["eager"] / linear["ours"], linear["jax"] / linear["ours"], step["eager"] / step["ours"]
    checks = [
        reporting.check("gradient against an eager torch loop, times faster", eager, ">= 25", eager >= 25),
        reporting.check("whole training step against an eager torch loop, times faster", whole, ">= 15", whole >= 15),
        reporting.check("gradient against jax.lax.scan, times faster", peer, ">= 1", peer >= 1),
    ]
    reporting.write(
        options.out,
        "recurrent_scan",
        work=f"forward, loss and gradient of an almost-linear network of {LATENT} states, {RECTIFIED} rectified, {SEEN} "
        f"seen, over {STEPS} steps, batch {BATCH}, forced every {EVERY} steps, float32, CPU milliseconds; in "
        f"`measured` also the shallow network with {HIDDEN} hidden units and the whole training step (sampling, noise, RAdam)",
        ours=linear["ours"],
        peers={name: value for name, value in linear.items() if name != "ours"},
        ratio=checks[2]["value"],
        checks=checks,
        measured=measured,
        packages=("jax", "numpy", "torch"),
        machine="one core used, CPU only",
    )


if __name__ == "__main__":
    main()
