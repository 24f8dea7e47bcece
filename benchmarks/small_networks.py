"""How fast small networks are trained on short windows: compiled loops beside torch's own GRU and torchcde.

    pip install torchcde
    python benchmarks/small_networks.py       # writes results/benchmarks/small_networks.json; minutes, on a quiet machine

Three cases of the Koopman VAE: one layer of 20 units in both directions on 256 windows of 24 steps (a posterior, or a decoder);
five judges of 2 units, each with its own 128 windows; and a controlled equation of 20 units, driven by the natural cubic splines
through 256 windows of 5 slow sines, by a Runge-Kutta method of four stages with the step of the grid (the classical one here, the
3/8 rule in torchcde). Forward and gradients, single precision, in one process on one core, in CPU time; each has its turn in each
round, and medians are compared. States and gradients of inputs are made sure to agree to a thousandth first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchcde
from torch import Tensor, nn

import reporting
from retrodict.networks.gru import BidirectionalGRU, ParallelGRU
from retrodict.systems.generators.neural_cde import NeuralCDE

STEPS = 24

Gradients = Callable[[], tuple[Tensor, ...]]
"""States, and the gradient of the input."""


def both_directions() -> dict[str, Gradients]:
    theirs, ours = nn.GRU(16, 20, batch_first=True, bidirectional=True), BidirectionalGRU(16, 20, 1)
    for member, suffix in enumerate(("", "_reverse")):
        copied(theirs, ours.layers[0], member, suffix)
    x = torch.randn(256, STEPS, 16, requires_grad=True)
    return {"ours": gradients(ours, x), "torch": gradients(lambda x: theirs(x)[0], x, theirs)}


def judges(count: int = 5) -> dict[str, Gradients]:
    ours, theirs = ParallelGRU(count, 5, 2), nn.ModuleList(nn.GRU(5, 2, batch_first=True) for _ in range(count))
    for member, one in enumerate(theirs):
        copied(one, ours, member)
    x = torch.randn(count, 128, STEPS, 5, requires_grad=True)
    in_turn = gradients(lambda x: torch.stack([one(rows)[0] for one, rows in zip(theirs, x, strict=True)]), x, theirs)
    return {"ours": gradients(ours, x), "torch, one after the other": in_turn}


class TheirEquation(nn.Module):
    """Our equation, integrated by torchcde; it holds our weights."""

    def __init__(self, ours: NeuralCDE) -> None:
        super().__init__()
        self.start, self.field = ours.start, _Field(ours)

    def forward(self, x: Tensor) -> Tensor:
        path = torchcde.CubicSpline(torchcde.natural_cubic_coeffs(x))
        options = {"method": "rk4", "options": {"step_size": 1.0}, "adjoint": False}
        states: Tensor = torchcde.cdeint(path, self.field, self.start(x[:, 0]), torch.arange(x.shape[1]).to(x), **options)
        return states


class _Field(nn.Module):
    def __init__(self, ours: NeuralCDE) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.ours.change(z)


def controlled() -> dict[str, Gradients]:
    ours = NeuralCDE(5, 20)
    x = torch.sin(0.1 * torch.rand(256, 1, 5) * torch.arange(STEPS)[:, None] + torch.rand(256, 1, 5)).requires_grad_()
    return {"ours": gradients(ours, x), "torchcde": gradients(TheirEquation(ours), x)}


def copied(theirs: nn.Module, ours: nn.Module, member: int, suffix: str = "") -> None:
    """Torch's weights into one member of ours."""
    with torch.no_grad():
        for mine, name in (("inwards", "ih"), ("around", "hh")):
            getattr(ours, mine)[member] = getattr(theirs, f"weight_{name}_l0{suffix}")
            getattr(ours, f"{mine}_bias")[member, :, 0] = getattr(theirs, f"bias_{name}_l0{suffix}")


def gradients(run: Callable[[Tensor], Tensor], x: Tensor, net: nn.Module | None = None) -> Gradients:
    owner = run if net is None else net
    assert isinstance(owner, nn.Module)
    weights = tuple(owner.parameters())

    def work() -> tuple[Tensor, ...]:
        states = run(x)
        return states.detach(), torch.autograd.grad(states.square().sum(), (x, *weights))[0]

    return work


def measured(ways: dict[str, Gradients], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each."""
    first, *others = (way() for way in ways.values())  # compiles, and is compared
    for other in others:
        for one, two in zip(first, other, strict=True):
            apart = float((one - two).norm() / two.norm())
            assert apart < 1e-3, f"they differ by {apart:.2g} of their size"
    return {name: round(1e3 * seconds, 3) for name, seconds in reporting.by_turns(ways, rounds).items()}


def main() -> None:
    parser = reporting.options("small_networks", __doc__)
    parser.add_argument("--rounds", type=int, default=300, help="turns that each has")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = {"both directions": both_directions(), "five judges": judges(), "controlled equation": controlled()}
    found = {name: measured(ways, options.rounds) for name, ways in cases.items()}
    ratios = {case: next(ms for name, ms in row.items() if name != "ours") / row["ours"] for case, row in found.items()}
    for case, row in found.items():
        print(case, row)
    reporting.write(
        options.out,
        "small_networks",
        work="states and gradients of small networks on windows of 24 steps, CPU milliseconds; ratio: the smallest of three",
        ours=found["both directions"]["ours"],
        peers={"torch": found["both directions"]["torch"]},
        ratio=round(min(ratios.values()), 2),
        goal="not slower than torch's own and torchcde",
        checks=[reporting.check(f"{case}: times as fast", ratio, ">= 1", ratio >= 1) for case, ratio in ratios.items()],
        measured=found,
        packages=("torch", "torchcde"),
        machine="one core used, CPU only",
    )


if __name__ == "__main__":
    main()
