"""Fixed points and cycles of piecewise-linear maps, against maps whose cycles are known."""

import pytest
import torch

from retrodict.dynamics.cycles import find_cycles, words
from retrodict.dynamics.plrnn import AlmostLinear, Shallow, jacobian

GENERATOR = torch.Generator().manual_seed(0)


def tent(slope):
    """x' = slope (1/2 - |x|) - 1/2 with one rectified entry; slope 2 is the tent map on [-1/2, 1/2]."""
    return AlmostLinear(
        torch.tensor([slope], dtype=torch.float64),
        torch.tensor([[-2 * slope]], dtype=torch.float64),
        torch.tensor([slope / 2 - 0.5], dtype=torch.float64),
        1,
    )


def orbit(law, start, steps):
    states = [start]
    for _ in range(steps):
        states.append(law.step(states[-1]))
    return torch.stack(states)


def places(cycles):
    return {tuple(round(x, 9) for x in sorted(cycle.states.flatten().tolist())) for cycle in cycles}


def random(*shape):
    return 0.5 * torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize(("period", "count"), [(1, 2), (2, 1), (3, 2), (4, 3), (5, 6)])
def test_the_tent_map_has_all_its_cycles(period, count):
    """The full tent map has 2^k points of period k; those of shorter periods and rotations are not counted again."""
    law = tent(2.0)
    every = torch.cartesian_prod(*[torch.tensor([False, True])] * period).reshape(-1, period, 1)
    found = find_cycles(law, every, rounds=0)
    assert len(found) == count
    for cycle in found:
        assert cycle.period == period
        torch.testing.assert_close(law.step(cycle.states), cycle.states.roll(-1, 0))
        assert float(cycle.multipliers[0].abs()) == pytest.approx(2.0**period)
        assert not cycle.stable


def test_words_that_are_visited_are_enough_where_the_orbit_is_chaotic():
    law = tent(1.9)
    path = orbit(law, torch.tensor([0.1], dtype=torch.float64), 5000)
    visited = find_cycles(law, words(law.bits(path), 4))
    every = find_cycles(law, torch.cartesian_prod(*[torch.tensor([False, True])] * 4)[..., None], rounds=0)
    assert places(visited) == places(every)
    assert len(every) == 3


def test_virtual_fixed_points_lead_to_real_ones():
    law = AlmostLinear(*(torch.tensor(v, dtype=torch.float64) for v in ([0.5], [[-1.0]], [1.0])), 1)
    left = torch.tensor([[[False]]])  # there z' = z / 2 + 1, whose fixed point 2 lies on the right
    assert find_cycles(law, left, rounds=0) == ()
    (point,) = find_cycles(law, left)
    assert point.states.item() == pytest.approx(2 / 3)


def test_a_stable_fixed_point_is_where_orbits_end():
    law = AlmostLinear(0.3 * torch.ones(4, dtype=torch.float64), 0.1 * random(4, 4), random(4), 2)
    end = orbit(law, random(4), 300)[-1]
    (point,) = find_cycles(law, words(law.bits(end[None]), 1))
    assert point.stable
    torch.testing.assert_close(point.states[0], end)


MAPS = [
    AlmostLinear(random(5), random(5, 5), random(5), 3),
    AlmostLinear(random(3), random(3, 3), random(3), 0),
    Shallow(random(4), random(4, 6), random(6, 4), random(4), random(6)),
    Shallow(random(4), random(4, 6), random(6, 4), random(4), random(6), clipped=False),
    Shallow(random(4, 4), random(4, 6), random(6, 4), random(4), random(6)),
]


@pytest.mark.parametrize("law", MAPS)
def test_within_its_region_a_map_is_the_affine_one_and_its_jacobian_is_that_of_autograd(law):
    z = random(20, law[0].shape[0])
    matrix, offset = law.affine(law.bits(z))
    torch.testing.assert_close((matrix @ z[..., None])[..., 0] + offset, law.step(z))
    torch.testing.assert_close(jacobian(law, z), torch.func.vmap(torch.func.jacrev(law.step))(z))


def test_a_word_and_its_rotations_are_one():
    bits = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0, 1], dtype=torch.bool)[:, None]
    assert words(bits, 3).shape == (1, 3, 1)
    assert words(bits, 1)[:, 0, 0].tolist() == [False, True]


def test_a_map_without_rectifiers_has_one_fixed_point():
    law = MAPS[1]
    (point,) = find_cycles(law, words(law.bits(random(7, 3)), 1))
    torch.testing.assert_close(law.step(point.states), point.states)
