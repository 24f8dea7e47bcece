"""The systems that others are held against keep the contract too."""

import numpy as np
import pytest
import torch

from retrodict.claims.baselines.echo_state import EchoState
from retrodict.systems.checks import SPACES, check_system, tiny_recordings
from retrodict.trajectories import from_arrays
from retrodict.trajectories.features import STATE


def test_an_echo_state_network_keeps_the_contract():
    check_system(EchoState(units=20, washout=2), tiny_recordings(SPACES["continuous"], images=False))


@pytest.fixture(scope="module")
def network():
    time = np.arange(0, 200, 0.1)
    series = np.stack([np.sin(time), np.cos(time) + 2], 1)
    return EchoState(units=100, seed=1).fit(from_arrays([{STATE: series}], fps=10.0)), series


def test_an_echo_state_network_goes_on_with_what_it_heard(network):
    law, series = network
    path = law.simulate(torch.from_numpy(series[500:501]), 0.1 * torch.arange(100.0))[0].numpy()
    assert np.abs(path - series[500:600]).max() < 0.1


def test_its_jacobian_is_the_derivative_of_its_step(network):
    law, series = network
    r = law.embed(torch.from_numpy(series[[3, 70]]))
    eps = 1e-6
    moved = (law.step(r + eps * torch.eye(100, dtype=torch.float64)[7]) - law.step(r)) / eps
    torch.testing.assert_close(law.jacobian(r)[..., 7], moved, rtol=1e-4, atol=1e-5)


def test_simulating_is_stepping(network):
    law, series = network
    r = law.embed(torch.from_numpy(series[:2]))
    path = law.simulate(torch.from_numpy(series[:2]), torch.tensor([0.0, 0.1, 0.2]))
    torch.testing.assert_close(
        path, torch.stack([law.observe(r), law.observe(law.step(r)), law.observe(law.step(law.step(r)))], 1)
    )
